"""A segment is no larger than the way allows: what a connection says of it, on both sides of the node, by packets."""

from __future__ import annotations

import pytest

from tests.netns import networks, traffic, wire
from tests.netns.networks import DUAL, NODE_OUTSIDE, OUTSIDE, UPLINK
from tests.sandbox import Node

NARROW = 1400
HEADERS = {4: 40, 6: 60}  # of IP and TCP
SYN, MAXIMUM = 0x02, 2  # RFC 9293, sections 3.1 and 3.2
ETHERNET, LENGTHS = 14, {0x0800: 20, 0x86DD: 40}


def announced(frame: bytes) -> int | None:
    """The maximum segment size that a frame with a SYN says; None for any other frame."""
    length = LENGTHS.get(int.from_bytes(frame[12:14], "big"))
    if length is None or 6 not in (frame[ETHERNET + 6], frame[ETHERNET + 9]):
        return None
    tcp = frame[ETHERNET + length :]
    options = tcp[20 : (tcp[12] >> 4) * 4]
    if not tcp[13] & SYN or options[:2] != bytes((MAXIMUM, 4)):
        return None
    return int.from_bytes(options[2:4], "big")


@pytest.mark.parametrize("family", (4, 6))
def test_a_connection_learns_of_a_narrow_uplink(node: Node, family: int) -> None:
    """From inside and from outside: neither end sees the uplink's size by itself."""
    beyond = networks.outside(node)
    [pod] = networks.pods(node, networks.gateway(*DUAL, ingress="open"), "a")
    node.run("ip", "link", "set", UPLINK, "mtu", str(NARROW))
    node.run("ip", f"-{family}", "route", "add", "default", "via", NODE_OUTSIDE[family], netns=beyond)
    said: list[int] = []

    def is_said(frame: bytes) -> bool:
        size = announced(frame)
        said.extend([] if size is None else [size])
        return size is not None

    ways = ((pod.netns, beyond, OUTSIDE[family]), (beyond, pod.netns, pod.address(family)))
    for caller, listener, address in ways:
        with wire.packets(listener, "eth0") as tap, traffic.listening(listener, family, 9000) as server:
            traffic.called(caller, (address, 9000), server)
            wire.await_frames(tap, is_said, count=2)  # the call and its answer
    assert said[0] == NARROW - HEADERS[family], "of a call from inside, as it arrives outside"
    assert min(said) == NARROW - HEADERS[family]
