"""What every store of a cluster does: in memory, in a file, in etcd, in the Kubernetes API."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from cni_v6.cluster.etcd_store import EtcdStore
from cni_v6.cluster.file_store import FileStore
from cni_v6.cluster.kubernetes_store import KubernetesStore
from cni_v6.cluster.records import Change, Objects, to_text
from cni_v6.cluster.store import ClusterStore, MemoryStore, Watched
from cni_v6.errors import CniError
from tests.etcd import PATIENCE, Etcd, certificates, etcd, own_address
from tests.kube_api import Api, kubeconfig, stand_in
from tests.kube_apiserver import kube_apiserver, make_namespace

NODE, OTHER = to_text({"id": "1", "addresses": ["fd00::1"]}), to_text({"id": "2"})
Open = Callable[[], ClusterStore]  # the same objects each time, as another node sees them


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    with etcd(own_address()) as made:
        yield made


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Api]:
    with kube_apiserver(own_address()) as made:
        yield made


@pytest.fixture(params=[
    "memory", "file", "stand-in", pytest.param("etcd", marks=[pytest.mark.slow, pytest.mark.netns]),
    pytest.param("kubernetes", marks=[pytest.mark.kubernetes, pytest.mark.netns]),
])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    if request.param == "memory":
        store = MemoryStore()
        yield lambda: store
    elif request.param == "stand-in":
        with ExitStack() as stores, stand_in(tmp_path) as api:
            yield lambda: stores.enter_context(closing(KubernetesStore(api.kubeconfig)))
    elif request.param == "kubernetes":
        api, name = request.getfixturevalue("kubernetes"), f"test-{os.urandom(4).hex()}"
        make_namespace(api, name)
        config = kubeconfig(tmp_path / "kubeconfig", api.url, name, api.cafile)
        with ExitStack() as stores:
            yield lambda: stores.enter_context(closing(KubernetesStore(config)))
    elif request.param == "etcd":
        server = request.getfixturevalue("server")
        yield lambda: EtcdStore(f"{server.url}/{tmp_path.name}")
    else:
        yield lambda: FileStore(str(tmp_path / "cluster.json"))


def test_objects_are_what_was_written(opened: Open) -> None:
    store = opened()
    assert store.read() == {}
    assert store.commit([Change("nodes/a", None, NODE), Change("blocks/fd42::/64", None, OTHER)])
    assert opened().read() == {"nodes/a": NODE, "blocks/fd42::/64": OTHER}
    assert store.commit([Change("nodes/a", NODE, OTHER), Change("blocks/fd42::/64", OTHER, None)])
    assert opened().read() == {"nodes/a": OTHER}


def test_all_changes_are_made_or_none(opened: Open) -> None:
    store = opened()
    assert store.commit([Change("nodes/a", None, NODE)])
    for changes in (
        [Change("nodes/b", None, OTHER), Change("nodes/a", None, OTHER)],
        [Change("nodes/b", None, OTHER), Change("nodes/a", OTHER, NODE)],
        [Change("nodes/b", None, OTHER), Change("nodes/c", NODE, None)],
        [Change("nodes/b", None, OTHER), Change("nodes/a", OTHER, OTHER)],
    ):
        assert not store.commit(changes) and store.read() == {"nodes/a": NODE}
    assert store.commit([Change("nodes/b", None, OTHER), Change("nodes/a", NODE, NODE), Change("nodes/c", None, None)])
    assert store.read() == {"nodes/a": NODE, "nodes/b": OTHER}
    assert store.commit([])


def test_one_of_many_creates_an_object(opened: Open) -> None:
    def claim(number: int) -> bool:
        return opened().commit([Change("blocks/fd42::/64", None, to_text({"node": str(number)}))])

    with ThreadPoolExecutor(8) as nodes:
        made = list(nodes.map(claim, range(16)))
    assert sum(made) == 1
    assert opened().read() == {"blocks/fd42::/64": to_text({"node": str(made.index(True))})}


def test_reports_are_beside_the_objects(opened: Open) -> None:
    """Each node has one, and it is nobody's object."""
    store: Any = opened()
    assert store.reports() == {} and store.reports("a") == {}
    for name, text in (("a", NODE), ("b.example.org", OTHER), ("a", OTHER)):
        store.report(name, text)
    other: Any = opened()
    assert other.reports() == {"a": OTHER, "b.example.org": OTHER}
    assert other.reports("a") == {"a": OTHER} and other.read() == {}
    for _ in range(2):
        other.report("a", None)
    assert other.reports() == {"b.example.org": OTHER}


