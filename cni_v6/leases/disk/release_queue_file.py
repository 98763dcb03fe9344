"""The queue of released addresses as a file with lines of fixed length.

The first line is ``head <line> <count>``: the line of the oldest entry, and the number of entries. An entry is an
address, seconds since the epoch and an optional mark, padded with blanks. A removed entry is all blank. Nothing is
synced: entries that a power failure loses are recovered at the next boot (``store``). A line is written by one write
within a page, so a kill cannot leave half of it (``Folder.overwrite``).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from math import ceil

from cni_v6.allocation.release_queue import Released
from cni_v6.leases.disk.directory import Folder, naming
from cni_v6.leases.records import canonical

WIDTH = 64  # the longest address, time and mark need 39 + 11 + 9 bytes; the page size is a multiple of it
WINDOW = 64  # lines read at a time
SLACK = 4096  # blank lines; with more, and more than half of the file blank, the file is rewritten
_BLANK = b" " * (WIDTH - 1) + b"\n"


class QueueFile:
    """See ``release_queue.Queue``. The file is opened when it is needed, because most networks reuse no address.

    :param scratch: name of the temporary file for a new version.
    """

    def __init__(self, folder: Folder, name: str, scratch: str) -> None:
        self._folder = folder
        self._name = name
        self._scratch = scratch
        self._path = f"{folder.path}/{name}"
        self._fd: int | None = None
        self._places: dict[str, int] = {}

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd is not None:
            os.close(self._fd)

    def __len__(self) -> int:
        fd = self._open()
        return 0 if fd is None else self._head(fd)[1]

    def __iter__(self) -> Iterator[Released]:
        fd = self._open()
        if fd is None:
            return
        for number, line in self._from_head(fd):
            entry = _entry(line)
            if entry:
                self._places[entry.address] = number
                yield entry

    def _from_head(self, fd: int) -> Iterator[tuple[int, bytes]]:
        """The lines from the oldest entry on, with their numbers."""
        with naming(self._path):
            number, total = self._head(fd)[0], self._lines(fd)
            while number < total:
                chunk = os.pread(fd, WINDOW * WIDTH, number * WIDTH)
                for offset in range(0, len(chunk) - WIDTH + 1, WIDTH):
                    yield number + offset // WIDTH, chunk[offset:offset + WIDTH]
                number += WINDOW

    def find(self, address: str) -> Released | None:
        fd = self._open()
        if fd is None or not self._lines(fd):
            return None
        with naming(self._path), mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as content:
            at = content.find(f"\n{address} ".encode(), self._head(fd)[0] * WIDTH - 1)
            line = content[at + 1:at + 1 + WIDTH]
        entry = _entry(line) if at >= 0 and (at + 1) % WIDTH == 0 else None
        if entry:
            self._places[address] = (at + 1) // WIDTH
        return entry

    def append(self, entry: Released) -> None:
        fd = self._open(create=True)
        assert fd is not None
        with naming(self._path):
            head, count = self._head(fd)
            os.pwrite(fd, _line(f"{entry.address} {ceil(entry.time)} {entry.mark}"), self._lines(fd) * WIDTH)
            os.pwrite(fd, _header(head, count + 1), 0)

    def remove(self, entry: Released) -> None:
        if entry.address not in self._places and self.find(entry.address) is None:
            return
        fd = self._open()
        assert fd is not None
        with naming(self._path):
            os.pwrite(fd, _BLANK, self._places.pop(entry.address) * WIDTH)
            head, count = self._head(fd)
            self._compact(fd, count - 1)

    def _compact(self, fd: int, count: int) -> None:
        """Move the head past blank lines. Rewrite the file without blank lines if they are most of it."""
        total = self._lines(fd)
        head = next((number for number, line in self._from_head(fd) if line != _BLANK), total)
        if head == total:
            os.ftruncate(fd, 0)
        elif total - count > SLACK and count * 2 < total:
            live = [line for _, line in self._from_head(fd) if _entry(line)]
            self._folder.create(self._scratch, _header(1, len(live)) + b"".join(live))
            self._folder.move(self._scratch, self._folder, self._name)
            self.close()
            self._fd = None
        else:
            os.pwrite(fd, _header(head, count), 0)

    def _open(self, *, create: bool = False) -> int | None:
        if self._fd is None:
            self._fd = self._folder.open(self._name, create=create)
            self._places.clear()
        if create and self._fd is not None and not self._lines(self._fd):
            with naming(self._path):
                os.pwrite(self._fd, _header(1, 0), 0)
        return self._fd

    def _lines(self, fd: int) -> int:
        """Number of whole lines. A torn last line is overwritten."""
        return os.fstat(fd).st_size // WIDTH

    def _head(self, fd: int) -> tuple[int, int]:
        """The line of the oldest entry, and the number of entries. A power failure may have damaged the first line."""
        words = os.pread(fd, WIDTH, 0).split()
        if len(words) == 3 and words[0] == b"head" and words[1].isdigit() and words[2].isdigit():
            return max(1, int(words[1])), int(words[2])
        return 1, max(0, self._lines(fd) - 1)


def _header(head: int, count: int) -> bytes:
    return _line(f"head {head} {max(0, count)}")


def _line(text: str) -> bytes:
    return text.ljust(WIDTH - 1).encode() + b"\n"


def _entry(line: bytes) -> Released | None:
    """The entry of a line; None if the line is blank, or damaged by a power failure."""
    try:
        address, time, *marks = line.decode("ascii").split()
        entry = Released(address, float(time), *marks)
    except (ValueError, TypeError):
        return None
    return entry if canonical(address) == address else None
