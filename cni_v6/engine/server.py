"""The resident engine: a socket, a bounded number of workers, calls served in the order they came.

Threads, not asyncio: the work is system calls that release the interpreter. A worker keeps the node's own namespace
open between calls. SIGTERM, an idle time, or a caller of another version drain it: its socket goes, what has been
accepted is answered, then it ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import filelock  # noqa: F401  the store imports it when it is opened; no caller of an engine waits for that

from cni_v6 import __version__, wire
from cni_v6.attachments.context import Context
from cni_v6.engine import handle
from cni_v6.engine.handle import Reply
from cni_v6.engine.workers import WorkerPool
from cni_v6.kernel.link_deletion import Reaper
from cni_v6.kernel.linux import LinuxKernel
from cni_v6.kernel.netns.enter import Namespace, identity, open_namespace
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.protocol.invocation import Request

WORKERS = 16  # at a time; most of a call is waiting for the kernel, and two cores run no more than that well
PATIENCE_SECONDS = 10.0  # for the bytes of a request, and for the caller's confirmation


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it arrived: ``netns`` is the descriptor that came with it, -1 for none."""

    version: str
    inode: int
    request: Request
    netns: int


class BadRequest(Exception):
    """What arrived is no request."""


Handler = Callable[[Request, Context], Reply]


class Server:
    """One engine, for the network namespace of the process it runs in.

    :param listener: a listening unix socket.
    :param path: the socket's path where this engine made it and takes it away; None for systemd's.
    :param idle: seconds without a call after which it ends; 0 for never.
    """

    def __init__(
        self, listener: socket.socket, *, path: bytes | None, idle: float, handler: Handler = handle.handle
    ) -> None:
        self._listener = listener
        self._path = path
        self._idle = idle
        self._handler = handler
        self._inode = identity(HOST)[1]
        self._wake_read, self._wake_write = os.pipe()
        self._draining = False
        self._reaper = Reaper()
        self._lock = threading.Lock()
        self._pending = 0
        self._last = time.monotonic()
        self._crew = WorkerPool(WORKERS, self._work)

    def run(self) -> None:
        """Serve until drained."""
        for each in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(each) is not signal.SIG_IGN:  # as a shell has it for what it runs in the background
                signal.signal(each, lambda *_: self.drain())
        self._listener.setblocking(False)
        while not self._draining:
            ready, _, _ = select.select([self._listener.fileno(), self._wake_read], [], [], self._patience())
            if self._wake_read in ready:
                os.read(self._wake_read, 1 << 12)
            if self._listener.fileno() in ready:
                self._accept()
            elif self._is_idle():
                self.drain()
        self._finish()

    def drain(self) -> None:
        """Serve what has been accepted, nothing more, and end. From any thread."""
        self._draining = True
        os.write(self._wake_write, b".")

    def _patience(self) -> float | None:
        """How long to wait for a call; while one is served, for as long as it takes: its worker tells the end."""
        if not self._idle or self._pending:
            return None
        return max(0.0, self._last + self._idle - time.monotonic())

    def _is_idle(self) -> bool:
        return bool(self._idle) and not self._pending and time.monotonic() - self._last >= self._idle

    def _accept(self) -> bool:
        """Take one connection; of the same user only. False: there is none."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[1] != os.geteuid():
            connection.close()
            return True
        with self._lock:
            self._pending += 1
        self._crew.put(connection)
        return True

    def _finish(self) -> None:
        """The socket first, so that nobody new comes; then those who are in its queue, then those being served."""
        if self._path is not None:
            os.unlink(self._path)
        while self._accept():
            pass
        self._listener.close()
        self._crew.finish()
        self._reaper.close()

    # A worker

    def _work(self, connections: Iterator[socket.socket]) -> None:
        host = open_namespace(HOST)
        for connection in connections:
            try:
                with connection:
                    self._serve(connection, host)
            except Exception as error:  # a caller that breaks off, or a bug: neither ends the worker
                print(f"cni-v6 engine: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                self._rest()
        host.close()

    def _rest(self) -> None:
        with self._lock:
            self._pending -= 1
            self._last = time.monotonic()
            if self._idle and not self._pending:
                os.write(self._wake_write, b".")  # the idle time begins

    def _serve(self, connection: socket.socket, host: Namespace) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        call = receive(connection)
        try:
            if call.version != __version__ or call.inode != self._inode:
                if call.version != __version__:
                    self.drain()
                connection.sendall(wire.pack(wire.HANDLE_LOCALLY, b"0", b"", b""))
                return
            self._idle = idle_seconds(call.request.stdin, self._idle)
            reply = self._handle(call, call.request, host)
            if not _deliver(connection, reply) and reply.code == 0:
                self._take_back(call, host)
        finally:
            if call.netns >= 0:
                os.close(call.netns)

    def _handle(self, call: Call, request: Request, host: Namespace) -> Reply:
        given = {request.env.get("CNI_NETNS", ""): call.netns} if call.netns >= 0 else {}
        kernel = LinuxKernel(Spaces(host, given), self._reaper)
        return self._handler(request, handle.real_context(kernel))

    def _take_back(self, call: Call, host: Namespace) -> None:
        """The caller went away before it had its ADD's answer: nobody will use what was made."""
        if call.request.env.get("CNI_COMMAND") == "ADD":
            undo = replace(call.request, env={**call.request.env, "CNI_COMMAND": "DEL"})
            self._handle(call, undo, host)


def idle_seconds(stdin: bytes, current: float) -> float:
    """``engineIdle`` of a configuration, else the current one. An engine that never idles out goes on so."""
    if not current or b'"engineIdle"' not in stdin:
        return current
    try:
        wanted = json.loads(stdin).get("engineIdle")
    except (ValueError, AttributeError, RecursionError):
        return current  # the parser refuses it, with its reason
    return float(wanted) if isinstance(wanted, int) and wanted > 0 else current


def receive(connection: socket.socket) -> Call:
    """Read one request and the descriptor that may come with it.

    :raises BadRequest: for anything else; TimeoutError where it does not come.
    """
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    try:
        while len(data) < wire.HEADER or len(data) < wire.HEADER + wire.body_length(data[: wire.HEADER]):
            part = connection.recv(1 << 20)
            if not part:
                raise ValueError("it ended early")
            data += part
        version, inode, plugin, environment, stdin = wire.unpack(data[wire.HEADER :], 5)
        variables = {os.fsdecode(k): os.fsdecode(v) for k, v in wire.unpack_environment(environment).items()}
        request = Request(plugin.decode(), variables, stdin)
        return Call(version.decode(), int(inode), request, descriptors[0] if descriptors else -1)
    except (ValueError, OSError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise BadRequest(str(error)) from error


def _deliver(connection: socket.socket, reply: Reply) -> bool:
    """Send the answer; whether the caller confirmed that it has it. From a No on the caller can no longer confirm."""
    message = wire.pack(wire.DONE, b"%d" % reply.code, reply.stdout, reply.stderr.encode(errors="replace"))
    try:
        connection.sendall(message)
        try:
            return connection.recv(1) == wire.ACK
        except TimeoutError:
            connection.shutdown(socket.SHUT_RD)  # what it sends from here on fails; what it had sent is still there
            return connection.recv(1) == wire.ACK
    except OSError:
        return False
