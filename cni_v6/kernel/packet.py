"""Announcements: who has an address now, told to a segment that may remember somebody else.

The kernel's own (``arp_notify``, ``ndisc_notify``) go out when an interface comes up, before its port forwards.
"""

from __future__ import annotations

import socket
import struct

ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
BROADCAST = b"\xff" * 6
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464, 7
ICMPV6, NEIGHBOR_ADVERTISEMENT, OVERRIDE = 58, 136, 0x20000000


def frames(mac: str, address: str) -> tuple[bytes, ...]:
    """The frames that announce one address (without prefix length) at a MAC."""
    source = bytes.fromhex(mac.replace(":", ""))
    if ":" in address:
        return (_neighbor_advertisement(source, socket.inet_pton(socket.AF_INET6, address)),)
    ip = socket.inet_pton(socket.AF_INET, address)
    # RFC 5227, 3: requests and replies both; some stacks update their cache on one only.
    return tuple(_gratuitous_arp(source, ip, operation) for operation in (1, 2))


def _gratuitous_arp(mac: bytes, ip: bytes, operation: int) -> bytes:
    header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return _ethernet(BROADCAST, mac, ETH_P_ARP) + header + mac + ip + BROADCAST + ip


def _neighbor_advertisement(mac: bytes, ip: bytes) -> bytes:
    """RFC 4861, 4.4 and 7.2.6: to all nodes, override set, solicited not, hop limit 255."""
    option = b"\x02\x01" + mac  # target link-layer address
    body = struct.pack("!I", OVERRIDE) + ip + option
    length = 4 + len(body)
    checksum = _checksum(ip + ALL_NODES + struct.pack("!II", length, ICMPV6), b"\x88\0\0\0" + body)
    icmp = struct.pack("!BBH", NEIGHBOR_ADVERTISEMENT, 0, checksum) + body
    header = struct.pack("!IHBB", 6 << 28, length, ICMPV6, 255) + ip + ALL_NODES
    return _ethernet(ALL_NODES_MAC, mac, ETH_P_IPV6) + header + icmp


def _checksum(pseudo_header: bytes, payload: bytes) -> int:
    """RFC 1071 over an even number of bytes."""
    total: int = sum(word for (word,) in struct.iter_unpack("!H", pseudo_header + payload))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _ethernet(destination: bytes, source: bytes, protocol: int) -> bytes:
    return destination + source + struct.pack("!H", protocol)
