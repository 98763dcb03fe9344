"""Requests on their way in: read as their bytes come, all by one thread, which waits for none of them.

A caller that is slow, or stopped half-way, keeps nobody but itself. What is held of all requests together has a bound.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from cni_v6 import wire
from cni_v6.protocol.invocation import Request

PART = 1 << 16
HELD_BYTES = 64 << 20  # of requests that are read, wait or are worked at; nearly all have some hundred
LARGE_BYTES = 1 << 20  # a GC's list; as values it takes twenty times as much, so there is one at a time


HANDLE_LOCALLY = wire.pack(wire.HANDLE_LOCALLY, b"0", b"", b"")


class BadRequest(Exception):
    """What arrived is no request."""


class Full(Exception):
    """There is no room for a request."""


class Held:
    """How many bytes are held of all requests."""

    def __init__(self, most: int = HELD_BYTES) -> None:
        self._most = most
        self._lock = Lock()
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Whether there is room for so many more."""
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
    """A request as it arrived; ``close`` it when it is answered.

    ``netns``: the descriptor that came with it, -1 for none. ``network``: whose share of the engine it takes, "" where
    that cannot be told. ``started``: when it was here, by time.monotonic().
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
        """Nothing was done: the caller handles its request itself."""
        with suppress(OSError):
            self.connection.send(HANDLE_LOCALLY)

    def part(self) -> socket.socket:
        """Close all but the connection, which is the caller's from here on."""
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1
        return self.connection

    def close(self) -> None:
        self.part().close()


class Arrivals:
    """Connections whose requests are not here yet. For one thread.

    :param seconds: that a request may take to come.
    """

    def __init__(self, held: Held, seconds: float) -> None:
        self._held = held
        self._seconds = seconds
        self._poll = select.poll()
        self._coming: dict[int, _Coming] = {}  # by descriptor, the longest here first

    def __len__(self) -> int:
        return len(self._coming)

    def watch(self, descriptor: int) -> None:
        """Something else that ``wait`` tells of when it is readable."""
        self._poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def add(self, connection: socket.socket) -> None:
        """One that is about to send its request."""
        self._watch(_Coming(connection, time.monotonic() + self._seconds))

    def see_off(self, connection: socket.socket) -> None:
        """One that was answered, until it confirms that, or goes away."""
        self._watch(_Going(connection, time.monotonic() + self._seconds))

    def _watch(self, coming: _Coming) -> None:
        coming.connection.setblocking(False)
        self._coming[coming.connection.fileno()] = coming
        self._poll.register(coming.connection, select.POLLIN)

    def wait(self, seconds: float | None) -> list[int]:
        """Until something can be read, a request is late, or so many seconds (None: for as long as it takes).

        :returns: descriptors, for ``read`` where they are in here.
        """
        first = next(iter(self._coming.values()), None)
        late = first.deadline - time.monotonic() if first else None
        limits = [limit for limit in (seconds, late) if limit is not None]
        return [each for each, _ in self._poll.poll(max(0.0, min(limits)) * 1000 if limits else None)]

    def drop_late(self) -> int:
        """Close those that have not come in time; how many."""
        count, now = 0, time.monotonic()
        while (first := next(iter(self._coming.values()), None)) and first.deadline <= now:
            self._drop(first)
            count += 1
        return count

    def read(self, descriptor: int) -> Call | bool:
        """What came: a whole request; False for something that is none, and is closed; True where more is to come."""
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
    """One request that is on its way."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self._data = bytearray()
        self._descriptors: list[int] = []
        self._size = 0  # of the whole message, once that is known

    def close(self, held: Held) -> None:
        self.connection.close()
        held.give_back(self._size)
        while self._descriptors:
            os.close(self._descriptors.pop())

    def read(self, held: Held) -> Call | None:
        """
        :raises BadRequest: for what is no request.
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
    """A caller that was answered: whatever it says, or that it goes away, is all that was waited for."""

    def read(self, held: Held) -> Call | None:
        raise BadRequest("it was answered")


def network_of(stdin: bytes) -> str:
    """The network that a configuration names; "" for one that is large, or out of shape: the parser refuses it."""
    if len(stdin) > LARGE_BYTES:
        return ""
    try:
        config: Any = json.loads(stdin)
        name = config["name"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return name if isinstance(name, str) else ""