def test_a_report_in_a_file_wakes_nobody_and_garbage_is_replaced(tmp_path: Path) -> None:
    with closing(FileStore(str(tmp_path / "cluster.json"))) as store:
        assert not store.drain()
        (tmp_path / "cluster.json.reports").write_text("garbage")
        assert store.reports() == {}
        store.report("a", NODE)
        assert store.reports() == {"a": NODE} and not store.drain()


def test_a_file_store_tells_of_changes_of_its_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    with closing(FileStore(str(path))) as store:
        assert not store.drain()
        assert FileStore(str(path)).commit([Change("nodes/a", None, NODE)]) and store.drain()
        assert not FileStore(str(path)).commit([Change("nodes/a", None, NODE)]) and not store.drain()
        assert store.commit([Change("nodes/a", NODE, NODE)]) and not store.drain()
        path.write_text(path.read_text().replace("fd00::1", "fd00::2"))  # by hand
        assert store.drain() and store.read()["nodes/a"] == NODE.replace("fd00::1", "fd00::2")
        path.unlink()
        assert store.drain() and store.read() == {}


# etcd


def heard(store: Watched) -> bool:
    return bool(select.select([store], [], [], PATIENCE)[0]) and store.drain()


def shows(store: Watched, expected: Objects) -> None:
    """Until the objects are these, as an agent sees them that reads when there is news."""
    while store.read() != expected:
        assert heard(store), store.read()


def deaf(store: Watched) -> None:
    """Until a watch has ended and another one cannot begin."""
    while store.unheard() is None:
        assert heard(store)


def begun(store: Watched) -> None:
    """Until the store is heard: what is read from now on has not been asked for."""
    store.fileno()
    store.read()
    assert heard(store)


@pytest.mark.slow
@pytest.mark.netns
def test_etcd_tells_of_changes_whatever_becomes_of_it(server: Etcd) -> None:
    target = f"http://127.0.0.1:1,{server.url}/watched"  # nobody listens at the first one
    with closing(EtcdStore(target)) as store, closing(EtcdStore(f"{server.url}/watched")) as other:
        begun(store)
        assert other.commit([Change("nodes/a", None, NODE)])
        shows(store, {"nodes/a": NODE})
        last = _ask(server, "/v3/kv/range", {"key": "YQ=="})["header"]["revision"]
        _ask(server, "/v3/kv/compaction", {"revision": last})
        assert other.commit([Change("nodes/a", NODE, OTHER)])
        shows(store, {"nodes/a": OTHER})
        assert store.commit([Change("nodes/b", None, OTHER)]) and store.read() == {"nodes/a": OTHER, "nodes/b": OTHER}
        assert store.commit([Change("nodes/b", OTHER, None)]) and store.read() == {"nodes/a": OTHER}
        server.stop()
        deaf(store)
        with pytest.raises(CniError, match=f"not answer: {server.url}: .*refused; http://127.0.0.1:1: .*refused"):
            store.read()
        server.start()
        while store.unheard() is not None:
            assert heard(store)
        shows(store, {"nodes/a": OTHER})
        assert other.commit([Change("nodes/a", OTHER, None)])
        shows(store, {})


@pytest.mark.slow
@pytest.mark.netns
def test_what_etcd_has_compacted_is_read_again(server: Etcd) -> None:
    """The watch begins again where it ended; etcd has forgotten what was since."""
    with closing(EtcdStore(f"{server.url}/compacted")) as store, closing(EtcdStore(f"{server.url}/compacted")) as other:
        begun(store)
        server.stop()
        deaf(store)
        server.start()
        for was, now in ((None, NODE), (NODE, OTHER)):
            assert other.commit([Change("nodes/a", was, now)])
        last = _ask(server, "/v3/kv/range", {"key": "YQ=="})["header"]["revision"]
        _ask(server, "/v3/kv/compaction", {"revision": last})
        shows(store, {"nodes/a": OTHER})
        assert other.commit([Change("nodes/a", OTHER, None)])
        shows(store, {})


