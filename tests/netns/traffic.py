"""Sockets in other namespaces, of both families: who is reached, as whom, at which port, and what is not.

Nothing waits for what must not come. A packet that must be lost goes before one that must arrive, on the same way: the
kernel hands on one after the other, so what has not come by then will not.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import NamedTuple

import pytest

from tests.netns import wire
from tests.sandbox import Node

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ANY = {4: "0.0.0.0", 6: "::"}
IPPROTO_SCTP = 132
MSG_ERRQUEUE = 0x2000  # linux/socket.h
# linux/in.h, linux/in6.h: (level, path MTU discovery, its value "do", errors are kept)
PATH_MTU = {4: (socket.IPPROTO_IP, 10, 2, 11), 6: (socket.IPPROTO_IPV6, 23, 2, 25)}
BULK = bytes(range(256)) * (1 << 14)  # 4 MiB
SYN, RST, ACK = 0x02, 0x04, 0x10


class End(NamedTuple):
    """One end of a conversation."""

    address: str
    port: int


def family_of(address: str) -> int:
    return 6 if ":" in address else 4


@contextmanager
def opened(netns: str, family: int, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    """A socket that belongs to a namespace for good, though this process works in another."""
    made = wire.inside(netns, lambda: socket.socket(FAMILIES[family], kind, protocol))
    with made:
        made.settimeout(wire.PATIENCE)
        if family == 6 and kind != socket.SOCK_RAW:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        yield made


@contextmanager
def udp(netns: str, family: int, address: str = "", port: int = 0) -> Iterator[socket.socket]:
    """A bound UDP socket."""
    with opened(netns, family, socket.SOCK_DGRAM) as made:
        made.bind((address or ANY[family], port))
        yield made


@contextmanager
def listening(netns: str, family: int, port: int, address: str = "") -> Iterator[socket.socket]:
    """A TCP socket that waits for callers."""
    with opened(netns, family, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address or ANY[family], port))
        made.listen(256)
        yield made


@contextmanager
def serving(netns: str, *ports: int) -> Iterator[dict[int, socket.socket]]:
    """A listener for each family at each of these ports; of the first one they are returned."""
    with ExitStack() as stack:
        made = [{family: stack.enter_context(listening(netns, family, port)) for family in FAMILIES} for port in ports]
        yield made[0]


def asked(client: socket.socket, target: tuple[str, int], server: socket.socket) -> End:
    """A UDP datagram there and another one back: as whom the server sees the client."""
    question = b"question %d" % time.monotonic_ns()
    client.sendto(question, target)
    said, sender = server.recvfrom(2048)
    assert said == question
    server.sendto(b"answer", sender)
    answer, answerer = client.recvfrom(2048)
    assert (answer, End(*answerer[:2])) == (b"answer", End(*target))
    return End(*sender[:2])


def called(netns: str, target: tuple[str, int], listener: socket.socket, source: str = "") -> tuple[End, End]:
    """A TCP connection with a word each way: as whom the server sees the client, and who the client is."""
    family = family_of(target[0])
    with opened(netns, family, socket.SOCK_STREAM) as client:
        client.bind((source or ANY[family], 0))
        client.connect(target)
        server, caller = listener.accept()
        with server:
            server.settimeout(wire.PATIENCE)
            client.sendall(b"question")
            assert server.recv(100) == b"question"
            server.sendall(b"answer")
            assert client.recv(100) == b"answer"
            return End(*caller[:2]), End(*client.getsockname()[:2])


def bulk(netns: str, target: tuple[str, int], listener: socket.socket) -> None:
    """Move what does not fit into one packet to a listener."""
    received = bytearray()

    def take() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(wire.PATIENCE)
            while part := connection.recv(1 << 16):
                received.extend(part)

    taker = Thread(target=take)
    taker.start()
    with opened(netns, family_of(target[0]), socket.SOCK_STREAM) as client:
        client.connect(target)
        client.sendall(BULK)
        client.shutdown(socket.SHUT_WR)
    taker.join()
    assert received == BULK


def answering(netns: str, address: str, ports: Iterable[int]) -> set[int]:
    """Those of a host's TCP ports that are open; the others refuse at once. One that says nothing fails the test."""
    with ExitStack() as stack:
        calls = {port: stack.enter_context(calling(netns, address, port)) for port in ports}
        return {port for port, call in calls.items() if _is_answered(call, f"{address} {port}") == 0}


def _is_answered(call: socket.socket, what: str) -> int:
    """The error, 0 for a connection that stands."""
    _, ready, _ = select.select([], [call], [], wire.PATIENCE)
    if not ready:
        pytest.fail(f"no answer from {what}")
    return call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@contextmanager
def calling(netns: str, address: str, port: int) -> Iterator[socket.socket]:
    """A TCP call that is under way."""
    with opened(netns, family_of(address), socket.SOCK_STREAM) as call:
        call.setblocking(False)
        call.connect_ex((address, port))
        yield call


@contextmanager
def unanswered(netns: str, *targets: tuple[str, int]) -> Iterator[None]:
    """TCP calls that nobody must have answered by the end of the block, in which something that is answered is asked on
    the same way."""
    with ExitStack() as stack:
        calls = {target: stack.enter_context(calling(netns, *target)) for target in targets}
        yield
        _, ready, broken = select.select([], calls.values(), calls.values(), 0)
        answered = [target for target, call in calls.items() if call in ready or call in broken]
        assert not answered, f"{answered} answered"


