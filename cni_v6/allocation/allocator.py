"""Chooses the next address of a range set. Pure: the allocator state and the leases are arguments.

| reuse of addresses | order | candidates |
|---|---|---|
| never | sequential | addresses never handed out, in sequence (``used.ahead``) |
| never | random | addresses never handed out, in random order (``used.draw``) |
| yes | sequential | addresses not yet handed out in this round, after the last one; then the oldest released one |
| yes | random | random addresses, except those released a short time ago |
| yes | stable | addresses derived from the identity, except those another identity released a short time ago |
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

PROBES = 64  # random or derived addresses to try before a scan of the whole set
BACKLOG = 1 << 16  # released addresses kept in the queue longer than ``wait`` demands, so that a round is long

FindFree = Callable[[Iterator[int]], int | None]  # returns the first candidate that nobody holds


@dataclass(slots=True)
class AllocatorState:
    """The allocator's state of one address family of a network.

    ``used``: addresses that are never handed out again. ``round``: addresses that sequential sets with reuse have
    handed out in this round, sorted and disjoint. They are reused through ``queue``. ``leaving`` and ``joining`` are
    changes of the queue that ``change_queue`` applies.

    Write the round before the queue. After a crash, an address in the round but not in the queue is recovered from its
    record or at the next boot. In the other order it could be reused before ``reuseAfter``.
    """

    used: UsedAddresses
    round: tuple[Span, ...]
    queue: Queue
    leaving: list[Released] = field(default_factory=list)
    joining: list[Released] = field(default_factory=list)

    def change_queue(self) -> None:
        """Apply ``leaving`` and ``joining`` to the queue. Call it after the round is written.

        :raises CniError: STORE_FAILED.
        """
        for entry in self.leaving:
            self.queue.remove(entry)
        for entry in self.joining:
            self.queue.append(entry)
        self.leaving, self.joining = [], []


@dataclass(frozen=True, slots=True)
class AllocatorInput:
    """What a choice depends on besides the allocator state.

    ``last``: the address last handed out in sequence, None if it is not known. ``now``: seconds since the epoch.
    ``first_free``: also excludes the addresses in ``chosen``. ``chosen``: addresses that this transaction has chosen
    but not leased yet. ``entropy``: returns the given number of random bytes. ``secret``: returns the secret key of
    stable addresses.
    """

    last: int | None
    now: float
    first_free: FindFree
    chosen: Set[str]
    entropy: Callable[[int], bytes]
    secret: Callable[[], bytes]


class Chosen(NamedTuple):
    """The outcome of a choice.

    ``value``: the address, None if the set has no free one. ``waiting``: it was in the queue of released addresses.
    ``remark``: a sentence for the operator, "" for none.
    """

    value: int | None
    waiting: bool = False
    remark: str = ""


def choose(state: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, inputs: AllocatorInput) -> Chosen:
    """The address to hand out.

    A set without reuse marks the address used here. A set with reuse leaves the state to ``mark_held``, which the
    caller calls after it has recorded the new holder. A process killed in between does not lose the address.
    """
    if policy.never_reuses(addresses):
        return Chosen(_choose_unused(state, addresses, policy, inputs))
    if policy.order == SEQUENTIAL:
        return _choose_in_round(state, addresses, policy, inputs)
    return _choose_by_probing(state, addresses, policy, inputs)


def mark_used(state: AllocatorState, address: int) -> None:
    """Mark a requested address of a set without reuse as used: only a later request for it can get it again."""
    if not state.used.has(address):
        state.used = state.used.add(address, address)


def mark_held(state: AllocatorState, family: int, address: int, *, waiting: bool, in_round: bool) -> None:
    """Note that an address of a set with reuse has a holder: it leaves the queue.

    :param waiting: the address may be in the queue. That is not known of a requested address.
    :param in_round: the set is sequential, so the address belongs to its round.
    """
    if waiting and (entry := state.queue.find(to_text(family, address))):
        state.leaving.append(entry)
    if in_round:
        _add_to_round(state, address)


def release(state: AllocatorState, family: int, address: int, *, now: float, identity: str, in_round: bool) -> None:
    """Put a released address of a set with reuse into the queue. It must not be in the queue yet.

    :param in_round: the set is sequential, so the address belongs to its round.
    """
    state.joining.append(Released(to_text(family, address), now, mark(identity)))
    if in_round:
        _add_to_round(state, address)


def _add_to_round(state: AllocatorState, address: int) -> None:
    if not intervals.meeting(state.round, address, address):
        state.round = intervals.merged((*state.round, (address, address)))


def recover(state: AllocatorState, family: int, leased: Iterable[str], now: float) -> None:
    """Recover addresses of the round that are neither held nor in the queue: put them into the queue.

    If there are more than ``BACKLOG``, they leave the round instead, as if it had not handed them out.

    :param leased: held addresses of any family. Names that are not addresses are skipped.
    """
    known = [*values(leased, family), *values((entry.address for entry in state.queue), family)]
    lost = intervals.without(state.round, intervals.merged((value, value) for value in known))
    if intervals.total(lost) > BACKLOG:
        state.round = tuple(intervals.without(state.round, lost))
        return
    for first, last in lost:
        for value in range(first, last + 1):
            state.joining.append(Released(to_text(family, value), now))


def mark(identity: str) -> str:
    """A digest by which an identity recognises its own address in the queue; "" without an identity."""
    return blake2s(identity.encode(), digest_size=4).hexdigest() if identity else ""


def _choose_unused(
    state: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, inputs: AllocatorInput
) -> int | None:
    used = used_addresses.settle(used_addresses.adopt(state.used, addresses, inputs.last), addresses)
    if policy.order == RANDOM:
        state.used, value = used_addresses.draw(used, addresses, state.round, inputs.first_free, inputs.entropy)
        return value
    value = inputs.first_free(used_addresses.ahead(addresses, used, state.round))
    state.used = used if value is None else used_addresses.advance(used, addresses, value)
    return value


def _closed(used: UsedAddresses) -> tuple[Span, ...]:
    """Used addresses that are not open. A set with reuse must avoid them as well."""
    return tuple(intervals.without(used.intervals, used.open))


def _choose_in_round(
    state: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, inputs: AllocatorInput
) -> Chosen:
    # The round is tested first: it is in memory, the queue is a file.
    if intervals.total(state.round) > BACKLOG and len(state.queue) > BACKLOG:
        first = _next_released(state, addresses, policy, inputs)
        if first and inputs.now - first.time >= policy.wait:
            return Chosen(from_text(first.address)[1], True)
    used = intervals.merged((*state.round, *_closed(state.used)))
    value = inputs.first_free(used_addresses.ring(addresses, inputs.last, used))
    if value is not None:
        return Chosen(value)
    return _choose_oldest(state, addresses, policy, inputs)


def _choose_oldest(
    state: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, inputs: AllocatorInput
) -> Chosen:
    """The address that was released first, even if ``reuseAfter`` has not passed."""
    first = _next_released(state, addresses, policy, inputs)
    if first is None:
        return Chosen(None)
    age = max(0, round(inputs.now - first.time))
    words = (f"{first.address} was released {age} s ago, less than ipam.reuseAfter ({policy.wait:g} s), and there is "
             f"no other free address in {ranges.describe(addresses)}: add a range")
    return Chosen(from_text(first.address)[1], True, words if inputs.now - first.time < policy.wait else "")


def _next_released(
    state: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, inputs: AllocatorInput
) -> Released | None:
    """The set's oldest free address in the queue.

    Obsolete entries before it are forgotten: an address of this set that got a holder otherwise, and an address outside
    this set that has waited long enough. The latter is in another set, or in none since the ranges were edited.
    """
    obsolete: list[Released] = []
    oldest = None
    skip = ranges.gateways(addresses)
    for entry in state.queue:
        value = from_text(entry.address)[1]
        ours = value not in skip and ranges.contains(addresses, addresses.family, value)
        if ours and inputs.first_free(iter((value,))) is not None:
            oldest = entry
            break
        if entry.address not in inputs.chosen if ours else inputs.now - entry.time >= policy.wait:
            obsolete.append(entry)
    for entry in obsolete:
        _forget(state, entry)
    return oldest


def _forget(state: AllocatorState, entry: Released) -> None:
    """Remove an entry from the queue, and its address from the round, as if it had not been handed out."""
    state.leaving.append(entry)
    value = from_text(entry.address)[1]
    if intervals.meeting(state.round, value, value):
        state.round = tuple(intervals.without(state.round, [(value, value)]))


def _choose_by_probing(
    state: AllocatorState, addresses: RangeSet, policy: AllocationPolicy, inputs: AllocatorInput
) -> Chosen:
    """Try random or derived addresses; after ``PROBES`` of them, the first free one after the last probe."""
    _forget_old(state, policy, inputs)
    own = mark(policy.identity)
    skip = ranges.gateways(addresses)
    value = None
    for value in _probes(addresses, policy, inputs):
        if value in skip or not ranges.contains(addresses, addresses.family, value) or state.used.has(value):
            continue
        if inputs.first_free(iter((value,))) is None:
            continue
        waiting = state.queue.find(to_text(addresses.family, value))
        ripe = waiting and (inputs.now - waiting.time >= policy.wait or (own and waiting.mark == own))
        if waiting is None or ripe:
            return Chosen(value, waiting is not None)
    queued = {from_text(entry.address)[1] for entry in state.queue}
    used = intervals.merged((*((address, address) for address in queued), *_closed(state.used)))
    ring = used_addresses.ring(addresses, value, used)
    free = inputs.first_free(address for address in ring if not state.used.used_at_random(address))
    return Chosen(free) if free is not None else _choose_oldest(state, addresses, policy, inputs)


def _forget_old(state: AllocatorState, policy: AllocationPolicy, inputs: AllocatorInput) -> None:
    """Forget entries that have waited long enough: without a round, only entries that still wait matter."""
    old: list[Released] = []
    for entry in state.queue:
        if inputs.now - entry.time < policy.wait:
            break
        old.append(entry)
    for entry in old:
        _forget(state, entry)


def _probes(addresses: RangeSet, policy: AllocationPolicy, inputs: AllocatorInput) -> Iterator[int]:
    spans = intervals.merged((part.first, part.last) for part in addresses.written)
    size = intervals.total(spans)
    prefix = ranges.subnet(addresses.written[0])
    secret = inputs.secret() if policy.order == STABLE else b""
    for counter in range(PROBES):
        number = (_derived(secret, prefix, policy.identity, counter) if policy.order == STABLE
                  else int.from_bytes(inputs.entropy(32), "big")) % size  # 256 bits make the bias negligible
        yield intervals.nth(spans, number)


def _derived(secret: bytes, prefix: str, identity: str, counter: int) -> int:
    """The stable number of RFC 7217, section 5.

    Its inputs are the prefix, the workload and its interface, the collision counter and a secret key.
    """
    content = b"".join(len(word).to_bytes(2, "big") + word for word in (prefix.encode(), identity.encode()))
    digest = blake2b(content + counter.to_bytes(2, "big"), key=secret[:64], digest_size=32).digest()
    return int.from_bytes(digest, "big")
