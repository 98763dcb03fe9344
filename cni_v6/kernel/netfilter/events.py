"""Hears of changes of nftables, and who made them: the kernel tells the end of each transaction (NFT_MSG_NEWGEN).

Each message that is let through wakes its listener. So a filter in the kernel lets only the ends of transactions
through, and none of the engine's own: its threads go by a name of their own (``own_changes``).
"""

from __future__ import annotations

import errno
import socket
from array import array

from cni_v6.kernel.netfilter.messages import NFGENMSG, NFNL_SUBSYS_NFTABLES
from cni_v6.kernel.netfilter.socket import NETLINK_NETFILTER
from cni_v6.kernel.netlink.message import HEADER, as_text, by_kind
from cni_v6.kernel.netlink.socket import RECEIVE_BYTES, attach_program, filter_instructions, split
from cni_v6.values import dataclass

NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
NFT_MSG_NEWGEN = NFNL_SUBSYS_NFTABLES << 8 | 15  # linux/netfilter/nf_tables.h
NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME = 2, 3
# NFTA_GEN_ID and NFTA_GEN_PROC_PID, each 8 bytes long, come before the name (nf_tables_fill_gen_info).
NAME_AT = HEADER.size + NFGENMSG.size + 8 + 8 + 4
OWN_NAME = "cni-v6-engine"  # TASK_COMM_LEN: 15 characters at most
LOAD_WORD, LOAD_HALF, IF_EQUAL, RETURN = 0x20, 0x28, 0x15, 0x06  # linux/bpf_common.h


@dataclass(frozen=True, slots=True)
class Change:
    """Who made a transaction: the process's name, and its number in the first pid namespace."""

    process: str
    pid: int

    def __str__(self) -> str:
        return f"{self.process} (process {self.pid})"


def own_changes() -> None:
    """Changes of nftables by this thread are our own: they are right, and no engine looks at them.

    Where /proc is read-only, engines look at them too: that costs them a look each.
    """
    try:
        with open("/proc/thread-self/comm", "w", encoding="ascii") as name:
            name.write(OWN_NAME)
    except OSError:
        pass


class Changes:
    """The changes of nftables by others from now on, in the network namespace of the thread that makes this.

    :raises OSError: the kernel has no netfilter, or refuses.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        attach_program(self._socket, _program())  # before it hears anything
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[Change]:
        """What has come since; [] also if the kernel had no room for it: something has changed all the same."""
        found: list[Change] = []
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue  # what is in the queue comes next
                raise
            found += [read_change(message) for _, _, _, message in split(data)]


def read_change(data: bytes) -> Change:
    """Who made the transaction that a message tells the end of."""
    given = by_kind(data, HEADER.size + NFGENMSG.size)
    pid = int.from_bytes(given.get(NFTA_GEN_PROC_PID, b""), "big")
    return Change(as_text(given.get(NFTA_GEN_PROC_NAME)) or "a process", pid)


def _program() -> array[int]:
    """Take NEWGEN, unless the name is ours. A message that ends before its name is over has another one."""
    words = OWN_NAME.encode()[:12]
    tests: list[tuple[int, int, int, int]] = [
        (LOAD_HALF, 0, 0, 4), (IF_EQUAL, 0, 6, socket.htons(NFT_MSG_NEWGEN)),
    ]
    for number in range(3):  # to the end of the words, or to where it is taken
        word = int.from_bytes(words[number * 4 : number * 4 + 4], "big")
        tests += [(LOAD_WORD, 0, 0, NAME_AT + number * 4), (IF_EQUAL, 0, 2 * (2 - number) + 1, word)]
    return filter_instructions(*tests, (RETURN, 0, 0, 0), (RETURN, 0, 0, 0xFFFF_FFFF))
