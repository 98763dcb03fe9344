"""Serves the metrics of an engine, or of the node agent, over HTTP: on a unix socket, and on a loopback address too.

One thread for each of the two; one client at a time, with a time limit. ``http.server`` would take more time and memory
than all the rest of it, for the two lines of HTTP that a scraper says (docs/design/observing.md).
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cni_v6.engine.delivery import is_own
from cni_v6.engine.exposition import CONTENT_TYPE
from cni_v6.engine.start import listen
from cni_v6.errors import INVALID_CONFIG, NODE_CONFLICT, CniError

SECONDS = 5.0  # for the bytes of a request, and for the client to take the answer
REQUEST_BYTES = 1 << 13
VARIABLE = "CNI_V6_METRICS"


def socket_beside(path: str) -> str:
    """The path of the metrics' socket of the engine that listens at ``path``."""
    folder, name = os.path.split(path)
    return os.path.join(folder, name.replace("engine", "metrics", 1) if "engine" in name else f"metrics-{name}")


def listen_on(address: str) -> socket.socket:
    """A socket that listens on a loopback address, such as ``[::1]:9164``.

    :raises CniError: INVALID_CONFIG, NODE_CONFLICT.
    """
    import ipaddress  # most engines do not listen there

    host, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
        if not parsed.is_loopback or not 0 <= number < 1 << 16:
            raise ValueError
    except ValueError:
        words = f"the address for metrics, {address!r}, is no loopback address with a port"
        remedy = "write [::1]:9164; what is to be read from outside goes through a proxy that asks who reads it"
        raise CniError(INVALID_CONFIG, words, remedy) from None
    listener = socket.socket(socket.AF_INET6 if parsed.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(parsed), number))
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise CniError(NODE_CONFLICT, f"cannot listen on {address} for metrics", str(error)) from error
    return listener


class MetricsServer:
    """
    :param path: of the unix socket.
    :param also: a listening socket; None for none. It is closed at the end.
    :param text: makes the text.
    """

    def __init__(self, path: str, also: socket.socket | None, text: Callable[[], str]) -> None:
        self._path = path
        self._text = text
        self._listeners = [also] if also else []
        with suppress(OSError):  # without the socket the engine serves calls all the same
            self._listeners.append(listen(os.fsencode(path)))
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._making = threading.Lock()
        # A thread for each: who reads at the port, which any local user may, must not hold up the socket.
        self._threads = [
            threading.Thread(target=self._run, args=(listener,), name="metrics", daemon=True)
            for listener in self._listeners
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Serve nobody any more."""
        os.close(self._wake_write)
        end = time.monotonic() + SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._wake_read)
        for listener in self._listeners:
            listener.close()
        with suppress(OSError):
            os.unlink(self._path)

    def _run(self, listener: socket.socket) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(listener.fileno(), select.POLLIN)
        while self._wake_read not in [descriptor for descriptor, _ in poll.poll()]:
            try:
                self._serve(listener)
            except (OSError, ValueError):
                pass  # the client is gone, too slow, or speaks something else
            except Exception as error:  # a bug must not end the thread
                print(f"cni-v6: metrics: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    def _serve(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            if connection.family == socket.AF_UNIX and not is_own(connection):
                return
            asked = _request(connection)
            with self._making:
                status, body = _answer(asked, self._text)
            head = f"HTTP/1.0 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.settimeout(SECONDS)
            connection.sendall(head.encode() + body)


def _request(connection: socket.socket) -> bytes:
    """The first line of a request, once all of its head is there.

    :raises ValueError: it is too long, or ends early.
    :raises TimeoutError: it takes too long.
    """
    end, data = time.monotonic() + SECONDS, b""
    while b"\r\n\r\n" not in data and b"\n\n" not in data:
        connection.settimeout(max(0.001, end - time.monotonic()))
        part = connection.recv(REQUEST_BYTES)
        data += part
        if not part or len(data) > REQUEST_BYTES or time.monotonic() > end:
            raise ValueError("no request")
    return data.partition(b"\n")[0]


def _answer(line: bytes, text: Callable[[], str]) -> tuple[str, bytes]:
    match line.split():
        case [b"GET", path, *_] if path.partition(b"?")[0] in (b"/metrics", b"/"):
            return "200 OK", text().encode()
        case [b"GET", *_]:
            return "404 Not Found", b"see /metrics\n"
    return "405 Method Not Allowed", b"GET /metrics\n"
