"""Who holds which address: the Leases protocol, on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from cni_v6.errors import CniError
from cni_v6.firewall.policy import Policy
from cni_v6.handout import DEFAULT, Handout
from cni_v6.names import Owner
from cni_v6.ranges import RangeSet


@dataclass(frozen=True, slots=True)
class Proxied:
    """An IPv6 address that the node answers for on ``uplink``, and has a route to through ``home``."""

    uplink: str
    home: str
    address: str


@dataclass(frozen=True, slots=True, order=True)
class Anchor:
    """What a container counts on of the node's interface ``home``: its gateway, ``ip/prefixlen``; or ``on_link``, the
    route to a prefix there, of a gateway that is link-local."""

    home: str
    prefix: str
    on_link: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment of a container to a network, as recorded before the kernel is touched.

    ``addresses``: what we leased, canonical text without prefix length, one per set in the sets' order.
    ``host``: the host interface, "" when the IPAM plugin ran alone. ``netns``: identity of the namespace.
    ``created``: seconds since the epoch. ``boot``: /proc/sys/kernel/random/boot_id; "" for a lease the reference plugin
    wrote, which records neither time nor boot. ``policy``: what the firewall was told, None for nothing.
    ``proxied``: addresses that the node answers for. ``prefixes``: what was delegated to the container, canonical.
    ``home``: the namespace that ``host`` is in, the node's; zeros where that was not recorded.
    ``anchors``: of the node's own, which stay while an attachment names them. ``reuse``: of each address
    ``Handout.way`` of its set, "" or missing where that is not known. ``identity``: ``Handout.identity``.
    """

    owner: Owner
    addresses: tuple[str, ...]
    host: str = ""
    netns: tuple[int, int] = (0, 0)
    created: float = 0.0
    boot: str = ""
    policy: Policy | None = None
    proxied: tuple[Proxied, ...] = ()
    prefixes: tuple[str, ...] = ()
    home: tuple[int, int] = (0, 0)
    anchors: tuple[Anchor, ...] = ()
    reuse: tuple[str, ...] = ()
    identity: str = ""

    def way(self, address: str) -> str:
        """How its set gives an address again (``Handout.way``), "" where that is not known."""
        return dict(zip(self.addresses, self.reuse)).get(address, "")

    def holding(self, addresses: tuple[str, ...]) -> Attachment:
        """The same attachment with these addresses."""
        if addresses == self.addresses:
            return self
        reuse = tuple(map(self.way, addresses))
        return replace(self, addresses=addresses, reuse=reuse if any(reuse) else ())


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

    def choose(self, index: int, ranges: RangeSet, handout: Handout = DEFAULT) -> str:
        """The next free address of the set with this index, and move the set's cursor onto it, durably.

        Where it was released less than ``handout.wait`` ago, because there is no other, ``remarks`` says so.

        :raises CniError: ADDRESSES_EXHAUSTED with the numbers.
        """
        ...

    def shortage(self, index: int, ranges: RangeSet, handout: Handout = DEFAULT) -> CniError | None:
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

    def amend(self, attachment: Attachment) -> None:
        """Record anew an attachment that is there; its addresses stay as they are.

        :raises CniError: STORE_FAILED.
        """
        ...

    def given(self, address: str) -> bool:
        """Whether an address was handed out of a set that gives none twice, or passed over."""
        ...

    def extend(self, attachment: Attachment) -> None:
        """Record anew an attachment that is there, and lease it the addresses that it has more, all or nothing.

        :raises CniError: ADDRESS_UNAVAILABLE naming the holder; STORE_FAILED.
        """
        ...

    def shed(self, attachment: Attachment) -> None:
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
