"""The part of the Kubernetes API that the node agent uses, answered as the API documents it: Leases and Nodes.

https://kubernetes.io/docs/reference/using-api/api-concepts/. The same assertions hold for the real API server:
tests/contract/test_kubernetes_api.py. What a server does when it is ill is here alone.
"""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.etcd import PATIENCE, own_address

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
KINDS = {"nodes": ("v1", "Node"), "leases": ("coordination.k8s.io/v1", "Lease")}
NAME = re.compile("[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# An administrator's; of the service account of deploy/kubernetes/agent.
TOKEN, AGENT_TOKEN = "of-a-test", "of-the-agent"
PATH = re.compile("(/api/v1/nodes|/apis/coordination.k8s.io/v1/namespaces/[^/]+/leases)(?:/([^/]+))?")

Item = dict[str, Any]


class Api(Protocol):
    """A server of the API, the stand-in or the real one."""

    url: str
    cafile: str | None
    kubeconfig: str


def kubeconfig(path: Path, url: str, namespace: str, cafile: str | None = None, token: str = TOKEN) -> str:
    """A file for a client."""
    cluster = {"server": url, **({"certificate-authority": cafile} if cafile else {})}
    path.write_text(json.dumps({  # JSON is YAML
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    }))
    return str(path)


def ask(
    api: Api, method: str, path: str, body: Item | None = None, kind: str = "application/json", token: str = TOKEN,
) -> tuple[int, Item]:
    """Status and document of an answer."""
    headers = {"Content-Type": kind, "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    trusted = ssl.create_default_context(cafile=api.cafile) if api.cafile else None
    try:
        with urlopen(Request(api.url + path, data, headers, method=method), timeout=PATIENCE, context=trusted) as given:
            return given.status, json.load(given)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@contextmanager
def watching(api: Api, path: str) -> Iterator[Iterator[Item]]:
    """The events of a watch."""
    trusted = ssl.create_default_context(cafile=api.cafile) if api.cafile else None
    request = Request(api.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
    with urlopen(request, timeout=PATIENCE, context=trusted) as given:
        yield map(json.loads, given)


def until(
    api: Api, path: str, condition: Callable[[Mapping[str, Item]], object], what: str, seconds: float = 180.0
) -> Mapping[str, Item]:
    """Wait until the objects of a collection are so, and give them by their names: read once, then told of changes."""
    deadline = time.monotonic() + seconds
    found: dict[str, Item] = {}
    while time.monotonic() < deadline:
        status, listed = ask(api, "GET", path)
        assert status == 200, listed
        found = {item["metadata"]["name"]: item for item in listed["items"]}
        if condition(found):
            return found
        query = f"{'&' if '?' in path else '?'}watch=true&resourceVersion={listed['metadata']['resourceVersion']}"
        with suppress(OSError), watching(api, path + query) as events:  # OSError: nothing has changed for long
            for event in events:
                name = event["object"]["metadata"].get("name", "")
                found = {**found, name: event["object"]}
                if event["type"] == "DELETED":
                    del found[name]
                if condition(found):
                    return found
                if time.monotonic() > deadline:
                    break
    shown = {name: item.get("status") for name, item in found.items()}
    pytest.fail(f"not in {seconds} s: {what}\n{json.dumps(shown, indent=1)}")


def make_node(api: Api, name: str, *blocks: str) -> str:
    """A Node, as kubelet and the controller manager make it; its UID."""
    spec = {"podCIDR": blocks[0], "podCIDRs": list(blocks)} if blocks else {}
    status, made = ask(api, "POST", NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                                            "spec": spec})
    assert status == 201, made
    return str(made["metadata"]["uid"])


class StandIn:
    """
    :param folder: for its kubeconfig.

    ``ill``: status and body of all answers from now on, while it is set; a status of 0: none but the body, as of a
    server of another kind. ``hangs_up``: so many requests more get no answer. ``asked``: method and path of each.
    """

    cafile: str | None = None

    def __init__(self, folder: Path, namespace: str) -> None:
        self.ill: tuple[int, bytes] | None = None
        self.hangs_up = 0
        self.asked: list[str] = []
        self.changed = Condition()
        self.revision = 100
        self.oldest = 100  # events before it are forgotten
        self.items: dict[str, Item] = {}  # by path
        self.events: list[tuple[int, str, Item]] = []
        self.generation = 0  # of watches: those of an older one end
        self.connections: set[socket.socket] = set()
        self._uids = 0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()
        self.url = f"http://{own_address()}:{self._port}"
        self.kubeconfig = kubeconfig(folder / "kubeconfig", self.url, namespace)

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = _Server((own_address(), self._port), handler)
        self._port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._thread.join()
            self.end_watches()
            with self.changed:
                for connection in self.connections:  # those that clients keep
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
            self._server.server_close()  # waits for its threads
            self._server = None

    def end_watches(self) -> None:
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget all events so far, as etcd's compaction does."""
        with self.changed:
            self.oldest = self.revision

    def bookmark(self, collection: str) -> None:
        with self.changed:
            self.revision += 1  # something else in the cluster has changed
            self.events.append((self.revision, "BOOKMARK", self._marked(collection)))
            self.changed.notify_all()

    def send(self, collection: str, line: bytes) -> None:
        """A line of the test's own to all watches."""
        with self.changed:
            self.revision += 1
            self.events.append((self.revision, "", {"path": f"{collection}/", "line": line}))
            self.changed.notify_all()

    def _marked(self, collection: str) -> Item:
        version, kind = KINDS[collection.rpartition("/")[2]]
        return {"kind": kind, "apiVersion": version, "path": f"{collection}/",
                "metadata": {"resourceVersion": str(self.revision)}}

    # What requests do; each holds the lock

    def create(self, collection: str, item: Item) -> tuple[int, Item]:
        metadata = item.get("metadata", {})
        name = metadata.get("name", "")
        if not NAME.fullmatch(name) or len(name) > 253:
            return _status(422, "Invalid", f"{name!r} is invalid: a lowercase RFC 1123 subdomain must consist of ...")
        path = f"{collection}/{name}"
        if path in self.items:
            return _status(409, "AlreadyExists", f"{path} already exists")
        if "holderIdentity" in item.get("spec", {}) and not item["spec"]["holderIdentity"]:
            return _status(422, "Invalid", "spec.holderIdentity: must not be empty")
        self._uids += 1
        return 201, self._put(path, {**item, "metadata": {**metadata, "uid": f"uid-{self._uids}"}}, "ADDED")

    def patch(self, path: str, change: Item) -> tuple[int, Item]:
        before = self.items.get(path)
        if before is None:
            return _status(404, "NotFound", f"{path} not found")
        wanted = change.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, before["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", f"{path}: the object has been modified")
        after = _merged(before, change)
        return 200, before if after == before else self._put(path, after, "MODIFIED")

    def delete(self, path: str, options: Item) -> tuple[int, Item]:
        before = self.items.get(path)
        if before is None:
            return _status(404, "NotFound", f"{path} not found")
        wanted = options.get("preconditions", {}).get("resourceVersion")
        if wanted not in (None, before["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", "Precondition failed")
        self._put(path, before, "DELETED")
        return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _put(self, path: str, item: Item, kind: str) -> Item:
        self.revision += 1
        made = {**item, "path": path, "metadata": {**item["metadata"], "resourceVersion": str(self.revision)}}
        self.items[path] = made
        if kind == "DELETED":
            del self.items[path]
        self.events.append((self.revision, kind, made))
        self.changed.notify_all()
        return made


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    api: StandIn
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def setup(self) -> None:
        super().setup()
        with self.api.changed:
            self.api.connections.add(self.connection)

    def finish(self) -> None:
        with self.api.changed:
            self.api.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        collection, name, query = self._where()
        if self._is_ill():
            return
        if name:
            with self.api.changed:
                found = self.api.items.get(f"{collection}/{name}")
            self._answer(*((200, found) if found else _status(404, "NotFound", f"{name} not found")))
        elif query.get("watch") == "true":
            self._watch(collection, query)
        else:
            with self.api.changed:
                items = [item for path, item in self.api.items.items() if _selected(path, item, collection, query)]
                revision = self.api.revision
            self._answer(200, {"kind": "List", "metadata": {"resourceVersion": str(revision)}, "items": items})

    def do_POST(self) -> None:
        self._change(lambda collection, _, body: self.api.create(collection, body))

    def do_PATCH(self) -> None:
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        self._change(lambda collection, name, body: self.api.patch(f"{collection}/{name}", body))

    def do_DELETE(self) -> None:
        self._change(lambda collection, name, body: self.api.delete(f"{collection}/{name}", body))

    def log_message(self, *_: object) -> None:
        """Nothing to standard error."""

    def _where(self) -> tuple[str, str, dict[str, str]]:
        url = urlsplit(self.path)
        with self.api.changed:
            self.api.asked.append(f"{self.command} {self.path}")
        found = PATH.fullmatch(url.path)
        assert found and self.headers["Authorization"] == f"Bearer {TOKEN}", self.path
        return found[1], found[2] or "", {key: values[0] for key, values in parse_qs(url.query).items()}

    def _change(self, act: Callable[[str, str, Item], tuple[int, Item]]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        collection, name, _ = self._where()
        if self._is_ill():
            return
        with self.api.changed:
            status, document = act(collection, name, json.loads(body) if body else {})
        self._answer(status, document)

    def _is_ill(self) -> bool:
        with self.api.changed:
            ill, self.api.hangs_up = self.api.ill, max(0, (hangs_up := self.api.hangs_up) - 1)
        if hangs_up:
            ill = 0, b""
        if ill is None:
            return False
        status, body = ill
        if status:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")  # else the client may send its next request as this end closes
            self.end_headers()
        self.wfile.write(body)
        self.close_connection = True
        return True

    def _answer(self, status: int, document: Item) -> None:
        body = json.dumps(_shown(document)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, collection: str, query: Mapping[str, str]) -> None:
        last = int(query["resourceVersion"])
        with self.api.changed:
            generation, gone = self.api.generation, last < self.api.oldest
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()
        with suppress(OSError):  # the client is gone
            if gone:
                _, status = _status(410, "Expired", f"too old resource version: {last}")
                self._chunk(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            while not gone:
                with self.api.changed:
                    self.api.changed.wait_for(lambda: self.api.revision > last or self.api.generation != generation
                                              or self._hung_up(), 0.2)
                    events = [event for event in self.api.events if event[0] > last]
                    last = max(last, self.api.revision)
                    gone = self.api.generation != generation or self._hung_up()
                for _, kind, item in events:
                    marked = kind in ("", "BOOKMARK") and item["path"] == f"{collection}/"
                    if marked or _selected(item["path"], item, collection, query):
                        self._chunk(_line(kind, item))
            self._chunk(b"")
        self.close_connection = True

    def _hung_up(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _line(kind: str, item: Item) -> bytes:
    if not kind:
        return bytes(item["line"])
    return json.dumps({"type": kind, "object": _shown(item)}).encode() + b"\n"


def _shown(document: Item) -> Item:
    items = {"items": [_shown(item) for item in document["items"]]} if "items" in document else {}
    return {**{key: value for key, value in document.items() if key != "path"}, **items}


def _selected(path: str, item: Item, collection: str, query: Mapping[str, str]) -> bool:
    metadata = item.get("metadata", {})
    labels = [pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair]
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return path.startswith(f"{collection}/") and (not name or metadata.get("name") == name) and all(
        metadata.get("labels", {}).get(key) == value for key, value in labels)


def _status(code: int, reason: str, message: str) -> tuple[int, Item]:
    return code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                  "reason": reason, "code": code}


def _merged(before: Any, change: Any) -> Any:
    """RFC 7386."""
    if not isinstance(change, dict) or not isinstance(before, dict):
        return change
    kept = {key: value for key, value in before.items() if change.get(key, "") is not None}
    return kept | {key: _merged(kept.get(key, {}), value) for key, value in change.items() if value is not None}


@contextmanager
def stand_in(folder: Path, namespace: str = "default") -> Iterator[StandIn]:
    made = StandIn(folder, namespace)
    try:
        yield made
    finally:
        made.stop()
