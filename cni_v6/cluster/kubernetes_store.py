"""A cluster's store in the Kubernetes API. docs/design/cluster.md has the reasons.

lightkube reads the kubeconfig or the service account, and makes an HTTP client of them: certificates, tokens that
change, programs that bring a token. The requests are ours: there are six.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
import yaml
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

from cni_v6.cluster import kubernetes_messages as messages
from cni_v6.cluster.follow import Bell, Follower, Heard
from cni_v6.cluster.kubernetes_messages import Read
from cni_v6.cluster.mirror import Event, Forgotten, Kept
from cni_v6.cluster.records import Change, Objects
from cni_v6.cluster.store import Registered
from cni_v6.errors import DECODING_FAILURE, INVALID_CONFIG, IO_FAILURE, CniError

TIMEOUT_SECONDS = 5.0
SILENT_SECONDS = 180.0  # of a watch: the API sends a bookmark a minute, so a server that hangs is noticed
ANSWER_BYTES = 1 << 26
LINE_BYTES = 1 << 22
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
CREATED, NOT_FOUND, CONFLICT = 201, 404, 409
SHAPES = (AssertionError, AttributeError, LookupError, TypeError, ValueError)  # of a file that lightkube does not check
FAILURES = (httpx2.HTTPError, httpx2.StreamError, ConfigError, OSError)


class KubernetesStore:
    """
    :param path: of a kubeconfig; "" for the service account of the pod that this runs in.
    :param seconds: after which the API does not answer.
    :raises CniError: INVALID_CONFIG.
    """

    def __init__(self, path: str, seconds: float = TIMEOUT_SECONDS) -> None:
        self._seconds = seconds
        self._api, namespace = _connect(path, seconds)
        self._path = LEASES.format(namespace)
        self._known: dict[str, Kept] = {}
        self._leases = self._follower(self._path, messages.query(messages.LABEL), messages.read_lease)
        self._name = ""
        self._node: Follower | None = None
        self._uid = ""
        self._bell = Bell()
        self._listening = False

    def read(self) -> Objects:
        self._known = self._leases.read()
        return {key: kept.text for key, kept in self._known.items()}

    def registered(self, name: str, own: str) -> Registered | None:
        if self._node is None:
            self._name = name
            query = {"fieldSelector": f"metadata.name={name}"}
            self._node = self._follower(NODES, query, messages.read_node)
            self._listen()
        kept = self._node.read().get(name)
        found = messages.registered(kept.text) if kept else None
        self._uid = found.id if found else ""
        return found

    def commit(self, changes: Sequence[Change]) -> bool:
        """The API has no transactions: the changes are made in order, and taken back if one is refused."""
        if any(change.key not in self._known and change.was is not None for change in changes):
            self.read()
        known, self._known = self._known, {}
        if any(_text(known.get(change.key)) != change.was for change in changes):
            self._leases.written(None)
            return False
        done: list[tuple[Change, int]] = []
        last: int | None = None
        try:
            for change in changes:
                revision = self._make(change, known.get(change.key))
                if revision is None:
                    self._take_back(done)
                    return False
                if change.now != change.was:
                    done.append((change, revision))
            # A deletion has a revision that nobody tells.
            last = None if any(change.now is None for change, _ in done) else max((made for _, made in done), default=0)
        finally:
            self._leases.written(last)
        return True

    def _make(self, change: Change, kept: Kept | None) -> int | None:
        """The revision of the changed object, 0 for none; None if it is not as it must be."""
        path, node = f"{self._path}/{messages.lease_name(change.key)}", (self._name, self._uid) if self._uid else None
        if change.now == change.was:
            return self._compare(path, kept)
        if change.now is None:
            assert kept
            data = _ask(self._api, "DELETE", path, (CONFLICT, NOT_FOUND), json=messages.delete_document(kept.revision))
            return None if data is None else 0
        if kept is None:
            document = messages.create_document(change.key, change.now, node)
            data = _ask(self._api, "POST", self._path, (CONFLICT,), json=document)
        else:
            document = messages.patch_document(change.now, kept.revision, node)
            data = _ask(self._api, "PATCH", path, (CONFLICT, NOT_FOUND), json=document, headers=MERGE_PATCH)
        return None if data is None else messages.read_object(data)

    def _compare(self, path: str, kept: Kept | None) -> int | None:
        data = _ask(self._api, "GET", path, (NOT_FOUND,))
        same = (messages.read_object(data) if data is not None else None) == (kept.revision if kept else None)
        return 0 if same else None

    def _take_back(self, done: Sequence[tuple[Change, int]]) -> None:
        """Another node that has changed one of them meanwhile wins."""
        for change, revision in reversed(done):
            kept = None if change.now is None else Kept(change.now, revision)
            self._make(Change(change.key, change.now, change.was), kept)

    def report(self, name: str, text: str | None) -> None:
        path = f"{self._path}/{messages.lease_name(messages.report_key(name))}"
        if text is None:
            _ask(self._api, "DELETE", path, (NOT_FOUND,))
            return
        node = (self._name, self._uid) if self._uid else None
        document = messages.report_document(name, text, node, new=False)
        if _ask(self._api, "PATCH", path, (NOT_FOUND,), json=document, headers=MERGE_PATCH) is None:
            _ask(self._api, "POST", self._path, json=messages.report_document(name, text, node, new=True))

    def reports(self, name: str = "") -> Mapping[str, str]:
        query = messages.query(messages.REPORT_LABEL)
        if name:
            query["fieldSelector"] = f"metadata.name={messages.lease_name(messages.report_key(name))}"
        data = _ask(self._api, "GET", self._path, params=query)
        assert data is not None
        found, _ = messages.read_list(data, messages.read_report)
        return {key: kept.text for key, kept in found.items()}

    def unheard(self) -> str | None:
        followers = [self._leases, *([self._node] if self._node else [])]
        return next((words for words in (follower.unheard() for follower in followers) if words), None)

    def fileno(self) -> int:
        self._listening = True
        self._listen()
        return self._bell.reader

    def drain(self) -> bool:
        return self._bell.drain()

    def close(self) -> None:
        self._leases.close()
        if self._node:
            self._node.close()
        self._api.close()
        self._bell.close()

    def _follower(self, path: str, query: Mapping[str, str], read: Read) -> Follower:
        return Follower(_Resource(self._api, self._seconds, path, query, read), self._seconds)

    def _listen(self) -> None:
        if self._listening:
            self._leases.start(self._bell)
            if self._node:
                self._node.start(self._bell)


class _Resource:
    """Objects of one kind; as ``follow.Server``."""

    def __init__(
        self, api: httpx2.Client, seconds: float, path: str, query: Mapping[str, str], read: Read
    ) -> None:
        self._api = api
        self._seconds = seconds
        self._path = path
        self._query = query
        self._read = read

    def list(self) -> tuple[dict[str, Kept], int]:
        data = _ask(self._api, "GET", self._path, params=self._query)
        assert data is not None
        return messages.read_list(data, self._read)

    @contextmanager
    def watch(self, revision: int, attempt: int) -> Iterator[Heard]:
        query = {**self._query, "watch": "true", "resourceVersion": str(revision), "allowWatchBookmarks": "true"}
        timeout = httpx2.Timeout(self._seconds, read=SILENT_SECONDS)
        with _naming(self._path), self._api.stream("GET", self._path, params=query, timeout=timeout) as response:
            if response.status_code == messages.GONE:
                raise Forgotten
            if not response.is_success:
                raise _refused("GET", self._path, response.status_code, _whole(response))
            yield _Watch(response, self._read)


class _Watch:
    """As ``follow.Heard``."""

    def __init__(self, response: httpx2.Response, read: Read) -> None:
        self._response = response
        self._read = read

    def opened(self) -> socket.socket | None:
        stream = self._response.extensions.get("network_stream")
        found = stream.get_extra_info("socket") if stream else None
        return found if isinstance(found, socket.socket) else None

    def __iter__(self) -> Iterator[tuple[Sequence[Event], int]]:
        rest = b""
        for part in self._response.iter_bytes():
            *lines, rest = (rest + part).split(b"\n")
            for line in filter(None, lines):
                yield messages.read_event(line, self._read)
            if len(rest) > LINE_BYTES:
                raise CniError(DECODING_FAILURE, f"a line of a watch is longer than {LINE_BYTES} bytes")


def _connect(path: str, seconds: float) -> tuple[httpx2.Client, str]:
    """A client of the API, and the namespace of the store.

    :raises CniError: INVALID_CONFIG.
    """
    try:
        found = (KubeConfig.from_file(path) if path else KubeConfig.from_service_account()).get()
        assert found is not None, "no context"
        return Client(found, ConnectionParams(timeout=httpx2.Timeout(seconds))), found.namespace
    except (*FAILURES, *SHAPES, yaml.YAMLError) as error:
        where = f"kubeconfig {path}" if path else "service account of this pod"
        words = str(error) or type(error).__name__
        raise CniError(INVALID_CONFIG, f"--cluster: the {where} cannot be used", words) from error


def _text(kept: Kept | None) -> str | None:
    return kept.text if kept else None


def _ask(
    api: httpx2.Client, method: str, path: str, refusals: Sequence[int] = (), **more: Any
) -> bytes | None:
    """The answer; None for one of the refusals.

    :raises CniError: IO_FAILURE.
    """
    # SHAPES: of what a program of the kubeconfig prints, too.
    with _naming(path, (*FAILURES, *SHAPES)):
        try:
            response, data = _told(api, method, path, more)
        except httpx2.RemoteProtocolError:
            if method != "GET":
                raise
            # The server has closed a connection that was kept. Who only asks may ask again (RFC 9110, section 9.2.2).
            response, data = _told(api, method, path, more)
    if response.status_code in refusals:
        return None
    if not response.is_success:
        raise _refused(method, path, response.status_code, data)
    return data


def _told(api: httpx2.Client, method: str, path: str, more: Mapping[str, Any]) -> tuple[httpx2.Response, bytes]:
    with api.stream(method, path, **more) as response:
        return response, _whole(response)


def _whole(response: httpx2.Response) -> bytes:
    data = bytearray()
    for part in response.iter_bytes():
        data += part
        if len(data) > ANSWER_BYTES:
            raise CniError(IO_FAILURE, f"an answer of the Kubernetes API is longer than {ANSWER_BYTES} bytes")
    return bytes(data)


def _refused(method: str, path: str, status: int, data: bytes) -> CniError:
    return CniError(IO_FAILURE, f"the Kubernetes API refuses {method} {path}", messages.refusal(status, data))


@contextmanager
def _naming(path: str, failures: tuple[type[Exception], ...] = FAILURES) -> Iterator[None]:
    try:
        yield
    except failures as error:
        words = f"{path}: {str(error) or type(error).__name__}"
        raise CniError(IO_FAILURE, "the Kubernetes API does not answer", words) from error
