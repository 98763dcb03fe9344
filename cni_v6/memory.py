"""The leases of one network in dictionaries: the same answers as ``store.DiskLeases``, for tests and dry runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from cni_v6 import cursor, records
from cni_v6.errors import TRY_AGAIN, CniError
from cni_v6.leases import Attachment, Transaction
from cni_v6.names import Owner
from cni_v6.ranges import RangeSet, to_text


class MemoryLeases:
    """Leases of one network, gone with the process.

    :param timeout: seconds to wait for the lock.
    """

    def __init__(self, network: str, *, timeout: float = 30.0) -> None:
        records.require_safe("network", network)
        self._network = network
        self._timeout = timeout
        self._lock = threading.Lock()
        self._work = MemoryTransaction(network)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the network's lock. What was done before an exception stays done.

        :raises CniError: TRY_AGAIN.
        """
        if not self._lock.acquire(timeout=self._timeout):
            raise CniError(TRY_AGAIN, f"lock of network {self._network} is held by another thread", "try again")
        try:
            yield self._work
        finally:
            self._lock.release()


class MemoryDataDirs:
    """No data folder but this process's own, which nobody has to find again. See ``node.DataDirs``."""

    def known(self) -> list[str]:
        return []

    def remember(self, data_dir: str) -> None:
        """Nothing outlives the process."""

    def networks(self, data_dir: str) -> list[str]:
        return []

    recorded = networks


class MemoryTransaction:
    """See ``leases.Transaction``."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._records: dict[tuple[str, str], Attachment] = {}
        self._holders: dict[str, Owner] = {}
        self._last: dict[int, tuple[int, int]] = {}  # a set's index -> family and value of what it gave last
        self._spent = cursor.Spent()

    def get(self, owner: Owner) -> Attachment | None:
        records.require_owner(owner)
        return self._records.get((owner.container_id, owner.ifname))

    def attachments(self) -> Iterator[Attachment]:
        yield from list(self._records.values())

    def holder(self, address: str) -> str | None:
        owner = self._holders.get(records.require_address(address))
        return None if owner is None else f"{owner.container_id} {owner.ifname}"

    def choose(self, index: int, ranges: RangeSet) -> str:
        family, last = self._last.get(index, (ranges.family, None))
        last = last if family == ranges.family else None
        large = cursor.is_large(ranges)
        spent = cursor.adopt(self._spent, ranges, last) if large else self._spent
        for value in cursor.ahead(ranges, spent) if large else cursor.ring(ranges, last):
            if to_text(ranges.family, value) not in self._holders:
                break
        else:
            raise cursor.exhausted(ranges, self._holders)
        if large:
            self._spent = cursor.advance(spent, ranges, value)
        self._last[index] = (ranges.family, value)
        return to_text(ranges.family, value)

    def put(self, attachment: Attachment) -> None:
        owner = attachment.owner
        records.require_safe("interface name", owner.ifname)
        held = self.get(owner)
        if held:
            raise records.already_attached(owner, held.addresses)
        addresses = tuple(records.require_address(address) for address in attachment.addresses)
        for count, address in enumerate(addresses):
            holder = f"{owner.container_id} {owner.ifname}" if address in addresses[:count] else self.holder(address)
            if holder is not None:
                raise records.unavailable(address, holder)
        self._records[owner.container_id, owner.ifname] = replace(attachment, addresses=addresses)
        self._holders.update(dict.fromkeys(addresses, owner))

    def amend(self, attachment: Attachment) -> None:
        self._records[attachment.owner.container_id, attachment.owner.ifname] = attachment

    def drop(self, owner: Owner) -> Attachment | None:
        if self.get(owner) is None:
            return None
        record = self._records.pop((owner.container_id, owner.ifname))
        for address in record.addresses:
            del self._holders[address]
        return record
