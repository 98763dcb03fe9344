"""The leases of one network in memory: the same answers as ``disk.store.DiskLeases``, for tests and dry runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from hashlib import shake_256
from itertools import count

from cni_v6.allocation import allocator, release_queue, traces, used
from cni_v6.allocation.allocator import AllocatorInput, AllocatorState, Chosen
from cni_v6.allocation.policy import AFTER, DEFAULT, NEVER, SEQUENTIAL, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet, among
from cni_v6.allocation.release_queue import MemoryQueue
from cni_v6.allocation.traces import Traces
from cni_v6.allocation.used import UsedAddresses
from cni_v6.errors import TRY_AGAIN, CniError
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Past, Transaction
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.names import Owner

OnRecord = Callable[[Attachment], object]


class MemoryLeases:
    """Leases of one network that end with the process.

    :param timeout: seconds to wait for the lock.
    :param now: returns seconds since the epoch.
    :param entropy: returns the given number of random bytes; the default gives the same bytes in every run.
    :param on_record: is called with each record that is written.
    """

    def __init__(
        self, network: str, *, timeout: float = 30.0, now: Callable[[], float] = lambda: 0.0,
        entropy: Callable[[int], bytes] | None = None, on_record: OnRecord | None = None,
    ) -> None:
        records.require_safe("network", network)
        self._network = network
        self._timeout = timeout
        self._lock = threading.Lock()
        self._work = MemoryTransaction(network, now, entropy or _entropy(), on_record)

    def damaged(self) -> list[str]:
        """See ``leases.store.Leases``."""
        held = (record for record in self._work.attachments() if record.damaged)
        return [f"{record.owner.container_id}/{record.owner.ifname}" for record in held]

    def may_be_guarded(self) -> bool:
        """See ``leases.store.Leases``."""
        return any(record.policy or record.damaged for record in self._work.attachments())

    def peek(self) -> list[Attachment]:
        """See ``leases.store.Leases``."""
        return list(self._work.attachments())

    def past(self, address: str) -> Past:
        """See ``leases.store.Leases``."""
        return self._work.past(records.require_address(address))

    def count(self, ranges: RangeSet) -> tuple[int, int]:
        """See ``leases.store.Leases``."""
        return self._work.spent(ranges), release_queue.count(self._work._states[ranges.family].queue, ranges)

    def traces(self, ranges: RangeSet) -> Traces:
        """See ``leases.store.Leases``."""
        state = self._work._states[ranges.family]
        return traces.of(state.used, state.queue, ranges)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the network's lock. An exception does not undo changes made before it.

        :raises CniError: TRY_AGAIN.
        """
        if not self._lock.acquire(timeout=self._timeout):
            raise CniError(TRY_AGAIN, f"lock of network {self._network} is held by another thread", "try again")
        self._work.begin()
        try:
            yield self._work
        finally:
            self._lock.release()


class MemoryDataDirs:
    """No data folders: the leases are in this process, so nothing has to find them again. See ``context.DataDirs``."""

    def known(self) -> list[str]:
        return []

    def remember(self, data_dir: str) -> None:
        """Nothing outlives the process."""

    def networks(self, data_dir: str) -> list[str]:
        return []

    recorded = networks

    def leased_elsewhere(self, network: str, addresses: Iterable[str]) -> frozenset[str]:
        return frozenset()

    def memos(self) -> Iterator[tuple[str, bytes]]:
        yield from ()


