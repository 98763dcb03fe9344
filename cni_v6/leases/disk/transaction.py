"""What is done to the leases of one network on disk while its lock is held: in which order files come and go.

Why in this order is told in ``store``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace

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
from cni_v6.leases.disk.rebuild import rebuild
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.names import Owner

LAST = "last_reserved_ip."
MEMO = ".memo"
SEEN_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class DiskTransaction:
    """One network's folder while its lock is held. See ``leases.store.Transaction``."""

    def __init__(
        self,
        network: str,
        root: Folder,
        attachments: Folder,
        books: AllocatorFiles,
        *,
        boot: str,
        now: Callable[[], float],
    ) -> None:
        self._network = network
        self._root = root
        self._attachments = attachments
        self._files = LeaseFiles(root, attachments)
        self._books = books
        self._boot = boot
        self._now = now
        self._chosen: dict[str, bool] = {}  # in this transaction; whether they wait in the queue
        self._seen = ".seen." + hashlib.blake2s(boot.encode(), digest_size=8).hexdigest()
        self._changed = False
        self.remarks: list[str] = []

    def get(self, owner: Owner) -> Attachment | None:
        record = self._find(owner)
        return record and replace(record.holding(self._files.held(record)), owner=owner)

    def attachments(self) -> Iterator[Attachment]:
        for name in self._attachments.names():
            record = None if name.startswith(".") else self._load(name)
            if record:
                yield record.holding(self._files.held(record))

    def owners(self) -> Iterator[Owner]:
        for name in self._attachments.names():
            words = records.record_owner(name)
            if words:
                yield Owner(self._network, *words)
            elif not name.startswith("."):
                record = self._load(name)
                if record:
                    yield record.owner

    def holder(self, address: str) -> str | None:
        return self._files.holder(records.require_address(address))

    def choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> str:
        family = ranges.family
        spent = self._books.of(family).spent
        value, waiting, remark = self._choose(index, ranges, policy)
        if value is None:
            self._leave(family, spent)
            raise self._exhausted(ranges, policy)
        self._books.save(family, self._now())
        self.remarks += [remark] if remark else []
        address = to_text(family, value)
        if policy.order == SEQUENTIAL:  # the reference plugin goes on from there
            self._overwrite(address.encode(), self._root, f"{LAST}{index}")
        self._chosen[address] = waiting
        return address

    def _choose(self, index: int, ranges: RangeSet, policy: AllocationPolicy) -> Chosen:
        find = self._files.free(ranges.family, self._chosen.keys())
        world = AllocatorInput(
            self._last(index, ranges.family),
            self._now(),
            find,
            self._chosen.keys(),
            os.urandom,
            lambda: policy.secret or self._books.secret(),
        )
        return allocator.choose(self._books.of(ranges.family), ranges, policy, world)

    def shortage(self, index: int, ranges: RangeSet, policy: AllocationPolicy = DEFAULT) -> CniError | None:
        spent = self._books.of(ranges.family).spent
        found = self._choose(index, ranges, policy).value
        self._leave(ranges.family, spent)
        return self._exhausted(ranges, policy) if found is None else None

    def _leave(self, family: int, spent: UsedAddresses) -> None:
        """What was looked at is not spent; what turned out to be over in the queue is kept in mind."""
        self._books.of(family).spent = spent
        self._books.save(family, self._now())

    def _exhausted(self, ranges: RangeSet, policy: AllocationPolicy) -> CniError:
        taken = self._files.free(ranges.family, ()).taken(ranges)
        return used.exhausted(ranges, taken, once=policy.never_reuses(ranges))

    def choose_prefix(self, index: int, ranges: RangeSet, length: int) -> str:
        books, now = self._books.of(ranges.family), self._now()
        spent = used.settle(used.adopt(books.spent, ranges, self._last(index, ranges.family)), ranges)
        books.spent, first = used.block(spent, ranges, length, books.round)
        if first is None:
            raise used.no_block(ranges, length)
        self._books.save(ranges.family, now)
        return f"{to_text(ranges.family, first)}/{length}"

    def delegated(self, address: str) -> str | None:
        return self._files.delegated(address)

    def spent(self, ranges: RangeSet) -> int:
        return used.count(self._books.of(ranges.family).spent, ranges)

    def put(self, attachment: Attachment) -> None:
        records.require_safe("interface name", attachment.owner.ifname)
        held = self.get(attachment.owner)
        if held:
            raise records.already_attached(attachment.owner, held.addresses)
        attachment = replace(attachment, addresses=tuple(map(records.require_address, attachment.addresses)))
        self._files.refuse_taken(attachment.addresses)
        leased: list[str] = []
        try:
            self._lease(attachment, attachment, leased)
        except CniError:
            with suppress(CniError):  # what cannot be undone has its record still, for DEL and GC to finish from
                self._attachments.remove(NEW)
                self._free(attachment, leased)
            raise

    def _lease(self, part: Attachment, whole: Attachment, leased: list[str]) -> None:
        """Record an attachment and lease what ``part`` of it has; ``leased`` says at every moment how far it came."""
        self._books.spend(part, self._chosen, self._now())
        self._record(whole)
        self._books.enter(part, self._chosen, self._now())
        self._files.give(part, leased)

    def update(self, attachment: Attachment) -> None:
        self._record(attachment)

    def was_used(self, address: str) -> bool:
        family, value = from_text(address)
        return self._books.of(family).spent.has(value)

    def add_addresses(self, attachment: Attachment) -> None:
        before = self._load(_name(attachment))
        held = self._files.held(before) if before else ()
        more = tuple(each for each in attachment.addresses if each not in held)
        self._files.refuse_taken(more)
        part = replace(attachment.holding(more), prefixes=())
        leased: list[str] = []
        try:
            self._lease(part, attachment, leased)
        except CniError:
            with suppress(CniError):  # a lease of this one's that is left is named by the record, for its DEL to free
                self._attachments.remove(NEW)
                for address in leased:
                    self._root.remove(address)
                if before:
                    self._record(before)
            raise

    def remove_addresses(self, attachment: Attachment) -> None:
        before = self._load(_name(attachment))
        gone = [each for each in self._files.held(before) if each not in attachment.addresses] if before else []
        for address in gone:
            self._root.remove(address)
        self._lost(before or attachment, gone)
        self._record(attachment)

    def memo(self) -> bytes:
        return self._attachments.read(MEMO) or b""

    def keep_memo(self, content: bytes) -> None:
        self._write(content, self._attachments, MEMO)

    def drop(self, owner: Owner) -> Attachment | None:
        record = self._find(owner)
        if record is None:
            return None
        held = self._files.held(record)
        self._free(record, held)
        return replace(record.holding(held), owner=owner)

    def catch_up(self) -> None:
        """Where somebody else changed the folders since we last looked, write the records that are missing."""
        seen = self._attachments.stat(self._seen)
        if seen is None or {self._root.changed(), self._attachments.changed()} != {seen.st_mtime_ns}:
            self._walk()
        if seen is None and self._boot:
            self._bury()

    def seal(self) -> None:
        """Remember that we know all that is in the folders now. Failing only costs the next transaction a walk."""
        if not self._changed:
            return
        with suppress(OSError):
            seen = os.open(self._seen, SEEN_FLAGS, FILE_MODE, dir_fd=self._attachments.fd)
            try:
                # Older than any time the kernel's clock will give from here on, so that no later change can match it.
                stamp = self._root.changed() - 1
                for fd in (self._root.fd, self._attachments.fd, seen):
                    os.utime(fd, ns=(stamp, stamp))
            finally:
                os.close(seen)

    def _walk(self) -> None:
        self._changed = True
        for record in rebuild(self._network, self._root, self._attachments, seen=self._seen, lost=self._lost):
            self._record(record)

    def _bury(self) -> None:
        """The first transaction of a boot: containers of earlier ones are gone, and all that the kernel had of them.

        A lease of ours that another plugin has written again since tells by its time that it is not ours any more.
        """
        for name in self._attachments.names():
            record = None if name.startswith(".") else self._load(name)
            if record is None or record.boot in ("", self._boot):
                continue
            held = self._files.held(record)
            theirs = tuple(each for each in held if not self._files.untouched(record, each))
            ours = tuple(each for each in held if each not in theirs)
            self._free(record, ours)
            if ours:
                self.remarks.append(f"freed {', '.join(ours)} of {record.owner.container_id}/{record.owner.ifname}: "
                                    "held since before the node was started")
            if theirs:
                self._record(Attachment(record.owner, theirs, created=record.created))
        self._books.recover(self._root.names(), self._now())

    def _find(self, owner: Owner) -> Attachment | None:
        """The record of an owner, or of a lease that names the container alone, which stands for any interface."""
        records.require_owner(owner)
        for ifname in (owner.ifname, records.ANY_IFNAME):
            record = self._load(records.record_name(owner.container_id, ifname))
            if record:
                return record
        return None

    def _load(self, name: str) -> Attachment | None:
        content = self._attachments.read(name)
        if content is None:
            return None
        record = records.decode(self._network, name, content)
        if record is None:  # somebody wrote into it: what the lease files say is recorded anew
            self._walk()
            record = records.decode(self._network, name, self._attachments.read(name) or b"")
        return record

    def _record(self, attachment: Attachment) -> None:
        self._write(records.encode(attachment), self._attachments, _name(attachment))

    def _write(self, content: bytes, folder: Folder, name: str) -> None:
        self._changed = True
        self._attachments.create(NEW, content)
        self._attachments.move(NEW, folder, name)

    def _overwrite(self, content: bytes, folder: Folder, name: str) -> None:
        if not folder.overwrite(name, content):
            self._write(content, folder, name)

    def _free(self, record: Attachment, addresses: Collection[str]) -> None:
        """Lease files, then the account of what can be given again, then the record: what a kill leaves of it, the next
        DEL or walk finishes."""
        self._changed = True
        for address in addresses:
            self._root.remove(address)
        with suppress(CniError):  # a full disk must not keep a DEL from working; the next boot accounts for it
            self._books.give_back(record, addresses, self._now())
        self._lost(record, [each for each in record.addresses if each not in addresses])
        self._files.take_prefixes(record)
        self._attachments.remove(_name(record))

    def _lost(self, record: Attachment, addresses: Collection[str]) -> None:
        with suppress(CniError):
            self._books.give_back(record, addresses, self._now(), unsure=self._root.exists)

    def _last(self, index: int, family: int) -> int | None:
        """The address last handed out from a set; None where that cannot be told."""
        content = self._root.read(f"{LAST}{index}") or b""
        try:
            found, value = from_text(content.decode().strip())
        except ValueError:
            return None
        return value if found == family else None


def _name(record: Attachment) -> str:
    return records.record_name(record.owner.container_id, record.owner.ifname)
