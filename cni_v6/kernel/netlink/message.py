"""Netlink messages and their attributes as bytes (struct nlmsghdr, struct nlattr, linux/netlink.h).

For the hand-written messages of a bridge network's ADD and DEL (``requests``), and for nf_tables. ``tools/codec``
compares their cost with that of pyroute2's message classes (docs/design/kernel.md). The tests have pyroute2 read every
request and answer. All other rtnetlink messages use pyroute2 (``pyroute2_messages``).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Container, Iterator

from cni_v6.values import dataclass

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type
NUMBERS = {1: "=B", 2: "=H", 4: "=I", 8: "=Q"}
TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


@dataclass(frozen=True, slots=True)
class Message:
    """A request: its type, its flags except REQUEST and ACK, and the bytes after the netlink header."""

    type: int
    flags: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit number in the machine's byte order."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """A string with a terminating zero (NLA_NUL_STRING)."""
    return attribute(kind, value.encode() + b"\0")


def mac(kind: int, value: str) -> bytes:
    """A MAC address, from text with colons."""
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def address(kind: int, value: str) -> bytes:
    """An IPv4 or IPv6 address."""
    return attribute(kind, packed(value))


def packed(address: str) -> bytes:
    """The 4 or 16 bytes of an IPv4 or IPv6 address."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that contains other attributes."""
    return attribute(kind, b"".join(attributes))


def each(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of every attribute from an offset on. Ends at an attribute that does not fit."""
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind & TYPE_MASK, data[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def by_kind(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes as a dictionary; of several of one kind, the last. Not built on ``each`` for speed."""
    found: dict[int, bytes] = {}
    unpack, last = ATTRIBUTE.unpack_from, len(data) - ATTRIBUTE.size
    while offset <= last:
        length, kind = unpack(data, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind & TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += length + 3 & -4
    return found


def picked(data: bytes, kinds: Container[int], offset: int = 0) -> dict[int, bytes]:
    """As ``by_kind``, of these kinds alone: a message about a link has forty, of which a few are of interest."""
    found: dict[int, bytes] = {}
    unpack, last = ATTRIBUTE.unpack_from, len(data) - ATTRIBUTE.size
    while offset <= last:
        length, kind = unpack(data, offset)
        if length < ATTRIBUTE.size:
            break
        if kind & TYPE_MASK in kinds:
            found[kind & TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += length + 3 & -4
    return found


def as_int(payload: bytes | None) -> int:
    """A number of 1 to 8 bytes in the machine's byte order; 0 if it is absent."""
    return int(struct.unpack(NUMBERS[len(payload)], payload)[0]) if payload else 0


def as_text(payload: bytes | None) -> str:
    return (payload or b"").rstrip(b"\0").decode(errors="replace")


def as_address(payload: bytes) -> str:
    """The text of an IPv4 or IPv6 address."""
    return socket.inet_ntop(socket.AF_INET6 if len(payload) == 16 else socket.AF_INET, payload)


def as_mac(payload: bytes | None) -> str:
    return (payload or b"").hex(":")
