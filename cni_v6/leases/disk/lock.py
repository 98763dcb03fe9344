"""The lock of a network's store: threads of one process take turns, then ask for the file's lock, for so long.

filelock takes the lock of a descriptor (``lock_descriptor``: flock(2), which the reference plugin uses too). Its time
limit is not used: it looks again every 50 ms, so that a lock that is free lies idle, and who looks at the right moment
gets it before those who wait longer (``tools/lockwait``, docs/design/leases.md).

Instead, who cannot have the lock at once has a thread wait for it in the kernel's queue. flock(2) knows no time limit,
and no signal could end that wait in time: Python's handlers run in the main thread only, and the call is begun again
after them (PEP 475). So a thread goes on waiting when its caller has given up, one a process and lock, and who comes
next waits with it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread

from cni_v6.errors import TRY_AGAIN, CniError

File = tuple[int, int]  # device, inode


class _Turn:
    """A folder's, for as long as anybody holds it or waits for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0


_turns: dict[str, _Turn] = {}
_guard = Lock()
_waiting: dict[File, Thread] = {}


@contextmanager
def turn(path: str, seconds: float) -> Iterator[None]:
    """Hold the turn for the folder at ``path``, the same for every caller of the process, in the order they came.

    Who has waited for so long goes on without: the file's lock refuses, and says who holds it.
    """
    with _guard:
        found = _turns.setdefault(path, _Turn())
        found.users += 1
    held = found.lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if held:
            found.lock.release()
        with _guard:
            found.users -= 1
            if not found.users:  # networks come and go
                del _turns[path]


def acquire(fd: int, path: str, deadline: float) -> None:
    """Hold the lock of an open file until it is closed.

    :param path: the file's, for messages.
    :param deadline: on time.monotonic()'s clock; one attempt is made in any case.
    :raises CniError: TRY_AGAIN past the deadline, naming the holder.
    """
    from filelock import lock_descriptor  # a call without an engine that opens no store does not pay for it

    while not lock_descriptor(fd, blocking=False):
        left = deadline - time.monotonic()
        if left <= 0:
            holder = lock_holder(os.fstat(fd))
            who = f"held by process {holder}" if holder else "held by another process"
            raise CniError(TRY_AGAIN, f"lock {path} is {who}", "try again; if that process hangs, end it")
        _waiter(fd, path).join(left)


def lock_holder(file: os.stat_result) -> int | None:
    """Process that holds the flock of a file, from /proc/locks; None where that cannot be told."""
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(OSError, ValueError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            words = line.split()  # Documentation/filesystems/proc.rst: number, kind, advisory, type, pid, file, ...
            if words[1] == "FLOCK" and words[5] == device:
                return int(words[4])
    return None


def _waiter(fd: int, path: str) -> Thread:
    """A thread that ends once the lock was free: ours then, or that of somebody who gave up, who lets go of it."""
    status = os.fstat(fd)
    file = status.st_dev, status.st_ino  # of a path that leads elsewhere by now, others wait for another one
    found = _waiting.get(file)
    if found is None or not found.is_alive():
        found = _waiting[file] = Thread(target=_wait, args=(os.dup(fd), file), name=f"waits for {path}", daemon=True)
        found.start()
    return found


def _wait(fd: int, file: File) -> None:
    """Get the lock and close ``fd``, a duplicate: the lock stays as long as the other is open (flock(2))."""
    with suppress(OSError):  # the next attempt meets the same, and says so
        fcntl.flock(fd, fcntl.LOCK_EX)
    _waiting.pop(file, None)
    os.close(fd)
