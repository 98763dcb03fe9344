"""Packets that are sent to try something, read back; and headers of others. The kernel takes them in tests/netns."""

from __future__ import annotations

import struct

import pytest

from cni_v6.net import packets
from cni_v6.net.packets import ICMP, ICMPV6, TCP, UDP, Headers

A4, B4, A6, B6, MAC = "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "02:00:00:00:00:01"


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)])
def test_a_datagram(source: str, target: str) -> None:
    packet = packets.udp(source, target, 9, b"odd")
    assert packets.read(packet) == Headers(source, target, UDP, (9, 9))
    at = 20 if ":" not in source else 40
    ends = packets.packed(source) + packets.packed(target)
    assert packets.checksum(ends + struct.pack("!II", len(packet) - at, UDP) + packet[at:]) == 0
    assert packet.endswith(b"odd") and (":" in source or packets.checksum(packet[:20]) == 0)


def test_a_ping_and_its_reply() -> None:
    request = packets.echo_request(4, 7, b"data")
    assert packets.checksum(request) == 0
    assert packets.of_transport(A4, B4, ICMP, request) == Headers(A4, B4, ICMP, (), 8, 7)
    assert packets.of_transport(A6, B6, ICMPV6, packets.echo_request(6, 7, b"")).number == 7
    header = packets.udp(A4, B4, 9, b"")[:20]
    reply = header + b"\0" + request[1:]
    assert packets.is_reply(4, reply, 7) and not packets.is_reply(4, reply, 8) and not packets.is_reply(4, b"", 7)
    assert packets.is_reply(6, b"\x81" + request[1:], 7) and not packets.is_reply(6, request, 7)


def test_a_router_advertisement() -> None:
    frame = packets.router_advertisement("fe80::1", MAC, "2001:db8:9::")
    assert frame[:14] == packets.mac(packets.ALL_NODES_MAC) + packets.mac(MAC) + b"\x86\xdd"
    assert packets.read(frame[14:]) == Headers("fe80::1", "ff02::1", ICMPV6, (), 134)
    body = frame[54:]
    ends = packets.packed("fe80::1") + packets.packed("ff02::1")
    assert packets.checksum(ends + struct.pack("!II", len(body), ICMPV6) + body) == 0
    assert packets.packed("2001:db8:9::") in body


def test_a_question() -> None:
    assert packets.dns_query(7) == b"\0\7\1\0\0\1" + bytes(6) + b"\0\0\2\0\1"


def test_what_is_no_packet() -> None:
    assert packets.read(b"") is packets.read(bytes(60)) is packets.read(b"\x45" + bytes(9)) is None


def test_what_only_has_addresses() -> None:
    later = bytearray(packets.udp(A4, B4, 9, b"x"))
    later[7] = 1  # a fragment that is not the first
    assert packets.read(bytes(later)) == Headers(A4, B4, UDP)
    assert packets.of_transport(A4, B4, 47, b"1234") == Headers(A4, B4, 47)
    assert packets.of_transport(A4, B4, UDP, b"") == Headers(A4, B4, UDP)


@pytest.mark.parametrize(("headers", "words"), [
    (Headers(A6, B6, TCP, (1, 80)), f"tcp [{A6}]:1 > [{B6}]:80"),
    (Headers(A4, B4, UDP, (1, 80)), f"udp {A4}:1 > {B4}:80"),
    (Headers(A4, B4, ICMP, (), 8, 7), f"icmp type 8 {A4} > {B4}"),
    (Headers(A4, B4, 47), f"protocol 47 {A4} > {B4}"),
])
def test_in_words(headers: Headers, words: str) -> None:
    assert str(headers) == words
