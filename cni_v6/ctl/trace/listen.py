"""Has the kernel tell of a container's packets: which rules they meet, and where they are dropped."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.drops import Drops, Unavailable
from cni_v6.kernel.netfilter import flow, trace
from cni_v6.kernel.netfilter.socket import NETLINK_NETFILTER, open_netfilter
from cni_v6.kernel.netfilter.trace import NFNLGRP_NFTRACE, Event
from cni_v6.kernel.netlink.socket import RECEIVE_BYTES, SO_RCVBUFFORCE, enlarge, explain, split
from cni_v6.net.packets import Headers
from cni_v6.plan.journey import Chain, Names

BUFFER = 16 << 20  # bytes of events that may wait: a packet has some fifty, of a few hundred bytes each
NFT_SECONDS = 20
OF_RULES = ("NETFILTER_DROP", "SOCKET_CLOSE", "CONSUMED")  # told by the rules themselves, or no drop at all
# ``nft -a -t list ruleset``: "table inet x { # handle 1", "chain y { # handle 2", "rule # handle 3"
_TABLE = re.compile(r"table (\w+) (\S+) \{")
_CHAIN = re.compile(r"\t(?:chain|set|map|flowtable|counter|\w+) (\S+) \{")
_RULE = re.compile(r"\t\t(.*) # handle (\d+)")


class Listener:
    """The events of a container's packets from now on; the rules that have them traced end with this object.

    ``lost``: the kernel had no room for some events. ``without_drops``: why the kernel's reasons are not told, "" if
    they are.

    :param port: the container's host interface.
    :param other: see ``trace.tables``.
    :param sent: see ``kernel.drops``.
    :param watched: interfaces of which drops are told too.
    :raises CniError: KERNEL_REFUSED.
    """

    def __init__(
        self, port: str, addresses: Sequence[str], other: str = "", *, sent: tuple[str, int] = ("", 0),
        watched: Sequence[str] = (),
    ) -> None:
        self.own = f"cni_v6_trace_{os.getpid()}"
        self.lost = False
        self.without_drops = ""
        self._rules = open_netfilter()
        self._heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._drops: Drops | None = None
        try:
            enlarge(self._heard, BUFFER, SO_RCVBUFFORCE, socket.SO_RCVBUF)
            self._heard.bind((0, 1 << (NFNLGRP_NFTRACE - 1)))
            self._heard.setblocking(False)
            failed = self._rules.transact(list(trace.tables(self.own, port, addresses, other)))
            if failed:
                hint = f"{explain(failed[0])}; tables with an owner need Linux 5.12, tracing needs CONFIG_NF_TABLES"
                raise CniError(KERNEL_REFUSED, "cannot have packets traced by nftables", hint)
            self._drops = Drops(watched, sent)
        except Unavailable as error:
            self.without_drops = str(error)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The kernel removes the tables with their socket."""
        self._rules.close()
        self._heard.close()
        if self._drops:
            self._drops.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def heard(self) -> socket.socket:
        return self._heard

    def drop_files(self) -> list[int]:
        """Descriptors that are readable once something was dropped."""
        return self._drops.filenos() if self._drops else []

    def events(self) -> Iterator[Event]:
        """Those that have come."""
        while True:
            try:
                data = self._heard.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost = True
                continue
            for *_, message in split(data):
                event = trace.read(message)
                if event:
                    yield event

    def drops(self) -> Iterator[tuple[str, str]]:
        """(reason, function) of the packets that have been dropped, but for those that a rule has dropped."""
        if self._drops:
            yield from ((drop.reason, drop.function) for drop in self._drops.read())


def translated(packet: Headers) -> tuple[str, str]:
    """(source, destination) as the other end sees the flow that a packet has opened; "" if conntrack has none."""
    if not packet.source:
        return "", ""
    netfilter = open_netfilter()
    try:
        [answer] = netfilter.request([flow.get_flow(packet)])
    finally:
        netfilter.close()
    return flow.read_translation(answer.messages[0]) if answer.messages else ("", "")


def names() -> Names:
    """What the numbers in events stand for. Without nft, rules have no text."""
    return Names(_rules(), _hooks(), dict(socket.if_nameindex()))


def _hooks() -> Mapping[Chain, str]:
    netfilter = open_netfilter()
    try:
        dump = netfilter.dump(trace.dump_chains()).messages
    finally:
        netfilter.close()
    return dict(found for found in map(trace.read_hook, dump) if found)


def _rules() -> Mapping[tuple[str, str, int], str]:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(["nft", "-a", "-t", "list", "ruleset"], capture_output=True, text=True,
                              timeout=NFT_SECONDS, stdin=subprocess.DEVNULL)
        return read_rules(done.stdout)
    return {}


def read_rules(text: str) -> dict[tuple[str, str, int], str]:
    """The rules that nft lists, with their handles, by (family, table, handle)."""
    found: dict[tuple[str, str, int], str] = {}
    family = table = ""
    for line in text.splitlines():
        if opened := _TABLE.match(line):
            family, table = opened[1], opened[2]
        elif not _CHAIN.match(line) and (rule := _RULE.match(line)):
            found[family, table, int(rule[2])] = re.sub(r"counter packets \d+ bytes \d+", "counter", rule[1].strip())
    return found
