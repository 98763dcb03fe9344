"""What a store of leases does: the protocol that the one on disk and the one in memory follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from cni_v6.allocation.policy import DEFAULT, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.names import Owner


class Transaction(Protocol):
    """The leases of one network while its lock is held.

    ``remarks``: what an operator should hear of what was done so far, a sentence each.
    """

    remarks: list[str]

    def get(self, owner: Owner) -> Attachment | None:
        """What this owner holds, leases written by the reference ``host-local`` included."""
        ...

    def attachments(self) -> Iterator[Attachment]:
        """Everything recorded. Linear in their number: for STATUS and ``list``."""
        ...

    def owners(self) -> Iterator[Owner]:
        """Whose attachments are recorded, by the records' names alone: for GC, which reads those it cares for."""
        ...

    def holder(self, address: str) -> str | None:
        """Who holds an address: ``containerID ifname`` (or what the file says), "" unreadable, None: it is free."""
        ...

    def choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> str:
        """The next free address of the set with this index, and move the set's cursor onto it, durably.

        Where it was released less than ``policy.wait`` ago, because there is no other, ``remarks`` says so.

        :raises CniError: ADDRESSES_EXHAUSTED with the numbers.
        """
        ...

    def shortage(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> CniError | None:
        """Why ``choose`` would fail now, which does not happen by this; None: it would not."""
        ...

    def choose_prefix(self, index: int, ranges: RangeSet, length: int) -> str:
        """A prefix of an IPv6 set that gives no address twice, of which nothing was handed out; nobody else gets it.

        :param length: of the prefix, longer than that of the set's subnets.
        :returns: canonical ``network/length``.
        :raises CniError: ADDRESSES_EXHAUSTED.
        """
        ...

    def delegated(self, address: str) -> str | None:
        """Who holds a prefix that an address lies in, as ``holder`` says it; None: nobody."""
        ...

    def spent(self, ranges: RangeSet) -> int:
        """How many addresses of a set were handed out, or may have been, and are not given again."""
        ...

    def put(self, attachment: Attachment) -> None:
        """Record the attachment and lease its addresses and prefixes to its owner, all or nothing.

        :raises CniError: ADDRESS_UNAVAILABLE naming the holder; ALREADY_ATTACHED; STORE_FAILED (disk full, read-only).
        """
        ...

    def update(self, attachment: Attachment) -> None:
        """Record anew an attachment that is there; its addresses stay as they are.

        :raises CniError: STORE_FAILED.
        """
        ...

    def was_used(self, address: str) -> bool:
        """Whether an address was handed out of a set that gives none twice, or passed over."""
        ...

    def add_addresses(self, attachment: Attachment) -> None:
        """Record anew an attachment that is there, and lease it the addresses that it has more, all or nothing.

        :raises CniError: ADDRESS_UNAVAILABLE naming the holder; STORE_FAILED.
        """
        ...

    def remove_addresses(self, attachment: Attachment) -> None:
        """Record anew an attachment that is there, and free the addresses that it has no more.

        :raises CniError: STORE_FAILED.
        """
        ...

    def drop(self, owner: Owner) -> Attachment | None:
        """Free what the owner holds and forget it; an address that is somebody else's by now is left alone."""
        ...

    def memo(self) -> bytes:
        """What was last kept in mind of the network with ``keep_memo``; empty for nothing."""
        ...

    def keep_memo(self, content: bytes) -> None:
        """Keep something in mind of the network, in the place of what was kept before.

        :raises CniError: STORE_FAILED.
        """
        ...


class Leases(Protocol):
    """The leases of one network."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Hold the network's lock (shared with the reference plugin).

        :raises CniError: TRY_AGAIN when the lock cannot be had in time, STORE_FAILED when the folder cannot be used.
        """
        ...
