"""Changes in a folder, as the kernel tells of them: inotify(7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct

from cni_v6.kernel.netns.enter import failure, libc

# linux/inotify.h
IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x2, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x2000, 0x4000, 0x8000, 0x1000000
READ_BYTES = 64 << 10

_EVENT = Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of the name that follows


def watch(folder: str, mask: int, *, blocking: bool = False) -> int:
    """A descriptor that can be read after changes in a folder.

    :param blocking: whether a read waits for the next change.
    :raises OSError: the kernel does not let us.
    """
    fd = watch_nothing(blocking=blocking)
    try:
        add(fd, folder, mask)
    except OSError:
        os.close(fd)
        raise
    return fd


def watch_nothing(*, blocking: bool = False) -> int:
    """A descriptor for ``add``.

    :raises OSError: the kernel does not let us.
    """
    fd = libc().inotify_init1(os.O_CLOEXEC | (0 if blocking else os.O_NONBLOCK))
    if fd < 0:
        raise failure("inotify")
    return int(fd)


def add(fd: int, folder: str, mask: int) -> None:
    """Watch one more folder; one that is watched already stays so.

    :raises OSError: the kernel does not let us, or there is no such folder.
    """
    if libc().inotify_add_watch(fd, os.fsencode(folder), mask) < 0:
        raise failure("inotify")


def events(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Mask and file name of each event that was read; the name is empty where the event is of no file."""
    place = 0
    while place < len(content):
        _, mask, _, length = _EVENT.unpack_from(content, place)
        place += _EVENT.size + length
        yield mask, content[place - length:place].rstrip(b"\0")