@pytest.mark.slow
@pytest.mark.netns
def test_an_etcd_that_has_lost_everything(server: Etcd) -> None:
    """Its revisions begin anew, as after a restore from a backup: it would be silent until it has those of before."""
    target = f"{server.url}/lost"
    with closing(EtcdStore(target)) as store, closing(EtcdStore(target)) as other:
        begun(store)
        assert store.commit([Change("nodes/a", None, NODE)])
        for number in range(20):
            assert other.commit([Change(f"nodes/b{number}", None, OTHER)])
        server.stop()
        deaf(store)
        server.lose()
        server.start()
        shows(store, {})
        while store.unheard() is not None:
            assert heard(store)
        assert other.read() == {} and other.commit([Change("nodes/c", None, OTHER)])
        shows(store, {"nodes/c": OTHER})


@pytest.mark.slow
@pytest.mark.netns
def test_an_etcd_that_hangs(server: Etcd) -> None:
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(CniError, match="timed out"):
            EtcdStore(f"{server.url}/slow", seconds=0.3).read()
    finally:
        server.signal(signal.SIGCONT)
    assert EtcdStore(f"{server.url}/slow").commit([Change("nodes/a", None, NODE)])


@pytest.mark.slow
@pytest.mark.netns
def test_etcd_with_certificates(tmp_path: Path) -> None:
    address = own_address().replace("127.", "127.64.", 1).rsplit(".", 1)[0]
    authority, certificate, key = certificates(tmp_path, address)
    files = ("--cert-file", certificate, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", authority)
    with etcd(address, more=files) as server, pytest.MonkeyPatch.context() as patch:
        with pytest.raises(CniError, match="certificate verify failed"):
            EtcdStore(f"{server.url}/x").read()
        patch.setenv("ETCDCTL_CACERT", authority)
        with pytest.raises(CniError, match="not answer"):
            EtcdStore(f"{server.url}/x").read()
        patch.setenv("ETCDCTL_CERT", certificate)
        patch.setenv("ETCDCTL_KEY", key)
        with closing(EtcdStore(f"{server.url}/x")) as store:
            begun(store)
            assert store.commit([Change("nodes/a", None, NODE)]) and heard(store)
            assert store.read() == {"nodes/a": NODE}
        patch.setenv("ETCDCTL_KEY", "/nonexistent")
        with pytest.raises(CniError, match="cannot use the certificates of .*ETCDCTL_KEY=/nonexistent"):
            EtcdStore(f"{server.url}/x")


ANSWERS = {  # what a server says that is none -> the error of a read
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngarbage": "not JSON",
    b"HTTP/1.1 503 Unavailable\r\nContent-Length: 22\r\n\r\n{\"error\": \"no leader\"}": "status 503: 'no leader'",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"kvs\":": "not JSON",
    b"garbage": "does not answer",
    b"": "does not answer",
}


def take_request(connection: socket.socket) -> None:
    """Read all of it: a connection that is closed before that is reset, and takes the answer along."""
    data = b""
    while True:
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if length and len(body) >= int(length[1]):
            return
        part = connection.recv(1 << 16)
        assert part, "the caller has closed its end"
        data += part


@pytest.mark.parametrize(("answer", "says"), ANSWERS.items(), ids=range(len(ANSWERS)))
def test_a_server_that_is_no_etcd(answer: bytes, says: str) -> None:
    with socket.create_server((own_address(), 0)) as server, ThreadPoolExecutor(1) as thread:
        host, port = server.getsockname()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                take_request(connection)
                connection.sendall(answer)

        done = thread.submit(serve)
        with pytest.raises(CniError, match=says):
            EtcdStore(f"http://{host}:{port}/x").read()
        done.result()


def _ask(server: Etcd, path: str, request: dict[str, Any]) -> Any:
    asked = Request(server.url + path, json.dumps(request).encode(), {"Content-Type": "application/json"})
    with urlopen(asked, timeout=PATIENCE) as answer:
        return json.load(answer)
