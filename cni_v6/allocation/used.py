"""The addresses that sets without reuse have used, and the next one in order. Pure.

``UsedAddresses`` holds every address that may have been handed out, whatever the configuration was then. So an edited
range, another order of the sets, or a subnet that went and came back find what was used before. It holds intervals for
addresses in sequence and requested ones, and random orders (``permutation``).

Both are reserved ahead, a chunk of addresses at a time, so that the store pays for durability once a chunk. What is
left of a chunk is *open*; that needs no durability, since forgetting it only skips the rest of the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cni_v6.allocation import ranges
from cni_v6.allocation.permutation import KEY_BYTES, Shuffle
from cni_v6.allocation.ranges import RangeSet
from cni_v6.errors import ADDRESSES_EXHAUSTED, CniError
from cni_v6.net import intervals as intervals
from cni_v6.net.addresses import BITS
from cni_v6.net.intervals import Span

CHUNK = 4096  # addresses reserved by one fsync, of a large set: a power failure loses 1 in 2^20 of the smallest
SHARE = 20  # bits: no chunk is more than this part of its set
RATE = 4096  # addresses a second that a node may have spent since an old copy of its account, many times what it can
SKIPPED = 44  # bits: and no more than this part of the set, so that small ones are not spent by looking away


@dataclass(frozen=True, slots=True)
class RandomOrder:
    """The addresses of some spans in a random order: those before place ``next`` were handed out, ``to`` is reserved.

    Of a boot that is not believed, ``next`` is ``to``.
    """

    key: bytes
    spans: tuple[Span, ...]
    next: int = 0
    to: int = 0

    @property
    def size(self) -> int:
        """How many addresses there are in all."""
        return intervals.total(self.spans)

    def address(self, place: int) -> int:
        """The address at a place of the order."""
        return intervals.nth(self.spans, Shuffle(self.key, self.size).at(place))

    def place(self, address: int) -> int | None:
        """Where an address stands in the order; None where it is none of them."""
        number = intervals.place(self.spans, address)
        return None if number is None else Shuffle(self.key, self.size).place(number)

    def has_given(self, address: int) -> bool:
        """Whether an address has been handed out, or may have been."""
        place = self.place(address) if self.next else None
        return place is not None and place < self.next


@dataclass(frozen=True, slots=True)
class UsedAddresses:
    """Addresses that were, or may have been, handed out: ``intervals``, but for what is still ``open`` in them, and
    those that ``draws`` have given.

    Both lists are sorted and disjoint; ``open`` lies within ``intervals``. ``at``: when it was written, in seconds
    since the epoch. ``gap``: seconds before this boot, or this copy of the account, of which nothing is known;
    ``settled``: first addresses of the sets that have gone on behind all that can have been handed out in them.
    """

    intervals: tuple[Span, ...] = ()
    open: tuple[Span, ...] = ()
    draws: tuple[RandomOrder, ...] = ()
    at: float = 0.0
    gap: int = 0
    settled: tuple[int, ...] = ()

    def covers(self, first: int, last: int) -> bool:
        """Whether all of it is in the intervals, open or not."""
        return any(low <= first and last <= high for low, high in self.intervals)

    def touches(self, first: int, last: int) -> bool:
        """Whether any of it is in the intervals."""
        return bool(intervals.meeting(self.intervals, first, last))

    def has(self, address: int) -> bool:
        """Whether an address was handed out, or may have been."""
        closed = self.covers(address, address) and not intervals.meeting(self.open, address, address)
        return closed or self.drawn(address)

    def drawn(self, address: int) -> bool:
        """Whether a draw has given it."""
        return any(each.has_given(address) for each in self.draws)

    def free(self, first: int, last: int) -> list[Span]:
        """What of the intervals may still be handed out between two addresses, in order."""
        gaps = intervals.without([(first, last)], self.intervals)
        opened = [(max(low, first), min(high, last)) for low, high in intervals.meeting(self.open, first, last)]
        return sorted(gaps + opened)

    def add(self, first: int, last: int) -> UsedAddresses:
        """Everything between two addresses is spent, none of it open."""
        left = intervals.without(self.open, [(first, last)])
        return replace(self, intervals=intervals.merged((*self.intervals, (first, last))), open=tuple(left))

    def advance(self, first: int, address: int, last: int, chunk: int = CHUNK) -> UsedAddresses:
        """Hand out an address of a range: the range is spent up to it, and a chunk beyond reserved where needed."""
        if self.covers(first, address):
            return self.add(first, address)
        beyond = [high for low, high in self.free(address, last) if low <= address <= high]
        end = min(address + chunk - 1, *beyond)
        after = self.add(first, end)
        return after if end == address else replace(after, open=intervals.merged((*after.open, (address + 1, end))))

    def written(self, now: float) -> UsedAddresses:
        """The same, as of now."""
        return replace(self, at=now)

    def durable(self) -> tuple[object, ...]:
        """What has to be on the disk before an address is handed out."""
        return self.intervals, tuple((each.key, each.spans, each.to) for each in self.draws)


def chunk(addresses: RangeSet) -> int:
    """How many addresses of a set are reserved at a time."""
    return max(1, min(CHUNK, ranges.size(addresses) >> SHARE))


def ring(addresses: RangeSet, last: int | None, used: tuple[Span, ...]) -> Iterator[int]:
    """Candidates of a set that goes round: once around, from the one behind the address handed out last."""
    return ranges.candidates(addresses, last, True, used)


def ahead(addresses: RangeSet, spent: UsedAddresses, used: tuple[Span, ...] = ()) -> Iterator[int]:
    """Candidates in sequence: what was never handed out, range by range.

    :param used: what the set had handed out before its addresses were given once only.
    """
    skip = ranges.gateways(addresses)
    for part in addresses.ranges:
        for low, high in intervals.without(spent.free(part.first, part.last), used):
            yield from (value for value in range(low, high + 1) if value not in skip and not spent.drawn(value))


def adopt(spent: UsedAddresses, addresses: RangeSet, last: int | None) -> UsedAddresses:
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


def settle(spent: UsedAddresses, addresses: RangeSet) -> UsedAddresses:
    """Where the account may be an old copy, restored from a backup or by a disk that was set back: go on behind all
    that can have been handed out since it was written, as far as the set can afford it."""
    start = addresses.written[0].first
    if start in spent.settled:
        return spent
    skip = spent.gap * min(RATE, ranges.size(addresses) >> SKIPPED)
    after = replace(spent, settled=(*spent.settled, start))
    if not skip:
        return after
    for part in addresses.written:
        for _, high in intervals.meeting(spent.intervals, part.first, part.last):
            if high < part.last:
                after = after.add(high + 1, min(part.last, high + skip))
    draws = (replace(each, next=(to := min(each.size, each.to + skip)), to=to) for each in after.draws)
    return replace(after, draws=tuple(draws))


def advance(spent: UsedAddresses, addresses: RangeSet, address: int) -> UsedAddresses:
    """Hand an address of a set out in sequence: it, and whatever was passed over on the way to it, is spent."""
    index = next(i for i, part in enumerate(addresses.ranges) if part.first <= address <= part.last)
    for part in addresses.ranges[:index]:
        if spent.free(part.first, part.last):
            spent = spent.add(part.first, part.last)
    here = addresses.ranges[index]
    return spent.advance(here.first, address, here.last, chunk(addresses))


def draw(
    spent: UsedAddresses,
    addresses: RangeSet,
    used: tuple[Span, ...],
    first_free: Callable[[Iterator[int]], int | None],
    entropy: Callable[[int], bytes],
) -> tuple[UsedAddresses, int | None]:
    """The next address of a set in random order that nobody holds, and what is spent with it; None: there is none.

    :param entropy: as many random bytes as it is asked for.
    """
    spans = _spans(addresses)
    known = next((each for each in spent.draws if each.spans == spans), None)
    mine = known or RandomOrder(entropy(KEY_BYTES), spans)
    others = replace(spent, draws=tuple(each for each in spent.draws if each is not known))
    skip = ranges.gateways(addresses)
    passed = [mine.next]

    def candidates() -> Iterator[int]:
        for place in range(mine.next, mine.size):
            passed[0] = place + 1
            value = mine.address(place)
            if value not in skip and not others.has(value) and not intervals.meeting(used, value, value):
                yield value

    value = first_free(candidates())
    to = mine.to if passed[0] <= mine.to else min(mine.size, passed[0] + chunk(addresses) - 1)
    return replace(others, draws=(*others.draws, replace(mine, next=passed[0], to=to))), value


def block(
    spent: UsedAddresses, addresses: RangeSet, length: int, used: tuple[Span, ...]
) -> tuple[UsedAddresses, int | None]:
    """The next prefix of a length, of which nothing was handed out, as its first address, and what is spent with it.

    A prefix of a set with addresses in random order cannot be told to be free but one address after another.
    """
    size = 1 << BITS[addresses.family] - length
    skip = ranges.gateways(addresses)
    for part in addresses.ranges:
        drawn = any(intervals.meeting(each.spans, part.first, part.last) for each in spent.draws)
        for low, high in [] if drawn else intervals.without(spent.free(part.first, part.last), used):
            first = -(-low // size) * size
            while first + size - 1 <= high and any(first <= value < first + size for value in skip):
                first += size
            if first + size - 1 <= high:
                return spent.add(first, first + size - 1), first
    return spent, None


def count(spent: UsedAddresses, addresses: RangeSet) -> int:
    """How many addresses of a set are spent, those of its gateways not counted."""
    skip = ranges.gateways(addresses)
    total = 0
    for part in addresses.ranges:
        closed = intervals.without([(part.first, part.last)], tuple(spent.free(part.first, part.last)))
        total += sum(high - low + 1 - sum(low <= value <= high for value in skip) for low, high in closed)
    spans = _spans(addresses)
    return total + sum(each.next for each in spent.draws if each.spans == spans)


def exhausted(addresses: RangeSet, taken: int, *, once: bool) -> CniError:
    """The error of a set with nothing left.

    :param taken: how many of its addresses are leased.
    :param once: whether no address of it is given twice.
    """
    text = ranges.describe(addresses)
    total = ranges.size(addresses)
    if once:
        return CniError(ADDRESSES_EXHAUSTED, f"no unused address in {text}: {total} in all, {taken} taken, rest spent",
                        'this set hands no address out twice: add a range to it, or set ipam.reuse to "after"')
    return CniError(ADDRESSES_EXHAUSTED, f"no free address in {text}: {total} in all, {taken} taken",
                    "add a range, or free what is left over: GC, or DEL for containers that are gone")


def no_block(addresses: RangeSet, length: int) -> CniError:
    """The error of a set that has no prefix of a length left."""
    return CniError(ADDRESSES_EXHAUSTED, f"no unused /{length} in {ranges.describe(addresses)}",
                    "no prefix is handed out twice, and none where addresses are or were handed out at random: add a "
                    "range to the set, or delegate longer prefixes")


def _spans(addresses: RangeSet) -> tuple[Span, ...]:
    return intervals.merged((part.first, part.last) for part in addresses.ranges)
