"""Reads what ``plan.health.store`` judges. No lock is taken that somebody does not hold too long already."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from threading import Thread

from cni_v6.attachments import pools, recall, stale
from cni_v6.attachments.context import Context
from cni_v6.attachments.damaged import is_blocked
from cni_v6.config.ipam import IpamConf
from cni_v6.engine import suspect
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.lock import lock_holder
from cni_v6.leases.disk.store import LOCK
from cni_v6.plan.health.store import Disk, Held, StoreFacts

PATIENCE = 2.0  # seconds: a call holds a lock for milliseconds


def read(
    held: Sequence[tuple[str, Attachment]], configs: Sequence[IpamConf], node: Context, unread: Collection[str]
) -> StoreFacts:
    """The facts of all stores.

    :param held: the attachments, with their data folders.
    :param configs: of the configured networks.
    :param unread: networks whose records cannot be read; "" for all.
    """
    records = [record for _, record in held]
    data_dirs = dict.fromkeys((*(data_dir for data_dir, _ in held), *(conf.data_dir for conf in configs)))
    places = dict.fromkeys((data_dir, record.owner.network) for data_dir, record in held)
    return StoreFacts(
        tuple(map(_disk, data_dirs)), tuple(_locks(places)),
        tuple(str(record.owner) for record in records if record.damaged and not is_blocked(record)),
        tuple(str(record.owner) for record in records if is_blocked(record)),
        tuple(f"{record.owner} ({why})" for record, why in stale.dead(records, node)),
        tuple(map(str, recall.lost(node, {record.owner for record in records}, unread))),
        tuple(pool for conf in configs for pool in pools.of(conf, records, node)),
    )


def _disk(data_dir: str) -> Disk:
    """The file system where a data folder is, or would be."""
    place = data_dir
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    found = os.statvfs(place)
    inodes = found.f_favail if found.f_files else -1
    return Disk(data_dir, found.f_bavail * found.f_frsize, inodes, bool(found.f_flag & os.ST_RDONLY))


def _locks(places: Iterable[tuple[str, str]]) -> Iterator[Held]:
    for data_dir, network in places:
        path = os.path.join(data_dir, network, LOCK)
        try:
            holder = lock_holder(os.stat(path))
        except OSError:  # nobody has had it yet
            continue
        if holder is not None and not _is_free_soon(path):
            yield Held(network, path, holder if holder > 0 else 0, suspect.state(holder) in suspect.STOPPED)


def _is_free_soon(path: str) -> bool:
    """Whether the lock is given back within the time: a thread waits in the kernel's queue, and gives it back at once.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def wait() -> None:
        fcntl.flock(file, fcntl.LOCK_SH)
        os.close(file)

    thread = Thread(target=wait, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()
