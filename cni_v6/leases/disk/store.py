"""The leases of one network on disk: the layout of the reference plugin ``host-local``, and further files.

``<data_dir>/<network>/``::

    lock                    flock(2), shared with the reference plugin; held by every transaction
    10.1.0.2, 2001:db8::2   a leased address: "containerID CRLF ifname"
    last_reserved_ip.<set>  the address last handed out from a set
    attachments/<containerID>:<ifname>   a record as JSON, for DEL, GC and self-healing
    attachments/.new        a file being written. One name is enough, because the writer holds the lock. The next writer
                            first removes the file of a killed one
    attachments/.seen.<boot>             a marker: its mtime tells whether the folders have changed since
    prefixes/<network>_<length>          the holder of a delegated prefix
    cursors/                the allocator's state (``allocation_files``)

**No file appears half-written.** A file is written as ``.new``, then renamed or linked to its name. A cursor that keeps
its length is overwritten in place instead, by one write that a kill cannot cut short. The reason: ext4 flushes a file
that replaces another by rename (``auto_da_alloc``), which would cost more than the rest of the reservation.

**A kill at any point neither hands out an address twice nor loses one.** An address of a set without reuse is marked
used first. Then the record that names all addresses appears, then reused addresses leave the queue, then the lease
files appear. ``drop`` removes the lease files first and the record last. So every lease file of ours has a record, and
DEL and GC can finish from a record that is left over.

**Power loss.** Files are not synced, with one exception. A set without reuse must hand out no address twice, even if
the last writes before a power failure are lost. So ``cursors/spent`` is synced, file and folder, *before* an address
in it is handed out. It reserves ``used.CHUNK`` addresses ahead, so that there is one sync for each chunk.
``cursors/open``, the rest of the chunk, is not synced. It carries the boot id and the identity of ``spent`` (inode
and ctime): if it is of an earlier boot, or beside a copy of ``spent``, it is ignored, and the set continues after all
addresses that may have been handed out. Leases need no sync: a power failure ends the containers that held them, and
the first transaction of a boot frees them.

**Changes by others.** The reference plugin, or a person, writes lease files without records. A directory's mtime
changes when a name is added or removed. So a transaction that changed something ends by setting the mtime of both
folders and of ``.seen`` to one value, a nanosecond older than the kernel's. A later change by others makes them differ,
even one within the same tick of the kernel's clock. Then the next transaction walks the folder once and writes the
missing records. The boot id in the name of ``.seen`` causes one such walk after every boot. Uniqueness does not depend
on this: an address is free only if it has no file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from cni_v6.allocation.ranges import RangeSet
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.allocation_files import AllocatorFiles
from cni_v6.leases.disk.directory import Folder
from cni_v6.leases.disk.lock import turn
from cni_v6.leases.disk.rebuild import read_record
from cni_v6.leases.disk.transaction import DiskTransaction
from cni_v6.leases.store import Past, Transaction

if TYPE_CHECKING:
    from cni_v6.allocation.traces import Traces
    from cni_v6.leases.disk.known_records import Known, KnownRecords  # an engine has it

LOCK = "lock"
ATTACHMENTS = "attachments"


class DiskLeases:
    """Leases of one network in a data folder.

    :param boot: this boot's id, /proc/sys/kernel/random/boot_id.
    :param timeout: seconds to wait for the lock.
    :param left: limits a number of seconds to what is left of the call's time.
    :param now: returns seconds since the epoch.
    :param known: what an engine knows of the records; None to read all records for them.
    """

    def __init__(
        self, network: str, data_dir: str, *, boot: str, timeout: float = 30.0, now: Callable[[], float] = time.time,
        left: Callable[[float], float] = lambda seconds: seconds, known: KnownRecords | None = None,
    ) -> None:
        records.require_safe("network", network)
        self._network = network
        self._path = os.path.join(data_dir, network)
        self.boot = boot
        self._timeout = timeout
        self._left = left
        self._now = now
        self._known = known

    def damaged(self) -> Sequence[str]:
        """See ``leases.store.Leases``."""
        found = self._all_known().damaged if self._is_there() else ()
        return sorted("/".join(records.record_owner(name) or (name,)) for name in found)

    def may_be_guarded(self) -> bool:
        """See ``leases.store.Leases``."""
        return self._known is None or (self._is_there() and self._all_known().guarded)

    def _is_there(self) -> bool:
        return os.path.isdir(os.path.join(self._path, ATTACHMENTS))

    def _all_known(self) -> Known:
        """What all records say. A record is replaced whole, so that reading needs no lock."""
        from cni_v6.leases.disk import known_records  # for GC, and when a record is damaged

        with closing(Folder(self._path)) as root, closing(root.child(ATTACHMENTS)) as attachments:

            def read(name: str) -> known_records.Said | None:
                content = None if name.startswith(".") else read_record(attachments, name)
                record = None if content is None else records.decode(self._network, name, content)
                if record is None or record.damaged:
                    return None if content is None else known_records.DAMAGED
                return known_records.GUARDED if record.policy else known_records.OPEN

            known = self._known
            return known.of(attachments, read) if known else known_records.read_all(attachments.names(), read)

    def peek(self) -> Sequence[Attachment]:
        """See ``leases.store.Leases``."""
        from cni_v6.leases.disk import peek  # no plugin calls it

        return peek.attachments(self._network, self._path, ATTACHMENTS)

    def past(self, address: str) -> Past:
        """See ``leases.store.Leases``."""
        from cni_v6.leases.disk import peek

        return peek.past(self._path, records.require_address(address), self.boot)

    def count(self, ranges: RangeSet) -> tuple[int, int]:
        """See ``leases.store.Leases``."""
        from cni_v6.leases.disk import peek

        return peek.count(self._path, ranges, self.boot)

    def traces(self, ranges: RangeSet) -> Traces:
        """See ``leases.store.Leases``."""
        from cni_v6.leases.disk import peek

        return peek.traces(self._path, ranges, self.boot)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the network's lock. An exception does not undo changes made before it.

        :raises CniError: TRY_AGAIN naming the lock and its holder, STORE_FAILED.
        """
        seconds = self._left(self._timeout)
        deadline = time.monotonic() + seconds
        with turn(self._path, seconds):
            root, lock = self._locked(deadline)
            try:
                with closing(root.child(ATTACHMENTS)) as attachments:
                    yield from self._transaction(root, attachments)
            finally:
                os.close(lock)
                root.close()

    def _transaction(self, root: Folder, attachments: Folder) -> Iterator[Transaction]:
        with closing(AllocatorFiles(root, boot=self.boot, now=self._now)) as files:
            work = DiskTransaction(self._network, root, attachments, files, boot=self.boot, now=self._now)
            work.catch_up()
            try:
                yield work
            finally:
                work.seal()

    def _locked(self, deadline: float) -> tuple[Folder, int]:
        """The network's folder, and the lock in it."""
        while True:
            root = Folder(self._path)
            try:
                lock = root.lock(LOCK, deadline)
            except BaseException:
                root.close()
                raise
            if lock is not None:
                return root, lock
            root.close()
