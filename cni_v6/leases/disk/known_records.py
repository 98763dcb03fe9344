"""What GC must know of all records of a network. An engine reads a record again only after somebody may have written
to it.

The kernel tells of that (inotify(7)), whoever it was. If there is any doubt, all records are read: nothing was looked
at yet, news were lost, the folder is another one. So a record that was written to is always read. No news tell of a
disk that loses what it had, of another machine that writes to the same file system, or of a file that is written by
another name or through a mapping (mmap) that is still there. A reload of the firewall's tables reads every record,
STATUS those that may have changed (``engine.in_order``), and CHECK and DEL the container's.

pyroute2 has inotify too, but knows neither lost news nor a folder that ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal

from cni_v6.kernel import inotify
from cni_v6.leases.disk.directory import Folder
from cni_v6.values import dataclass

WRITTEN = inotify.IN_MODIFY | inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO | inotify.IN_CREATE
LOST = inotify.IN_DELETE_SELF | inotify.IN_UNMOUNT | inotify.IN_Q_OVERFLOW | inotify.IN_IGNORED
FOLDERS = 16  # a user has 128 instances of inotify (fs.inotify.max_user_instances)

Key = tuple[int, int]  # device and inode of a folder
Said = Literal["damaged", "guarded", "open"]  # what a record says
DAMAGED: Said = "damaged"
GUARDED: Said = "guarded"
OPEN: Said = "open"
Read = Callable[[str], Said | None]


@dataclass(frozen=True, slots=True)
class Known:
    """``damaged``: the names of damaged records. ``guarded``: whether a record has a policy, or has had one."""

    damaged: tuple[str, ...]
    guarded: bool


class KnownRecords:
    """What an engine knows of the records of the networks whose GC it has served. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, _Watch] = {}

    def of(self, folder: Folder, read: Read) -> Known:
        """What is known of the records in a folder.

        :param read: reads the record of a name; None if there is none.
        """
        key = folder.opened.st_dev, folder.opened.st_ino
        with self._lock:
            watch = self._known.pop(key, None)  # nobody else has it meanwhile
        names = watch.to_read() if watch else None
        if watch is None or names is None:
            if watch:
                watch.close()
            watch = _watch(folder.fd)  # before the names are read: news of what changes from now on are kept
            names = folder.names()
        try:
            known = read_all(names, read, guarded=watch is not None and watch.known.guarded)
        except BaseException:
            if watch:
                watch.close()
            raise
        if watch:
            watch.known = known
            self._keep(key, watch)
        return known

    def _keep(self, key: Key, watch: _Watch) -> None:
        with self._lock:
            obsolete = [self._known.pop(key)] if key in self._known else []
            self._known[key] = watch
            if len(self._known) > FOLDERS:
                obsolete.append(self._known.pop(next(iter(self._known))))
        for each_watch in obsolete:
            each_watch.close()


def read_all(names: Iterable[str], read: Read, *, guarded: bool = False) -> Known:
    """What records say, and whether one was ``guarded`` before."""
    said = [(name, word) for name in names if (word := read(name)) in (DAMAGED, GUARDED)]
    return Known(tuple(name for name, word in said if word == DAMAGED), guarded or bool(said))


class _Watch:
    """News about one folder. ``known``: what was known of its records at the last look."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.known = Known((), False)

    def to_read(self) -> Iterable[str] | None:
        """The names that may be of damaged records by now; None if any may be."""
        names = set(self.known.damaged)
        with suppress(BlockingIOError):
            while True:
                for mask, name in inotify.events(os.read(self._fd, inotify.READ_BYTES)):
                    if mask & LOST:
                        return None
                    names.add(os.fsdecode(name))
        return sorted(names)

    def close(self) -> None:
        os.close(self._fd)


def _watch(folder: int) -> _Watch | None:
    """Watch a folder from now on; None if the kernel does not let us."""
    path = f"/proc/self/fd/{folder}"  # the folder that is open, whatever its path leads to by now
    try:
        return _Watch(inotify.watch(path, WRITTEN | inotify.IN_DELETE_SELF | inotify.IN_ONLYDIR))
    except OSError:
        return None
