"""The leases of one network on disk, in the layout of the reference plugin ``host-local`` plus what it does not record.

``<data_dir>/<network>/``::

    lock                    flock(2), shared with the reference plugin; held by every transaction
    10.1.0.2, 2001:db8::2   an address: "containerID CRLF ifname"
    last_reserved_ip.<set>  the address last handed out from a set
    attachments/<containerID>:<ifname>   what DEL, GC and self-healing need, as JSON
    attachments/.new        a file being written; one is enough, since its writer holds the lock, and the next writer's
                            first step takes a killed one's away
    attachments/.seen.<boot>             the state of the folders when we last knew all that is in them
    prefixes/<network>_<length>          who has a delegated prefix
    cursors/                what was handed out, and what waits to be given again (``diskbooks``)

**Nothing appears half-written.** A file is written aside as ``.new``, then renamed or linked to its name. A cursor that
keeps its length is overwritten in place instead, by one write that a kill cannot cut short: ext4 flushes a file that is
replaced by renaming (``auto_da_alloc``), which would cost more than the rest of the reservation.

**Killed anywhere, nothing is handed out twice and nothing is lost track of.** What is given for good is spent first,
then the record naming all addresses appears, then what is given again leaves the queue, then the lease files appear;
``drop`` takes the lease files first and the record last. So every lease file of ours has a record, and a record left
over is what DEL and GC finish from.

**Power loss.** Files are not synced, with one exception. A set that gives no address twice must not do so although the
last writes before the power went are lost: ``cursors/spent`` is synced, file and folder, *before* an address it names
is handed out, ``used.CHUNK`` addresses ahead so that the sync is paid once a chunk. ``cursors/open``, how much of the
chunk is left, is not synced and carries the boot id and the other file's inode: of an earlier boot, or beside a copy,
it is not believed, and the set goes on behind what can have been handed out. Leases themselves need no sync, for the
containers that held them are gone with the power: the first transaction of a boot frees them.

**Foreign changes.** The reference plugin, or a person, writes lease files without records. A directory's mtime changes
with every name that comes or goes, so a transaction that changed something ends by setting the mtime of both folders
and of ``.seen`` to one value a nanosecond older than the kernel's own. A later change by anybody else makes them differ
(one within the same tick of the kernel's clock too), and the next transaction walks the folder once and writes the
records that are missing. The boot id in the name has one such walk follow every boot. Uniqueness never rests on this:
whether an address is free is asked of its file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from cni_v6.leases import records
from cni_v6.leases.disk.allocation_files import AllocatorFiles
from cni_v6.leases.disk.directory import Folder
from cni_v6.leases.disk.lock import turn
from cni_v6.leases.disk.transaction import DiskTransaction
from cni_v6.leases.store import Transaction

LOCK = "lock"
ATTACHMENTS = "attachments"


class DiskLeases:
    """Leases of one network below a data folder.

    :param boot: this boot's id, /proc/sys/kernel/random/boot_id.
    :param timeout: seconds to wait for the lock.
    :param left: how many of so many seconds a call can wait now.
    :param now: seconds since the epoch.
    """

    def __init__(
        self, network: str, data_dir: str, *, boot: str, timeout: float = 30.0, now: Callable[[], float] = time.time,
        left: Callable[[float], float] = lambda seconds: seconds,
    ) -> None:
        records.require_safe("network", network)
        self._network = network
        self._path = os.path.join(data_dir, network)
        self.boot = boot
        self._timeout = timeout
        self._left = left
        self._now = now

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the network's lock. What was done before an exception stays done.

        :raises CniError: TRY_AGAIN naming the lock and its holder, STORE_FAILED.
        """
        seconds = self._left(self._timeout)
        deadline = time.monotonic() + seconds
        with turn(self._path, seconds), ExitStack() as stack:
            root = self._locked(stack, deadline)
            attachments = stack.enter_context(closing(root.child(ATTACHMENTS)))
            books = stack.enter_context(closing(AllocatorFiles(root, boot=self.boot, now=self._now)))
            work = DiskTransaction(self._network, root, attachments, books, boot=self.boot, now=self._now)
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
