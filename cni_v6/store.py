"""The leases of one network on disk, in the layout of the reference plugin ``host-local`` plus what it does not record.

``<data_dir>/<network>/``::

    lock                    flock(2), shared with the reference plugin; held by every transaction
    10.1.0.2, 2001:db8::2   an address: "containerID CRLF ifname"
    last_reserved_ip.<set>  the address last handed out from a set
    attachments/<containerID>:<ifname>   what DEL, GC and self-healing need, as JSON
    attachments/.new        a file being written; one is enough, since its writer holds the lock, and the next writer's
                            first step takes a killed one's away
    attachments/.seen.<boot>             the state of the folders when we last knew all that is in them
    cursors/spent, cursors/open          what large sets have handed out (``cursor.Spent``)

**Nothing appears half-written.** A file is written aside as ``.new``, then renamed or linked to its name. A cursor that
keeps its length is overwritten in place instead, by one write that a kill cannot cut short: ext4 flushes a file that is
replaced by renaming (``auto_da_alloc``), which would cost more than the rest of the reservation.

**Killed anywhere, nothing is handed out twice and nothing is lost track of.** The cursor moves first, then the record
naming all addresses appears, then the lease files; ``drop`` takes the lease files first and the record last. So every
lease file of ours has a record, and a record left over is what DEL and GC finish from.

**Power loss.** Files are not synced, with one exception. A large set must not repeat an address although the last
writes before the power went are lost: ``cursors/spent`` is synced, file and folder, *before* an address it names is
handed out, ``cursor.CHUNK`` addresses ahead so that the sync is paid once a chunk. ``cursors/open``, how much of the
chunk is left, is not synced and carries the boot id: of an earlier boot it is not believed, and the set goes on behind
the chunk. Leases themselves need no sync, for the containers that held them are gone with the power.

**Foreign changes.** The reference plugin, or a person, writes lease files without records. A directory's mtime changes
with every name that comes or goes, so a transaction that changed something ends by setting the mtime of both folders
and of ``.seen`` to one value a nanosecond older than the kernel's own. A later change by anybody else makes them differ
(one within the same tick of the kernel's clock too), and the next transaction walks the folder once and writes the
records that are missing. The boot id in the name has one such walk follow every boot. Uniqueness never rests on this:
whether an address is free is asked of its file.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace

from cni_v6 import cursor, records
from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.folder import FILE_MODE, Folder
from cni_v6.leases import Attachment, Transaction
from cni_v6.names import Owner
from cni_v6.ranges import RangeSet, from_text, to_text
from cni_v6.reindex import rebuild
from cni_v6.turns import turn

LOCK = "lock"
LAST = "last_reserved_ip."
ATTACHMENTS = "attachments"
CURSORS = "cursors"
SPENT, OPEN = "spent", "open"
NEW = ".new"
SEEN_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
PATIENCE = 64  # candidates looked up one by one before the folder is read as a whole


class DiskLeases:
    """Leases of one network below a data folder.

    :param boot: this boot's id, /proc/sys/kernel/random/boot_id.
    :param timeout: seconds to wait for the lock.
    """

    def __init__(self, network: str, data_dir: str, *, boot: str, timeout: float = 30.0) -> None:
        records.require_safe("network", network)
        self._network = network
        self._path = os.path.join(data_dir, network)
        self._boot = boot
        self._timeout = timeout

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the network's lock. What was done before an exception stays done.

        :raises CniError: TRY_AGAIN naming the lock and its holder, STORE_FAILED.
        """
        deadline = time.monotonic() + self._timeout
        with turn(self._path, self._timeout), ExitStack() as stack:
            root = self._locked(stack, deadline)
            attachments = stack.enter_context(closing(root.child(ATTACHMENTS)))
            work = DiskTransaction(self._network, root, attachments, boot=self._boot)
            work.catch_up()
            try:
                yield work
            finally:
                work.seal()

    def _locked(self, stack: ExitStack, deadline: float) -> Folder:
        while True:
            root = stack.enter_context(closing(Folder(self._path)))
            lock = root.lock(LOCK, deadline)
            if lock is not None:
                stack.callback(os.close, lock)
                return root


