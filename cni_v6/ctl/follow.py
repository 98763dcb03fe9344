"""Reads the lines of a log file, and those that are appended later. The kernel tells of them: inotify(7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from cni_v6.engine.log_file import OLD
from cni_v6.kernel import inotify

# The folder is watched, not the file, which is renamed when it is full.
_CHANGES = inotify.IN_MODIFY | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_CREATE
_PART = 1 << 16


class LogFile:
    """A log file that need not exist yet; its folder must, to follow it.

    :raises OSError: the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = self._open()
        self._position = os.fstat(self._file).st_size if self._file >= 0 else 0
        self._rest = b""

    @property
    def is_there(self) -> bool:
        """Whether there is such a file."""
        return self._file >= 0

    def before(self) -> Iterator[bytes]:
        """The lines that there were when it was opened, those of the older file first."""
        with suppress(FileNotFoundError), open(self.path + OLD, "rb") as older:
            if self._file < 0 or not os.path.samestat(os.fstat(older.fileno()), os.fstat(self._file)):
                yield from older
        if self._file >= 0:
            with open(self._file, "rb", closefd=False) as file:
                left = self._position
                for line in file:
                    left -= len(line)
                    if left < 0:
                        return
                    yield line

    def following(self) -> Iterator[bytes]:
        """The lines that are appended later. Does not end.

        :raises OSError: the folder cannot be watched, or a file cannot be read.
        """
        changes = inotify.watch(os.path.dirname(self.path), _CHANGES, blocking=True)
        while True:
            yield from self._new()
            os.read(changes, _PART)  # blocks until something happens in the folder

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _new(self) -> Iterator[bytes]:
        """What has come since the last time; of a file that has been renamed, its end first."""
        yield from self._appended()
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return
        if self._file >= 0 and os.path.samestat(os.fstat(self._file), there):
            return
        yield from self._appended()  # written between the first look and the renaming
        if self._file >= 0:
            os.close(self._file)
        self._file, self._position, self._rest = self._open(), 0, b""
        yield from self._appended()

    def _appended(self) -> Iterator[bytes]:
        if self._file < 0:
            return
        if os.fstat(self._file).st_size < self._position:  # somebody has emptied it
            self._position, self._rest = 0, b""
        while part := os.pread(self._file, _PART, self._position):
            self._position += len(part)
            *lines, self._rest = (self._rest + part).split(b"\n")
            yield from (line + b"\n" for line in lines)

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
