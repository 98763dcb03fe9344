"""Which packets the kernel drops, where and why: the tracepoint skb:kfree_skb, heard by perf_event_open(2).

A drop has no packet in it, only the address of its buffer. So two more tracepoints tell which buffers are those of the
packets that are looked at: what interfaces receive, and what this process sends. The names of reasons and fields are
those of the kernel's own format files. tracefs is mounted in no directory, so nothing is left of it; and perf's
events end with their descriptors.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import re
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import get_native_id

from cni_v6.kernel.detached_mount import mounted
from cni_v6.kernel.netns.enter import failure, libc

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331, "armv7l": 364}
# linux/perf_event.h
TYPE_TRACEPOINT, SAMPLE_TIME, SAMPLE_RAW, RECORD_SAMPLE = 2, 1 << 2, 1 << 10, 9
FLAG_FD_CLOEXEC, SET_OUTPUT, SET_FILTER, DISABLED_ENABLE = 8, 0x2405, 0x40082406, 0x2400
BUFFERS = 100_000  # that are remembered: the kernel uses the same ones again and again
HEAD_AT, ATTRIBUTES_BYTES, PAGES, WAKEUP_EVENTS = 1024, 64, 64, 1
RECEIVED, SENT, DROPPED = "net/netif_receive_skb", "net/net_dev_queue", "skb/kfree_skb"
_FIELD = re.compile(r"field:(.*?)(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);")
_NAMED = re.compile(r"\{ (0x[0-9a-f]+|\d+), \"(\w+)\" \}")


class Unavailable(Exception):
    """This kernel does not tell, or not to this process. The argument says why."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A dropped packet: the kernel's name of the reason, and the function that dropped it ("" where that is not told).

    ``buffer``: the address of the packet's buffer.
    """

    reason: str
    function: str
    buffer: int


@dataclass(frozen=True, slots=True)
class Format:
    """A tracepoint: its id, where its fields are (offset, size), the names of the values of its last field."""

    id: int
    fields: dict[str, tuple[int, int]]
    names: dict[int, str]


class Drops:
    """Drops of what this thread sends, and of what interfaces of the node receive, from now on.

    An interface is known by its name alone, in whatever namespace it is.

    :param sent: the interface that this thread sends through, and the least length of the frames that matter. A thread
        sends for others too, where it handles what has arrived.
    :raises Unavailable: the kernel has no such tracepoints, or this process may not hear them.
    """

    def __init__(self, interfaces: Iterable[str], sent: tuple[str, int]) -> None:
        formats = _formats()
        self._formats = {found.id: (name, found) for name, found in formats.items()}
        self._seen: set[int] = set()
        received = " || ".join(f'name == "{name}"' for name in dict.fromkeys(interfaces))
        own = f'common_pid == {get_native_id()} && name == "{sent[0]}" && len >= {sent[1]}'
        filters = {SENT: own, DROPPED: ""} | ({RECEIVED: received} if received else {})
        self._rings: list[_Ring] = []
        with ExitStack() as stack:
            for processor in sorted(os.sched_getaffinity(0)):
                ring = _Ring(processor, [(formats[name].id, words) for name, words in filters.items()])
                stack.callback(ring.close)
                self._rings.append(ring)
            stack.pop_all()
        self._symbols: list[tuple[int, str]] = []

    def filenos(self) -> list[int]:
        """Descriptors that are readable once something has come."""
        return [ring.fileno() for ring in self._rings]

    def close(self) -> None:
        for ring in self._rings:
            ring.close()

    def read(self) -> Iterator[Drop]:
        """What has been dropped since the last call."""
        samples = sorted(sample for ring in self._rings for sample in ring.read())
        for _, data in samples:
            found = self._formats.get(struct.unpack_from("=H", data)[0])
            if not found:
                continue
            name, form = found
            buffer = _number(data, form.fields["skbaddr"])
            if name != DROPPED:
                if len(self._seen) >= BUFFERS:
                    self._seen.clear()
                self._seen.add(buffer)
            elif buffer in self._seen:
                self._seen.discard(buffer)
                number = _number(data, form.fields["reason"]) if "reason" in form.fields else -1
                reason = form.names.get(number, f"reason {number}" if number >= 0 else "")
                yield Drop(reason, self._function(_number(data, form.fields["location"])), buffer)

    def _function(self, address: int) -> str:
        """The name of the kernel's function that an address is in."""
        if not self._symbols:
            with suppress(OSError), open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
                rows = (line.split() for line in file)
                self._symbols = sorted((int(row[0], 16), row[2]) for row in rows if row[1] in "tT")
        at = bisect_right(self._symbols, address, key=lambda symbol: symbol[0])
        return self._symbols[at - 1][1] if at and self._symbols[at - 1][0] else ""


