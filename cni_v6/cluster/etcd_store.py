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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cni_v6.cluster import etcd_messages
from cni_v6.cluster.etcd_messages import LEADER, Endpoint
from cni_v6.cluster.follow import Bell, Follower, Heard
from cni_v6.cluster.mirror import Event, Kept
from cni_v6.cluster.records import Change, Objects
from cni_v6.cluster.store import Registered
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError

TIMEOUT_SECONDS = 5.0  # of one member; then the next one is asked
ANSWER_BYTES = 1 << 26
# Of a watch: every ten minutes, and 22 at most after a change, etcd says that nothing has changed, unless it hangs
# (--experimental-watch-progress-notify-interval).
SILENT_SECONDS = 1800.0
LINE_BYTES = 1 << 22  # of a watch: etcd takes requests of 1.5 MiB at most (--max-request-bytes)
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
        self._reports = etcd_messages.reports_prefix(self._prefix)
        self._tls = _tls() if any(endpoint.secure for endpoint in self._endpoints) else None
        self._known: dict[str, Kept] = {}
        self._first = 0  # the member that answered at last
        self._follower = Follower(self, seconds)
        self._bell = Bell()

    def registered(self, name: str, own: str) -> Registered:
        return Registered(own)

    def read(self) -> Objects:
        self._known = self._follower.read()
        return {key: kept.text for key, kept in self._known.items()}

    def commit(self, changes: Sequence[Change]) -> bool:
        if any(change.key not in self._known and change.was is not None for change in changes):
            self.read()
        request = etcd_messages.commit_request(changes, self._known, self._prefix)
        self._known = {}  # revisions that may be old now
        revision = None
        try:
            if request is not None:
                revision = etcd_messages.read_commit(self._ask("/v3/kv/txn", request))
        finally:
            # What only compares makes no revision.
            self._follower.written(0 if revision and request and not request["success"] else revision)
        return revision is not None

    def report(self, name: str, text: str | None) -> None:
        self._ask("/v3/kv/txn", etcd_messages.set_request(self._reports + name, text))

    def reports(self, name: str = "") -> Mapping[str, str]:
        request = etcd_messages.key_request(self._reports + name) if name else (
            etcd_messages.range_request(self._reports))
        found, _ = etcd_messages.read_range(self._ask("/v3/kv/range", request), self._reports)
        return {key: kept.text for key, kept in found.items()}

    def unheard(self) -> str | None:
        return self._follower.unheard()

    def fileno(self) -> int:
        self._follower.start(self._bell)
        return self._bell.reader

    def drain(self) -> bool:
        return self._bell.drain()

    def close(self) -> None:
        self._follower.close()
        self._bell.close()

    # As ``follow.Server``

    def list(self) -> tuple[dict[str, Kept], int]:
        data = self._ask("/v3/kv/range", etcd_messages.range_request(self._prefix))
        return etcd_messages.read_range(data, self._prefix)

    @contextmanager
    def watch(self, revision: int, attempt: int) -> Iterator[Heard]:
        endpoint = self._endpoints[attempt % len(self._endpoints)]
        connection = self._connect(endpoint)
        request = etcd_messages.watch_request(self._prefix, revision)
        try:
            with _naming(endpoint), _post(connection, "/v3/watch", request, LEADER) as response:
                if response.status != http.client.OK:
                    words = etcd_messages.refusal(response.status, response.read(ANSWER_BYTES))
                    raise CniError(IO_FAILURE, "etcd refuses a watch", f"{endpoint}: {words}")
                connection.sock.settimeout(SILENT_SECONDS)
                yield _Watch(connection, response, self._prefix, revision)
        finally:
            connection.close()

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


class _Watch:
    """As ``follow.Heard``."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, prefix: str, after: int
    ) -> None:
        self._connection = connection
        self._response = response
        self._prefix = prefix
        self._after = after

    def opened(self) -> socket.socket:
        opened: socket.socket = self._connection.sock
        return opened

    def __iter__(self) -> Iterator[tuple[Sequence[Event], int]]:
        while line := self._response.readline(LINE_BYTES):
            events, revision = etcd_messages.read_watch(line, self._prefix, self._after)
            if events:
                yield events, revision


@contextmanager
def _naming(endpoint: Endpoint) -> Iterator[None]:
    try:
        yield
    except (*FAILURES, ValueError) as error:  # ValueError: of a connection that is closed meanwhile
        raise CniError(IO_FAILURE, "etcd does not answer", f"{endpoint}: {error or type(error).__name__}") from error


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


def _post(
    connection: http.client.HTTPConnection, path: str, request: dict[str, Any], more: Mapping[str, str] | None = None
) -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/json", **(more or {})}
    connection.request("POST", path, json.dumps(request), headers)
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
