"""The node's own sockets on some ports, and whose they are, asked of the kernel (sock_diag(7)) and of /proc."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress

from cni_v6.kernel.facts import Listener
from cni_v6.kernel.netlink.message import HEADER, Message, as_address
from cni_v6.kernel.netlink.socket import NetlinkSocket, open_netlink

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
REQUEST = struct.Struct("=BBBxI48x")  # linux/inet_diag.h, inet_diag_req_v2: family, protocol, extensions, states
ANSWER = struct.Struct("!4xHH16s16s24x")  # inet_diag_msg: ports, addresses, and what comes before the inode
INODE = struct.Struct("=I")
AT_INODE = HEADER.size + 68
# net/tcp_states.h: TCP_LISTEN; a datagram socket that is bound and has no peer is in TCP_CLOSE.
STATES = {"tcp": (socket.IPPROTO_TCP, 1 << 10), "udp": (socket.IPPROTO_UDP, 1 << 7)}


def listeners(ports: Iterable[tuple[str, int]]) -> tuple[Listener, ...]:
    """The sockets that are bound to some of the ports, in the namespace of this thread.

    () where the kernel cannot tell (no CONFIG_INET_DIAG).
    """
    wanted = frozenset(ports)
    found = {}
    with closing(NetlinkSocket(open_netlink(NETLINK_SOCK_DIAG))) as diag:
        for protocol in {name for name, _ in wanted} & STATES.keys():
            for family in (socket.AF_INET, socket.AF_INET6):
                request = REQUEST.pack(family, *_of(protocol))
                for data in diag.dump(Message(SOCK_DIAG_BY_FAMILY, 0, request)).messages:
                    port, _, address, _ = ANSWER.unpack_from(data, HEADER.size)
                    if (protocol, port) in wanted:
                        text = as_address(address[: 4 if family == socket.AF_INET else 16])
                        found[INODE.unpack_from(data, AT_INODE)[0]] = Listener(protocol, port, text)
    owners = _owners(found) if found else {}
    return tuple(Listener(listener.protocol, listener.port, listener.address, owners.get(inode, ""))
                 for inode, listener in found.items())


def _of(protocol: str) -> tuple[int, int, int]:
    number, states = STATES[protocol]
    return number, 0, states


def _owners(inodes: Mapping[int, object]) -> Mapping[int, str]:
    """Inode -> the name and id of the first process that has the socket open."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        for inode in _sockets(pid, links):
            found.setdefault(inode, _named(pid))
        if len(found) == len(links):
            break
    return found


def _sockets(pid: str, links: Mapping[str, int]) -> Iterator[int]:
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:  # the process may end meanwhile
        for entry in entries:
            with suppress(OSError):
                link = os.readlink(entry.path)
                if link in links:
                    yield links[link]


def _named(pid: str) -> str:
    name = ""
    with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        name = file.read().strip()
    return f"{name or 'process'} (process {pid})"