def _number(data: bytes, place: tuple[int, int]) -> int:
    return int.from_bytes(data[place[0]:place[0] + place[1]], sys.byteorder)


class _Ring:
    """The ring buffer of one processor, into which all events there write."""

    def __init__(self, processor: int, events: Iterable[tuple[int, str]]) -> None:
        self._files: list[int] = []
        self._map: mmap.mmap | None = None
        self._size = PAGES * mmap.PAGESIZE
        try:
            for number, words in events:
                self._open(number, words, processor)
            self._map = mmap.mmap(self._files[0], mmap.PAGESIZE + self._size)
            for file in self._files[1:]:
                fcntl.ioctl(file, SET_OUTPUT, self._files[0])
            for file in self._files:
                fcntl.ioctl(file, DISABLED_ENABLE, 0)
        except OSError as error:
            self.close()
            raise Unavailable(f"perf_event_open: {os.strerror(error.errno or 0)}") from error

    def _open(self, number: int, words: str, processor: int) -> None:
        """
        :param words: the filter: the kernel passes over other events of the tracepoint.
        """
        call = PERF_EVENT_OPEN.get(platform.machine())
        if call is None:
            raise Unavailable(f"perf_event_open has an unknown number on {platform.machine()}")
        disabled = 1
        attributes = struct.pack("=IIQQQQQI", TYPE_TRACEPOINT, ATTRIBUTES_BYTES, number, 1, SAMPLE_TIME | SAMPLE_RAW, 0,
                                 disabled, WAKEUP_EVENTS).ljust(ATTRIBUTES_BYTES, b"\0")
        file = libc().syscall(call, attributes, -1, processor, -1, FLAG_FD_CLOEXEC)
        if file < 0:
            raise failure()
        self._files.append(file)
        if words:
            if libc().ioctl(file, ctypes.c_ulong(SET_FILTER), ctypes.c_char_p(words.encode())) < 0:
                raise failure()

    def fileno(self) -> int:
        return self._files[0]

    def read(self) -> Iterator[tuple[int, bytes]]:
        """(nanoseconds, raw data) of the samples that have come."""
        assert self._map
        head, tail = struct.unpack_from("=QQ", self._map, HEAD_AT)
        while tail < head:
            kind, _, size = struct.unpack("=IHH", self._bytes(tail, 8))
            if kind == RECORD_SAMPLE:
                time, length = struct.unpack("=QI", self._bytes(tail + 8, 12))
                yield time, self._bytes(tail + 20, length)
            tail += size
        struct.pack_into("=Q", self._map, HEAD_AT + 8, tail)

    def _bytes(self, at: int, length: int) -> bytes:
        assert self._map
        start = mmap.PAGESIZE + at % self._size
        end = mmap.PAGESIZE + self._size
        whole = self._map[start:min(start + length, end)]
        return whole + self._map[mmap.PAGESIZE:mmap.PAGESIZE + length - len(whole)]

    def close(self) -> None:
        if self._map:
            self._map.close()
        while self._files:
            os.close(self._files.pop())


def _formats() -> dict[str, Format]:
    try:
        root = mounted("tracefs")
    except OSError as error:
        raise Unavailable(f"tracefs: {error.strerror}") from error
    try:
        found = {}
        for name in (RECEIVED, SENT, DROPPED):
            with open(f"/proc/self/fd/{root}/events/{name}/format", encoding="ascii", errors="replace") as file:
                found[name] = read_format(file.read())
        return found
    except OSError as error:
        raise Unavailable(f"this kernel has no tracepoint {name}") from error
    finally:
        os.close(root)


def read_format(text: str) -> Format:
    """The content of a tracepoint's file ``format``."""
    number = int(re.search(r"^ID: (\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    fields = {name: (int(at), int(size)) for _, name, at, size in _FIELD.findall(text)}
    return Format(number, fields, {int(value, 0): name for value, name in _NAMED.findall(text)})
