"""Files of the node agent: read with a limit, replaced whole, locked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cni_v6.errors import IO_FAILURE, CniError
from cni_v6.kernel import text_file, whole_file
from cni_v6.leases.disk import lock

LIMIT = 1 << 26  # bytes: 1,000 nodes of two blocks each are 0.5 MB in a store's file
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def naming(path: str) -> Iterator[None]:
    """
    :raises CniError: IO_FAILURE for an OSError, naming the path.
    """
    try:
        yield
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot use {path}", error.strerror or str(error)) from error


def read(path: str) -> bytes | None:
    """The content of a file; None if there is none.

    :raises CniError: IO_FAILURE.
    """
    with naming(path):
        try:
            return text_file.read(path, LIMIT).encode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None


def replace(path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file by rename: whoever reads it sees the old content or the new one, after a power failure too.

    :raises CniError: IO_FAILURE.
    """
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".{name}.new")  # CNI runtimes read names that end with .conf, .conflist, .json
    with naming(path):
        whole_file.replace(path, content, aside, mode)
        _sync(folder)


def remove(path: str) -> None:
    """Remove a file, which may be absent.

    :raises CniError: IO_FAILURE.
    """
    with naming(path), suppress(FileNotFoundError):
        os.unlink(path)
        _sync(os.path.dirname(path))


def make_folder(path: str, mode: int = 0o700) -> None:
    """Make a folder; it may exist, with any mode.

    :raises CniError: IO_FAILURE.
    """
    with naming(path):
        os.makedirs(path, mode, exist_ok=True)


@contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is absent.

    :raises CniError: IO_FAILURE; TRY_AGAIN after so many seconds, naming the holder.
    """
    fd = open_lock(path)
    try:
        lock.acquire(fd, path, time.monotonic() + seconds)
        yield
    finally:
        os.close(fd)


def open_lock(path: str) -> int:
    """A descriptor of a lock file.

    :raises CniError: IO_FAILURE.
    """
    with naming(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _sync(folder: str) -> None:
    fd = os.open(folder or ".", FOLDER_FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
