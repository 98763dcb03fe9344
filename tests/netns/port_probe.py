"""Who gets through: a packet to each of many ports, watched where they would arrive.

Nothing waits for what must not come: what was sent last on the same way is allowed, so what is not there before it will
not be.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple

from tests.netns import frames, traffic, wire
from tests.netns.traffic import family_of

END = b"that was all"
ECHO = {4: (socket.IPPROTO_ICMP, 8), 6: (socket.IPPROTO_ICMPV6, 128)}


class Probed(NamedTuple):
    """:param arrived: (protocol, port) of the packets that came.
    :param answered: the TCP ports from which an answer came that stands for a listener.
    """

    arrived: set[tuple[str, int]]
    answered: set[int]


def all_ports(ports: Iterable[int]) -> set[tuple[str, int]]:
    """What arrives where nothing is in the way."""
    return {(protocol, port) for port in ports for protocol in ("tcp", "udp")}


def probe(netns: str, address: str, ports: Iterable[int]) -> None:
    """A SYN and a datagram to each port. Waits for no answer."""
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with traffic.opened(netns, family_of(address), kind) as client:
                client.setblocking(False)
                client.connect_ex((address, port))
                if kind == socket.SOCK_DGRAM:
                    client.send(b"probe")


def echo(netns: str, address: str) -> None:
    """An echo request with ``END`` in it."""
    protocol, kind = ECHO[family_of(address)]
    with traffic.opened(netns, family_of(address), socket.SOCK_RAW, protocol) as sender:
        sender.sendto(frames.icmp(kind, 0, bytes(4) + END), (address, 0))  # of IPv6 the kernel adds up anew


def probe_and_watch(caller: tuple[str, str], address: str, ports: Iterable[int], place: tuple[str, str]) -> Probed:
    """Probe the ports of a host that answers echo requests; what arrived, and what was answered.

    :param caller: namespace and interface.
    :param place: namespace and interface where it is seen what arrives.
    """
    with ExitStack() as stack:
        there, back = (stack.enter_context(wire.packets(*each)) for each in (place, caller))
        with wire.in_order():
            probe(caller[0], address, ports)
            echo(caller[0], address)
        arrived = map(frames.opening, wire.frames_before(there, END))
        answered = map(frames.accepting, wire.frames_before(back, END))
        return Probed(set(filter(None, arrived)), set(filter(None, answered)))
