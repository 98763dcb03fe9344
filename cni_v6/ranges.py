"""Ranges of addresses, the order in which they are tried, and addresses as text and as integers.

Arithmetic on first and last address alone: a /48 costs what a /122 costs. ``socket.inet_pton`` rather than a library
for it: it takes only the strict forms (no ``10.1``, no leading zeros, no zone), and a call without an engine is spared
an import of 40 ms.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

LARGE = 2**32  # a set of this size or more is not begun again at its end: no address of it is used twice

KEPT = 128  # sets of which an answer is remembered: each is asked many times in an ADD
BITS = {4: 32, 6: 128}
_DESCRIBED = 4  # ranges of a set, and sets, that a message names
Span = tuple[int, int]  # first and last address, inclusive

_LINK_LOCAL = re.compile("fe[89ab][0-9a-f]:", re.IGNORECASE)  # four digits: fe8::1 is of fe8::/16
_MAPPED = 0xFFFF  # the upper 96 bits of an IPv4-mapped address (RFC 4291, section 2.5.5.2)


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive addresses of one subnet: ``first`` to ``last`` inclusive, as integers of ``family`` (4 or 6).

    ``gateway`` is never handed out where it lies in the range; it is ``fe80::1`` for ``"gateway": "link-local"``.
    """

    family: int
    network: int  # the subnet's first address
    prefixlen: int
    first: int
    last: int
    gateway: str


@dataclass(frozen=True, slots=True)
class RangeSet:
    """Ranges of one family that spill over in order; one address is taken from each set.

    ``ranges``: what is handed out; ``written``: the ranges as they were configured, which ``ipam.exclude`` and
    ``ipam.reserve`` have cut into the others, and the same as these where they have not. An address that is excluded or
    reserved is still the set's, as far as its gateway, the order of addresses and the container that has it are
    concerned.
    """

    ranges: tuple[Range, ...]
    written: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        if not self.written:
            object.__setattr__(self, "written", self.ranges)

    @property
    def family(self) -> int:
        return self.written[0].family


def from_text(text: str) -> tuple[int, int]:
    """Family (4 or 6) and value of an address. ``::ffff:10.0.0.1`` is the IPv4 address, as Go's ``net.IP`` has it.

    :raises ValueError: for anything but the full, strict forms.
    """
    try:
        if ":" not in text:
            return 4, int.from_bytes(inet_pton(AF_INET, text), "big")
        value = int.from_bytes(inet_pton(AF_INET6, text), "big")
    except (OSError, ValueError):
        raise ValueError(f"not an IP address: {text!r}") from None
    return (4, value & 0xFFFF_FFFF) if value >> 32 == _MAPPED else (6, value)


def version(text: str) -> int:
    """4 or 6, of an address or a prefix in its canonical spelling, in which nothing of IPv4 has a colon."""
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
    """Whether an address, with a prefix length or without, is of fe80::/10, by its spelling: an ADD asks many times."""
    return _LINK_LOCAL.match(address) is not None


def overlap(one: str, two: str) -> bool:
    """Whether two prefixes of one family have an address in common: they agree in the bits of the shorter one.

    :param one: ``address/length``, host bits and all.
    """
    (first, first_length), (second, second_length) = _prefix(one), _prefix(two)
    shift = BITS[6 if ":" in one else 4] - min(first_length, second_length)
    return first >> shift == second >> shift


def _prefix(text: str) -> tuple[int, int]:
    """Value and length; an IPv4-mapped address is the IPv6 one that it is to the kernel."""
    ip, _, length = text.partition("/")
    return int.from_bytes(inet_pton(AF_INET6 if ":" in ip else AF_INET, ip), "big"), int(length)


def subnet(one: Range) -> str:
    """A range's subnet, ``network/prefixlen``."""
    return f"{to_text(one.family, one.network)}/{one.prefixlen}"


def describe(ranges: RangeSet) -> str:
    """A set for a message: its subnets with the addresses used of them, but never a screenful."""
    shown = [
        f"{subnet(one)} ({to_text(one.family, one.first)} to {to_text(one.family, one.last)})"
        for one in ranges.written[:_DESCRIBED]
    ]
    more = len(ranges.written) - len(shown)
    text = ", ".join(shown + [f"{more} more"] * (more > 0))
    return text if ranges.ranges == ranges.written else f"{text}, less what is excluded or reserved"


def describe_all(sets: Sequence[RangeSet]) -> str:
    """Sets for a message, but never a screenful."""
    return "; ".join(describe(one) for one in sets[:_DESCRIBED])


