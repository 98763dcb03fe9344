"""Ranges of addresses, and the order in which their addresses are tried.

All arithmetic is on the first and last address: a /48 costs the same as a /122.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from typing import Any

from cni_v6.net.addresses import from_text, to_text, values
from cni_v6.net.intervals import Span, locate, meeting, total, without
from cni_v6.values import dataclass

LARGE = 2**32  # a set with this many addresses or more never reuses one, unless the configuration asks for it

_DESCRIBED = 4  # ranges of a set, and sets, that a message names at most


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive addresses of one subnet: ``first`` to ``last`` inclusive, as integers of ``family`` (4 or 6).

    ``gateway`` is never handed out, even if it lies in the range; it is ``fe80::1`` for ``"gateway": "link-local"``.
    """

    family: int
    network: int  # the subnet's first address
    prefixlen: int
    first: int
    last: int
    gateway: str


@dataclass(frozen=True, slots=True)
class RangeSet:
    """Ranges of one family, used one after the other. A container gets one address from each set.

    ``written``: the ranges as configured. ``ranges``: the ranges that are handed out, which are ``written`` without
    ``ipam.exclude`` and ``ipam.reserve``. An excluded or reserved address still belongs to the set: its gateway is
    kept, it has its place in the order, and a container that holds it is valid.
    """

    ranges: tuple[Range, ...]
    written: tuple[Range, ...] = ()
    known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # ``gateways`` and ``size``

    def __post_init__(self) -> None:
        if not self.written:
            object.__setattr__(self, "written", self.ranges)

    @property
    def family(self) -> int:
        return self.written[0].family


def subnet(part: Range) -> str:
    """A range's subnet, ``network/prefixlen``."""
    return f"{to_text(part.family, part.network)}/{part.prefixlen}"


def describe(ranges: RangeSet) -> str:
    """A set as text for a message: the subnet and bounds of its first ranges."""
    shown = [
        f"{subnet(part)} ({to_text(part.family, part.first)} to {to_text(part.family, part.last)})"
        for part in ranges.written[:_DESCRIBED]
    ]
    more = len(ranges.written) - len(shown)
    text = ", ".join(shown + [f"{more} more"] * (more > 0))
    return text if ranges.ranges == ranges.written else f"{text}, less what is excluded or reserved"


def describe_all(sets: Sequence[RangeSet]) -> str:
    """The first sets as text for a message."""
    return "; ".join(describe(range_set) for range_set in sets[:_DESCRIBED])


def gateways(ranges: RangeSet) -> frozenset[int]:
    """The gateways of all ranges of a set, as integers of its family. No range of the set hands one out.

    The gateway of a wholly excluded range is included: containers with an address in it still use the gateway.
    """
    if "gateways" not in ranges.known:
        addresses = (from_text(part.gateway) for part in ranges.written)
        ranges.known["gateways"] = frozenset(value for family, value in addresses if family == ranges.family)
    found: frozenset[int] = ranges.known["gateways"]
    return found


def size(ranges: RangeSet) -> int:
    """Number of addresses that a set can hand out, without its gateways."""
    if "size" not in ranges.known:
        spans = sorted((part.first, part.last) for part in ranges.ranges)
        inside = sum(locate(spans, value) is not None for value in gateways(ranges))
        ranges.known["size"] = total(spans) - inside
    found: int = ranges.known["size"]
    return found


def contains(ranges: RangeSet, family: int, value: int) -> bool:
    """Whether an address lies in a range and is not excluded. A gateway may lie in a range."""
    return _containing(ranges.ranges, family, value) is not None


def among(ranges: RangeSet, names: Iterable[str]) -> int:
    """Number of the names that are addresses of a set. Other names are skipped."""
    return sum(contains(ranges, ranges.family, value) for value in values(names, ranges.family))


def origin(ranges: RangeSet, family: int, value: int) -> Range | None:
    """The configured range that contains an address, whether or not the address is excluded; None if no range does."""
    return _containing(ranges.written, family, value)


def _containing(parts: Iterable[Range], family: int, value: int) -> Range | None:
    return next((part for part in parts if part.family == family and part.first <= value <= part.last), None)


def candidates(ranges: RangeSet, after: int | None, wrap: bool, used: Sequence[Span] = ()) -> Iterator[int]:
    """Every address to try, in order: from the one after ``after``, range by range, without gateways.

    Lazy, so that the caller can stop after too many taken addresses and read all leases at once instead.

    :param after: the last address handed out; it may be excluded since. Without it, or if no range contains it, begin
        at the first range.
    :param wrap: continue at the first range, up to and including ``after``.
    :param used: addresses to leave out, sorted and disjoint.
    """
    skip = gateways(ranges)
    spans = [(part.first, part.last) for part in ranges.written]
    left = without(sorted((part.first, part.last) for part in ranges.ranges), used)
    index = next((at for at, (first, last) in enumerate(spans) if after is not None and first <= after <= last), None)
    if index is not None and after is not None:
        first, last = spans[index]
        wrapped = [*spans[:index], (first, after)] if wrap else []
        spans = [(after + 1, last), *spans[index + 1:], *wrapped]
    for first, last in spans:
        for low, high in meeting(left, first, last):
            yield from (value for value in range(max(low, first), min(high, last) + 1) if value not in skip)