class DiskTransaction:
    """One network's folder while its lock is held. See ``leases.Transaction``."""

    def __init__(self, network: str, root: Folder, attachments: Folder, *, boot: str) -> None:
        self._network = network
        self._root = root
        self._attachments = attachments
        self._boot = boot
        self._seen = ".seen." + hashlib.blake2s(boot.encode(), digest_size=8).hexdigest()
        self._changed = False

    def get(self, owner: Owner) -> Attachment | None:
        record = self._find(owner)
        return record and replace(record, owner=owner, addresses=self._held(record))

    def attachments(self) -> Iterator[Attachment]:
        for name in self._attachments.names():
            record = None if name.startswith(".") else self._load(name)
            if record:
                yield replace(record, addresses=self._held(record))

    def holder(self, address: str) -> str | None:
        content = self._lease(records.require_address(address))
        return None if content is None else records.lease_text(content)

    def choose(self, index: int, ranges: RangeSet) -> str:
        last = self._last(index, ranges.family)
        large = cursor.is_large(ranges)
        value = self._ahead(ranges, last) if large else self._first_free(ranges, cursor.ring(ranges, last))
        address = to_text(ranges.family, value)
        self._overwrite(address.encode(), self._root, f"{LAST}{index}")
        return address

    def put(self, attachment: Attachment) -> None:
        records.require_safe("interface name", attachment.owner.ifname)
        held = self.get(attachment.owner)
        if held:
            raise records.already_attached(attachment.owner, held.addresses)
        addresses = tuple(records.require_address(address) for address in attachment.addresses)
        for address in addresses:
            holder = self.holder(address)
            if holder is not None:
                raise records.unavailable(address, holder)
        leased: list[str] = []
        try:
            self._record(replace(attachment, addresses=addresses))
            self._lease_all(attachment.owner, addresses, leased)
        except CniError:
            with suppress(CniError):  # what cannot be undone has its record still, for DEL and GC to finish from
                self._attachments.remove(NEW)
                self._free(attachment, leased)
            raise

    def amend(self, attachment: Attachment) -> None:
        self._record(attachment)

    def drop(self, owner: Owner) -> Attachment | None:
        record = self._find(owner)
        if record is None:
            return None
        held = self._held(record)
        self._free(record, held)
        return replace(record, owner=owner, addresses=held)

    def catch_up(self) -> None:
        """Where somebody else changed the folders since we last looked, write the records that are missing."""
        seen = self._attachments.stat(self._seen)
        if seen is None or {self._root.changed(), self._attachments.changed()} != {seen.st_mtime_ns}:
            self._walk()

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
        for record in rebuild(self._network, self._root, self._attachments, seen=self._seen):
            self._record(record)

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

    def _held(self, record: Attachment) -> tuple[str, ...]:
        """The record's addresses whose files say the same: the reference plugin's DEL frees leases of ours too."""
        return tuple(address for address in record.addresses if self._holds(record.owner, address))

    def _holds(self, owner: Owner, address: str) -> bool:
        content = self._lease(address)
        return content is not None and records.is_lease_of(owner, content)

    def _lease(self, address: str) -> bytes | None:
        """What the file of an address holds; None where it is free. What is no plain file holds the address too."""
        try:
            return self._root.read(address)
        except CniError:
            if self._root.is_plain(address):
                raise
            return records.UNREADABLE

    def _record(self, attachment: Attachment) -> None:
        self._write(records.encode(attachment), self._attachments, _name(attachment))

    def _write(self, content: bytes, folder: Folder, name: str) -> None:
        self._changed = True
        self._attachments.create(NEW, content)
        self._attachments.move(NEW, folder, name)

    def _overwrite(self, content: bytes, folder: Folder, name: str) -> None:
        if not folder.overwrite(name, content):
            self._write(content, folder, name)

    def _lease_all(self, owner: Owner, addresses: Iterable[str], leased: list[str]) -> None:
        """Give the addresses' files to an owner; ``leased`` says at every moment how far it came."""
        self._attachments.create(NEW, records.lease_content(owner))
        for address in addresses:
            if not self._attachments.link(NEW, self._root, address):
                raise records.unavailable(address, self.holder(address) or "")
            leased.append(address)
        self._attachments.remove(NEW)

    def _free(self, record: Attachment, addresses: Iterable[str]) -> None:
        self._changed = True
        for address in addresses:
            self._root.remove(address)
        self._attachments.remove(_name(record))

    def _last(self, index: int, family: int) -> int | None:
        """The address last handed out from a set; None where that cannot be told."""
        content = self._root.read(f"{LAST}{index}") or b""
        try:
            found, value = from_text(content.decode().strip())
        except ValueError:
            return None
        return value if found == family else None

    def _ahead(self, addresses: RangeSet, last: int | None) -> int:
        with closing(self._root.child(CURSORS)) as folder:
            known = self._spent(folder)
            spent = cursor.adopt(known, addresses, last)
            value = self._first_free(addresses, cursor.ahead(addresses, spent))
            spent = cursor.advance(spent, addresses, value)
            if spent.intervals != known.intervals:
                folder.create(NEW, cursor.encode_spent(spent), sync=True)
                folder.move(NEW, folder, SPENT)
                folder.flush()
            self._overwrite(cursor.encode_open(spent, self._boot), folder, OPEN)
        return value

    def _spent(self, folder: Folder) -> cursor.Spent:
        content = folder.read(SPENT)
        if content is None:
            return cursor.Spent()
        try:
            return cursor.decode(content, folder.read(OPEN) or b"", self._boot)
        except ValueError as error:
            raise CniError(STORE_FAILED, f"lease store: {folder.path}/{SPENT} is damaged",
                           "restore it; without it addresses of large sets can be handed out again") from error

    def _first_free(self, addresses: RangeSet, order: Iterable[int]) -> int:
        names: set[str] | None = None
        for count, value in enumerate(order):
            if count == PATIENCE:
                names = set(self._root.names())
            text = to_text(addresses.family, value)
            if not (self._root.exists(text) if names is None else text in names):
                return value
        raise cursor.exhausted(addresses, names or self._root.names())


def _name(record: Attachment) -> str:
    return records.record_name(record.owner.container_id, record.owner.ifname)
