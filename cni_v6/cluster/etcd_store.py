"""A cluster's store in etcd, by its JSON gateway. docs/design/cluster.md says why no library carries it.

A thread listens for changes. TLS is configured by the variables that etcdctl(1) has: ETCDCTL_CACERT, ETCDCTL_CERT,
ETCDCTL_KEY.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from cni_v6.cluster import etcd_messages
from cni_v6.cluster.etcd_messages import Endpoint, Kept
from cni_v6.cluster.records import Change, Objects
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError

TIMEOUT_SECONDS = 5.0  # of one member; then the next one is asked
ANSWER_BYTES = 1 << 26
LINE_BYTES = 1 << 22  # of a watch: etcd takes requests of 1.5 MiB at most (--max-request-bytes)
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 30.0  # before the thread connects again
# A member that is gone without a word is noticed after 25 seconds (tcp(7)).
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
FAILURES = (OSError, http.client.HTTPException)


class EtcdStore:
    """
    :param target: ``URL[,URL]/PREFIX``.
    :param seconds: after which a member does not answer.
    :raises CniError: INVALID_CONFIG.
    """

    def __init__(self, target: str, seconds: float = TIMEOUT_SECONDS) -> None:
        self._seconds = seconds
        self._endpoints, self._prefix = etcd_messages.parse_target(target)
        self._tls = _tls() if any(endpoint.secure for endpoint in self._endpoints) else None
        self._known: dict[str, Kept] = {}
        self._first = 0  # the member that answered at last
        self._watch: _Watch | None = None

    def read(self) -> Objects:
        data = self._ask("/v3/kv/range", etcd_messages.range_request(self._prefix))
        self._known = etcd_messages.read_range(data, self._prefix)
        return {key: kept.text for key, kept in self._known.items()}

    def commit(self, changes: Sequence[Change]) -> bool:
        if any(change.key not in self._known and change.was is not None for change in changes):
            self.read()
        request = etcd_messages.commit_request(changes, self._known, self._prefix)
        self._known = {}  # revisions that may be old now
        return request is not None and etcd_messages.read_commit(self._ask("/v3/kv/txn", request))

    def fileno(self) -> int:
        if self._watch is None:
            connections = [partial(self._connect, endpoint) for endpoint in self._endpoints]
            self._watch = _Watch(connections, etcd_messages.watch_request(self._prefix))
        return self._watch.reader

    def drain(self) -> bool:
        with suppress(BlockingIOError):
            return bool(os.read(self.fileno(), 1 << 12))
        return False

    def close(self) -> None:
        if self._watch:
            self._watch.close()
            self._watch = None

    def _ask(self, path: str, request: dict[str, Any]) -> bytes:
        """Ask the members in turn, beginning with the one that answered at last.

        A commit whose answer is lost may have been made. The next read shows it.
        """
        failures = []
        for number in range(len(self._endpoints)):
            at = (self._first + number) % len(self._endpoints)
            endpoint = self._endpoints[at]
            try:
                answer = _exchange(self._connect(endpoint), path, request)
            except FAILURES as error:
                failures.append(f"{endpoint}: {error or type(error).__name__}")
                continue
            self._first = at
            return answer
        raise CniError(IO_FAILURE, "etcd does not answer", "; ".join(failures))

    def _connect(self, endpoint: Endpoint) -> http.client.HTTPConnection:
        if endpoint.secure:
            return http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=self._seconds, context=self._tls)
        return http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=self._seconds)


def _exchange(connection: http.client.HTTPConnection, path: str, request: dict[str, Any]) -> bytes:
    """
    :raises OSError: and HTTPException, if the member does not answer or refuses.
    """
    try:
        response = _post(connection, path, request)
        data = response.read(ANSWER_BYTES + 1)
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise http.client.HTTPException(etcd_messages.refusal(response.status, data))
    if len(data) > ANSWER_BYTES:
        raise http.client.HTTPException(f"its answer is longer than {ANSWER_BYTES} bytes")
    return data


def _post(connection: http.client.HTTPConnection, path: str, request: dict[str, Any]) -> http.client.HTTPResponse:
    connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
    return connection.getresponse()


def _tls() -> ssl.SSLContext:
    """
    :raises CniError: INVALID_CONFIG.
    """
    given = {name: os.environ.get(f"ETCDCTL_{name}") or None for name in ("CACERT", "CERT", "KEY")}
    try:
        made = ssl.create_default_context(cafile=given["CACERT"])
        if given["CERT"]:
            made.load_cert_chain(given["CERT"], given["KEY"])
    except OSError as error:  # ssl.SSLError is one
        words = ", ".join(f"ETCDCTL_{name}={path}" for name, path in given.items() if path)
        raise CniError(INVALID_CONFIG, f"cannot use the certificates of {words}", str(error)) from error
    return made


class _Watch:
    """A thread that writes to a pipe when a watch has begun, and at each change.

    A watch begins again after it has ended for whatever reason, with the next member; the agent then reads all anew.
    """

    def __init__(
        self, connections: Sequence[Callable[[], http.client.HTTPConnection]], request: dict[str, Any]
    ) -> None:
        """
        :param connections: make one each, to a member.
        """
        self._connections = connections
        self._request = request
        self._connection: http.client.HTTPConnection | None = None
        self._closed = threading.Event()
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="etcd watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        opened = self._connection.sock if self._connection else None
        if opened:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)  # what the thread reads ends
        self._thread.join()
        os.close(self.reader)
        os.close(self._writer)

    def _run(self) -> None:
        number, pause = 0, FIRST_PAUSE_SECONDS
        while not self._closed.is_set():
            self._connection = self._connections[number % len(self._connections)]()
            begun = False
            try:
                for _ in self._heard(self._connection):
                    begun = True
                    with suppress(BlockingIOError):  # there are enough
                        os.write(self._writer, b".")
            except (*FAILURES, CniError, ValueError):
                pass  # the agent says what is wrong with etcd when it reads
            finally:
                self._connection.close()
            number += 1
            pause = FIRST_PAUSE_SECONDS if begun else min(2 * pause, LAST_PAUSE_SECONDS)
            self._closed.wait(pause)

    def _heard(self, connection: http.client.HTTPConnection) -> Iterator[None]:
        """Once for a watch's beginning, and for each change, until it ends."""
        with _post(connection, "/v3/watch", self._request) as response:
            opened = connection.sock
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                opened.setsockopt(socket.IPPROTO_TCP, option, value)
            opened.settimeout(None)
            while response.status == http.client.OK and not self._closed.is_set():
                line = response.readline(LINE_BYTES)
                if not line or not etcd_messages.is_heard(line):
                    return
                yield
