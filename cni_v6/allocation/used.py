"""The addresses that sets without reuse have used, and the next one in order. Pure.

``UsedAddresses`` holds every address that may have been handed out, whatever the configuration was then. It still holds
them after a range is edited, sets change their order, or a subnet is removed and added again. Intervals hold
sequential and requested addresses, random orders (``permutation``) hold the others.

Addresses are reserved ahead, a chunk at a time, so that the store syncs once a chunk. The rest of a chunk is *open*. It
needs no sync: to forget it only skips the rest of the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from cni_v6.allocation import ranges
from cni_v6.allocation.permutation import KEY_BYTES, Shuffle
from cni_v6.allocation.ranges import RangeSet
from cni_v6.errors import ADDRESSES_EXHAUSTED, CniError
from cni_v6.net import intervals as intervals
from cni_v6.net.addresses import BITS
from cni_v6.net.intervals import Span
from cni_v6.values import dataclass

CHUNK = 4096  # addresses of a large set that one fsync reserves: a power failure loses 1 in 2^20 of the smallest one
SHARE = 20  # bits: a chunk is at most 1 / 2^20 of its set
RATE = 4096  # addresses per second skipped for the age of an old copy of the state; many times what a node can use
SKIPPED = 44  # bits: at most 1 / 2^44 of the set is skipped per second, so that a small set is not used up by it


@dataclass(frozen=True, slots=True)
class RandomOrder:
    """The addresses of some spans in random order.

    Addresses before position ``next`` were handed out; those before ``to`` are reserved. After a reboot ``next`` is
    ``to``, because the number handed out is not known.
    """

    key: bytes
    spans: tuple[Span, ...]
    next: int = 0
    to: int = 0

    @property
    def size(self) -> int:
        """Number of addresses in all spans."""
        return intervals.total(self.spans)

    def address(self, place: int) -> int:
        """The address at a position of the order."""
        return intervals.nth(self.spans, Shuffle(self.key, self.size).at(place))

    def place(self, address: int) -> int | None:
        """The position of an address in the order; None if no span contains it."""
        number = intervals.place(self.spans, address)
        return None if number is None else Shuffle(self.key, self.size).place(number)

    def has_given(self, address: int) -> bool:
        """Whether an address has been handed out, or may have been."""
        place = self.place(address) if self.next else None
        return place is not None and place < self.next


@dataclass(frozen=True, slots=True)
class UsedAddresses:
    """Addresses that were, or may have been, handed out.

    These are ``intervals`` without ``open``, and the handed-out part of each random order in ``draws``. ``intervals``
    and ``open`` are sorted and disjoint; ``open`` lies within ``intervals``. ``at``: when it was written, in seconds
    since the epoch. ``gap``: seconds between that write and this boot, or this copy of the file; what was handed out in
    them is not known. ``settled``: first addresses of the sets that have skipped ahead for the gap (``settle``).
    """

    intervals: tuple[Span, ...] = ()
    open: tuple[Span, ...] = ()
    draws: tuple[RandomOrder, ...] = ()
    at: float = 0.0
    gap: int = 0
    settled: tuple[int, ...] = ()

    def covers(self, first: int, last: int) -> bool:
        """Whether all addresses from ``first`` to ``last`` are in one interval, open or not."""
        return any(low <= first and last <= high for low, high in self.intervals)

    def touches(self, first: int, last: int) -> bool:
        """Whether any address from ``first`` to ``last`` is in an interval."""
        return bool(intervals.meeting(self.intervals, first, last))

    def has(self, address: int) -> bool:
        """Whether an address was handed out, or may have been."""
        closed = self.covers(address, address) and not intervals.meeting(self.open, address, address)
        return closed or self.used_at_random(address)

    def used_at_random(self, address: int) -> bool:
        """Whether a random order has handed out an address."""
        return any(order.has_given(address) for order in self.draws)

    def free(self, first: int, last: int) -> list[Span]:
        """Spans from ``first`` to ``last`` that are outside the intervals or open, sorted. Ignores random orders."""
        gaps = intervals.without([(first, last)], self.intervals)
        opened = [(max(low, first), min(high, last)) for low, high in intervals.meeting(self.open, first, last)]
        return sorted(gaps + opened)

    def add(self, first: int, last: int) -> UsedAddresses:
        """Mark all addresses from ``first`` to ``last`` used, none of them open."""
        left = intervals.without(self.open, [(first, last)])
        return replace(self, intervals=intervals.merged((*self.intervals, (first, last))), open=tuple(left))

    def advance(self, first: int, address: int, last: int, chunk: int = CHUNK) -> UsedAddresses:
        """Hand out an address of a range: mark the range used up to it, and reserve a chunk after it if needed."""
        if self.covers(first, address):
            return self.add(first, address)
        beyond = [high for low, high in self.free(address, last) if low <= address <= high]
        end = min(address + chunk - 1, *beyond)
        after = self.add(first, end)
        return after if end == address else replace(after, open=intervals.merged((*after.open, (address + 1, end))))

    def written(self, now: float) -> UsedAddresses:
        """The same addresses, with ``now`` as the time of writing."""
        return replace(self, at=now)

    def durable(self) -> tuple[object, ...]:
        """The part that must be on the disk before an address is handed out."""
        return self.intervals, tuple((order.key, order.spans, order.to) for order in self.draws)


def chunk(addresses: RangeSet) -> int:
    """Number of addresses of a set that are reserved at a time."""
    return max(1, min(CHUNK, ranges.size(addresses) >> SHARE))


def ring(addresses: RangeSet, last: int | None, excluded: tuple[Span, ...]) -> Iterator[int]:
    """Candidates of a set with reuse: once around, starting after the address handed out last."""
    return ranges.candidates(addresses, last, True, excluded)


def ahead(addresses: RangeSet, used: UsedAddresses, in_round: tuple[Span, ...] = ()) -> Iterator[int]:
    """Candidates in sequence: addresses that were never handed out, range by range.

    :param in_round: addresses that the set handed out while its addresses were reused.
    """
    skip = ranges.gateways(addresses)
    for part in addresses.ranges:
        for low, high in intervals.without(used.free(part.first, part.last), in_round):
            yield from (value for value in range(low, high + 1) if value not in skip and not used.used_at_random(value))


def adopt(used: UsedAddresses, addresses: RangeSet, last: int | None) -> UsedAddresses:
    """Take over the progress of the reference plugin: the address in its cursor file.

    A used address in the cursor was written by us, or the cursor was moved back; it says nothing new. If nothing is
    known of the set, the reference plugin has worked alone, in the order of the ranges. Then the ranges before the
    cursor are used too. The reference plugin ignores ``ipam.exclude``, so it may have handed out excluded addresses.

    :param last: the address in the cursor file, None if there is none.
    """
    cursor_range = None if last is None else ranges.origin(addresses, addresses.family, last)
    if last is None or cursor_range is None:
        return used
    if not any(used.touches(part.first, part.last) for part in addresses.written):
        for part in addresses.written[:addresses.written.index(cursor_range)]:
            used = used.add(part.first, part.last)
    ours = used.covers(last, last) and not any(low <= last <= high for low, high in used.open)
    return used if ours else used.add(cursor_range.first, last)


def settle(used: UsedAddresses, addresses: RangeSet) -> UsedAddresses:
    """Skip what may have been handed out during ``UsedAddresses.gap``, as far as the size of the set allows.

    The state may be an old copy: restored from a backup, or on a disk that was reset to an earlier state.
    """
    start = addresses.written[0].first
    if start in used.settled:
        return used
    skip = used.gap * min(RATE, ranges.size(addresses) >> SKIPPED)
    after = replace(used, settled=(*used.settled, start))
    if not skip:
        return after
    for part in addresses.written:
        for _, high in intervals.meeting(used.intervals, part.first, part.last):
            if high < part.last:
                after = after.add(high + 1, min(part.last, high + skip))
    draws = (replace(order, next=(to := min(order.size, order.to + skip)), to=to) for order in after.draws)
    return replace(after, draws=tuple(draws))


def advance(used: UsedAddresses, addresses: RangeSet, address: int) -> UsedAddresses:
    """Hand out an address of a set in sequence: mark it and all addresses before it used."""
    index = next(i for i, part in enumerate(addresses.ranges) if part.first <= address <= part.last)
    for part in addresses.ranges[:index]:
        if used.free(part.first, part.last):
            used = used.add(part.first, part.last)
    current = addresses.ranges[index]
    return used.advance(current.first, address, current.last, chunk(addresses))


def draw(
    used: UsedAddresses,
    addresses: RangeSet,
    in_round: tuple[Span, ...],
    first_free: Callable[[Iterator[int]], int | None],
    entropy: Callable[[int], bytes],
) -> tuple[UsedAddresses, int | None]:
    """The used addresses after the choice, and the next free address of the set's random order; None if none is left.

    :param in_round: as in ``ahead``.
    :param entropy: returns the given number of random bytes.
    """
    spans = _spans(addresses)
    known = next((order for order in used.draws if order.spans == spans), None)
    mine = known or RandomOrder(entropy(KEY_BYTES), spans)
    others = replace(used, draws=tuple(order for order in used.draws if order is not known))
    skip = ranges.gateways(addresses)
    passed = [mine.next]

    def candidates() -> Iterator[int]:
        for place in range(mine.next, mine.size):
            passed[0] = place + 1
            value = mine.address(place)
            if value not in skip and not others.has(value) and not intervals.meeting(in_round, value, value):
                yield value

    value = first_free(candidates())
    to = mine.to if passed[0] <= mine.to else min(mine.size, passed[0] + chunk(addresses) - 1)
    return replace(others, draws=(*others.draws, replace(mine, next=passed[0], to=to))), value


def block(
    used: UsedAddresses, addresses: RangeSet, length: int, in_round: tuple[Span, ...]
) -> tuple[UsedAddresses, int | None]:
    """The used addresses after the choice, and the first address of the next prefix with no used address.

    Ranges with a random order are skipped: whether a prefix of them is free could be tested only address by address.

    :param length: of the prefix.
    :param in_round: as in ``ahead``.
    """
    size = 1 << BITS[addresses.family] - length
    skip = ranges.gateways(addresses)
    for part in addresses.ranges:
        at_random = any(intervals.meeting(order.spans, part.first, part.last) for order in used.draws)
        for low, high in [] if at_random else intervals.without(used.free(part.first, part.last), in_round):
            first = -(-low // size) * size
            while first + size - 1 <= high and any(first <= value < first + size for value in skip):
                first += size
            if first + size - 1 <= high:
                return used.add(first, first + size - 1), first
    return used, None


def count(used: UsedAddresses, addresses: RangeSet) -> int:
    """Number of used addresses of a set, without its gateways."""
    skip = ranges.gateways(addresses)
    total = 0
    for part in addresses.ranges:
        closed = intervals.without([(part.first, part.last)], tuple(used.free(part.first, part.last)))
        total += sum(high - low + 1 - sum(low <= value <= high for value in skip) for low, high in closed)
    spans = _spans(addresses)
    return total + sum(order.next for order in used.draws if order.spans == spans)


def exhausted(addresses: RangeSet, taken: int, *, once: bool) -> CniError:
    """The error for a set with no address left.

    :param taken: number of its addresses that are leased.
    :param once: whether the set hands out no address twice.
    """
    text = ranges.describe(addresses)
    total = ranges.size(addresses)
    if once:
        return CniError(ADDRESSES_EXHAUSTED, f"no unused address in {text}: {total} in all, {taken} taken, rest spent",
                        'this set hands no address out twice: add a range to it, or set ipam.reuse to "after"')
    return CniError(ADDRESSES_EXHAUSTED, f"no free address in {text}: {total} in all, {taken} taken",
                    "add a range, or free what is left over: GC, or DEL for containers that are gone")


def no_block(addresses: RangeSet, length: int) -> CniError:
    """The error for a set that has no unused prefix of a length left."""
    return CniError(ADDRESSES_EXHAUSTED, f"no unused /{length} in {ranges.describe(addresses)}",
                    "no prefix is handed out twice, and none where addresses are or were handed out at random: add a "
                    "range to the set, or delegate longer prefixes")


def _spans(addresses: RangeSet) -> tuple[Span, ...]:
    return intervals.merged((part.first, part.last) for part in addresses.ranges)
