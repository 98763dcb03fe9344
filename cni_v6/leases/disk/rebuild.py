"""Rebuild the records from the lease files after another program changed the network's folder.

The time is linear in the number of leases, so it runs only after the folder's mtime has changed (``store``). It never
changes lease files: they decide who holds an address. A record without lease files stays, because a DEL or GC that the
reference plugin did not finish may need it. Such a record holds no address. A record that cannot be read becomes one of
what its name and the lease files say, and is marked as damaged: somebody must find out what else it said.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import closing

from cni_v6.errors import CniError
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.directory import Folder
from cni_v6.leases.disk.lease_files import PREFIXES
from cni_v6.protocol.names import Owner

Key = tuple[str, str]  # container id and ifname
LeasesByOwner = dict[Key, list[tuple[str, float]]]  # addresses with the mtimes of their files


def rebuild(
    network: str, root: Folder, attachments: Folder, *, seen: str, lost: Callable[[Attachment, Collection[str]], None]
) -> Iterator[Attachment]:
    """The records that are missing or incomplete, for the caller to write. Files that are not records are removed.

    :param seen: name of the marker to keep. Markers of earlier boots are removed.
    :param lost: called with a record and those of its addresses that its owner no longer holds.
    """
    leases = leases_by_owner(root)
    damaged: list[str] = []
    for name in attachments.names():
        if name.startswith("."):
            if name.startswith(".seen.") and name != seen:
                attachments.remove(name)
            continue
        record = records.decode(network, name, read_record(attachments, name) or b"")
        if record is None:
            damaged.append(name)
            continue
        held = [address for address, _ in leases.pop((record.owner.container_id, record.owner.ifname), [])]
        if gone := [address for address in record.addresses if address not in held]:
            lost(record, gone)
        added = tuple(address for address in held if address not in record.addresses)
        if added:
            yield record.holding(record.addresses + added)
    for name in damaged:
        key = next((key for key in leases if records.record_name(*key) == name), records.record_owner(name))
        if key is None or not records.is_safe_owner(*key):
            attachments.remove(name)
            continue
        owner, files, written = Owner(network, *key), leases.pop(key, []), attachments.stat(name)
        created = max((mtime for _, mtime in files), default=written.st_mtime if written else 0.0)
        yield Attachment(owner, tuple(address for address, _ in files), created=created,
                         prefixes=prefixes_of(root, owner), damaged=True)
    for (container_id, ifname), files in leases.items():
        # The files' mtime tells GC whether a lease is younger than the list of valid attachments.
        yield Attachment(Owner(network, container_id, ifname), tuple(address for address, _ in files),
                         created=max(mtime for _, mtime in files))


def read_record(attachments: Folder, name: str) -> bytes | None:
    """A record's file; empty where the disk cannot read it any more, None if there is none."""
    try:
        return attachments.read(name)
    except CniError:
        if not attachments.is_plain(name):
            raise
        return b""


def prefixes_of(root: Folder, owner: Owner) -> tuple[str, ...]:
    """The delegated prefixes whose files name an owner."""
    if not root.exists(PREFIXES):
        return ()
    with closing(root.child(PREFIXES)) as folder:
        found = (records.prefix_of(name, folder.read(name) or b"", owner) for name in sorted(folder.names()))
        return tuple(filter(None, found))


def leases_by_owner(root: Folder) -> LeasesByOwner:
    """All lease files of a network."""
    leases: LeasesByOwner = {}
    for name in sorted(root.names(), key=_order):
        status = root.stat(name) if records.canonical(name) == name else None
        if status is None or not stat.S_ISREG(status.st_mode):
            continue
        owner = records.lease_owner(root.read(name) or b"")
        if owner:
            leases.setdefault(owner, []).append((name, status.st_mtime))
    return leases


def _order(name: str) -> tuple[bool, str]:
    return ":" in name, name  # IPv4 before IPv6: the order of the sets is not recorded
