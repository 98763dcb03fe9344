"""What GC must know of all records of a network. An engine reads a record again only after somebody may have written
to it.

The kernel tells of that (inotify(7)), whoever it was. If there is any doubt, all records are read: nothing was looked
at yet, news were lost, the folder is another one. So a record that was written to is always read. No news tell of a
disk that loses what it had, of another machine that writes to the same file system, or of a file that is written by
another name or through a mapping (mmap) that is still there. STATUS and a reload of the firewall's tables read every
record, and CHECK and DEL the container's.

pyroute2 has inotify too, but knows neither lost news nor a folder that ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from struct import Struct
from typing import Literal

from cni_v6.leases.disk.directory import Folder
from cni_v6.values import dataclass

EVENT = Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of the name that follows
IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_DELETE_SELF = 0x2, 0x8, 0x80, 0x100, 0x400  # linux/inotify.h
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x2000, 0x4000, 0x8000, 0x1000000
WRITTEN = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE
LOST = IN_DELETE_SELF | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED
READ_BYTES = 64 << 10
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
                content, place = os.read(self._fd, READ_BYTES), 0
                while place < len(content):
                    _, mask, _, length = EVENT.unpack_from(content, place)
                    place += EVENT.size + length
                    if mask & LOST:
                        return None
                    names.add(os.fsdecode(content[place - length:place].rstrip(b"\0")))
        return sorted(names)

    def close(self) -> None:
        os.close(self._fd)


def _watch(folder: int) -> _Watch | None:
    """Watch a folder from now on; None if the kernel does not let us."""
    import ctypes  # few calls are a GC

    from cni_v6.kernel.netns.enter import libc

    fd = libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        return None
    path = ctypes.c_char_p(b"/proc/self/fd/%d" % folder)  # the folder that is open, whatever its path leads to by now
    if libc().inotify_add_watch(fd, path, ctypes.c_uint32(WRITTEN | IN_DELETE_SELF | IN_ONLYDIR)) < 0:
        os.close(fd)
        return None
    return _Watch(fd)
