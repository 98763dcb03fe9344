"""What is sent from one place to another, and whether it arrives. Every wait ends: with an event, or after a time."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cni_v6.ctl.waiting import Waiting
from cni_v6.kernel.netns.throwaway import Place, open_socket
from cni_v6.net import packets
from cni_v6.net.addresses import is_link_local, version
from cni_v6.plan.promises import Seen

PATIENCE = 5.0  # seconds for what is to be answered, if nobody says otherwise
# Seconds after which a ping is sent again, as TCP sends a SYN again (RFC 6298). The first one may be lost: the kernel
# makes the local routes of new IPv6 addresses some time after they are added (addrconf_dad_work, net/ipv6/addrconf.c).
AGAIN = 1.0
SILENCE = 0.5  # seconds for what is not to come, where nothing that is sent behind it can be waited for
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ICMP = {4: packets.ICMP, 6: packets.ICMPV6}
ETH_P_ALL = 0x0003  # linux/if_ether.h
PACKET_OUTGOING = 4  # linux/if_packet.h
# linux/in.h, linux/in6.h: (level, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_RECVERR, IP_TRANSPARENT) and of IPv6.
OPTIONS = {4: (socket.IPPROTO_IP, 10, 2, 11, 19), 6: (socket.IPPROTO_IPV6, 23, 2, 25, 75)}
PAYLOAD = 56  # bytes, as ping(8) sends


@dataclass(frozen=True, slots=True)
class Exchange:
    """Sends and waits. ``ifname``: of every container, for link-local addresses. ``patience``: seconds for what is to
    be answered."""

    waiting: Waiting
    ifname: str
    patience: float = PATIENCE

    def echo(
        self, place: Place, target: str, size: int = PAYLOAD, *, whole: bool = False, wanted: bool = True
    ) -> Seen:
        """An ICMP echo request and its reply. ``whole``: it must not be fragmented; ``wanted``: it is sent again."""
        family, number = version(target), struct.unpack("!H", os.urandom(2))[0]
        level, discovery, do, keep_errors, _ = OPTIONS[family]
        what = f"{target} answers a ping" + (f" of {size + packets.HEADERS[family]:,} bytes in one piece" * whole)
        with open_socket(place, FAMILIES[family], socket.SOCK_RAW, ICMP[family]) as made:
            made.setsockopt(level, keep_errors, 1)
            if whole:
                made.setsockopt(level, discovery, do)
            try:
                made.connect(self._to(place, target))
                for _ in range(max(1, round(self.patience / AGAIN)) if wanted else 1):
                    made.send(packets.echo_request(family, number, bytes(size)))
                    answers = self.waiting.received(made, AGAIN if wanted else SILENCE)
                    if any(packets.is_reply(family, data, number) for data in answers):
                        return Seen(True, what)
            except OSError as error:
                return Seen(False, f"{target}: {_words(error)}")
        return Seen(False, f"{target} does not answer {'a ping' if not whole else what.partition(' answers ')[2]}")

    def _to(self, place: Place, target: str) -> tuple[object, ...]:
        if not is_link_local(target):
            return target, 0
        return target, 0, 0, place.run(lambda: socket.if_nametoindex(self.ifname))

    def call(self, place: Place, target: str, port: int) -> Seen:
        """A TCP connection."""
        with open_socket(place, FAMILIES[version(target)], socket.SOCK_STREAM) as made:
            self._connect(made, place, target, port)
            if not self.waiting.ready([made], self.patience, writing=True):
                return Seen(False, f"TCP port {port} of {target} does not answer")
            return _outcome(made, target, port)

    def refused(self, place: Place, target: str, port: int) -> Seen:
        """A TCP connection that should not come about. A ping is sent behind it: what it overtakes is lost."""
        with open_socket(place, FAMILIES[version(target)], socket.SOCK_STREAM) as made, _in_order():
            self._connect(made, place, target, port)
            overtaken = self.echo(place, target, wanted=False).passes
            if self.waiting.ready([made], 0 if overtaken else SILENCE, writing=True):
                return _outcome(made, target, port)
            return Seen(False, f"TCP port {port} of {target} does not answer" + ", a ping does" * bool(overtaken))

    def called_as(self, place: Place, target: str, port: int, server: socket.socket, *, wanted: bool) -> Seen:
        """A TCP connection, and as whom the server sees the client, which is the last word of what is seen."""
        with open_socket(place, FAMILIES[version(target)], socket.SOCK_STREAM) as made:
            self._connect(made, place, target, port)
            patience = self.patience if wanted else SILENCE
            if not self.waiting.ready([made], patience, writing=True):
                return Seen(False, f"TCP port {port} of {target} does not answer")
            if not (outcome := _outcome(made, target, port)).passes:
                return outcome
            self.waiting.ready([server], self.patience)
            with server.accept()[0] as peer:
                return Seen(True, f"{outcome.words} as {peer.getpeername()[0]}")

    def _connect(self, made: socket.socket, place: Place, target: str, port: int) -> None:
        made.setblocking(False)
        address, _, *zone = self._to(place, target)
        made.connect_ex((address, port, *zone))

    def asked(self, place: Place, server: str) -> Seen:
        """A question to a DNS server, and any answer to it."""
        number = struct.unpack("!H", os.urandom(2))[0]
        with open_socket(place, FAMILIES[version(server)], socket.SOCK_DGRAM) as made:
            try:
                made.connect((server, 53))
                made.send(packets.dns_query(number))
                for answer in self.waiting.received(made, self.patience):
                    if answer[:2] == number.to_bytes(2, "big"):
                        return Seen(True, f"{server} answers a query")
            except OSError as error:
                return Seen(False, f"{server}: {_words(error)}")
        return Seen(False, f"{server} does not answer a query")

    # Forgeries

    def forged_datagram(self, sender: Place, ends: tuple[str, str, str], tap: socket.socket, port: int) -> Seen:
        """A UDP datagram with the source of somebody else, between two honest ones.

        :param ends: the honest source, the forged one, the target.
        :param tap: a packet socket at the target.
        """
        honest, forged, target = ends
        family = version(target)
        level, _, _, _, transparent = OPTIONS[family]
        with ExitStack() as stack:
            first, other, last = (
                stack.enter_context(open_socket(sender, FAMILIES[family], socket.SOCK_DGRAM)) for _ in range(3)
            )
            other.setsockopt(level, transparent, 1)
            other.bind((forged, 0))
            send = [(sender, os.urandom(16)) for sender in (first, other, last)]
            return self._overtaken(tap, send, (target, port), f"a packet from {forged}, sent by {honest}")

    def _overtaken(
        self, tap: socket.socket, send: list[tuple[socket.socket, bytes]], target: tuple[str, int], what: str
    ) -> Seen:
        (first, opening), (other, forgery), (last, end) = send
        try:
            first.sendto(opening, target)  # the neighbour is resolved by this one
            self._until(tap, opening)
            with _in_order():
                other.sendto(forgery, target)
                last.sendto(end, target)
        except OSError as error:
            return Seen(None, f"the packets cannot be sent: {_words(error)}")
        return self._judged(tap, forgery, end, what)

    def forged_frame(
        self, sender: Place, frames: tuple[bytes, bytes], marks: tuple[bytes, bytes], tap: socket.socket, what: str
    ) -> Seen:
        """A frame, and an honest one behind it.

        :param frames: the forged and the honest one; ``marks``: bytes that only they contain.
        """
        with open_socket(sender, socket.AF_PACKET, socket.SOCK_RAW) as made:
            made.bind((self.ifname, 0))
            with _in_order():
                for frame in frames:
                    made.send(frame)
        return self._judged(tap, *marks, what)

    def _judged(self, tap: socket.socket, forgery: bytes, end: bytes, what: str) -> Seen:
        before = self._until(tap, end)
        if before is None:
            return Seen(None, f"the honest packet behind {what} does not arrive either")
        arrived = any(forgery in frame for frame in before)
        return Seen(arrived, f"{what} arrives" if arrived else f"{what} is dropped, an honest one behind it arrives")

    def _until(self, tap: socket.socket, end: bytes) -> list[bytes] | None:
        """The frames that come in before the one that contains ``end``; None if that does not come."""
        found: list[bytes] = []
        for _ in self.waiting.times_ready(tap, self.patience):
            frame, sender = tap.recvfrom(1 << 16)
            if sender[2] != PACKET_OUTGOING:
                if end in frame:
                    return found
                found.append(frame)
        return None


@contextmanager
def listening(place: Place, families: Iterable[int], port: int) -> Iterator[dict[int, socket.socket]]:
    """TCP sockets that wait for callers, by family."""
    with ExitStack() as stack:
        made = {}
        for family in families:
            server = stack.enter_context(open_socket(place, FAMILIES[family], socket.SOCK_STREAM))
            if family == 6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind(("::" if family == 6 else "0.0.0.0", port))
            server.listen()
            made[family] = server
        yield made


@contextmanager
def tapping(place: Place, ifname: str) -> Iterator[socket.socket]:
    """A packet socket, which sees what an interface receives."""
    with open_socket(place, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as made:
        made.bind((ifname, ETH_P_ALL))
        yield made


@contextmanager
def _in_order() -> Iterator[None]:
    """What this thread sends in here arrives in that order: veth has a queue for each processor (netif_rx)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _outcome(made: socket.socket, target: str, port: int) -> Seen:
    error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        return Seen(False, f"TCP port {port} of {target}: {os.strerror(error).lower()}")
    return Seen(True, f"TCP port {port} of {target} answers")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
