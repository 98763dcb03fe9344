"""The queue of released addresses as a file of lines of one length.

``head <line> <count>`` first: where the oldest entry stands, and how many there are. An entry is an address, seconds
since the epoch and maybe a mark, padded with blanks; one that was taken out is all blank. Nothing is synced: what a
power failure takes of it is made up for at the next boot (``store``). A line is written by one write within a page,
which a kill cannot cut short (``Folder.overwrite``).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from math import ceil

from cni_v6.allocation.release_queue import Released
from cni_v6.leases.disk.directory import Folder, naming
from cni_v6.leases.records import canonical

WIDTH = 64  # the longest address, time and mark need 39 + 11 + 9; a divisor of the page
WINDOW = 64  # lines read at a time
SLACK = 4096  # lines that say nothing are worth writing the others anew for, where they are most of them
_BLANK = b" " * (WIDTH - 1) + b"\n"


class QueueFile:
    """See ``release_queue.Queue``. Opened where it is needed, since most networks hand no address out twice.

    :param scratch: name of the file that a new version is written aside as.
    """

    def __init__(self, folder: Folder, name: str, scratch: str) -> None:
        self._folder = folder
        self._name = name
        self._scratch = scratch
        self._path = f"{folder.path}/{name}"
        self._fd: int | None = None
        self._places: dict[str, int] = {}

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            os.close(self._fd)

    def __len__(self) -> int:
        fd = self._open()
        return 0 if fd is None else self._head(fd)[1]

    def __iter__(self) -> Iterator[Released]:
        fd = self._open()
        if fd is None:
            return
        for at, line in self._from_head(fd):
            one = _entry(line)
            if one:
                self._places[one.address] = at
                yield one

    def _from_head(self, fd: int) -> Iterator[tuple[int, bytes]]:
        """The lines from the oldest entry on, and their numbers."""
        with naming(self._path):
            at, total = self._head(fd)[0], self._lines(fd)
            while at < total:
                chunk = os.pread(fd, WINDOW * WIDTH, at * WIDTH)
                for offset in range(0, len(chunk) - WIDTH + 1, WIDTH):
                    yield at + offset // WIDTH, chunk[offset:offset + WIDTH]
                at += WINDOW

    def find(self, address: str) -> Released | None:
        fd = self._open()
        if fd is None or not self._lines(fd):
            return None
        with naming(self._path), mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as content:
            at = content.find(f"\n{address} ".encode(), self._head(fd)[0] * WIDTH - 1)
            line = content[at + 1:at + 1 + WIDTH]
        one = _entry(line) if at >= 0 and (at + 1) % WIDTH == 0 else None
        if one:
            self._places[address] = (at + 1) // WIDTH
        return one

    def append(self, one: Released) -> None:
        fd = self._open(create=True)
        assert fd is not None
        with naming(self._path):
            head, count = self._head(fd)
            os.pwrite(fd, _line(f"{one.address} {ceil(one.time)} {one.mark}"), self._lines(fd) * WIDTH)
            os.pwrite(fd, _header(head, count + 1), 0)

    def remove(self, one: Released) -> None:
        if one.address not in self._places and self.find(one.address) is None:
            return
        fd = self._open()
        assert fd is not None
        with naming(self._path):
            os.pwrite(fd, _BLANK, self._places.pop(one.address) * WIDTH)
            head, count = self._head(fd)
            self._settle(fd, count - 1)

    def _settle(self, fd: int, count: int) -> None:
        """Move the head past what is blank, and drop what says nothing where that is most of the file."""
        total = self._lines(fd)
        head = next((at for at, line in self._from_head(fd) if line != _BLANK), total)
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
        """Whole ones; a torn last line is written over."""
        return os.fstat(fd).st_size // WIDTH

    def _head(self, fd: int) -> tuple[int, int]:
        """Line of the oldest entry, and the number of entries; the first line may be what a power failure left."""
        words = os.pread(fd, WIDTH, 0).split()
        if len(words) == 3 and words[0] == b"head" and words[1].isdigit() and words[2].isdigit():
            return max(1, int(words[1])), int(words[2])
        return 1, max(0, self._lines(fd) - 1)


def _header(head: int, count: int) -> bytes:
    return _line(f"head {head} {max(0, count)}")


def _line(text: str) -> bytes:
    return text.ljust(WIDTH - 1).encode() + b"\n"


def _entry(line: bytes) -> Released | None:
    """None for a blank line, and for one that a power failure left half of."""
    try:
        address, time, *marks = line.decode("ascii").split()
        one = Released(address, float(time), *marks)
    except (ValueError, TypeError):
        return None
    return one if canonical(address) == address else None
