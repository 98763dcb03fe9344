"""Which containers of a network a STATUS has found in order, and which may have changed since.

A runtime asks for STATUS every few seconds. Beside thousands of containers a look at the record, the link, the routes
and a setting of each takes a hundred times as long as all else. So an engine keeps what it found, and is told what
changes: by the kernel of links, addresses, routes and settings (rtnetlink(7)), and of records and lease files
(inotify(7)), whoever changes them. Whatever is in doubt, all are looked at: lost news, another folder, another
configuration, an address of the loopback interface, more than a few containers that have changed.

Only a STATUS that finds nothing wrong is remembered: what was wrong is looked at again. GC uses what STATUS has found:
which containers there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from cni_v6.attachments.context import Look
from cni_v6.kernel import inotify
from cni_v6.kernel.node_news import News, NodeNews
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import ATTACHMENTS
from cni_v6.plan.forwarding import LOOPBACK
from cni_v6.protocol.names import Owner, owner_of_alias

FEW = 64  # containers that are looked at one by one
NETWORKS = 16  # a user has 128 instances of inotify (fs.inotify.max_user_instances)
CHANGED = (inotify.IN_MODIFY | inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO | inotify.IN_MOVED_FROM | inotify.IN_CREATE
           | inotify.IN_DELETE)
LOST = inotify.IN_DELETE_SELF | inotify.IN_UNMOUNT | inotify.IN_Q_OVERFLOW | inotify.IN_IGNORED
OTHERS = ("lock", ATTACHMENTS, "cursors", "prefixes")  # files and folders of a network that are no record
MOST = 4096  # changes that are kept for a network, of which nobody may ask any more
Place = tuple[int, int]  # device and inode of a folder
FILE, NODE, OWNED = "file", "node", "owned"
# The name of a file, of an interface or route of the node, of an interface whose alias names an owner of the network;
# an owner.
Key = tuple[str, str] | Owner


@dataclass(slots=True)
class _Network:
    """``events``: of its folders. ``mark``: as of ``InOrder.begin``; None while it is not known to be in order.

    ``owners``: whose each interface, route, record and lease file is. ``keys``: those of each owner, the record first.
    ``names``: of the records. ``running``: whose interface was there. ``changed``: what has changed, and the number of
    the look before which it did. ``lost``: the number of the look before which news were lost. ``fresh``: interfaces
    told of since all were looked at, that are not gone, as ``changed``. ``note``: see ``Look``.
    """

    events: int
    places: tuple[Place, ...]
    mark: object = None
    owners: dict[str, Owner] = field(default_factory=dict)
    keys: dict[Owner, tuple[str, ...]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    running: set[Owner] = field(default_factory=set)
    changed: dict[Key, int] = field(default_factory=dict)
    lost: int = 0
    fresh: dict[str, int] = field(default_factory=dict)
    note: object = None


@dataclass(frozen=True, slots=True)
class _Token:
    key: tuple[str, str]
    network: _Network
    number: int
    mark: object


class InOrder:
    """See ``attachments.context.InOrder``. For any number of threads.

    :param make_news: made at the first look, as few runtimes ask for STATUS.
    """

    def __init__(self, make_news: Callable[[], NodeNews] = NodeNews) -> None:
        self._make_news = make_news
        self._lock = threading.Lock()
        self._news: NodeNews | None = None
        self._networks: dict[tuple[str, str], _Network] = {}
        self._number = 0

    def begin(self, network: str, data_dir: str, mark: object) -> Look:
        key = network, data_dir
        with self._lock, suppress(OSError):
            known = self._told(key)
            owners = _changed_owners(known, network) if known.mark == mark else None
            others = owners is not None and not known.running <= owners
            token = _Token(key, known, self._number, mark)
            return Look(owners, _owned(known), others, len(known.fresh), known.note, token)
        return Look()

    def unlisted(self, network: str, data_dir: str, valid: frozenset[str]) -> Look:
        key = network, data_dir
        with self._lock, suppress(OSError):
            known = self._told(key) if key in self._networks else None
            owners = _changed_owners(known, network) if known and known.mark is not None else None
            if known and owners is not None:
                owners = owners.union(_unlisted(known, valid))
                # A lease without an interface is of any of its container: the list as a whole decides.
                return Look(owners, _owned(known)) if all(owner.ifname for owner in owners) else Look()
        return Look()

    def settle(self, look: Look, records: Iterable[Attachment], present: Container[str], note: object = None) -> None:
        token = look.token
        if not isinstance(token, _Token):
            return
        with self._lock:
            known = token.network
            if self._networks.get(token.key) is not known or known.lost > token.number:
                return
            _learn(known, tuple(known.keys) if look.owners is None else look.owners, records, present)
            known.mark, known.note = token.mark, note
            known.changed = {key: number for key, number in known.changed.items() if number > token.number}
            if look.owners is None:
                known.fresh = {name: number for name, number in known.fresh.items() if number > token.number}

    def close(self) -> None:
        with self._lock:
            for key in list(self._networks):
                self._forget(key)
            if self._news:
                self._news.close()

    def _told(self, key: tuple[str, str]) -> _Network:
        """What is known of a network, with all that was told until now. ``_number`` is that of a look from here on.

        :raises OSError: as ``_known``.
        """
        self._number += 1
        self._hear()
        known = self._known(key)
        if _read(known, self._number):
            return known
        self._forget(key)
        return self._known(key)

    def _hear(self) -> None:
        """What the kernel tells is for all networks."""
        self._news = self._news or self._make_news()
        told = self._news.read()
        for (network, _), known in self._networks.items():
            _note(known, network, told or (), self._number)
            if told is None or len(known.changed) > MOST:
                known.mark, known.lost = None, self._number
                known.changed.clear()
                known.fresh.clear()

    def _known(self, key: tuple[str, str]) -> _Network:
        """What is known of a network, whose folders are those that are watched.

        :raises OSError: there are none, or the kernel does not let us watch them.
        """
        root = os.path.join(key[1], key[0])
        folders = root, os.path.join(root, ATTACHMENTS)
        places = tuple(map(_place, folders))
        known = self._networks.get(key)
        if known and known.places != places:
            self._forget(key)
            known = None
        if known is None:
            known = self._networks[key] = _Network(_watch(folders), places)
            if len(self._networks) > NETWORKS:
                self._forget(next(iter(self._networks)))
        return known

    def _forget(self, key: tuple[str, str]) -> None:
        os.close(self._networks.pop(key).events)


def _watch(folders: Iterable[str]) -> int:
    events = inotify.watch_nothing()
    try:
        for folder in folders:
            inotify.add(events, folder, CHANGED | inotify.IN_DELETE_SELF | inotify.IN_ONLYDIR)
    except OSError:
        os.close(events)
        raise
    return events


def _place(path: str) -> Place:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _read(known: _Network, number: int) -> bool:
    """Note what has changed in the folders of a network; whether all of it was told."""
    with suppress(BlockingIOError):
        while True:
            for mask, name in inotify.events(os.read(known.events, inotify.READ_BYTES)):
                if mask & LOST:
                    return False
                known.changed[FILE, os.fsdecode(name)] = number
    return True


def _note(known: _Network, network: str, told: Iterable[News], number: int) -> None:
    """Note what has changed of the node's links and routes, and whose interfaces there are. Whether that is a container
    of the network is known when its owners are."""
    for name, alias, is_gone in told:
        known.changed[NODE, name] = number
        if is_gone:
            known.fresh.pop(name, None)
        elif "/" not in name and name not in known.owners:  # a route has a prefix for a name
            known.fresh[name] = number
        owner = owner_of_alias(alias)
        if owner and owner.network == network:
            known.changed[owner] = known.changed[OWNED, name] = number


def _changed_owners(known: _Network, network: str) -> frozenset[Owner] | None:
    """Those whose record, link or routes may have changed; None for any, or for more than a few."""
    found: set[Owner] = set()
    for key in known.changed:
        owner = _owner(known, key, network)
        if key == (NODE, LOOPBACK) or len(found) > FEW or owner is None:
            return None
        found.update(owner)
    return frozenset(found) if len(found) <= FEW else None


def _owner(known: _Network, key: Key, network: str) -> tuple[Owner, ...] | None:
    """Whose something is; () if it is no container's of this network, None if that cannot be told."""
    if isinstance(key, Owner):
        return (key,)
    kind, name = key
    if name in known.owners:
        return (known.owners[name],)
    is_other = name.startswith((".", "last_reserved_ip.")) or name in OTHERS or records.canonical(name) == name
    if kind in (NODE, OWNED) or is_other:
        return ()
    words = records.record_owner(name)
    return (Owner(network, *words),) if words else None


