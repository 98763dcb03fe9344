"""Addresses as text and as integers.

``socket.inet_pton`` accepts only the strict forms: no ``10.1``, no leading zeros, no zone. A library would cost a call
without an engine an import of 40 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

BITS = {4: 32, 6: 128}
_LINK_LOCAL = re.compile("fe[89ab][0-9a-f]:", re.IGNORECASE)  # four digits: fe8::1 is in fe8::/16
_MAPPED = 0xFFFF  # the upper 96 bits of an IPv4-mapped address (RFC 4291, section 2.5.5.2)


def from_text(text: str) -> tuple[int, int]:
    """Family (4 or 6) and value of an address. ``::ffff:10.0.0.1`` is read as IPv4, as Go's ``net.IP`` does.

    :raises ValueError: the text is not an address in full, strict form.
    """
    try:
        if ":" not in text:
            return 4, int.from_bytes(inet_pton(AF_INET, text), "big")
        value = int.from_bytes(inet_pton(AF_INET6, text), "big")
    except (OSError, ValueError):
        raise ValueError(f"not an IP address: {text!r}") from None
    return (4, value & 0xFFFF_FFFF) if value >> 32 == _MAPPED else (6, value)


def version(text: str) -> int:
    """Family (4 or 6) of an address or a prefix in canonical spelling: only IPv6 has a colon there."""
    return 6 if ":" in text else 4


def to_text(family: int, value: int) -> str:
    """The canonical form of an address (RFC 5952), byte for byte what Go's ``net.IP.String`` writes.

    The reference plugin names its lease files with it. ``inet_ntop`` differs from Go in the two forms that embed an
    IPv4 address: Go writes ``::ffff:10.0.0.1`` as ``10.0.0.1`` and ``::10.0.0.1`` as ``::a00:1``.
    """
    if family == 4:
        return inet_ntop(AF_INET, value.to_bytes(4, "big"))
    if value >> 32 == _MAPPED:
        return inet_ntop(AF_INET, (value & 0xFFFF_FFFF).to_bytes(4, "big"))
    if value >> 32 == 0 and value >> 16:
        return f"::{value >> 16:x}:{value & 0xFFFF:x}"
    return inet_ntop(AF_INET6, value.to_bytes(16, "big"))


def is_link_local(address: str) -> bool:
    """Whether an address, with or without a prefix length, is in fe80::/10.

    Tests the spelling only, because an ADD asks many times.
    """
    return _LINK_LOCAL.match(address) is not None


def host_prefix(address: str) -> str:
    """The prefix of an address alone: /32 or /128.

    :param address: with a prefix length, which is left out, or without.
    """
    return f"{address.partition('/')[0]}/{BITS[version(address)]}"


def overlap(prefix: str, other: str) -> bool:
    """Whether two prefixes have an address in common: they are of one family, and agree in the bits of the shorter one.

    :param prefix: ``address/length``; host bits may be set.
    """
    if version(prefix) != version(other):
        return False
    (first, first_length), (second, second_length) = _prefix(prefix), _prefix(other)
    shift = BITS[version(prefix)] - min(first_length, second_length)
    return first >> shift == second >> shift


def _prefix(text: str) -> tuple[int, int]:
    """Value and length. An IPv4-mapped address stays IPv6, as in the kernel."""
    ip, _, length = text.partition("/")
    return int.from_bytes(inet_pton(AF_INET6 if ":" in ip else AF_INET, ip), "big"), int(length)


def values(names: Iterable[str], family: int) -> Iterator[int]:
    """The values of those names that are addresses of a family. Other names are skipped."""
    for name in names:
        try:
            name_family, value = from_text(name)
        except ValueError:
            continue
        if name_family == family:
            yield value
