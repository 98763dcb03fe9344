"""Reads the leases of a network without its lock, and changes nothing: for commands that only look.

It works on a store that is mounted read-only, and does not wait for who holds the lock. A record is replaced whole, so
each one is consistent in itself. A call that runs meanwhile may show in some records and not in others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from time import time
from typing import TYPE_CHECKING

from cni_v6.allocation import release_queue, used
from cni_v6.allocation.ranges import RangeSet
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.allocation_files import AllocatorFiles
from cni_v6.leases.disk.directory import Folder, naming
from cni_v6.leases.disk.lease_files import LeaseFiles
from cni_v6.leases.disk.rebuild import leases_by_owner, prefixes_of, read_record
from cni_v6.leases.store import Past
from cni_v6.net.addresses import from_text
from cni_v6.protocol.names import Owner

if TYPE_CHECKING:
    from cni_v6.allocation.traces import Traces

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ReadOnlyFolder(Folder):
    """A folder that is neither created nor narrowed. Its files are opened for reading."""

    def __init__(self, path: str, parent: int | None = None) -> None:
        """
        :param parent: descriptor of the folder that a relative ``path`` is in, for a child.
        """
        self.path = path
        self._kept = {}
        with naming(path):
            self.fd = os.open(os.path.basename(path) if parent is not None else path, _FOLDER_FLAGS, dir_fd=parent)
            self.opened = os.fstat(self.fd)

    def child(self, name: str) -> Folder:
        """Open a folder in this one, which must exist."""
        return ReadOnlyFolder(f"{self.path}/{name}", self.fd)

    def open(self, name: str, *, create: bool) -> int | None:
        """A file's descriptor to read; None if there is no such file."""
        with naming(f"{self.path}/{name}"):
            try:
                return os.open(name, _FILE_FLAGS, dir_fd=self.fd)
            except FileNotFoundError:
                return None


def attachments(network: str, path: str, folder: str) -> list[Attachment]:
    """All attachments of a network, damaged ones and leases of the reference plugin included.

    :param path: of the network's folder.
    :param folder: name of the folder of records in it.
    :raises CniError: STORE_FAILED.
    """
    if not os.path.isdir(path):
        return []
    with closing(ReadOnlyFolder(path)) as root:
        leases = leases_by_owner(root)
        found = []
        if root.exists(folder):
            with closing(root.child(folder)) as aside:
                found = list(_records(network, root, aside, dict(leases)))
    recorded = {(record.owner.container_id, record.owner.ifname) for record in found}
    for (container_id, ifname), files in leases.items():
        if (container_id, ifname) not in recorded:
            found.append(Attachment(Owner(network, container_id, ifname), tuple(address for address, _ in files),
                                    created=max(mtime for _, mtime in files)))
    return found


def _records(
    network: str, root: Folder, aside: Folder, leases: dict[tuple[str, str], list[tuple[str, float]]]
) -> Iterator[Attachment]:
    files = LeaseFiles(root, aside)
    for name in aside.names():
        content = None if name.startswith(".") else read_record(aside, name)
        if content is None:
            continue
        record = records.decode(network, name, content)
        if record:
            yield record.holding(files.held(record))
            continue
        key = next((key for key in leases if records.record_name(*key) == name), records.record_owner(name))
        if key and records.is_safe_owner(*key):
            owner, held = Owner(network, *key), leases.get(key, [])
            yield Attachment(owner, tuple(address for address, _ in held), prefixes=prefixes_of(root, owner),
                             created=max((mtime for _, mtime in held), default=0.0), damaged=True)


def past(path: str, address: str, boot: str) -> Past:
    """What became of an address of the network's folder at ``path``.

    :raises CniError: STORE_FAILED, also where the allocator's state is damaged.
    """
    if not os.path.isdir(os.path.join(path, "cursors")):
        return Past()
    family, value = from_text(address)
    with closing(ReadOnlyFolder(path)) as root, closing(AllocatorFiles(root, boot=boot, now=time)) as files:
        state = files.of(family)
        entry = state.queue.find(address)
        return Past(entry.time if entry else None, state.used.has(value))


def count(path: str, ranges: RangeSet, boot: str) -> tuple[int, int]:
    """See ``leases.store.Leases.count``, of the network's folder at ``path``.

    :raises CniError: STORE_FAILED.
    """
    if not os.path.isdir(os.path.join(path, "cursors")):
        return 0, 0
    with closing(ReadOnlyFolder(path)) as root, closing(AllocatorFiles(root, boot=boot, now=time)) as files:
        state = files.of(ranges.family)
        return used.count(state.used, ranges), release_queue.count(state.queue, ranges)


def traces(path: str, ranges: RangeSet, boot: str) -> Traces:
    """See ``leases.store.Leases.traces``, of the network's folder at ``path``.

    :raises CniError: STORE_FAILED.
    """
    from cni_v6.allocation import traces as of_set  # ``count`` runs in the engine, and does not need it

    if not os.path.isdir(os.path.join(path, "cursors")):
        return of_set.Traces()
    with closing(ReadOnlyFolder(path)) as root, closing(AllocatorFiles(root, boot=boot, now=time)) as files:
        state = files.of(ranges.family)
        return of_set.of(state.used, state.queue, ranges)
