"""Packets as bytes: a few that we send to try something, and what the headers of others say. Pure."""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from cni_v6.values import dataclass

# IANA, protocol numbers; linux/if_ether.h
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", 132: "sctp", ICMPV6: "icmpv6"}
IPV4, IPV6, TRIAL = 0x0800, 0x86DD, 0x88B5  # TRIAL: IEEE 802, local experimental ethertype
# ICMP and ICMPv6 types: RFC 792, RFC 4443, RFC 4861
ECHO_REQUEST, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
ROUTER_ADVERTISEMENT = 134
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
HEADERS = {4: 20 + 8, 6: 40 + 8}  # bytes before the data of an echo request


@dataclass(frozen=True, slots=True)
class Headers:
    """Who sends a packet to whom. ``protocol``: IANA's number. ``ports``: of TCP, UDP and SCTP; else ().

    ``kind``: type of an ICMP message, else -1. ``number``: identifier of an echo request or reply, else -1.
    """

    source: str
    target: str
    protocol: int
    ports: tuple[int, ...] = ()
    kind: int = -1
    number: int = -1

    def __str__(self) -> str:
        name = NAMES.get(self.protocol, f"protocol {self.protocol}")
        if self.ports:
            return f"{name} {_end(self.source, self.ports[0])} > {_end(self.target, self.ports[1])}"
        what = f" type {self.kind}" if self.kind >= 0 else ""
        return f"{name}{what} {self.source} > {self.target}"


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def read(data: bytes) -> Headers | None:
    """The headers of an IPv4 or IPv6 packet that begins with its first byte; None for anything else.

    Of what follows an IPv6 extension header, only that is read.
    """
    if len(data) >= 20 and data[0] >> 4 == 4:
        family, protocol, at = AF_INET, data[9], (data[0] & 0xF) * 4
        ends = data[12:16], data[16:20]
        if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:  # a later fragment
            return Headers(inet_ntop(family, ends[0]), inet_ntop(family, ends[1]), protocol)
    elif len(data) >= 40 and data[0] >> 4 == 6:
        family, protocol, at, ends = AF_INET6, data[6], 40, (data[8:24], data[24:40])
    else:
        return None
    source, target = inet_ntop(family, ends[0]), inet_ntop(family, ends[1])
    return of_transport(source, target, protocol, data[at:])


def of_transport(source: str, target: str, protocol: int, data: bytes) -> Headers:
    """The headers where the transport header is known apart."""
    if protocol in (TCP, UDP, 132) and len(data) >= 4:
        return Headers(source, target, protocol, struct.unpack_from("!HH", data))
    if protocol in (ICMP, ICMPV6) and data:
        family = 6 if ":" in source else 4
        echo = data[0] in (ECHO_REQUEST[family], ECHO_REPLY[family]) and len(data) >= 6
        return Headers(source, target, protocol, (), data[0], struct.unpack_from("!H", data, 4)[0] if echo else -1)
    return Headers(source, target, protocol)


def echo_request(family: int, number: int, payload: bytes) -> bytes:
    """An ICMP echo request. The kernel fills in the checksum of ICMPv6 (raw(7), RFC 3542, section 3.1)."""
    header = struct.pack("!BBHHH", ECHO_REQUEST[family], 0, 0, number, 1)
    if family == 6:
        return header + payload
    return header[:2] + struct.pack("!H", checksum(header + payload)) + header[4:] + payload


def is_reply(family: int, data: bytes, number: int) -> bool:
    """Whether what a raw socket has received is the reply to an echo request. IPv4 comes with its header."""
    at = (data[0] & 0xF) * 4 if family == 4 and data else 0
    return len(data) >= at + 8 and data[at] == ECHO_REPLY[family] and data[at + 4:at + 6] == number.to_bytes(2, "big")


def ethernet(source: str, target: str, kind: int, payload: bytes) -> bytes:
    """A frame without its checksum."""
    return mac(target) + mac(source) + struct.pack("!H", kind) + payload


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def udp(source: str, target: str, port: int, payload: bytes) -> bytes:
    """A packet with a UDP datagram."""
    length = 8 + len(payload)
    ends = packed(source) + packed(target)
    message = struct.pack("!HHHH", port, port, length, 0) + payload
    checked = checksum(ends + struct.pack("!II", length, UDP) + message) or 0xFFFF
    message = message[:6] + struct.pack("!H", checked) + message[8:]
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, length, UDP, 64) + ends + message
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0) + ends
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + message


def router_advertisement(source: str, source_mac: str, prefix: str) -> bytes:
    """A frame to all nodes: a default router for half an hour, and a /64 for SLAAC (RFC 4861, 4.2 and 4.6.2)."""
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 1800, 1800, 0) + packed(prefix)
    body = struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, 1800, 0, 0) + option + b"\1\1" + mac(source_mac)
    ends = packed(source) + packed(ALL_NODES)
    checked = checksum(ends + struct.pack("!II", len(body), ICMPV6) + body)
    packet = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, 255) + ends
    return ethernet(source_mac, ALL_NODES_MAC, IPV6, packet + body[:2] + struct.pack("!H", checked) + body[4:])


def dns_query(number: int) -> bytes:
    """A question for the name servers of the root (RFC 1035, section 4.1)."""
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!HH", 2, 1)


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    even = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(even) // 2}H", even))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def packed(address: str) -> bytes:
    """The bytes of an address."""
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
