"""A folder of the lease store: files by name below an open descriptor. Errors name the path.

All access goes through the folder's descriptor (openat(2) and related calls). So nobody can redirect us by renaming the
folder or by putting a symbolic link in its place. ``O_NOFOLLOW`` does the same for the files in it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.kernel.privilege import needs_root
from cni_v6.leases.disk import lock

FOLDER_MODE = 0o700
FILE_MODE = 0o600
READ_LIMIT = 1 << 20  # far above any file of the store: a planted file must not fill the memory
PAGE = 4096  # the smallest page size

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: without it, opening a fifo in the place of a file would block until it has a writer.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_EDIT_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_PLANTED = "it must be a folder or a plain file of its own: find out who put something else there, then remove it"
_DENIED = "run as root, and look at the owner and mode of that path"
_FULL = "free space or inodes on that file system, then try again"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "make that file system writable, or set ipam.dataDir to a folder on another one",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ELOOP: _PLANTED,
    errno.ENOTDIR: _PLANTED,
    errno.EISDIR: _PLANTED,
}


class naming:  # used like a function; a contextlib generator takes three times as long, and an ADD has fifty of them
    """Turn an OSError into a CniError that names the path. All file system calls of the store run in it.

    :raises CniError: STORE_FAILED with the system's words and a remedy.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            remedy = _REMEDIES.get(error.errno or 0, "look at that path and at the file system's health (dmesg)")
            words = f"{needs_root(error)}lease store: {self._path}: {error.strerror}"
            raise CniError(STORE_FAILED, words, remedy) from error


