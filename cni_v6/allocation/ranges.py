"""Ranges of addresses, and the order in which their addresses are tried.

Arithmetic on first and last address alone: a /48 costs what a /122 costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cni_v6.net.addresses import from_text, to_text, values
from cni_v6.net.intervals import Span, locate, meeting, total, without

LARGE = 2**32  # a set of this size or more is not begun again at its end: no address of it is used twice

KEPT = 128  # sets of which an answer is remembered: each is asked many times in an ADD
_DESCRIBED = 4  # ranges of a set, and sets, that a message names


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


def contains(ranges: RangeSet, family: int, value: int) -> bool:
    """Whether an address lies in one of the ranges and is not excluded; a gateway may."""
    return _holder(ranges.ranges, family, value) is not None


def among(ranges: RangeSet, names: Iterable[str]) -> int:
    """How many of some names are those of a set's addresses; others are addresses of other sets, or none."""
    return sum(contains(ranges, ranges.family, value) for value in values(names, ranges.family))


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
