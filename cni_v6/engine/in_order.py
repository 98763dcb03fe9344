"""Which containers of a network a STATUS has found in order, and which may have changed since.

A runtime asks for STATUS every few seconds. Beside thousands of containers a look at the record, the link, the routes
and a setting of each takes a hundred times as long as all else. So an engine keeps what it found, and is told what
changes: by the kernel of links, addresses, routes and settings (rtnetlink(7)), and of records and lease files
(inotify(7)), whoever changes them. Whatever is in doubt, all are looked at: lost news, another folder, another
configuration, an address of the loopback interface, more than a few containers that have changed.

Only a STATUS that finds nothing wrong is remembered: what was wrong is looked at again.
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
FILE, NODE = "file", "node"
Key = tuple[str, str] | Owner  # the name of a file, or of an interface or route of the node; an owner


@dataclass(slots=True)
class _Network:
    """``events``: of its folders. ``mark``: as of ``InOrder.begin``; None while it is not known to be in order.

    ``owners``: whose each interface, route, record and lease file is. ``keys``: those of each owner. ``running``: whose
    interface was there. ``changed``: what has changed, and the number of the look before which it did. ``lost``: the
    number of the look before which news were lost.
    """

    events: int
    places: tuple[Place, ...]
    mark: object = None
    owners: dict[str, Owner] = field(default_factory=dict)
    keys: dict[Owner, tuple[str, ...]] = field(default_factory=dict)
    running: set[Owner] = field(default_factory=set)
    changed: dict[Key, int] = field(default_factory=dict)
    lost: int = 0


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
            self._number += 1
            self._hear()
            known = self._known(key)
            is_told = _read(known, self._number)
            if not is_told:
                self._forget(key)
                known = self._known(key)
            owners = _changed_owners(known, network) if is_told and known.mark == mark else None
            others = owners is not None and not known.running <= owners
            return Look(owners, others, _Token(key, known, self._number, mark))
        return Look()

    def settle(self, look: Look, records: Iterable[Attachment], present: Container[str]) -> None:
        token = look.token
        if not isinstance(token, _Token):
            return
        with self._lock:
            known = token.network
            if self._networks.get(token.key) is not known or known.lost > token.number:
                return
            _learn(known, tuple(known.keys) if look.owners is None else look.owners, records, present)
            known.mark = token.mark
            known.changed = {key: number for key, number in known.changed.items() if number > token.number}

    def close(self) -> None:
        with self._lock:
            for key in list(self._networks):
                self._forget(key)
            if self._news:
                self._news.close()

    def _hear(self) -> None:
        """What the kernel tells is for all networks."""
        self._news = self._news or self._make_news()
        told = self._news.read()
        for known in self._networks.values():
            _note(known, told or (), self._number)
            if told is None or len(known.changed) > MOST:
                known.mark, known.lost = None, self._number
                known.changed.clear()

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


def _note(known: _Network, told: Iterable[News], number: int) -> None:
    """Note what has changed of the node's links and routes, and whose interfaces there are. Whether that is a container
    of the network is known when its owners are."""
    for name, alias in told:
        known.changed[NODE, name] = number
        owner = owner_of_alias(alias)
        if owner:
            known.changed[owner] = number


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
        return (key,) if key.network == network else ()
    kind, name = key
    if name in known.owners:
        return (known.owners[name],)
    is_other = name.startswith((".", "last_reserved_ip.")) or name in OTHERS or records.canonical(name) == name
    if kind == NODE or is_other:
        return ()
    words = records.record_owner(name)
    return (Owner(network, *words),) if words else None


def _learn(
    known: _Network, owners: Iterable[Owner], found: Iterable[Attachment], present: Container[str]
) -> None:
    """Whose is what by now; of those owners without a record nothing is left."""
    known.running.difference_update(owners)
    for owner in owners:
        for key in known.keys.pop(owner, ()):
            if known.owners.get(key) == owner:
                del known.owners[key]
    for record in found:
        keys = known.keys[record.owner] = tuple(_keys(record))
        known.owners.update(dict.fromkeys(keys, record.owner))
        if record.host in present:
            known.running.add(record.owner)


def _keys(record: Attachment) -> Iterator[str]:
    yield records.record_name(record.owner.container_id, record.owner.ifname)
    yield from (record.host, *record.addresses, *(anchor.prefix for anchor in record.anchors if anchor.on_link))
