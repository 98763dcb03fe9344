"""The lock of a network's store: a lock among the threads of a process, then a file lock, both with a time limit.

filelock takes the lock of a descriptor (``lock_descriptor``: flock(2), which the reference plugin uses too). Its time
limit is not used, because it polls every 50 ms. A free lock would stay idle between two polls, and a caller that polls
at the right moment would overtake those that wait longer (``tools/lockwait``, docs/design/leases.md).

Instead, a caller that does not get the lock at once lets a thread wait for it in the kernel's queue. flock(2) has no
time limit, and a signal cannot end the wait in time: Python's handlers run in the main thread only, and the call is
restarted after them (PEP 475). So the thread goes on waiting after its caller has given up. There is one such thread
for each process and lock, and the next caller waits for the same thread.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread

from cni_v6.errors import TRY_AGAIN, CniError
from cni_v6.kernel.deadline import without_token

File = tuple[int, int]  # device, inode


class _ThreadLock:
    """The lock of a folder among threads. It exists while a thread holds it or waits for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0


_thread_locks: dict[str, _ThreadLock] = {}
_guard = Lock()  # protects _thread_locks
_waiting: dict[File, Thread] = {}


@contextmanager
def turn(path: str, seconds: float) -> Iterator[None]:
    """Hold the thread lock of the folder at ``path``. Threads get it in the order of their calls.

    After the time limit the caller goes on without it: the file lock then fails, and its error names the holder.
    """
    with _guard:
        thread_lock = _thread_locks.setdefault(path, _ThreadLock())
        thread_lock.users += 1
    acquired = thread_lock.lock.acquire(blocking=False)
    if not acquired:
        with without_token():
            acquired = thread_lock.lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if acquired:
            thread_lock.lock.release()
        with _guard:
            thread_lock.users -= 1
            if not thread_lock.users:  # a removed network must not leave its lock behind
                del _thread_locks[path]


def acquire(fd: int, path: str, deadline: float) -> None:
    """Hold the lock of an open file until its descriptor is closed.

    :param path: the file's path, for messages.
    :param deadline: in seconds of time.monotonic(); one attempt is made in any case.
    :raises CniError: TRY_AGAIN past the deadline, naming the holder.
    """
    from filelock import lock_descriptor  # imported here: a call without an engine may never open a store

    while not lock_descriptor(fd, blocking=False):
        left = deadline - time.monotonic()
        if left <= 0:
            holder = lock_holder(os.fstat(fd))
            who = f"held by process {holder}" if holder else "held by another process"
            raise CniError(TRY_AGAIN, f"lock {path} is {who}", "try again; if that process hangs, end it")
        with without_token():
            _waiter(fd, path).join(left)


def lock_holder(file: os.stat_result) -> int | None:
    """The process that holds the flock of a file, from /proc/locks; None if it is not listed."""
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(OSError, ValueError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            words = line.split()  # Documentation/filesystems/proc.rst: number, kind, advisory, type, pid, file, ...
            if words[1] == "FLOCK" and words[5] == device:
                return int(words[4])
    return None


def _waiter(fd: int, path: str) -> Thread:
    """A thread that ends when it gets the lock: for this caller, or for an earlier one whose descriptor is closed."""
    status = os.fstat(fd)
    file = status.st_dev, status.st_ino  # not the path: it may name another file by now
    thread = _waiting.get(file)
    if thread is None or not thread.is_alive():
        thread = _waiting[file] = Thread(target=_wait, args=(os.dup(fd), file), name=f"waits for {path}", daemon=True)
        thread.start()
    return thread


def _wait(fd: int, file: File) -> None:
    """Take the lock and close ``fd``, a duplicate. The lock lasts while the original is open (flock(2))."""
    with suppress(OSError):  # the caller's next attempt fails the same way, and reports it
        fcntl.flock(fd, fcntl.LOCK_EX)
    _waiting.pop(file, None)
    os.close(fd)
