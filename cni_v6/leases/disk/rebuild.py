"""Bring the records up to what the lease files say, after somebody else changed the network's folder.

Linear in the number of leases, so it runs only when the folder's mtime says so (``store``). Lease files are never
touched: who holds an address is theirs to say. A record whose lease files are gone stays, since a DEL or GC that the
reference plugin did not finish may still need it; it holds no address then.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator

from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.directory import Folder
from cni_v6.protocol.names import Owner

Key = tuple[str, str]  # container id and ifname
LeasesByOwner = dict[Key, list[tuple[str, float]]]  # addresses with their files' times


def rebuild(
    network: str, root: Folder, attachments: Folder, *, seen: str, lost: Callable[[Attachment, Collection[str]], None]
) -> Iterator[Attachment]:
    """The records that are missing or incomplete, for the caller to write. Removes what is no record.

    :param seen: name of the one marker that stays; those of earlier boots go.
    :param lost: told of records and those of their addresses that are their owner's no more.
    """
    leases = _leases(root)
    for name in attachments.names():
        if name.startswith("."):
            if name.startswith(".seen.") and name != seen:
                attachments.remove(name)
            continue
        record = records.decode(network, name, attachments.read(name) or b"")
        if record is None:
            attachments.remove(name)
            continue
        found = leases.pop((record.owner.container_id, record.owner.ifname), [])
        there = {address for address, _ in found}
        if gone := [address for address in record.addresses if address not in there]:
            lost(record, gone)
        more = tuple(address for address, _ in found if address not in record.addresses)
        if more:
            yield record.holding(record.addresses + more)
    for (container_id, ifname), found in leases.items():
        # The file's time, so that GC can tell a lease that is younger than its list of what is valid.
        yield Attachment(Owner(network, container_id, ifname), tuple(address for address, _ in found),
                         created=max(time for _, time in found))


def _leases(root: Folder) -> LeasesByOwner:
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
    return ":" in name, name  # IPv4 before IPv6: the files do not tell the order of the sets
