"""Changes of the leases of one network on disk while its lock is held: the order of writing and removing files.

``store`` explains the order.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import suppress
from dataclasses import replace
from stat import S_ISREG

from cni_v6.allocation import allocator, used
from cni_v6.allocation.allocator import AllocatorInput, Chosen
from cni_v6.allocation.policy import DEFAULT, SEQUENTIAL, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.allocation.used import UsedAddresses
from cni_v6.errors import CniError
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.allocation_files import AllocatorFiles
from cni_v6.leases.disk.directory import FILE_MODE, Folder
from cni_v6.leases.disk.lease_files import NEW, LeaseFiles
from cni_v6.leases.disk.rebuild import read_record, rebuild
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.names import Owner

MEMO = ".memo"
SEEN_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class DiskTransaction:
    """One network's folder while its lock is held. See ``leases.store.Transaction``."""

    def __init__(
        self,
        network: str,
        root: Folder,
        attachments: Folder,
        allocator_files: AllocatorFiles,
        *,
        boot: str,
        now: Callable[[], float],
    ) -> None:
        self._network = network
        self._root = root
        self._attachments = attachments
        self._files = LeaseFiles(root, attachments)
        self._allocator = allocator_files
        self._boot = boot
        self._now = now
        self._chosen: dict[str, bool] = {}  # addresses chosen in this transaction -> whether they are in the queue
        self._seen = ".seen." + hashlib.blake2s(boot.encode(), digest_size=8).hexdigest()
        self._changed = False
        self._marked = False  # ``_seen`` is there
        self._memo: bytes | None = None  # once it was read
        self._last_get: tuple[Owner, Attachment | None, tuple[str, ...]] | None = None  # until a record changes
        self.remarks: list[str] = []

    def get(self, owner: Owner) -> Attachment | None:
        record, held = self._got(owner)
        return record and _as_asked(record.holding(held), owner)

    def _got(self, owner: Owner) -> tuple[Attachment | None, tuple[str, ...]]:
        """The record of an owner, and what it holds: read once, as a call asks for it before it changes it."""
        if self._last_get is None or self._last_get[0] != owner:
            record = self._find(owner)
            self._last_get = owner, record, self._files.held(record) if record else ()
        return self._last_get[1:]

    def attachments(self) -> Iterator[Attachment]:
        for name in self._attachments.names():
            record = None if name.startswith(".") else self._load(name)
            if record:
                yield record.holding(self._files.held(record))

    def owners(self, but: Set[str] = frozenset()) -> Iterator[Owner]:
        for name in frozenset(self._attachments.names()) - but:  # the names of records, but of hashed ones
            words = records.record_owner(name)
            record = None if words or name.startswith(".") else self._load(name)
            owner = Owner(self._network, *words) if words else record and record.owner
            if owner and (words or records.attachment_name(owner) not in but):
                yield owner

    def holder(self, address: str) -> str | None:
        return self._files.holder(records.require_address(address))

    def choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> str:
        family = ranges.family
        used_before = self._allocator.of(family).used
        value, waiting, remark = self._choose(index, ranges, policy)
        if value is None:
            self._restore_used(family, used_before)
            raise self._exhausted(ranges, policy)
        self._allocator.save(family, self._now())
        self.remarks += [remark] if remark else []
        address = to_text(family, value)
        if policy.order == SEQUENTIAL:  # the reference plugin continues from this address
            self.continue_from(index, address)
        self._chosen[address] = waiting
        return address

    def continue_from(self, index: int, address: str) -> None:
        if self._files.continue_from(index, address):
            self._changed = True

    def _choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy) -> Chosen:
        inputs = AllocatorInput(
            self._files.last(index, ranges.family),
            self._now(),
            self._files.free(ranges.family, self._chosen.keys()),
            self._chosen.keys(),
            os.urandom,
            lambda: policy.secret or self._allocator.secret(),
        )
        return allocator.choose(self._allocator.of(ranges.family), ranges, policy, inputs)

    def shortage(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> CniError | None:
        used_before = self._allocator.of(ranges.family).used
        value = self._choose(index, ranges, policy).value
        self._restore_used(ranges.family, used_before)
        return self._exhausted(ranges, policy) if value is None else None

    def _restore_used(self, family: int, used_before: UsedAddresses) -> None:
        """Undo a choice that is not wanted. The removal of obsolete entries of the queue is kept."""
        self._allocator.of(family).used = used_before
        self._allocator.save(family, self._now())

    def _exhausted(self, ranges: RangeSet, policy: AllocationPolicy) -> CniError:
        taken = self._files.free(ranges.family, ()).taken(ranges)
        return used.exhausted(ranges, taken, once=policy.never_reuses(ranges))

    def choose_prefix(self, index: int, ranges: RangeSet, length: int) -> str:
        state, now = self._allocator.of(ranges.family), self._now()
        known = used.settle(used.adopt(state.used, ranges, self._files.last(index, ranges.family)), ranges)
        state.used, first = used.block(known, ranges, length, state.round)
        if first is None:
            raise used.no_block(ranges, length)
        self._allocator.save(ranges.family, now)
        return f"{to_text(ranges.family, first)}/{length}"

    def delegated(self, address: str) -> str | None:
        return self._files.delegated(address)

    def spent(self, ranges: RangeSet) -> int:
        return used.count(self._allocator.of(ranges.family).used, ranges)

    def put(self, attachment: Attachment) -> None:
        records.require_safe("interface name", attachment.owner.ifname)
        record = self.get(attachment.owner)
        if record:
            raise records.already_attached(attachment.owner, record.addresses)
        addresses = tuple(map(records.require_address, attachment.addresses))
        if addresses != attachment.addresses:
            attachment = replace(attachment, addresses=addresses)
        self._files.refuse_taken(address for address in addresses if address not in self._chosen)  # those were free
        leased: list[str] = []
        try:
            self._lease(attachment, attachment, leased)
        except CniError:
            with suppress(CniError):  # if the undo fails, the record stays, and DEL or GC finishes from it
                self._attachments.remove(NEW)
                self._free(attachment, leased)
            raise

    def _lease(self, part: Attachment, whole: Attachment, leased: list[str]) -> None:
        """Record the attachment ``whole`` and lease the addresses and prefixes of ``part``.

        :param leased: gets each address as its file appears, so that a failure can be undone.
        """
        self._allocator.mark_used(part, self._chosen, self._now())
        self._record(whole)
        self._allocator.mark_held(part, self._chosen, self._now())
        self._files.give(part, leased)

    def update(self, attachment: Attachment) -> None:
        self._record(attachment)

    def was_used(self, address: str) -> bool:
        family, value = from_text(address)
        return self._allocator.of(family).used.has(value)

    def add_addresses(self, attachment: Attachment) -> None:
        before = self._load(_name(attachment))
        held = self._files.held(before) if before else ()
        added = tuple(address for address in attachment.addresses if address not in held)
        self._files.refuse_taken(added)
        part = replace(attachment.holding(added), prefixes=())
        leased: list[str] = []
        try:
            self._lease(part, attachment, leased)
        except CniError:
            with suppress(CniError):  # if the undo fails, the record still names the lease, and DEL frees it
                self._attachments.remove(NEW)
                for address in leased:
                    self._root.remove(address)
                if before:
                    self._record(before)
            raise

    def remove_addresses(self, attachment: Attachment) -> None:
        self._last_get = None
        before = self._load(_name(attachment))
        held = self._files.held(before) if before else ()
        removed = [address for address in held if address not in attachment.addresses]
        for address in removed:
            self._root.remove(address)
        self._release_lost(before or attachment, removed)
        self._record(attachment)

    def rehearse(self) -> None:
        self._changed = True
        self._files.rehearse()

    def memo(self) -> bytes:
        if self._memo is None:
            self._memo = self._attachments.read(MEMO) or b""
        return self._memo

    def keep_memo(self, content: bytes) -> None:
        self._write(content, self._attachments, MEMO)
        self._memo = content

    def drop(self, owner: Owner) -> Attachment | None:
        record, held = self._got(owner)
        if record is None:
            return None
        self._free(record, held)
        return _as_asked(record.holding(held), owner)

    def catch_up(self) -> None:
        """Write missing records if another program changed the folders. In a new boot, free earlier leases."""
        seen = self._attachments.stat(self._seen)
        self._marked = seen is not None and S_ISREG(seen.st_mode)
        if seen is None or not self._root.changed() == self._attachments.opened.st_mtime_ns == seen.st_mtime_ns:
            self._walk()
        if seen is None and self._boot:
            self._free_earlier_boots()

    def seal(self) -> None:
        """Mark the folders as known (``store``). If this fails, the next transaction walks the folder."""
        if not self._changed:
            return
        with suppress(OSError):
            if not self._marked:
                os.close(os.open(self._seen, SEEN_FLAGS, FILE_MODE, dir_fd=self._attachments.fd))
            # Older than any time the kernel's clock gives from now on, so that no later change gets the same mtime.
            stamp = self._root.changed() - 1
            for fd in (self._root.fd, self._attachments.fd):
                os.utime(fd, ns=(stamp, stamp))
            os.utime(self._seen, ns=(stamp, stamp), dir_fd=self._attachments.fd, follow_symlinks=False)

    def _walk(self) -> None:
        self._changed, self._last_get = True, None
        for record in rebuild(self._network, self._root, self._attachments, seen=self._seen, lost=self._release_lost):
            self._record(record)

    def _free_earlier_boots(self) -> None:
        """Free the leases of earlier boots: their containers and their state in the kernel are gone.

        A lease file that another plugin has written again has another mtime; it is not freed.
        """
        for name in self._attachments.names():
            record = None if name.startswith(".") else self._load(name)
            if record is None or record.boot in ("", self._boot):
                continue
            held = self._files.held(record)
            theirs = tuple(address for address in held if not self._files.untouched(record, address))
            ours = tuple(address for address in held if address not in theirs)
            self._free(record, ours)
            if ours:
                self.remarks.append(f"freed {', '.join(ours)} of {record.owner.container_id}/{record.owner.ifname}: "
                                    "held since before the node was started")
            if theirs:
                self._record(Attachment(record.owner, theirs, created=record.created))
        self._allocator.recover(self._root.names(), self._now())

    def _find(self, owner: Owner) -> Attachment | None:
        """The record of an owner, or the container's record without an interface, which matches any interface."""
        records.require_owner(owner)
        for ifname in (owner.ifname, records.ANY_IFNAME):
            record = self._load(records.record_name(owner.container_id, ifname))
            if record:
                return record
        return None

    def _load(self, name: str) -> Attachment | None:
        content = read_record(self._attachments, name)
        if content is None:
            return None
        record = records.decode(self._network, name, content)
        if record is None:  # the file is damaged: rebuild the record from the lease files
            self._walk()
            record = records.decode(self._network, name, read_record(self._attachments, name) or b"")
        return record

    def _record(self, attachment: Attachment) -> None:
        self._write(records.encode(attachment), self._attachments, _name(attachment))

    def _write(self, content: bytes, folder: Folder, name: str) -> None:
        self._changed, self._last_get = True, None
        self._attachments.create(NEW, content)
        self._attachments.move(NEW, folder, name)

    def _free(self, record: Attachment, addresses: Collection[str]) -> None:
        """Remove the lease files, put reused addresses into the queue, then remove the record.

        In this order the next DEL or walk can finish after a kill.
        """
        self._changed, self._last_get = True, None
        for address in addresses:
            self._root.remove(address)
        with suppress(CniError):  # DEL must work on a full disk; the next boot recovers the addresses
            self._allocator.release(record, addresses, self._now())
        self._release_lost(record, [address for address in record.addresses if address not in addresses])
        self._files.take_prefixes(record)
        self._attachments.remove(_name(record))

    def _release_lost(self, record: Attachment, addresses: Collection[str]) -> None:
        """Release addresses of a record that its owner no longer holds; others may hold them by now."""
        with suppress(CniError):
            self._allocator.release(record, addresses, self._now(), is_held=self._root.exists)


def _as_asked(record: Attachment, owner: Owner) -> Attachment:
    """A record of a container alone as that of the interface that was asked for."""
    return record if record.owner == owner else replace(record, owner=owner)


def _name(record: Attachment) -> str:
    return records.record_name(record.owner.container_id, record.owner.ifname)
