"""The protocol of a lease store, implemented on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from cni_v6.allocation.policy import DEFAULT, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.names import Owner
from cni_v6.values import dataclass

if TYPE_CHECKING:  # for commands that look: a call does not need it
    from cni_v6.allocation.traces import Traces


@dataclass(frozen=True, slots=True)
class Past:
    """What became of an address that nobody holds.

    ``released``: when its last holder released it, in seconds since the epoch, if it waits for reuse since. ``used``:
    it was, or may have been, handed out by a set without reuse, which never hands it out again.
    """

    released: float | None = None
    used: bool = False


class Transaction(Protocol):
    """The leases of one network while its lock is held.

    ``remarks``: sentences for the operator about what was done so far.
    """

    remarks: list[str]

    def get(self, owner: Owner) -> Attachment | None:
        """The record of an owner. Leases that the reference ``host-local`` wrote are included."""
        ...

    def attachments(self) -> Iterator[Attachment]:
        """All records. The time is linear in their number; for STATUS and ``list``."""
        ...

    def owners(self, but: Set[str] = frozenset()) -> Iterator[Owner]:
        """The owners of all records, from the names of the records; for GC, which reads only the records it needs.

        :param but: owners to leave out, as ``containerID:ifname``.
        """
        ...

    def holder(self, address: str) -> str | None:
        """The holder of an address: ``containerID ifname``, or the content of the file; "" if it is not readable.

        None: the address is free.
        """
        ...

    def choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> str:
        """Choose the next free address of the set with this index, and record the progress of the set.

        If only addresses released less than ``policy.wait`` ago are free, it chooses one and adds a remark.

        :raises CniError: ADDRESSES_EXHAUSTED with the numbers of addresses.
        """
        ...

    def continue_from(self, index: int, address: str) -> None:
        """Have a set in sequence go on behind an address that nobody has; all before it in its range count as used.

        :raises CniError: STORE_FAILED.
        """
        ...

    def shortage(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> CniError | None:
        """The error that ``choose`` would raise now; None if it would succeed. No address is used up."""
        ...

    def choose_prefix(self, index: int, ranges: RangeSet, length: int) -> str:
        """Choose a prefix of an IPv6 set without reuse. None of its addresses was or will be handed out otherwise.

        :param length: of the prefix, longer than the set's subnets.
        :returns: canonical ``network/length``.
        :raises CniError: ADDRESSES_EXHAUSTED.
        """
        ...

    def delegated(self, address: str) -> str | None:
        """The holder of the delegated prefix that contains an address, in the form of ``holder``; None: no such prefix.
        """
        ...

    def spent(self, ranges: RangeSet) -> int:
        """Number of addresses of a set that were, or may have been, handed out, and are never reused."""
        ...

    def put(self, attachment: Attachment) -> None:
        """Record an attachment and lease its addresses and prefixes to its owner, all or none.

        :raises CniError: ADDRESS_UNAVAILABLE naming the holder; ALREADY_ATTACHED; STORE_FAILED (disk full, read-only).
        """
        ...

    def update(self, attachment: Attachment) -> None:
        """Replace the record of an attachment. The leases do not change.

        :raises CniError: STORE_FAILED.
        """
        ...

    def was_used(self, address: str) -> bool:
        """Whether an address of a set without reuse was handed out or skipped."""
        ...

    def add_addresses(self, attachment: Attachment) -> None:
        """Replace the record of an attachment, and lease the addresses that were added, all or none.

        :raises CniError: ADDRESS_UNAVAILABLE naming the holder; STORE_FAILED.
        """
        ...

    def remove_addresses(self, attachment: Attachment) -> None:
        """Replace the record of an attachment, and free the addresses that were removed.

        :raises CniError: STORE_FAILED.
        """
        ...

    def drop(self, owner: Owner) -> Attachment | None:
        """Free the owner's addresses and prefixes and remove its record. Addresses with another holder are kept."""
        ...

    def rehearse(self) -> None:
        """Write as much as an attachment takes, and remove it.

        :raises CniError: STORE_FAILED.
        """
        ...

    def memo(self) -> bytes:
        """The note that ``keep_memo`` stored for the network; empty for none."""
        ...

    def keep_memo(self, content: bytes) -> None:
        """Store a note for the network in place of the previous one.

        :raises CniError: STORE_FAILED.
        """
        ...


class Leases(Protocol):
    """The leases of one network."""

    def damaged(self) -> Sequence[str]:
        """The attachments whose records are damaged: ``containerID/ifname``, or the name of the file.

        Takes no lock and changes nothing. The time is linear in the number of records; an engine knows what was not
        written to since it asked. For STATUS and GC.
        """
        ...

    def may_be_guarded(self) -> bool:
        """False if no record has a policy, and none is damaged, as far as this is known without reading them all."""
        ...

    def peek(self) -> Sequence[Attachment]:
        """All attachments, damaged ones and leases of the reference plugin included.

        Takes no lock and changes nothing, so that attachments of an earlier boot are included too.

        :raises CniError: STORE_FAILED.
        """
        ...

    def past(self, address: str) -> Past:
        """What became of an address, without the lock; changes nothing.

        :raises CniError: STORE_FAILED.
        """
        ...

    def count(self, ranges: RangeSet) -> tuple[int, int]:
        """``Transaction.spent`` of a set, and how many of its addresses were released and can be given again.

        Takes no lock and changes nothing.

        :raises CniError: STORE_FAILED.
        """
        ...

    def traces(self, ranges: RangeSet) -> Traces:
        """The past of a set's addresses: which of them wait, and which are never given again.

        Takes no lock and changes nothing. The time is linear in the number of addresses that wait.

        :raises CniError: STORE_FAILED.
        """
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Hold the network's lock (shared with the reference plugin).

        :raises CniError: TRY_AGAIN if the lock is not free in time, STORE_FAILED if the folder cannot be used.
        """
        ...
