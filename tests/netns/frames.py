"""Ethernet frames by hand, honest ones and spoofed ones. Pure: what is sent where is the caller's affair.

Addresses are text, frames are bytes as they go on the wire, without the preamble and the checksum at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_pton

IPV4, ARP, VLAN, IPV6, SERVICE_VLAN = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88A8  # linux/if_ether.h
# IANA, protocol numbers.
HOP_BY_HOP, ICMP, IGMP, TCP, UDP, ROUTING, FRAGMENT, ICMPV6, OPTIONS = 0, 1, 2, 6, 17, 43, 44, 58, 60
PACKET_TOO_BIG, ECHO_REQUEST6, LISTENER_QUERY, LISTENER_REPORT = 2, 128, 130, 143
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT, REDIRECT = 133, 134, 135, 136, 137
SOURCE_MAC, TARGET_MAC, NONCE = 1, 2, 14  # options of neighbour discovery: RFC 4861, section 4.6.1; RFC 3971, 5.3.2
REQUEST, REPLY = 1, 2  # of ARP
BROADCAST, ALL_NODES_MAC = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
ALL_NODES = "ff02::1"
SYN, ACK = 0x02, 0x10
FOREVER = 0xFFFFFFFF
PADDING = b"\x01\x04" + bytes(4)  # an option of six bytes that says nothing: PadN, RFC 8200, section 4.2


@dataclass(frozen=True, slots=True)
class Host:
    """Who somebody on the segment is."""

    mac: str
    ip4: str
    ip6: str
    link_local: str


def hardware(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def ethernet(source: str, target: str, kind: int, payload: bytes, tags: Iterable[tuple[int, int]] = ()) -> bytes:
    """:param tags: VLAN tags, the outer first: (type, VLAN)."""
    inner = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return hardware(target) + hardware(source) + inner + struct.pack("!H", kind) + payload


def as_received(frame: bytes) -> bytes:
    """As a packet socket shows it: the kernel has taken the outer tag off before (``skb_vlan_untag``)."""
    tagged = struct.unpack_from("!H", frame, 12)[0] in (VLAN, SERVICE_VLAN)
    return frame[:12] + frame[16:] if tagged else frame


def ip(source: str, target: str, protocol: int, payload: bytes, extensions: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """A packet of the addresses' family.

    :param extensions: of IPv6, in order: (number, the header without its first byte).
    """
    if ":" not in source:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
        header += packed(source) + packed(target)
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload
    chain = list(extensions)
    numbers = [number for number, _ in chain] + [protocol]
    headers = b"".join(bytes((after,)) + body for (_, body), after in zip(chain, numbers[1:]))
    length = len(headers) + len(payload)
    return struct.pack("!IHBB", 6 << 28, length, numbers[0], 255) + packed(source) + packed(target) + headers + payload


def options(number: int) -> tuple[int, bytes]:
    """An extension header of hop-by-hop or destination options, with nothing in it."""
    return number, b"\0" + PADDING


def whole_fragment() -> tuple[int, bytes]:
    """A fragment header of what is not in pieces, RFC 6946."""
    return FRAGMENT, struct.pack("!BHI", 0, 0, 0x6E6F6E65)


def piece(offset: int, more: bool) -> tuple[int, bytes]:
    """The header of a fragment that begins after so many bytes, RFC 8200, section 4.5."""
    return FRAGMENT, struct.pack("!BHI", 0, offset | more, 0x6E6F6E66)


def routed() -> tuple[int, bytes]:
    """A routing header with no way left to go: it is passed over, whatever its type (RFC 8200, section 4.4)."""
    return ROUTING, struct.pack("!BBBI", 0, 253, 0, 0)


def udp(source: str, target: str, ports: tuple[int, int], payload: bytes = b"") -> bytes:
    length = 8 + len(payload)
    message = struct.pack("!HHHH", *ports, length, 0) + payload
    return _with_checksum(message, 6, _pseudo(source, target, UDP, length))


def icmpv6(source: str, target: str, kind: int, body: bytes) -> bytes:
    message = bytes((kind, 0, 0, 0)) + body
    return _with_checksum(message, 2, _pseudo(source, target, ICMPV6, len(message)))


def icmp(kind: int, code: int, body: bytes) -> bytes:
    """Of IPv4."""
    return _with_checksum(bytes((kind, code, 0, 0)) + body, 2, b"")


def arp(operation: int, mac: str, address: str, asked: str, target: str = "00:00:00:00:00:00") -> bytes:
    """RFC 826. ``mac`` says it has ``address``."""
    start = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return start + hardware(mac) + packed(address) + hardware(target) + packed(asked)


def router_advertisement(source: str, mac: str, prefix: str, target: str = ALL_NODES) -> bytes:
    """RFC 4861, 4.2 and 4.6.2: a default router that lives half an hour, and a /64 for SLAAC."""
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, FOREVER, FOREVER, 0) + packed(prefix)
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + option + b"\x01\x01" + hardware(mac)
    return icmpv6(source, target, ROUTER_ADVERTISEMENT, body)


def redirect(source: str, target: str, destination: str, via: str, mac: str) -> bytes:
    """RFC 4861, 4.5: what goes to ``destination`` should go to ``via``, at this MAC."""
    return icmpv6(source, target, REDIRECT, bytes(4) + packed(via) + packed(destination) + b"\x02\x01" + hardware(mac))


def advertisement(source: str, target: str, subject: str, mac: str) -> bytes:
    """RFC 4861, 4.4, with the flags solicited and override: ``subject`` is at ``mac``, whatever you knew."""
    body = struct.pack("!I", 0x60000000) + packed(subject) + b"\x02\x01" + hardware(mac)
    return icmpv6(source, target, ADVERTISEMENT, body)


def solicitation(source: str, target: str, subject: str, mac: str = "") -> bytes:
    """RFC 4861, 4.3. Without a MAC and from ``::``: duplicate address detection."""
    option = b"\x01\x01" + hardware(mac) if mac else b""
    return icmpv6(source, target, SOLICITATION, bytes(4) + packed(subject) + option)


def neighbour(source: str, target: str, kind: int, subject: str, *options: tuple[int, bytes]) -> bytes:
    """A solicitation or an advertisement with these options of 8 bytes, (type, the six bytes behind it)."""
    flags = 0x60000000 if kind == ADVERTISEMENT else 0
    body = struct.pack("!I", flags) + (packed(subject) if kind != ROUTER_SOLICITATION else b"")
    return icmpv6(source, target, kind, body + b"".join(bytes((number, 1)) + data for number, data in options))


def solicited_node(address: str) -> tuple[str, str]:
    """The multicast group of an address and its MAC (RFC 4291, 2.7.1)."""
    last = packed(address)[13:]
    return f"ff02::1:ff{last[:1].hex()}:{last[1:].hex()}", ":".join(("33:33:ff", *(f"{byte:02x}" for byte in last)))


def listener_report(group: str) -> bytes:
    """RFC 3810, 5.2: an interface without an address joins a group."""
    body = struct.pack("!HHBBH", 0, 1, 4, 0, 0) + packed(group)
    return icmpv6("::", "ff02::16", LISTENER_REPORT, body)


def listener_query(source: str, target: str) -> bytes:
    """A general one of MLDv2, RFC 3810, 5.1: who listens to anything, within a second."""
    return icmpv6(source, target, LISTENER_QUERY, struct.pack("!HH16sBBH", 1000, 0, bytes(16), 2, 125, 0))


def membership_query() -> bytes:
    """The same of IGMPv3, RFC 3376, 4.1."""
    return _with_checksum(struct.pack("!BBH4sBBH", 0x11, 10, 0, bytes(4), 2, 125, 0), 2, b"")


def dhcp(operation: int, mac: str, offered: str = "0.0.0.0") -> bytes:
    """RFC 2131: a discover (1) or an offer (2)."""
    fixed = struct.pack("!BBBBIHH", operation, 1, 6, 0, 0x6E6F6E65, 0, 0x8000)
    addresses = bytes(4) + packed(offered) + bytes(8)
    return fixed + addresses + hardware(mac).ljust(16 + 64 + 128, b"\0") + bytes.fromhex("63825363") + bytes(
        (53, 1, operation, 255)
    )


def dhcpv6(kind: int) -> bytes:
    """RFC 8415, section 8: a message without options. 7 is a reply."""
    return bytes((kind, 0x6E, 0x6F, 0x6E))


def opening(frame: bytes) -> tuple[str, int] | None:
    """The port that a packet probes: with a SYN, or any datagram. IPv4 and IPv6 without options."""
    found = _ports(frame)
    return (found[0], found[2]) if found and found[3] & (SYN | ACK) == SYN else None


def accepting(frame: bytes) -> int | None:
    """The TCP port that answers a SYN with its own."""
    found = _ports(frame)
    return found[1] if found and found[0] == "tcp" and found[3] & (SYN | ACK) == SYN | ACK else None


def _ports(frame: bytes) -> tuple[str, int, int, int] | None:
    """Protocol, ports from and to, and the flags of TCP; those of a datagram are SYN."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind not in (IPV4, IPV6):
        return None
    protocol, at = (frame[23], 34) if kind == IPV4 else (frame[20], 54)
    if protocol not in (TCP, UDP):
        return None
    source, target = struct.unpack_from("!HH", frame, at)
    return ("tcp", source, target, frame[at + 13]) if protocol == TCP else ("udp", source, target, SYN)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    even = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(even) // 2}H", even))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    """RFC 8200, section 8.1; of IPv4 the same numbers in other places, which add up to the same."""
    return packed(source) + packed(target) + struct.pack("!II", length, protocol)


def _with_checksum(message: bytes, at: int, pseudo: bytes) -> bytes:
    return message[:at] + struct.pack("!H", checksum(pseudo + message)) + message[at + 2 :]
