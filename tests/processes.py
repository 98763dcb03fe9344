"""The processes of a namespace: find them, end them, by process id and race-free."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


def inside(namespaces: set[int], mount_namespace: str = "") -> set[int]:
    """Ids of the processes in one of these network namespaces (by inode), or in the mount namespace at this path."""
    mount = os.readlink(mount_namespace) if mount_namespace else None
    networks = {f"net:[{inode}]" for inode in namespaces}
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            network = os.readlink(f"/proc/{entry}/ns/net")
            if network in networks or os.readlink(f"/proc/{entry}/ns/mnt") == mount:
                found.add(int(entry))
        except OSError:  # it has ended, or is a zombie
            continue
    return found


def kill_all(pids: Iterable[int]) -> None:
    """Kill these processes and wait for each one's end: a pidfd becomes readable then (pidfd_open(2))."""
    handles = list(_handles(pids))
    for handle in handles:
        with suppress(ProcessLookupError):  # ended meanwhile, as another one's child
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [])
        os.close(handle)


@contextmanager
def interruptible() -> Iterator[None]:
    """Processes started in here hear SIGINT, which shells have what they run in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def opened(pid: int | str = "self") -> list[str]:
    """What the process's descriptors stand for, sorted: paths, and names like net:[4026531840] (proc_pid_fd(5)).

    The process goes on meanwhile: a descriptor that it closes after it was listed is left out.
    """
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # of our own, the listing's at least
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return sorted(found)


def descriptors(namespaces: set[int]) -> list[int]:
    """Open descriptors of this process that keep one of these network namespaces alive."""
    device = os.stat("/proc/self/ns/net").st_dev  # nsfs: one for all namespaces
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(entry))
        except OSError:  # the listing's own descriptor
            continue
        if status.st_dev == device and status.st_ino in namespaces:
            found.append(int(entry))
    return found


def _handles(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        try:
            yield os.pidfd_open(pid)
        except ProcessLookupError:
            continue