class MemoryTransaction:
    """See ``leases.store.Transaction``."""

    def __init__(
        self, network: str, now: Callable[[], float], entropy: Callable[[int], bytes], on_record: OnRecord | None = None
    ) -> None:
        self._network = network
        self._now = now
        self._entropy = entropy
        self._records: dict[tuple[str, str], Attachment] = {}
        self._holders: dict[str, Owner] = {}
        self._prefixes: dict[str, Owner] = {}
        self._last: dict[int, tuple[int, int]] = {}  # index of a set -> family and value of its last address
        self._states = {family: AllocatorState(UsedAddresses(), (), MemoryQueue()) for family in (4, 6)}
        self._chosen: set[str] = set()  # chosen in this transaction
        self._secret = entropy(32)
        self._on_record = on_record
        self.remarks: list[str] = []
        self._memo = b""

    def begin(self) -> None:
        """Start a transaction: forget what the last one chose."""
        self._chosen.clear()

    def get(self, owner: Owner) -> Attachment | None:
        records.require_owner(owner)
        return self._records.get((owner.container_id, owner.ifname))

    def attachments(self) -> Iterator[Attachment]:
        yield from list(self._records.values())

    def owners(self, but: Set[str] = frozenset()) -> Iterator[Owner]:
        owners = [record.owner for record in self._records.values()]
        yield from (owner for owner in owners if records.attachment_name(owner) not in but)

    def holder(self, address: str) -> str | None:
        owner = self._holders.get(records.require_address(address))
        return None if owner is None else f"{owner.container_id} {owner.ifname}"

    def choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> str:
        family = ranges.family
        used_before = self._states[family].used
        value, _, remark = self._choose(index, ranges, policy)
        if value is None:
            self._states[family].used = used_before
            raise self._exhausted(ranges, policy)
        self.remarks += [remark] if remark else []
        if policy.order == SEQUENTIAL:
            self._last[index] = (family, value)
        self._chosen.add(to_text(family, value))
        return to_text(family, value)

    def continue_from(self, index: int, address: str) -> None:
        self._last[index] = from_text(records.require_address(address))

    def _choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy) -> Chosen:
        family = ranges.family
        inputs = AllocatorInput(
            self._last_of(index, family),
            self._now(),
            lambda order: self._first_free(family, order),
            self._chosen,
            self._entropy,
            lambda: policy.secret or self._secret,
        )
        chosen = allocator.choose(self._states[family], ranges, policy, inputs)
        self._states[family].change_queue()
        return chosen

    def shortage(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> CniError | None:
        used_before = self._states[ranges.family].used
        value = self._choose(index, ranges, policy).value
        self._states[ranges.family].used = used_before
        return self._exhausted(ranges, policy) if value is None else None

    def _exhausted(self, ranges: RangeSet, policy: AllocationPolicy) -> CniError:
        return used.exhausted(ranges, among(ranges, self._holders), once=policy.never_reuses(ranges))

    def choose_prefix(self, index: int, ranges: RangeSet, length: int) -> str:
        state = self._states[ranges.family]
        known = used.adopt(state.used, ranges, self._last_of(index, ranges.family))
        state.used, first = used.block(known, ranges, length, state.round)
        if first is None:
            raise used.no_block(ranges, length)
        return f"{to_text(ranges.family, first)}/{length}"

    def delegated(self, address: str) -> str | None:
        holders = (self._prefixes.get(prefix) for prefix in records.around(address))
        return next((f"{owner.container_id} {owner.ifname}" for owner in holders if owner), None)

    def spent(self, ranges: RangeSet) -> int:
        return used.count(self._states[ranges.family].used, ranges)

    def put(self, attachment: Attachment) -> None:
        owner = attachment.owner
        records.require_safe("interface name", owner.ifname)
        record = self.get(owner)
        if record:
            raise records.already_attached(owner, record.addresses)
        addresses = tuple(records.require_address(address) for address in attachment.addresses)
        for number, address in enumerate(addresses):
            holder = f"{owner.container_id} {owner.ifname}" if address in addresses[:number] else self.holder(address)
            if holder is not None:
                raise records.unavailable(address, holder)
        self._take(replace(attachment, addresses=addresses), addresses)
        self.update(replace(attachment, addresses=addresses))
        self._prefixes.update(dict.fromkeys(attachment.prefixes, owner))

    def update(self, attachment: Attachment) -> None:
        self._records[attachment.owner.container_id, attachment.owner.ifname] = attachment
        if self._on_record:
            self._on_record(attachment)

    def past(self, address: str) -> Past:
        """See ``leases.store.Leases``."""
        entry = self._states[from_text(address)[0]].queue.find(address)
        return Past(entry.time if entry else None, self.was_used(address))

    def was_used(self, address: str) -> bool:
        family, value = from_text(address)
        return self._states[family].used.has(value)

    def add_addresses(self, attachment: Attachment) -> None:
        before = self._records[attachment.owner.container_id, attachment.owner.ifname]
        added = [address for address in attachment.addresses if address not in before.addresses]
        for address in added:
            holder = self.holder(address)
            if holder is not None:
                raise records.unavailable(address, holder)
        self._take(attachment, added)
        self.update(attachment)

    def remove_addresses(self, attachment: Attachment) -> None:
        before = self._records[attachment.owner.container_id, attachment.owner.ifname]
        self._release(before, [address for address in before.addresses if address not in attachment.addresses])
        self.update(attachment)

    def rehearse(self) -> None:
        """There is always room."""

    def memo(self) -> bytes:
        return self._memo

    def keep_memo(self, content: bytes) -> None:
        self._memo = content

    def drop(self, owner: Owner) -> Attachment | None:
        if self.get(owner) is None:
            return None
        record = self._records.pop((owner.container_id, owner.ifname))
        self._release(record, record.addresses)
        for prefix in record.prefixes:
            del self._prefixes[prefix]
        return record

    def _take(self, attachment: Attachment, addresses: Collection[str]) -> None:
        for text, mode in self._reuse_modes(attachment, attachment.addresses):
            if text not in addresses:
                continue
            family, value = from_text(text)
            if mode != NEVER:
                allocator.mark_held(self._states[family], family, value, waiting=True, in_round=mode == AFTER)
                self._states[family].change_queue()
            elif text not in self._chosen:
                allocator.mark_used(self._states[family], value)
            self._holders[text] = attachment.owner

    def _release(self, record: Attachment, addresses: Collection[str]) -> None:
        for text, mode in self._reuse_modes(record, record.addresses):
            if text not in addresses:
                continue
            del self._holders[text]
            if mode != NEVER:
                family, value = from_text(text)
                allocator.release(
                    self._states[family], family, value, now=self._now(), identity=record.identity,
                    in_round=mode == AFTER,
                )
                self._states[family].change_queue()

    def _reuse_modes(self, record: Attachment, addresses: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for text in addresses:
            family, value = from_text(text)
            yield text, record.reuse_mode(text) or (NEVER if self._states[family].used.has(value) else AFTER)

    def _last_of(self, index: int, family: int) -> int | None:
        known, value = self._last.get(index, (0, 0))
        return value if known == family else None

    def _first_free(self, family: int, order: Iterator[int]) -> int | None:
        texts = ((value, to_text(family, value)) for value in order)
        return next((value for value, text in texts if text not in self._holders and text not in self._chosen), None)


def _entropy() -> Callable[[int], bytes]:
    calls = count()
    return lambda size: shake_256(next(calls).to_bytes(8, "big")).digest(size)
