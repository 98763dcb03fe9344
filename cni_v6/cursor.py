"""In which order a set's free addresses are handed out, and what a large set has spent. Pure.

A small set goes round and round from the address last handed out. A large one (``ranges.LARGE``) hands nothing out
twice: ``Spent`` holds the intervals that may have been handed out, whatever the configuration looked like then, so an
edited range, another order of the sets or a subnet that went and came back all find what was used before.

Intervals are reserved ahead, ``CHUNK`` addresses at a time, so that the store pays for durability once a chunk. What is
left of a chunk is *open*; that needs no durability, since forgetting it only skips the rest of the chunk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cni_v6 import ranges
from cni_v6.errors import ADDRESSES_EXHAUSTED, CniError
from cni_v6.ranges import RangeSet, Span

CHUNK = 4096  # addresses reserved by one fsync: 1 in 2^20 of the smallest large set is lost by a power failure
OPEN_WIDTH = 256  # the file keeps its length from one address to the next, so that it can be overwritten in place
LARGE_FAMILY = 6  # all of IPv4 has 2^32 addresses, two of which are no host's: no set of it is large


@dataclass(frozen=True, slots=True)
class Spent:
    """Addresses that were, or may have been, handed out: ``intervals``, but for what is still ``open`` in them.

    Both are sorted and disjoint; ``open`` lies within ``intervals``.
    """

    intervals: tuple[Span, ...] = ()
    open: tuple[Span, ...] = ()

    def covers(self, first: int, last: int) -> bool:
        """Whether all of it is in the intervals, open or not."""
        return any(low <= first and last <= high for low, high in self.intervals)

    def touches(self, first: int, last: int) -> bool:
        """Whether any of it is in the intervals."""
        return any(low <= last and first <= high for low, high in self.intervals)

    def free(self, first: int, last: int) -> list[Span]:
        """What may still be handed out between two addresses, in order."""
        gaps = ranges.without([(first, last)], self.intervals)
        opened = [(max(low, first), min(high, last)) for low, high in ranges.meeting(self.open, first, last)]
        return sorted(gaps + opened)

    def add(self, first: int, last: int) -> Spent:
        """Everything between two addresses is spent, none of it open."""
        return Spent(ranges.merged((*self.intervals, (first, last))), tuple(ranges.without(self.open, [(first, last)])))

    def advance(self, first: int, address: int, last: int) -> Spent:
        """Hand out an address of a range: the range is spent up to it, and a chunk beyond reserved where needed."""
        if self.covers(first, address):
            return self.add(first, address)
        beyond = [high for low, high in self.free(address, last) if low <= address <= high]
        end = min(address + CHUNK - 1, *beyond)
        after = self.add(first, end)
        return after if end == address else replace(after, open=ranges.merged((*after.open, (address + 1, end))))


def is_large(addresses: RangeSet) -> bool:
    """Whether the set can afford to hand no address out twice."""
    return ranges.size(addresses) >= ranges.LARGE


def ring(addresses: RangeSet, last: int | None) -> Iterator[int]:
    """Candidates of a small set: once around, beginning behind the address handed out last."""
    return ranges.candidates(addresses, last, True)


def ahead(addresses: RangeSet, spent: Spent) -> Iterator[int]:
    """Candidates of a large set: what was never handed out, range by range."""
    skip = ranges.gateways(addresses)
    for part in addresses.ranges:
        for low, high in spent.free(part.first, part.last):
            yield from (value for value in range(low, high + 1) if value not in skip)


def adopt(spent: Spent, addresses: RangeSet, last: int | None) -> Spent:
    """Take into account how far the reference plugin went: the address its cursor stands on.

    A cursor within what is spent is ours, or was moved back, and says nothing new. In a set that nothing is known of
    the reference plugin has worked alone, in the order of the ranges, so what precedes its cursor is spent too. It
    knows no ``ipam.exclude``: it may have handed out what is excluded.
    """
    here = None if last is None else ranges.origin(addresses, addresses.family, last)
    if last is None or here is None:
        return spent
    if not any(spent.touches(part.first, part.last) for part in addresses.written):
        for part in addresses.written[:addresses.written.index(here)]:
            spent = spent.add(part.first, part.last)
    ours = spent.covers(last, last) and not any(low <= last <= high for low, high in spent.open)
    return spent if ours else spent.add(here.first, last)


def advance(spent: Spent, addresses: RangeSet, address: int) -> Spent:
    """Hand an address of a large set out: it, and whatever was passed over on the way to it, is spent."""
    index = next(i for i, part in enumerate(addresses.ranges) if part.first <= address <= part.last)
    for part in addresses.ranges[:index]:
        if spent.free(part.first, part.last):
            spent = spent.add(part.first, part.last)
    here = addresses.ranges[index]
    return spent.advance(here.first, address, here.last)


def exhausted(addresses: RangeSet, leased: Iterable[str]) -> CniError:
    """The error of a set with nothing left.

    :param leased: the addresses that are leased, of any set, and names that are no addresses.
    """
    taken = sum(_is_in(addresses, name) for name in leased)
    text = ranges.describe(addresses)
    total = ranges.size(addresses)
    if is_large(addresses):
        return CniError(ADDRESSES_EXHAUSTED, f"no unused address in {text}: {total} in all, {taken} taken, rest spent",
                        "a set of this size hands no address out twice: add a range to it")
    return CniError(ADDRESSES_EXHAUSTED, f"no free address in {text}: {total} in all, {taken} taken",
                    "add a range, or free what is left over: GC, or DEL for containers that are gone")


def encode_spent(spent: Spent) -> bytes:
    """What has to survive a power failure."""
    return json.dumps({"spent": _to_texts(spent.intervals)}).encode() + b"\n"


def encode_open(spent: Spent, boot: str) -> bytes:
    """What is worth nothing after a power failure, and says so by the boot id."""
    text = json.dumps({"boot": boot, "open": _to_texts(spent.open)}).encode()
    return text + b" " * (-len(text) % OPEN_WIDTH)


def decode(content: bytes, opened: bytes, boot: str) -> Spent:
    """Read both back.

    :param opened: may be anything; only what was written in this boot is believed.
    :raises ValueError: ``content`` is damaged.
    """
    try:
        intervals = _from_texts(json.loads(content)["spent"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    spent = Spent(ranges.merged(intervals))
    try:
        raw = json.loads(opened)
        left = ranges.merged(_from_texts(raw["open"])) if raw["boot"] == boot else ()
    except (ValueError, KeyError, TypeError, RecursionError):
        return spent
    return replace(spent, open=tuple(part for part in left if spent.covers(*part)))


def _is_in(addresses: RangeSet, name: str) -> bool:
    try:
        return ranges.contains(addresses, *ranges.from_text(name))
    except ValueError:
        return False


def _to_texts(intervals: tuple[Span, ...]) -> list[tuple[str, str]]:
    return [(ranges.to_text(LARGE_FAMILY, first), ranges.to_text(LARGE_FAMILY, last)) for first, last in intervals]


def _from_texts(texts: Iterable[tuple[str, str]]) -> tuple[Span, ...]:
    intervals = []
    for first, last in texts:
        low, high = ranges.from_text(first), ranges.from_text(last)
        if {low[0], high[0]} != {LARGE_FAMILY} or low[1] > high[1]:
            raise ValueError(f"{first} to {last}")
        intervals.append((low[1], high[1]))
    return tuple(intervals)
