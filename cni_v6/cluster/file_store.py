"""A cluster's store in one file, for nodes that share a file system of one kernel: a machine's containers, a lab.

The file is JSON that a person can read. It is replaced whole, under a lock beside it. inotify(7) tells of changes, but
only of those that this kernel makes; so a network file system is refused.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from cni_v6.cluster import files
from cni_v6.cluster.records import Change, Objects, to_text
from cni_v6.cluster.store import applied
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.protocol.json_reader import decode

LOCK_SECONDS = 10.0
IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE = 0x08, 0x40, 0x80, 0x200  # linux/inotify.h
EVENT = struct.Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name that follows
EVENTS = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE
NETWORK_FILE_SYSTEMS = frozenset((
    "9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "nfs", "nfs4", "smb3", "virtiofs",
))


class FileStore:
    """
    :param path: of the file. Its folder must exist; the file is made at the first change.
    :raises CniError: INVALID_CONFIG, IO_FAILURE.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._folder = os.path.dirname(self._path)
        if os.path.isdir(self._path):
            raise CniError(INVALID_CONFIG, f"--cluster: file:{path} is a folder", "name a file in it")
        with files.naming(self._folder):
            kind = _file_system(os.stat(self._folder).st_dev)
        if kind in NETWORK_FILE_SYSTEMS:
            raise CniError(
                INVALID_CONFIG, f"--cluster: file:{path} is on a network file system ({kind})",
                "the kernel does not tell of what other machines change there: use etcd:",
            )
        self._events = -1

    def read(self) -> Objects:
        content = files.read(self._path)
        if not content:
            return {}
        found = decode(content, f"the cluster's store {self._path}")
        return {key: to_text(value) for key, value in found.items()}

    def commit(self, changes: Sequence[Change]) -> bool:
        with files.locked(f"{self._path}.lock", LOCK_SECONDS):
            before = self.read()
            later = applied(before, changes)
            if later is not None and later != before:
                document = {key: json.loads(value) for key, value in sorted(later.items())}
                files.replace(self._path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
            return later is not None

    def fileno(self) -> int:
        if self._events < 0:
            self._events = _watch(self._folder)
        return self._events

    def drain(self) -> bool:
        own, found = os.fsencode(os.path.basename(self._path)), False
        with suppress(BlockingIOError):
            while events := os.read(self.fileno(), 1 << 16):
                found = found or any(name in (own, b"") for name in _names(events))
        return found

    def close(self) -> None:
        if self._events >= 0:
            os.close(self._events)
            self._events = -1


def _watch(folder: str) -> int:
    """A descriptor that can be read after changes in a folder: the file is another one after each change."""
    libc = ctypes.CDLL(None, use_errno=True)
    with files.naming(folder):
        events = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if events < 0 or libc.inotify_add_watch(events, os.fsencode(folder), EVENTS) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        return int(events)


def _names(events: bytes) -> Iterator[bytes]:
    """The file of each event; "" where events were lost (IN_Q_OVERFLOW). The lock and the file aside are others."""
    offset = 0
    while offset < len(events):
        _, _, _, length = EVENT.unpack_from(events, offset)
        yield events[offset + EVENT.size : offset + EVENT.size + length].rstrip(b"\0")
        offset += EVENT.size + length


def _file_system(device: int) -> str:
    """The type of the file system with this device number, from proc_pid_mountinfo(5); "" if it is not listed."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if before.split()[2] == number:
                return after.split()[0]
    return ""
