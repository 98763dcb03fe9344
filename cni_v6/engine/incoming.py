"""Reads requests as their bytes arrive. One thread reads all of them, and blocks on none.

A caller that is slow, or stops half-way, delays only itself. The total size of all requests has a limit.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from cni_v6 import wire
from cni_v6.errors import CniError
from cni_v6.protocol.invocation import Request
from cni_v6.protocol.json_reader import decoded

PART = 1 << 16
HELD_BYTES = 64 << 20  # of all requests that are read, waiting or running; nearly all have a few hundred bytes
LARGE_BYTES = 1 << 20  # as a GC's list; parsed it takes twenty times as much memory, so one runs at a time


HANDLE_LOCALLY = wire.pack(wire.HANDLE_LOCALLY, b"0", b"", b"")


class BadRequest(Exception):
    """The message is not a request."""


class Full(Exception):
    """There is no memory left for a request (``HELD_BYTES``)."""


class Held:
    """Counts the bytes of all requests, up to a limit."""

    def __init__(self, most: int = HELD_BYTES) -> None:
        self._most = most
        self._lock = Lock()
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Count ``size`` more bytes; False, and nothing is counted, if that exceeds the limit."""
        with self._lock:
            if self._bytes + size > self._most:
                return False
            self._bytes += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._bytes -= size


@dataclass(slots=True, eq=False)
class Call:
    """A complete request. ``close`` it after it is answered.

    ``netns``: the descriptor that came with it, -1 for none. ``network``: the network whose share it takes, "" if not
    known. ``size``: of the message in bytes. ``started``: when it arrived, in seconds of time.monotonic().
    """

    connection: socket.socket
    version: str
    inode: int
    request: Request
    netns: int
    network: str
    size: int
    started: float = field(default_factory=time.monotonic)

    @property
    def is_large(self) -> bool:
        return self.size > LARGE_BYTES

    def send_back(self) -> None:
        """Tell the caller that nothing was done: it handles the request itself."""
        with suppress(OSError):
            self.connection.send(HANDLE_LOCALLY)

    def part(self) -> socket.socket:
        """Close everything except the connection, and return that; the function's caller closes it."""
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1
        return self.connection

    def close(self) -> None:
        self.part().close()


class Arrivals:
    """Connections whose requests are not complete yet. For one thread.

    :param seconds: the time limit for a request to arrive.
    """

    def __init__(self, held: Held, seconds: float) -> None:
        self._held = held
        self._seconds = seconds
        self._poll = select.poll()
        self._coming: dict[int, _Coming] = {}  # by descriptor, the oldest first

    def __len__(self) -> int:
        return len(self._coming)

    def watch(self, descriptor: int) -> None:
        """Let ``wait`` also report this descriptor when it is readable."""
        self._poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def add(self, connection: socket.socket) -> None:
        """Add a connection that will send a request."""
        self._watch(_Coming(connection, time.monotonic() + self._seconds))

    def see_off(self, connection: socket.socket) -> None:
        """Add an answered connection, until it confirms the answer or closes."""
        self._watch(_Going(connection, time.monotonic() + self._seconds))

    def _watch(self, coming: _Coming) -> None:
        coming.connection.setblocking(False)
        self._coming[coming.connection.fileno()] = coming
        self._poll.register(coming.connection, select.POLLIN)

    def wait(self, seconds: float | None) -> list[int]:
        """Wait until something is readable, a request is late, or this time is over (None: no limit).

        :returns: readable descriptors: of connections, for ``read``, and those of ``watch``.
        """
        first = next(iter(self._coming.values()), None)
        late = first.deadline - time.monotonic() if first else None
        limits = [limit for limit in (seconds, late) if limit is not None]
        return [descriptor for descriptor, _ in self._poll.poll(max(0.0, min(limits)) * 1000 if limits else None)]

    def drop_late(self) -> int:
        """Close connections whose requests have not arrived in time; return their number."""
        count, now = 0, time.monotonic()
        while (first := next(iter(self._coming.values()), None)) and first.deadline <= now:
            self._drop(first)
            count += 1
        return count

    def read(self, descriptor: int) -> Call | bool:
        """Read from a connection. Returns the complete request, True if more must come, False if it was closed."""
        coming = self._coming[descriptor]
        try:
            call = coming.read(self._held)
        except Full:
            with suppress(OSError):
                coming.connection.send(HANDLE_LOCALLY)
            self._drop(coming)
            return False
        except (BadRequest, OSError) as error:
            if not isinstance(coming, _Going):
                print(f"cni-v6 engine: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self._drop(coming)
            return False
        if call is None:
            return True
        self._forget(coming)
        return call

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._coming

    def _drop(self, coming: _Coming) -> None:
        self._forget(coming)
        coming.close(self._held)

    def _forget(self, coming: _Coming) -> None:
        self._poll.unregister(coming.connection)
        del self._coming[coming.connection.fileno()]


class _Coming:
    """A connection whose request is arriving."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self._data = bytearray()
        self._descriptors: list[int] = []
        self._size = 0  # of the whole message; 0 while it is not known

    def close(self, held: Held) -> None:
        self.connection.close()
        held.give_back(self._size)
        while self._descriptors:
            os.close(self._descriptors.pop())

    def read(self, held: Held) -> Call | None:
        """Read what has arrived; the request if it is complete, else None.

        :raises BadRequest: the message is not a request.
        :raises Full: there is no memory left for it.
        """
        while True:
            try:
                part, descriptors, _, _ = socket.recv_fds(self.connection, PART, 1)
            except BlockingIOError:
                return None
            self._descriptors += descriptors
            if not part or len(self._descriptors) > 1:
                raise BadRequest("it ended early")
            self._data += part
            try:
                if not self._size and len(self._data) >= wire.HEADER:
                    self._announce(held)
                if self._size and len(self._data) >= self._size:
                    return self._call()
            except ValueError as error:
                raise BadRequest(str(error)) from error

    def _announce(self, held: Held) -> None:
        size = wire.HEADER + wire.body_length(bytes(self._data[: wire.HEADER]))
        if not held.take(size):
            raise Full
        self._size = size

    def _call(self) -> Call:
        version, inode, plugin, environment, stdin = wire.unpack(bytes(self._data[wire.HEADER :]), 5)
        variables = {os.fsdecode(k): os.fsdecode(v) for k, v in wire.unpack_environment(environment).items()}
        request = Request(plugin.decode(), variables, stdin)
        netns = self._descriptors[0] if self._descriptors else -1
        return Call(
            self.connection, version.decode(), int(inode), request, netns, network_of(stdin), self._size
        )


class _Going(_Coming):
    """An answered connection: any byte from the caller, or its end, closes it."""

    def read(self, held: Held) -> Call | None:
        raise BadRequest("it was answered")


def network_of(stdin: bytes) -> str:
    """The network that a configuration names; "" if it is large or malformed (the parser refuses that later)."""
    if len(stdin) > LARGE_BYTES:
        return ""
    try:
        name = decoded(stdin).get("name")
    except CniError:
        return ""
    return name if isinstance(name, str) else ""
