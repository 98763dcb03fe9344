"""Who holds which address: the Leases protocol, on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from cni_v6.firewall.policy import Policy
from cni_v6.names import Owner
from cni_v6.ranges import RangeSet


@dataclass(frozen=True, slots=True)
class Proxied:
    """An IPv6 address that the node answers for on ``uplink``, and has a route to through ``home``."""

    uplink: str
    home: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment of a container to a network, as recorded before the kernel is touched.

    ``addresses``: what we leased, canonical text without prefix length, one per set in the sets' order.
    ``host``: the host interface, "" when the IPAM plugin ran alone. ``netns``: (device, inode) of the namespace.
    ``created``: seconds since the epoch. ``boot``: /proc/sys/kernel/random/boot_id; "" for a lease the reference plugin
    wrote, which records neither time nor boot. ``policy``: what the firewall was told, None for nothing.
    ``proxied``: addresses that the node answers for.
    """

    owner: Owner
    addresses: tuple[str, ...]
    host: str = ""
    netns: tuple[int, int] = (0, 0)
    created: float = 0.0
    boot: str = ""
    policy: Policy | None = None
    proxied: tuple[Proxied, ...] = ()


class Transaction(Protocol):
    """The leases of one network while its lock is held."""

    def get(self, owner: Owner) -> Attachment | None:
        """What this owner holds, leases written by the reference ``host-local`` included."""
        ...

    def attachments(self) -> Iterator[Attachment]:
        """Everything recorded. Linear in their number: for GC, STATUS and ``list``."""
        ...

    def holder(self, address: str) -> str | None:
        """Who holds an address: ``containerID ifname`` (or what the file says), "" unreadable, None: it is free."""
        ...

    def choose(self, index: int, ranges: RangeSet) -> str:
        """The next free address of the set with this index, and move the set's cursor onto it, durably.

        :raises CniError: ADDRESSES_EXHAUSTED with the numbers.
        """
        ...

    def put(self, attachment: Attachment) -> None:
        """Record the attachment and lease its addresses to its owner, all or nothing.

        :raises CniError: ADDRESS_UNAVAILABLE naming the holder; ALREADY_ATTACHED; STORE_FAILED (disk full, read-only).
        """
        ...

    def amend(self, attachment: Attachment) -> None:
        """Record anew an attachment that is there; its addresses stay as they are.

        :raises CniError: STORE_FAILED.
        """
        ...

    def drop(self, owner: Owner) -> Attachment | None:
        """Free what the owner holds and forget it; an address that is somebody else's by now is left alone."""
        ...


class Leases(Protocol):
    """The leases of one network."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Hold the network's lock (shared with the reference plugin).

        :raises CniError: TRY_AGAIN when the lock cannot be had in time, STORE_FAILED when the folder cannot be used.
        """
        ...
