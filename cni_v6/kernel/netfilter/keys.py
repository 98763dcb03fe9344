"""Keys and data of our sets' elements in the format of nf_tables, from text and back: each field in registers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from cni_v6.firewall.sets import GROUP, IFNAME, IPV4, IPV6, MAC, PORT, PROTOCOL, RAW_MAC, RAW_TARGET, SETS, Element, Set
from cni_v6.kernel.netlink.message import as_text, packed
from cni_v6.net.addresses import to_text


def _address_text(data: bytes) -> str:
    return to_text(6 if len(data) == 16 else 4, int.from_bytes(data, "big"))


# Type -> (length in bytes, text to bytes, bytes to text). Numbers are big-endian, but a link group is in the machine's
# order (devgroup_type, src/meta.c of nftables), unless the set has intervals (``_ordered``). Interface names are
# zero-padded.
_TYPES: dict[str, tuple[int, Callable[[str], bytes], Callable[[bytes], str]]] = {
    IPV4: (4, packed, _address_text),
    IPV6: (16, packed, _address_text),
    RAW_TARGET: (16, packed, _address_text),
    **dict.fromkeys(
        (MAC, RAW_MAC), (6, lambda value: bytes.fromhex(value.replace(":", "")), lambda data: data.hex(":"))
    ),
    IFNAME: (16, lambda value: value.encode().ljust(16, b"\0"), as_text),
    GROUP: (4, lambda value: struct.pack("=I", int(value)), lambda data: str(struct.unpack("=I", data)[0])),
    PROTOCOL: (1, lambda value: bytes((int(value),)), lambda data: str(data[0])),
    PORT: (2, lambda value: int(value).to_bytes(2, "big"), lambda data: str(int.from_bytes(data, "big"))),
}


def set_of(element: Element) -> Set:
    return SETS[element.family, element.set]


def key(element: Element) -> tuple[bytes, bytes]:
    """The bytes of an element's key, and of its end if the set has intervals, else b""."""
    declared = set_of(element)
    kinds = declared.key
    if not declared.intervals:
        return pack(kinds, element.key), b""
    spans = [_span(kind, value) for kind, value in zip(kinds, element.key, strict=True)]
    first, last = zip(*spans)
    return _concatenated(first), _concatenated(last)


def overlaps(one: Element, other: Element) -> bool:
    """Whether the kernel refuses ``one`` beside ``other``: its start or end is inside the other (nft_pipapo_insert)."""
    if (one.family, one.set) != (other.family, other.set) or not set_of(one).intervals or key(one) == key(other):
        return False
    kinds = set_of(one).key
    first, last = (split(kinds, value) for value in key(other))
    return any(
        all(low <= field <= high for low, field, high in zip(first, split(kinds, point), last)) for point in key(one)
    )


def pack(kinds: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    """The bytes of a concatenation of values."""
    if len(kinds) == 1:
        return _TYPES[kinds[0]][1](values[0])
    return _concatenated([_TYPES[kind][1](value) for kind, value in zip(kinds, values, strict=True)])


def _concatenated(fields: Iterable[bytes]) -> bytes:
    """The fields joined, each padded to whole registers of four bytes."""
    return b"".join([field + b"\0" * (-len(field) % 4) for field in fields])


def split(kinds: tuple[str, ...], value: bytes) -> tuple[bytes, ...]:
    """The fields of a concatenation, without padding."""
    fields, offset = [], 0
    for kind in kinds:
        size = _TYPES[kind][0]
        fields.append(value[offset : offset + size])
        offset += (size + 3) & ~3
    return tuple(fields)


def _span(kind: str, value: str) -> tuple[bytes, bytes]:
    """First and last value of a text: one value, a prefix or ``first-last``. An interface name is always one value."""
    encode = _TYPES[kind][1]
    if kind == GROUP:
        return _ordered(encode(value)), _ordered(encode(value))
    if kind == IFNAME:
        return encode(value), encode(value)
    address, slash, length = value.partition("/")
    if slash:
        first = encode(address)
        hosts = (1 << 8 * len(first) - int(length)) - 1
        return first, (int.from_bytes(first, "big") | hosts).to_bytes(len(first), "big")
    lowest, _, highest = value.partition("-")
    return encode(lowest), encode(highest or lowest)


def _ordered(data: bytes) -> bytes:
    """A number in the machine's order as it is in a set with intervals, big-endian, or back."""
    return struct.pack("=I", *struct.unpack(">I", data))


def span_text(kind: str, first: bytes, last: bytes) -> str:
    """A range as text: a single value, a prefix if it is one, or ``first-last``."""
    if first == last:
        return field_text(kind, _ordered(first) if kind == GROUP else first)
    hosts = int.from_bytes(first, "big") ^ int.from_bytes(last, "big")
    if kind in (IPV4, IPV6) and not hosts & (hosts + 1) and not int.from_bytes(first, "big") & hosts:
        return f"{field_text(kind, first)}/{8 * len(first) - hosts.bit_length()}"
    return f"{field_text(kind, first)}-{field_text(kind, last)}"


def field_text(kind: str, data: bytes) -> str:
    """A field as text, as in an ``Element``."""
    return _TYPES[kind][2](data)
