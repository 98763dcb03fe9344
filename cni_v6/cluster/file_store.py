"""A cluster's store in one file, for nodes that share a file system of one kernel: a machine's containers, a lab.

The file is JSON that a person can read. It is replaced whole, under a lock beside it. inotify(7) tells of changes, but
only of those that this kernel makes; so a network file system is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from cni_v6.cluster import files
from cni_v6.cluster.records import Change, Objects, to_text
from cni_v6.cluster.store import Registered, applied
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel import inotify
from cni_v6.protocol.json_reader import decode

LOCK_SECONDS = 10.0
REPORTS = ".reports"  # a file beside the store's
# The file is another one after each change.
CHANGES = inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_DELETE
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
                files.replace(self._path, _document(later))
            return later is not None

    def report(self, name: str, text: str | None) -> None:
        with files.locked(f"{self._path}.lock", LOCK_SECONDS):
            before = dict(self.reports())
            later = {key: value for key, value in before.items() if key != name} | ({name: text} if text else {})
            if later != before:
                files.replace(self._path + REPORTS, _document(later))

    def reports(self, name: str = "") -> Mapping[str, str]:
        content, found = files.read(self._path + REPORTS), dict[str, object]()
        with suppress(CniError):  # what cannot be read is replaced by the next report
            found = decode(content or b"{}", "the reports")
        return {key: to_text(value) for key, value in found.items() if name in ("", key)}

    def registered(self, name: str, own: str) -> Registered:
        return Registered(own)

    def unheard(self) -> None:
        return None

    def fileno(self) -> int:
        if self._events < 0:
            with files.naming(self._folder):
                self._events = inotify.watch(self._folder, CHANGES)
        return self._events

    def drain(self) -> bool:
        """The lock and the file aside are others. An event without a name tells of events that were lost."""
        own, found = os.fsencode(os.path.basename(self._path)), False
        with suppress(BlockingIOError):
            while content := os.read(self.fileno(), inotify.READ_BYTES):
                found = found or any(name in (own, b"") for _, name in inotify.events(content))
        return found

    def close(self) -> None:
        if self._events >= 0:
            os.close(self._events)
            self._events = -1


def _document(objects: Mapping[str, str]) -> bytes:
    document = {key: json.loads(value) for key, value in sorted(objects.items())}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _file_system(device: int) -> str:
    """The type of the file system with this device number, from proc_pid_mountinfo(5); "" if it is not listed."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if before.split()[2] == number:
                return after.split()[0]
    return ""