def _owned(known: _Network) -> frozenset[str]:
    return frozenset(key[1] for key in known.changed if not isinstance(key, Owner) and key[0] == OWNED)


def _unlisted(known: _Network, valid: frozenset[str]) -> Iterator[Owner]:
    """Those that a list lacks. Nearly all records are named as in the list, some by a hash."""
    owners = (known.owners[name] for name in known.names - valid)
    return (owner for owner in owners if records.attachment_name(owner) not in valid)


def _learn(
    known: _Network, owners: Iterable[Owner], found: Iterable[Attachment], present: Container[str]
) -> None:
    """Whose is what by now; of those owners without a record nothing is left."""
    known.running.difference_update(owners)
    for owner in owners:
        keys = known.keys.pop(owner, ())
        known.names.difference_update(keys[:1])
        for key in keys:
            if known.owners.get(key) == owner:
                del known.owners[key]
    for record in found:
        keys = known.keys[record.owner] = tuple(_keys(record))
        known.owners.update(dict.fromkeys(keys, record.owner))
        known.names.add(keys[0])
        if record.host in present:
            known.running.add(record.owner)


def _keys(record: Attachment) -> Iterator[str]:
    yield records.record_name(record.owner.container_id, record.owner.ifname)
    on_link = (anchor.prefix for anchor in record.anchors if anchor.on_link)
    yield from (record.host, *record.addresses, *on_link, *record.prefixes)