def path_mtu(netns: str, source: str, target: str) -> int:
    """Send what is too big for the way; the MTU that the ICMP error names which comes back."""
    family = family_of(target)
    level, discovery, do, keep_errors = PATH_MTU[family]
    with udp(netns, family, source) as sender:
        sender.setsockopt(level, discovery, do)
        sender.setsockopt(level, keep_errors, 1)
        sender.connect((target, 9))
        sender.send(bytes(1450))
        poller = select.poll()
        poller.register(sender, select.POLLERR)
        assert poller.poll(1000 * wire.PATIENCE), "no error came back"
        _, ancillary, _, _ = sender.recvmsg(1500, 512, MSG_ERRQUEUE)
        [(_, _, data)] = [each for each in ancillary if each[:2] == (level, keep_errors)]
        mtu: int = struct.unpack_from("=IBBBxII", data)[4]  # struct sock_extended_err, linux/errqueue.h
        return mtu


@contextmanager
def no_br_netfilter(node: Node) -> Iterator[None]:
    """Frames that stay on a bridge do not pass the node's rules for packets, as with the sysctls of that module."""
    for version in ("ip", "ip6"):
        node.run("sysctl", "-w", f"net.bridge.bridge-nf-call-{version}tables=0")
    yield
    for version in ("ip", "ip6"):
        node.run("sysctl", "-w", f"net.bridge.bridge-nf-call-{version}tables=1")


# A port scan


def scan(netns: str, address: str, ports: Sequence[int], alive: tuple[str, int]) -> tuple[set[int], set[int]]:
    """A SYN to each TCP port of an IPv6 host: which are open, and which refuse; the others say nothing.

    :param alive: an open port on the same way, asked after each of a few others, whose answers the socket has room for.
    """
    answers: dict[int, set[int]] = {SYN: set(), RST: set()}
    with opened(netns, 6, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 16)
        for start in range(0, len(ports), 64):
            own, last = 20000 + start, 20001 + start
            for port in ports[start : start + 64]:
                raw.sendto(_segment(own, port), (address, 0))
            raw.sendto(_segment(last, alive[1]), (alive[0], 0))
            while (heard := _heard(raw)).there != last:
                if heard.there == own and heard.address == address:
                    answers[heard.kind].add(heard.port)
            assert heard.kind == SYN
    return answers[SYN], answers[RST]


class _Heard(NamedTuple):
    address: str
    port: int
    there: int
    kind: int


def _segment(source: int, port: int) -> bytes:
    return struct.pack("!HHIIBBHHH", source, port, 1, 0, 5 << 4, SYN, 65535, 0, 0)


def _heard(raw: socket.socket) -> _Heard:
    data, sender = raw.recvfrom(1500)
    port, there = struct.unpack_from("!HH", data)
    return _Heard(sender[0], port, there, RST if data[13] & RST else SYN)


# SCTP, which needs no more of the kernel than what the node does with it


def sctp_init(source: int, port: int) -> bytes:
    """A packet with an INIT chunk, RFC 9260, sections 3.1 and 3.3.2."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 1)
    header = struct.pack("!HHI", source, port, 0)
    return header + crc32c(header + bytes(4) + chunk) + chunk


def sctp_arrived(raw: socket.socket, family: int) -> End:
    """The source address and destination port of the packet that comes; its checksum is right."""
    data, sender = raw.recvfrom(1500)
    packet = data[(data[0] & 0xF) * 4 :] if family == 4 else data
    assert packet[8:12] == crc32c(packet[:8] + bytes(4) + packet[12:])
    return End(sender[0], struct.unpack_from("!H", packet, 2)[0])


def crc32c(data: bytes) -> bytes:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return struct.pack("<I", value ^ 0xFFFFFFFF)


# Multicast routing, as a daemon such as smcroute does it (linux/mroute.h, linux/mroute6.h)

INIT, ADD_INTERFACE, ADD_GROUP = 200, 202, 204
USE_IFINDEX = 8


@contextmanager
def multicast(node: Node, family: int, source: str, group: str, way: tuple[str, str]) -> Iterator[None]:
    """The node forwards what a source sends to a group.

    :param way: the interfaces that it comes in and goes out through.
    """
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    protocol = socket.IPPROTO_IGMP if family == 4 else socket.IPPROTO_ICMPV6
    ends = socket.inet_pton(FAMILIES[family], source), socket.inet_pton(FAMILIES[family], group)
    indices = {link["ifname"]: link["ifindex"] for link in node.ip_json("link", "show")}
    with opened(node.path, family, socket.SOCK_RAW, protocol) as router:
        router.setsockopt(level, INIT, 1)
        for number, index in enumerate(indices[name] for name in way):
            if family == 4:
                interface = struct.pack("=HBBIi4s", number, USE_IFINDEX, 1, 0, index, bytes(4))
            else:
                interface = struct.pack("=HBBHxxI", number, 0, 1, index, 0)
            router.setsockopt(level, ADD_INTERFACE, interface)
        if family == 4:
            entry = struct.pack("=4s4sH32sxx16x", *ends, 0, bytes((0, 1)) + bytes(30))
        else:
            entry = struct.pack("=Hxxi16sxxxxHxxi16sxxxxHxx32s", 10, 0, ends[0], 10, 0, ends[1], 0, b"\2" + bytes(31))
        router.setsockopt(level, ADD_GROUP, entry)
        yield


def join(member: socket.socket, family: int, group: str, index: int) -> None:
    """Have a socket receive what is sent to a group on an interface."""
    packed = socket.inet_pton(FAMILIES[family], group)
    if family == 4:
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", packed, bytes(4), index))
    else:
        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + struct.pack("=i", index))


def let_far(sender: socket.socket, family: int) -> None:
    """What it sends to groups may pass routers."""
    if family == 4:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 4)
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 4)