class Folder:
    """An open folder. ``path`` is for messages; only the network's folder is opened by its path.

    ``opened``: its status when it was opened. ``_kept``: descriptor and size of files that are to be overwritten.
    """

    def __init__(self, path: str) -> None:
        """Open the folder at a path, and create it if it is missing.

        Its parents may be symbolic links, which the administrator may use. The folder itself may not be one.

        :raises CniError: STORE_FAILED.
        """
        self.path = path
        self._kept: dict[str, tuple[int, int]] = {}
        with naming(path):
            self.fd, self.opened = _narrowed(_open_folder(path))

    def child(self, name: str) -> Folder:
        """Open a folder in this one, and create it if it is missing."""
        folder = Folder.__new__(Folder)
        folder.path = f"{self.path}/{name}"
        folder._kept = {}
        with naming(folder.path):
            folder.fd, folder.opened = _narrowed(_open_child(self.fd, name))
        return folder

    def close(self) -> None:
        """Close all descriptors."""
        for name in list(self._kept):
            self._forget(name)
        os.close(self.fd)

    def _forget(self, name: str) -> None:
        """The name is about to be another file, or none."""
        if name in self._kept:
            os.close(self._kept.pop(name)[0])

    def changed(self) -> int:
        """The folder's mtime in nanoseconds since the epoch: a name was added or removed, or ``os.utime`` set it."""
        return os.fstat(self.fd).st_mtime_ns

    def names(self) -> list[str]:
        """All names in the folder. The time is linear, so a usual ADD or DEL does not call it."""
        with naming(self.path):
            return os.listdir(self.fd)

    def exists(self, name: str) -> bool:
        """Whether the name exists, even as a dangling symbolic link."""
        return self.stat(name) is not None

    def is_plain(self, name: str) -> bool:
        """Whether the name is a regular file: not a folder, link or device."""
        status = self.stat(name)
        return status is not None and stat.S_ISREG(status.st_mode)

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is no such file.

        :raises CniError: STORE_FAILED, also if the name is not a regular file.
        """
        found = self.read_identified(name)
        return found and found[0]

    def read_identified(self, name: str) -> tuple[bytes, int] | None:
        """As ``read``, with ``identity`` of the file."""
        with naming(f"{self.path}/{name}"):
            try:
                fd = os.open(name, _READ_FLAGS, dir_fd=self.fd)
            except FileNotFoundError:
                return None
            try:
                return _content(fd)
            finally:
                os.close(fd)

    def read_to_edit(self, name: str) -> bytes | None:
        """As ``read``, of a file that is probably overwritten afterwards: it stays open for that."""
        with naming(f"{self.path}/{name}"):
            self._forget(name)
            try:
                fd = os.open(name, _EDIT_FLAGS, dir_fd=self.fd)
            except FileNotFoundError:
                return None
            except OSError:  # not to be written, or not a file
                return self.read(name)
            try:
                content, _ = _content(fd)
            except BaseException:
                os.close(fd)
                raise
            self._kept[name] = fd, len(content)
            return content

    def stat(self, name: str) -> os.stat_result | None:
        """The status of a name; None if it does not exist. Symbolic links are not followed."""
        with naming(f"{self.path}/{name}"):
            try:
                return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes, *, sync: bool = False, mtime: int | None = None) -> None:
        """Create a file. It replaces a file of that name; other hard links to the old file keep the old content.

        :param sync: sync the content before this returns. The name is synced by ``flush``.
        :param mtime: nanoseconds since the epoch; None for the current time.
        """
        with naming(f"{self.path}/{name}"):
            fd = self._created(name)
            try:
                _write(fd, content)
                if mtime is not None:
                    os.utime(fd, ns=(mtime, mtime))
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)

    def _created(self, name: str) -> int:
        self._forget(name)
        try:
            return os.open(name, _CREATE_FLAGS, FILE_MODE, dir_fd=self.fd)
        except FileExistsError:  # a killed writer has left it, mostly
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.fd)
            return os.open(name, _CREATE_FLAGS, FILE_MODE, dir_fd=self.fd)

    def overwrite(self, name: str, content: bytes) -> bool:
        """Replace content of the same length in place, in one write; False if the file is missing or does not fit.

        A signal, SIGKILL included, is looked at between the pages of a write, not within one (mm/filemap.c,
        generic_perform_write), so that a short write is whole or has not happened.
        """
        with naming(f"{self.path}/{name}"):
            if name in self._kept:
                fd, size = self._kept[name]
                return size == len(content) <= PAGE and os.pwrite(fd, content, 0) == size
            try:
                fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
            except FileNotFoundError:
                return False
            try:
                fits = os.fstat(fd).st_size == len(content) <= PAGE
                return fits and os.pwrite(fd, content, 0) == len(content)
            finally:
                os.close(fd)

    def open(self, name: str, *, create: bool) -> int | None:
        """A file's descriptor to read and write; None if there is no such file and ``create`` is false."""
        with naming(f"{self.path}/{name}"):
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            try:
                return os.open(name, flags, FILE_MODE, dir_fd=self.fd)
            except FileNotFoundError:
                return None

    def move(self, name: str, to: Folder, new: str) -> None:
        """Rename a file into another folder of the store. It replaces a file of that name."""
        with naming(f"{to.path}/{new}"):
            to._forget(new)
            os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=to.fd)

    def link(self, name: str, to: Folder, new: str) -> bool:
        """Add a hard link to a file; False if that name exists."""
        with naming(f"{to.path}/{new}"):
            try:
                os.link(name, new, src_dir_fd=self.fd, dst_dir_fd=to.fd, follow_symlinks=False)
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Delete a file. It may be missing."""
        with naming(f"{self.path}/{name}"), suppress(FileNotFoundError):
            self._forget(name)
            os.unlink(name, dir_fd=self.fd)

    def flush(self) -> None:
        """Make the folder's names durable."""
        with naming(self.path):
            os.fsync(self.fd)

    def lock(self, name: str, deadline: float) -> int | None:
        """Hold the flock(2) of a file until the returned descriptor is closed.

        :param deadline: in seconds of time.monotonic(); one attempt is made in any case.
        :returns: None if the folder or the file was removed meanwhile: then the lock excludes nobody.
        :raises CniError: TRY_AGAIN past the deadline, STORE_FAILED.
        """
        path = f"{self.path}/{name}"
        with naming(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                fd = os.open(name, flags, FILE_MODE, dir_fd=self.fd)
            except FileNotFoundError:
                return None
            try:
                lock.acquire(fd, path, deadline)
                if _same(os.fstat(fd), self.stat(name)) and os.fstat(self.fd).st_nlink:
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            return None


def _open_folder(path: str) -> int:
    try:
        return os.open(path, _FOLDER_FLAGS)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        os.makedirs(parent, FOLDER_MODE, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, FOLDER_MODE)
        _sync(parent)
        return os.open(path, _FOLDER_FLAGS)


def _open_child(parent: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, FOLDER_MODE, dir_fd=parent)
        os.fsync(parent)
        return os.open(name, _FOLDER_FLAGS, dir_fd=parent)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _narrowed(fd: int) -> tuple[int, os.stat_result]:
    """Restrict an open folder to its owner. The reference plugin creates folders that everyone can read."""
    try:
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode)
        if mode & ~FOLDER_MODE:
            os.fchmod(fd, mode & FOLDER_MODE)
    except OSError:
        os.close(fd)
        raise
    return fd, status


def identity(status: os.stat_result) -> int:
    """What no other file has had in its place: a number of inode and ctime, which nobody can set.

    Inodes alone are given again: to a copy of the file, once the file is deleted.
    """
    return status.st_ctime_ns << 64 | status.st_ino


def _content(fd: int) -> tuple[bytes, int]:
    """Content and identity of a file."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EISDIR, "not a plain file")
    return os.read(fd, min(status.st_size, READ_LIMIT)), identity(status)


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view):]


def _same(status: os.stat_result, other: os.stat_result | None) -> bool:
    return other is not None and (status.st_dev, status.st_ino) == (other.st_dev, other.st_ino)
