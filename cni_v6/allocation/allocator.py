"""Which address of a set is handed out next. Pure: what is kept of addresses, and who holds which, are arguments.

| ``ipam.reuse`` | order | candidates |
|---|---|---|
| once | sequential | what was never handed out, in sequence (``used.ahead``) |
| once | random | the same, in an order drawn by lot (``used.draw``) |
| again | sequential | what this round has not had, behind the last one; then the oldest of those released |
| again | random | any, drawn by lot, but those released a short time ago |
| again | stable | those that follow from the identity, but others' that were released a short time ago |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from hashlib import blake2b, blake2s
from typing import NamedTuple

from cni_v6.allocation import ranges, used as used_addresses
from cni_v6.allocation.policy import RANDOM, SEQUENTIAL, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.allocation.release_queue import Queue, Released
from cni_v6.allocation.used import UsedAddresses
from cni_v6.net import intervals
from cni_v6.net.addresses import from_text, to_text, values
from cni_v6.net.intervals import Span

PROBES = 64  # of a random or stable order, before all there is is looked at
BACKLOG = 1 << 16  # released addresses that are kept waiting though they need not, so that a round is as long as can be

FindFree = Callable[[Iterator[int]], int | None]  # the first of some addresses that nobody holds


@dataclass(slots=True)
class AllocatorState:
    """What is kept of the addresses of one family of a network.

    ``round``: what the sets that go round have handed out, sorted and disjoint; addresses come again through ``queue``,
    which ``leaving`` and ``joining`` will change. The round is to be written before: an address that is in it and not
    in the queue is one that a record or the next boot accounts for, the other way round it would be given too early.
    """

    spent: UsedAddresses
    round: tuple[Span, ...]
    queue: Queue
    leaving: list[Released] = field(default_factory=list)
    joining: list[Released] = field(default_factory=list)

    def change_queue(self) -> None:
        """Once the round is written.

        :raises CniError: STORE_FAILED.
        """
        for one in self.leaving:
            self.queue.remove(one)
        for one in self.joining:
            self.queue.append(one)
        self.leaving, self.joining = [], []


@dataclass(frozen=True, slots=True)
class AllocatorInput:
    """What a choice depends on besides the books.

    ``last``: the address last handed out in sequence, None where that is not known. ``now``: seconds since the epoch.
    ``first_free`` knows the addresses ``chosen`` before, too. ``entropy``: as many random bytes as it is asked for.
    ``secret``: what stable addresses are derived with.
    """

    last: int | None
    now: float
    first_free: FindFree
    chosen: Set[str]
    entropy: Callable[[int], bytes]
    secret: Callable[[], bytes]


class Chosen(NamedTuple):
    """An address, None where the set has none; whether it was ``waiting`` in the queue; and what an operator should
    hear of it, "" for nothing."""

    value: int | None
    waiting: bool = False
    remark: str = ""


def choose(books: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, given: AllocatorInput) -> Chosen:
    """The address to hand out.

    What is given once is spent with this; of what is given again the books are told by ``enter``, once it is recorded
    whose the address will be. Whoever is killed in between has not lost it.
    """
    if policy.never_reuses(addresses):
        return Chosen(_once(books, addresses, policy, given))
    if policy.order == SEQUENTIAL:
        return _round(books, addresses, policy, given)
    return _probe(books, addresses, policy, given)


def spend(books: AllocatorState, address: int) -> None:
    """An address of a set that gives none twice was asked for: it is given to nobody who has not asked for it."""
    if not books.spent.has(address):
        books.spent = books.spent.add(address, address)


def enter(books: AllocatorState, family: int, address: int, *, waiting: bool, in_round: bool) -> None:
    """An address of a set that gives its addresses again is somebody's: it waits no longer.

    :param waiting: it may be in the queue; as to one that was asked for, nobody knows.
    :param in_round: it is of a set that goes round.
    """
    if waiting and (one := books.queue.find(to_text(family, address))):
        books.leaving.append(one)
    if in_round:
        _add_to_round(books, address)


def give_back(books: AllocatorState, family: int, address: int, *, now: float, identity: str, in_round: bool) -> None:
    """An address of a set that gives its addresses again was released, and is not in the queue.

    :param in_round: it is of a set that goes round.
    """
    books.joining.append(Released(to_text(family, address), now, mark(identity)))
    if in_round:
        _add_to_round(books, address)


def _add_to_round(books: AllocatorState, address: int) -> None:
    if not intervals.meeting(books.round, address, address):
        books.round = intervals.merged((*books.round, (address, address)))


def recover(books: AllocatorState, family: int, leased: Iterable[str], now: float) -> None:
    """Account for addresses of the round that are neither held nor in the queue.

    :param leased: addresses that are held, of any family, and names that are no addresses.
    """
    known = [*values(leased, family), *values((one.address for one in books.queue), family)]
    lost = intervals.without(books.round, intervals.merged((each, each) for each in known))
    if intervals.total(lost) > BACKLOG:
        books.round = tuple(intervals.without(books.round, lost))
        return
    for first, last in lost:
        for value in range(first, last + 1):
            books.joining.append(Released(to_text(family, value), now))


def mark(identity: str) -> str:
    """What tells an identity's own address from others' in the queue."""
    return blake2s(identity.encode(), digest_size=4).hexdigest() if identity else ""


def _once(books: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, given: AllocatorInput) -> int | None:
    spent = used_addresses.settle(used_addresses.adopt(books.spent, addresses, given.last), addresses)
    if policy.order == RANDOM:
        books.spent, value = used_addresses.draw(spent, addresses, books.round, given.first_free, given.entropy)
        return value
    value = given.first_free(used_addresses.ahead(addresses, spent, books.round))
    books.spent = spent if value is None else used_addresses.advance(spent, addresses, value)
    return value


def _closed(spent: UsedAddresses) -> tuple[Span, ...]:
    """What was given once and for all: another order of the same set keeps away from it."""
    return tuple(intervals.without(spent.intervals, spent.open))


def _round(books: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, given: AllocatorInput) -> Chosen:
    if _many(books) and (first := _next_released(books, addresses, policy, given)):
        if given.now - first.time >= policy.wait:
            return Chosen(from_text(first.address)[1], True)
    used = intervals.merged((*books.round, *_closed(books.spent)))
    value = given.first_free(used_addresses.ring(addresses, given.last, used))
    if value is not None:
        return Chosen(value)
    return _oldest(books, addresses, policy, given)


def _many(books: AllocatorState) -> bool:
    """The queue is not looked at before as many addresses have been given at all."""
    return intervals.total(books.round) > BACKLOG and len(books.queue) > BACKLOG


def _oldest(books: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, given: AllocatorInput) -> Chosen:
    first = _next_released(books, addresses, policy, given)
    if first is None:
        return Chosen(None)
    age = max(0, round(given.now - first.time))
    words = (f"{first.address} was released {age} s ago, less than ipam.reuseAfter ({policy.wait:g} s), and there is "
             f"no other free address in {ranges.describe(addresses)}: add a range")
    return Chosen(from_text(first.address)[1], True, words if given.now - first.time < policy.wait else "")


def _next_released(
    books: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, given: AllocatorInput
) -> Released | None:
    """The oldest of a set's. What is met on the way and waits for nothing any more is forgotten: what somebody took out
    of turn, and what is of another set, or of none since the ranges were edited, and has waited long enough."""
    past: list[Released] = []
    found = None
    skip = ranges.gateways(addresses)
    for one in books.queue:
        value = from_text(one.address)[1]
        ours = value not in skip and ranges.contains(addresses, addresses.family, value)
        if ours and given.first_free(iter((value,))) is not None:
            found = one
            break
        if one.address not in given.chosen if ours else given.now - one.time >= policy.wait:
            past.append(one)
    for one in past:
        _forget(books, one)
    return found


def _forget(books: AllocatorState, one: Released) -> None:
    """Out of the queue, and as if the round had not had it."""
    books.leaving.append(one)
    value = from_text(one.address)[1]
    if intervals.meeting(books.round, value, value):
        books.round = tuple(intervals.without(books.round, [(value, value)]))


def _probe(books: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, given: AllocatorInput) -> Chosen:
    _forget_old(books, policy, given)
    own = mark(policy.identity)
    skip = ranges.gateways(addresses)
    value = None
    for value in _probes(addresses, policy, given):
        if value in skip or not ranges.contains(addresses, addresses.family, value) or books.spent.has(value):
            continue
        if given.first_free(iter((value,))) is None:
            continue
        waiting = books.queue.find(to_text(addresses.family, value))
        ripe = waiting and (given.now - waiting.time >= policy.wait or (own and waiting.mark == own))
        if waiting is None or ripe:
            return Chosen(value, waiting is not None)
    waits = {from_text(one.address)[1] for one in books.queue}
    used = intervals.merged((*((each, each) for each in waits), *_closed(books.spent)))
    free = (each for each in used_addresses.ring(addresses, value, used) if not books.spent.drawn(each))
    found = given.first_free(free)
    return Chosen(found) if found is not None else _oldest(books, addresses, policy, given)


def _forget_old(books: AllocatorState, policy: AllocationPolicy, given: AllocatorInput) -> None:
    """Those that have waited long enough: without a round nobody asks for them."""
    old: list[Released] = []
    for one in books.queue:
        if given.now - one.time < policy.wait:
            break
        old.append(one)
    for one in old:
        _forget(books, one)


def _probes(addresses: RangeSet, policy: AllocationPolicy, given: AllocatorInput) -> Iterator[int]:
    spans = intervals.merged((part.first, part.last) for part in addresses.written)
    size = intervals.total(spans)
    prefix = ranges.subnet(addresses.written[0])
    secret = given.secret() if policy.order == STABLE else b""
    for counter in range(PROBES):
        number = (_derived(secret, prefix, policy.identity, counter) if policy.order == STABLE
                  else int.from_bytes(given.entropy(32), "big")) % size  # 256 bits: no bias that could be seen
        yield intervals.nth(spans, number)


def _derived(secret: bytes, prefix: str, identity: str, counter: int) -> int:
    """RFC 7217, section 5: of the prefix, the workload and its interface, how often there was a collision, a secret."""
    content = b"".join(len(word).to_bytes(2, "big") + word for word in (prefix.encode(), identity.encode()))
    digest = blake2b(content + counter.to_bytes(2, "big"), key=secret[:64], digest_size=32).digest()
    return int.from_bytes(digest, "big")