@lru_cache(KEPT)
def gateways(ranges: RangeSet) -> frozenset[int]:
    """The gateways of all ranges of a set, as integers of its family: none is handed out by any of the ranges.

    Of a range that is excluded as a whole too: containers that are in it count on theirs.
    """
    found = (from_text(one.gateway) for one in ranges.written)
    return frozenset(value for family, value in found if family == ranges.family)


@lru_cache(KEPT)
def size(ranges: RangeSet) -> int:
    """How many addresses a set can hand out, its gateways excluded."""
    spans = sorted((one.first, one.last) for one in ranges.ranges)
    inside = sum(locate(spans, value) is not None for value in gateways(ranges))
    return total(spans) - inside


def locate(spans: Sequence[tuple[int, int]], value: int) -> int | None:
    """Index of the span (first and last, inclusive) a value lies in; they are sorted and do not overlap."""
    at = bisect_right(spans, value, key=lambda span: span[0]) - 1
    return at if at >= 0 and value <= spans[at][1] else None


def total(spans: Iterable[Span]) -> int:
    """How many addresses there are in some disjoint spans."""
    return sum(last - first + 1 for first, last in spans)


def nth(spans: Iterable[Span], offset: int) -> int:
    """The address so many places behind the first one.

    :raises IndexError: there are not so many.
    """
    for first, last in spans:
        if offset <= last - first:
            return first + offset
        offset -= last - first + 1
    raise IndexError(offset)


def place(spans: Iterable[Span], value: int) -> int | None:
    """How many addresses come before one, as ``nth`` counts them; None where it is none of them."""
    before = 0
    for first, last in spans:
        if first <= value <= last:
            return before + value - first
        before += last - first + 1
    return None


def meeting(spans: Sequence[Span], first: int, last: int) -> Sequence[Span]:
    """Those of some spans, sorted and disjoint, that have an address from ``first`` to ``last``."""
    low = bisect_left(spans, first, key=lambda span: span[1])
    return spans[low:bisect_right(spans, last, key=lambda span: span[0])]


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same addresses in as few spans as possible, sorted."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def without(spans: Iterable[Span], holes: Sequence[Span]) -> list[Span]:
    """What is left of some spans; the holes are sorted and disjoint."""
    left: list[Span] = []
    for first, last in spans:
        for low, high in meeting(holes, first, last):
            if first < low:
                left.append((first, low - 1))
            first = high + 1
        if first <= last:
            left.append((first, last))
    return left


def contains(ranges: RangeSet, family: int, value: int) -> bool:
    """Whether an address lies in one of the ranges and is not excluded; a gateway may."""
    return _holder(ranges.ranges, family, value) is not None


def among(ranges: RangeSet, names: Iterable[str]) -> int:
    """How many of some names are those of a set's addresses; others are addresses of other sets, or none."""
    return sum(contains(ranges, ranges.family, value) for value in values(names, ranges.family))


def values(names: Iterable[str], family: int) -> Iterator[int]:
    """Those of some names that are addresses of a family; the others are addresses of the other one, or none."""
    for name in names:
        try:
            found, value = from_text(name)
        except ValueError:
            continue
        if found == family:
            yield value


def origin(ranges: RangeSet, family: int, value: int) -> Range | None:
    """The range an address is of, as it was written: an excluded address is of it still. None: of none."""
    return _holder(ranges.written, family, value)


def _holder(parts: Iterable[Range], family: int, value: int) -> Range | None:
    return next((one for one in parts if one.family == family and one.first <= value <= one.last), None)


def candidates(ranges: RangeSet, after: int | None, wrap: bool, used: Sequence[Span] = ()) -> Iterator[int]:
    """Every address to try, in order: from the one after ``after``, range by range, gateways left out.

    Lazy, so that whoever meets too many taken ones stops and looks at what is taken as a whole.

    :param after: the last address handed out, maybe excluded since; None, or one of none of the ranges: begin at the
        start.
    :param wrap: go on at the start, up to and including ``after``.
    :param used: sorted and disjoint; left out too.
    """
    skip = gateways(ranges)
    spans = [(one.first, one.last) for one in ranges.written]
    left = without(sorted((one.first, one.last) for one in ranges.ranges), used)
    index = next((at for at, (first, last) in enumerate(spans) if after is not None and first <= after <= last), None)
    if index is not None and after is not None:
        first, last = spans[index]
        behind = [*spans[:index], (first, after)] if wrap else []
        spans = [(after + 1, last), *spans[index + 1:], *behind]
    for first, last in spans:
        for low, high in meeting(left, first, last):
            yield from (value for value in range(max(low, first), min(high, last) + 1) if value not in skip)
