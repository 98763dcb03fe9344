"""The resident engine: it serves calls from a socket in the order of their arrival, with a limit for each network.

It uses threads, not asyncio, because the work is system calls, which release the interpreter's lock. A worker keeps the
node's own namespace open between calls. SIGTERM, an idle time or a caller of another installation drains the engine: it
removes its socket, answers the calls that it has accepted, and ends.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import filelock  # noqa: F401  imported at the start, so that no call waits for it when it opens the store

from cni_v6.engine import handle, installation
from cni_v6.engine.delivery import is_own, packed
from cni_v6.engine.fair_shares import WORKERS, Room, Shares, room
from cni_v6.engine.incoming import Arrivals, Call, Held
from cni_v6.engine.inprocess import idle_seconds, refuses_engine
from cni_v6.engine.service import Handler, Service
from cni_v6.engine.workers import WorkerPool
from cni_v6.kernel.deadline import LIMITS, Limits
from cni_v6.kernel.netfilter.events import own_changes
from cni_v6.kernel.netns.enter import Namespace, identity, open_namespace
from cni_v6.kernel.ops import HOST

LARGE, LARGE_WORKERS = "\0", 1  # the share of large calls, under a name that no network can have
PATIENCE_SECONDS = 10.0  # for the bytes of a request, and to see a refused caller off


class Server:
    """An engine, for the network namespace of its process.

    :param listener: a listening unix socket.
    :param path: of the socket, if this engine made it and removes it at its end; None for systemd's socket.
    :param idle: ends after this number of seconds without a call; 0 for never.
    :param has: its capacity; None to compute it from the limit of descriptors.
    :param metrics: a further socket that listens for who reads the metrics; None for none.
    """

    def __init__(
        self, listener: socket.socket, *, path: bytes | None, idle: float, handler: Handler = handle.handle,
        limits: Limits = LIMITS, has: Room | None = None, metrics: socket.socket | None = None,
    ) -> None:
        self._listener = listener
        self._path = path
        self._idle = idle
        self._inode = identity(HOST)[1]
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._draining = False
        self._full = False  # no connection is accepted until a call has ended
        self._lock = threading.Lock()
        self._pending = 0
        self._last = time.monotonic()
        self._held = Held()
        self._arrivals = Arrivals(self._held, PATIENCE_SECONDS)
        self._room = has or room(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        # Not from the environment: the process that started the engine may have another one than its callers.
        own = os.fsdecode(path or listener.getsockname())
        self._service = Service(own, handler, limits, self._room.workers, metrics)
        self._shares: Shares[Call] = Shares(WORKERS, self._room.queue)
        self._crew = WorkerPool(self._room.workers, self._work, kept=WORKERS)

    def run(self) -> None:
        """Serve until drained."""
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell ignores SIGINT for background jobs
                signal.signal(number, lambda *_: self.drain())
        self._listener.setblocking(False)
        for descriptor in (self._listener.fileno(), self._wake_read):
            self._arrivals.watch(descriptor)
        while not self._draining:
            ready = self._arrivals.wait(self._patience())
            self._receive(ready)
            if self._listener.fileno() in ready:
                self._accept()
            elif self._is_idle():
                self.drain()
        self._finish()

    def drain(self) -> None:
        """Serve the accepted calls, accept no more, and end. Can be called from any thread."""
        self._draining = True
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full, which wakes the reader as well
            os.write(self._wake_write, b".")

    def _patience(self) -> float | None:
        """The seconds to wait for a call; None, no limit, while a call is served: its worker wakes us at its end."""
        if not self._idle or self._pending:
            return None
        return max(0.0, self._last + self._idle - time.monotonic())

    def _is_idle(self) -> bool:
        return bool(self._idle) and not self._pending and time.monotonic() - self._last >= self._idle

    def _receive(self, ready: list[int]) -> None:
        """Read the requests of these descriptors, and start complete ones."""
        for descriptor in ready:
            if descriptor in self._arrivals:
                self._take(descriptor)
        if self._wake_read in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 1 << 12)
            if self._full:
                self._full = False
                self._arrivals.watch(self._listener.fileno())
        self._rest(self._arrivals.drop_late())

    def _accept(self) -> bool:
        """Accept one connection; another user's is closed. False: there is none, or no capacity for it."""
        if self._pending >= self._room.calls:
            self._close_door()
            return False
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            self._close_door()
            return False
        if not is_own(connection):
            connection.close()
            return True
        with self._lock:
            self._pending += 1
        self._arrivals.add(connection)
        self._take(connection.fileno())  # the request may have arrived already
        return True

    def _close_door(self) -> None:
        if not self._full:
            self._full = True
            self._arrivals.unwatch(self._listener.fileno())

    def _finish(self) -> None:
        """Remove the socket, so that no new caller connects; then accept its queue; then wait for all calls to end."""
        if self._path is not None:
            os.unlink(self._path)
        while self._accept() or self._full and self._pending:
            if self._full:
                self._receive(self._arrivals.wait(None))
        if not self._full:
            self._arrivals.unwatch(self._listener.fileno())
        self._listener.close()
        while self._pending:
            self._receive(self._arrivals.wait(None))
        self._crew.finish()
        self._service.close()

    def _take(self, descriptor: int) -> None:
        """Read the bytes of a request. A complete one is answered at once, started, or queued."""
        call = self._arrivals.read(descriptor)
        if call is False:
            self._rest()
        elif call is not True:
            self._sort(call)

    def _sort(self, call: Call) -> None:
        if not self._takes(call):
            call.send_back()
            self._end(call)
            return
        self._idle = idle_seconds(call.request.stdin, self._idle)
        begin = self._shares.enter(_share(call), call, LARGE_WORKERS if call.is_large else None)
        if begin is None:
            words = f"{self._room.queue} calls of network {call.network} wait already"
            with suppress(OSError):
                remedy = "see in the log what keeps its calls; then run the command again"
                call.connection.send(packed(self._service.refuse(call, words, remedy)))
            self._held.give_back(call.size)
            self._arrivals.see_off(call.part())
        elif begin:
            self._begin(call)

    def _takes(self, call: Call) -> bool:
        """Whether a call is of this engine's namespace and installation. One of another installation drains the engine.

        A courier on a node without Python cannot read that the configuration forbids an engine.
        """
        if not installation.serves(call.version):
            self.drain()
            return False
        forbidden = not call.version and b'"engine"' in call.request.stdin and refuses_engine(call.request.stdin)
        return call.inode == self._inode and not forbidden

    def _begin(self, call: Call) -> None:
        try:
            self._crew.put(call)
        except RuntimeError:  # not even one thread can be started
            following: Call | None = call
            while following:
                following.send_back()
                following = self._next(following)

    def _work(self, calls: Iterator[Call]) -> None:
        own_changes()
        host: Namespace | None = None
        for first in calls:
            call: Call | None = first
            while call:
                try:
                    host = host or open_namespace(HOST)
                    self._service.serve(call, host)
                except Exception as error:  # a lost connection or a bug must not end the worker
                    print(f"cni-v6 engine: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    if host is None:  # no descriptor is left; nothing was done
                        call.send_back()
                call = self._next(call)
        if host:
            host.close()

    def _next(self, call: Call) -> Call | None:
        """A call has ended: return the next one of its share."""
        name = _share(call)
        self._end(call)
        return self._shares.leave(name)

    def _end(self, call: Call) -> None:
        call.close()
        self._held.give_back(call.size)
        self._rest()

    def _rest(self, count: int = 1) -> None:
        if not count:
            return
        with self._lock:
            self._pending -= count
            self._last = time.monotonic()
            if self._full or not self._pending and (self._idle or self._draining):
                self._wake()  # another call can be accepted, or the idle time or the end begins


def _share(call: Call) -> str:
    return LARGE if call.is_large else call.network
