"""The store in the Kubernetes API: what the API does, and what the store makes of it; the stand-in and the real one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cni_v6.cluster import follow
from cni_v6.cluster.kubernetes_messages import lease_name
from cni_v6.cluster.kubernetes_store import KubernetesStore
from cni_v6.cluster.records import Change, to_text
from cni_v6.cluster.store import Registered
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError
from tests.contract.test_cluster_store import begun, deaf, heard, shows
from tests.etcd import own_address
from tests.kube_api import (
    AGENT_TOKEN,
    LEASES,
    NODES,
    Api,
    Item,
    StandIn,
    ask,
    kubeconfig,
    make_node,
    stand_in,
    watching,
)
from tests.kube_apiserver import kube_apiserver, make_namespace
from tests.kubernetes import document

OTHER = to_text({"id": "2"})
BLOCK = "blocks/fd42:8e1f:6a00:7::/64"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
MERGE = "application/merge-patch+json"


class Place:
    """A namespace of its own. ``name``: of a node that no other test has."""

    def __init__(self, api: Api, folder: Path, name: str) -> None:
        self.api = api
        self.name = name
        self.leases = LEASES.format(name)
        self.kubeconfig = kubeconfig(folder / "config", api.url, name, api.cafile)

    def lease(self, key: str) -> str:
        return f"{self.leases}/{lease_name(key)}"


@pytest.fixture(scope="module")
def server() -> Iterator[Api]:
    with kube_apiserver(own_address()) as made:
        yield made


@pytest.fixture(params=["stand-in", pytest.param("kubernetes", marks=[pytest.mark.kubernetes, pytest.mark.netns])])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    name = f"test-{os.urandom(4).hex()}"
    with ExitStack() as opened:
        if request.param == "stand-in":
            api: Api = opened.enter_context(stand_in(tmp_path, name))
        else:
            api = request.getfixturevalue("server")
            make_namespace(api, name)
        yield Place(api, tmp_path, name)


@pytest.fixture
def store(place: Place) -> Iterator[KubernetesStore]:
    with closing(KubernetesStore(place.kubeconfig)) as made:
        yield made


def lease(name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, **metadata},
            "spec": {}}


# The API


def test_an_object_is_created_once_and_changed_by_revision(place: Place) -> None:
    api, path = place.api, f"{place.leases}/a"
    status, made = ask(api, "POST", place.leases, lease("a", labels={"x": "y"}))
    assert status == 201 and made["metadata"]["uid"]
    first = made["metadata"]["resourceVersion"]
    status, answer = ask(api, "POST", place.leases, lease("a"))
    assert (status, answer["kind"], answer["reason"]) == (409, "Status", "AlreadyExists")
    change = {"metadata": {"resourceVersion": first, "annotations": {"x": "1"}}}
    status, made = ask(api, "PATCH", path, change, MERGE)
    assert status == 200 and int(made["metadata"]["resourceVersion"]) > int(first)
    assert made["metadata"]["labels"] == {"x": "y"} and made["metadata"]["annotations"] == {"x": "1"}
    status, answer = ask(api, "PATCH", path, {"metadata": {"resourceVersion": first, "annotations": {}}}, MERGE)
    assert (status, answer["reason"]) == (409, "Conflict")
    status, again = ask(api, "PATCH", path, {"metadata": {"annotations": {"x": "1"}}}, MERGE)
    assert status == 200 and again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": first}}
    assert ask(api, "DELETE", path, options)[0] == 409
    options["preconditions"] = {"resourceVersion": made["metadata"]["resourceVersion"]}
    assert ask(api, "DELETE", path, options)[0] == 200
    for method, body in (("DELETE", options), ("PATCH", {}), ("GET", None)):
        status, answer = ask(api, method, path, body, MERGE if method == "PATCH" else "application/json")
        assert (status, answer["reason"]) == (404, "NotFound"), method


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a.", "a" * 254, "fd42::"])
def test_names_that_the_api_refuses(place: Place, name: str) -> None:
    assert ask(place.api, "POST", place.leases, lease(name))[0] == 422


@pytest.mark.parametrize("key", [
    "pools", "nodes/a", "nodes/node-1.example.org", f"nodes/{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}", "nodes/B_1",
    BLOCK, "blocks/10.244.3.64/26", "blocks/::/0", "blocks/garbage", "", "x/y",
])
def test_the_name_of_each_key_is_taken(place: Place, key: str) -> None:
    assert ask(place.api, "POST", place.leases, lease(lease_name(key)))[0] == 201


def test_a_watch_tells_of_all_that_has_changed_since(place: Place) -> None:
    api, label = place.api, {"labels": {"x": "y"}}
    ask(api, "POST", place.leases, lease("a", **label))
    status, found = ask(api, "GET", f"{place.leases}?labelSelector=x%3Dy")
    [item] = found["items"]
    last = found["metadata"]["resourceVersion"]
    assert int(last) >= int(item["metadata"]["resourceVersion"])
    ask(api, "POST", place.leases, lease("hidden"))
    ask(api, "PATCH", f"{place.leases}/a", {"metadata": {"annotations": {"x": "1"}}}, MERGE)
    query = f"watch=true&labelSelector=x%3Dy&resourceVersion={last}&allowWatchBookmarks=true"
    with watching(api, f"{place.leases}?{query}") as events:
        ask(api, "DELETE", f"{place.leases}/a", {})
        ask(api, "POST", place.leases, lease("b", **label))
        told = [next(events) for _ in range(3)]
    assert [event["type"] for event in told] == ["MODIFIED", "DELETED", "ADDED"]
    numbers = [int(event["object"]["metadata"]["resourceVersion"]) for event in told]
    assert numbers == sorted(set(numbers)) and numbers[0] > int(last)
    assert told[2]["object"]["metadata"]["name"] == "b"


def test_a_watch_from_a_revision_that_is_forgotten(place: Place) -> None:
    with watching(place.api, f"{place.leases}?watch=true&resourceVersion=1") as events:
        event = next(events)
    assert (event["type"], event["object"]["kind"], event["object"]["code"]) == ("ERROR", "Status", 410)


def test_one_node_is_watched_by_its_name(place: Place) -> None:
    api, other = place.api, f"{place.name}-other"
    _, found = ask(api, "GET", f"{NODES}?fieldSelector=metadata.name%3D{place.name}")
    assert found["items"] == []
    make_node(api, other, "10.9.0.0/24")
    make_node(api, place.name, "10.8.0.0/24", "fd42:8::/64")
    query = f"watch=true&fieldSelector=metadata.name%3D{place.name}&resourceVersion="
    with watching(api, f"{NODES}?{query}{found['metadata']['resourceVersion']}") as events:
        event = next(events)
    assert event["object"]["spec"]["podCIDRs"] == ["10.8.0.0/24", "fd42:8::/64"]


# The store


def test_a_node_owns_what_it_writes_of_itself(place: Place, store: KubernetesStore) -> None:
    uid = make_node(place.api, place.name)
    assert store.registered(place.name, "own") == Registered(uid, ())
    claim = to_text({"node": place.name, "id": uid})
    assert store.commit([Change("pools", None, "{}"), Change(BLOCK, None, claim), Change("nodes/z", None, OTHER)])
    _, made = ask(place.api, "GET", place.lease(BLOCK))
    assert made["spec"]["holderIdentity"] == uid
    [owner] = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", place.name, uid)
    assert all("ownerReferences" not in ask(place.api, "GET", place.lease(key))[1]["metadata"]
               for key in ("pools", "nodes/z"))
    assert store.read() == {"pools": "{}", BLOCK: claim, "nodes/z": OTHER}
    assert store.commit([Change("nodes/z", OTHER, claim)])  # its name was another one's before
    assert ask(place.api, "GET", place.lease("nodes/z"))[1]["metadata"]["ownerReferences"] == [owner]


def test_a_node_is_what_the_api_says(place: Place, store: KubernetesStore) -> None:
    store.fileno()
    assert store.read() == {} and store.registered(place.name, "own") is None
    uid = make_node(place.api, place.name, "fd42:8e1f:6a00:0007::/64", "10.244.9.0/26")
    while store.registered(place.name, "own") is None:
        assert heard(store)
    assert store.registered(place.name, "own") == Registered(uid, ("fd42:8e1f:6a00:7::/64", "10.244.9.0/26"))
    ask(place.api, "DELETE", f"{NODES}/{place.name}", {})
    while store.registered(place.name, "own") is not None:
        assert heard(store)
    again = make_node(place.api, place.name)
    while store.registered(place.name, "own") != Registered(again, ()):
        assert heard(store)


def test_it_tells_of_others_changes_and_reads_nothing_twice(place: Place, store: KubernetesStore) -> None:
    with closing(KubernetesStore(place.kubeconfig)) as other:
        begun(store)
        before = len(place.api.asked) if isinstance(place.api, StandIn) else 0
        for was, now in ((None, OTHER), (OTHER, '{"id":"3"}'), ('{"id":"3"}', None)):
            assert other.commit([Change(BLOCK, was, now)])
            shows(store, {} if now is None else {BLOCK: now})
        assert store.commit([Change(BLOCK, None, OTHER)]) and store.read() == {BLOCK: OTHER}
        if isinstance(place.api, StandIn):
            lists = [line for line in place.api.asked[before:] if line.startswith("GET") and "watch" not in line]
            assert len(lists) == 2  # the other one's, which does not listen


def test_a_lease_that_somebody_broke_still_takes_its_block(place: Place, store: KubernetesStore) -> None:
    assert store.commit([Change(BLOCK, None, OTHER), Change("pools", None, "{}"), Change("nodes/a", None, OTHER)])
    for key, given in ((BLOCK, None), ("nodes/a", {"cni-v6/key": "pools", "cni-v6/value": None}),
                       ("pools", {"cni-v6/key": None})):
        assert ask(place.api, "PATCH", place.lease(key), {"metadata": {"annotations": given}}, MERGE)[0] == 200
    assert store.read() == {BLOCK: "", "nodes/a": ""}
    assert not store.commit([Change(BLOCK, None, OTHER)])
    assert store.commit([Change(BLOCK, "", OTHER)]) and store.read()[BLOCK] == OTHER


# What an ill server does: the stand-in alone


@pytest.fixture
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "FIRST_PAUSE_SECONDS", 0.01)
        patch.setattr(follow, "LAST_PAUSE_SECONDS", 0.05)
        yield


@pytest.fixture
def ill(quick: None, tmp_path: Path) -> Iterator[tuple[StandIn, KubernetesStore]]:
    with stand_in(tmp_path) as api, closing(KubernetesStore(api.kubeconfig, seconds=2.0)) as store:
        begun(store)
        yield api, store


Ill = tuple[StandIn, KubernetesStore]
LEASE_PATH = LEASES.format("default")


def change(api: StandIn, text: str) -> None:
    """Another node's change."""
    with closing(KubernetesStore(api.kubeconfig)) as other:
        assert other.commit([Change(BLOCK, other.read().get(BLOCK), text)])


def test_a_watch_that_breaks_goes_on(ill: Ill) -> None:
    api, store = ill
    change(api, OTHER)
    shows(store, {BLOCK: OTHER})
    api.bookmark(LEASE_PATH)
    api.end_watches()
    change(api, '{"id":"3"}')
    before = [line for line in api.asked if "watch=true" in line]
    shows(store, {BLOCK: '{"id":"3"}'})
    assert before


def test_410_gone(ill: Ill) -> None:
    api, store = ill
    change(api, OTHER)
    api.compact()
    api.end_watches()
    shows(store, {BLOCK: OTHER})
    change(api, '{"id":"3"}')
    shows(store, {BLOCK: '{"id":"3"}'})
    assert store.unheard() is None


def test_403_forbidden(ill: Ill) -> None:
    api, store = ill
    body = b'{"kind": "Status", "message": "leases is forbidden: User \\"x\\" cannot watch", "code": 403}'
    api.ill = (403, body)
    api.end_watches()
    deaf(store)
    assert "cannot watch" in (store.unheard() or "")
    with pytest.raises(CniError, match="refuses GET .*leases: status 403: .leases is forbidden"):
        store.read()
    with pytest.raises(CniError, match="refuses POST .*leases: status 403"):
        store.commit([Change(BLOCK, None, OTHER)])
    api.ill = None
    shows(store, {})
    while store.unheard() is not None:
        assert heard(store)


def test_a_connection_that_the_server_closes(tmp_path: Path) -> None:
    """As it may with any that was kept: who only asks is asked again, once."""
    with stand_in(tmp_path) as api, closing(KubernetesStore(api.kubeconfig)) as store:
        for count in (0, 1):
            api.hangs_up = count
            assert store.read() == {}
        api.hangs_up = 2
        with pytest.raises(CniError, match="does not answer"):
            store.read()
        asked = len(api.asked)
        api.hangs_up = 1
        with pytest.raises(CniError, match="does not answer"):
            store.commit([Change("pools", None, "{}")])
        assert len(api.asked) == asked + 1 and store.read() == {}


@pytest.mark.parametrize("answer", [
    (0, b"garbage"), (0, b""), (200, b"garbage"), (200, b'{"metadata": {}, "items": []}'), (502, b"<html>"),
    (200, b'{"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "x"}}, {}]}'),
])
def test_a_server_that_is_no_api(answer: tuple[int, bytes], tmp_path: Path) -> None:
    with stand_in(tmp_path) as api, closing(KubernetesStore(api.kubeconfig)) as store:
        api.ill = answer
        with pytest.raises(CniError):
            store.read()
        api.ill = None
        assert store.read() == {}


@pytest.mark.parametrize("command", ["true", "false", "echo {}", "echo garbage"])
def test_a_program_of_the_kubeconfig_that_gives_no_credential(command: str, tmp_path: Path) -> None:
    with stand_in(tmp_path) as api:
        path = Path(api.kubeconfig)
        config = json.loads(path.read_text())
        name, *words = command.split()
        program = {"apiVersion": "client.authentication.k8s.io/v1", "command": name, "args": words}
        config["users"][0]["user"] = {"exec": program}
        path.write_text(json.dumps(config))
        with closing(KubernetesStore(api.kubeconfig)) as store, pytest.raises(CniError) as caught:
            store.read()
        assert (caught.value.code, caught.value.msg) == (IO_FAILURE, "the Kubernetes API does not answer")


@pytest.mark.parametrize("line", [
    b"garbage\n", b'{"type": "ADDED"}\n', b'{"type": "ADDED", "object": {"metadata": {"name": "x"}}}\n',
    b"x" * (1 << 22) + b"xx", b'{"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}}\n',
], ids=range(5))
def test_garbage_in_a_watch(line: bytes, ill: Ill) -> None:
    api, store = ill
    api.send(LEASE_PATH, line)
    change(api, OTHER)
    shows(store, {BLOCK: OTHER})
    change(api, '{"id":"3"}')
    shows(store, {BLOCK: '{"id":"3"}'})


def test_a_server_that_is_away_and_comes_back(ill: Ill) -> None:
    api, store = ill
    api.stop()
    deaf(store)
    with pytest.raises(CniError, match="the Kubernetes API does not answer"):
        store.read()
    api.start()
    while store.unheard() is not None:
        assert heard(store)
    change(api, OTHER)
    shows(store, {BLOCK: OTHER})


def test_a_server_that_is_slow(quick: None, tmp_path: Path) -> None:
    with stand_in(tmp_path) as api, closing(KubernetesStore(api.kubeconfig, seconds=3.0)) as store:
        with api.changed, pytest.raises(CniError, match="timed out"):
            store.read()
        assert store.read() == {}


def test_a_commit_that_cannot_be_finished_is_taken_back(tmp_path: Path) -> None:
    with stand_in(tmp_path) as api, closing(KubernetesStore(api.kubeconfig)) as store, closing(
            KubernetesStore(api.kubeconfig)) as other:
        assert store.commit([Change("pools", None, "{}"), Change("nodes/a", None, OTHER)]) and store.read()
        assert other.commit([Change(BLOCK, None, OTHER)])
        changes = [Change("pools", "{}", "[]"), Change("nodes/a", OTHER, None), Change(BLOCK, None, "{}")]
        assert not store.commit(changes)
        assert store.read() == other.read() == {"pools": "{}", "nodes/a": OTHER, BLOCK: OTHER}


# What the agent's roles allow


@pytest.mark.kubernetes
@pytest.mark.netns
def test_the_roles_of_the_daemonset_suffice_and_give_no_more(server: Api, tmp_path: Path) -> None:
    """As the agent's service account: it does all that an agent does, and nothing in other namespaces."""
    paths = {"Namespace": "/api/v1/namespaces", "Role": f"{RBAC}/namespaces/cni-v6/roles",
             "RoleBinding": f"{RBAC}/namespaces/cni-v6/rolebindings", "ClusterRole": f"{RBAC}/clusterroles",
             "ClusterRoleBinding": f"{RBAC}/clusterrolebindings"}
    for name in ("namespace", "role", "role-binding", "cluster-role", "cluster-role-binding"):
        made = document(f"agent/{name}.yaml")
        assert ask(server, "POST", paths[made["kind"]], made)[0] == 201
    config = kubeconfig(tmp_path / "config", server.url, "cni-v6", server.cafile, AGENT_TOKEN)
    uid = make_node(server, "worker", "10.8.0.0/24")
    with closing(KubernetesStore(config)) as store:
        begun(store)
        assert store.registered("worker", "own") == Registered(uid, ("10.8.0.0/24",))
        claim = to_text({"node": "worker", "id": uid})
        assert store.commit([Change("pools", None, "{}"), Change(BLOCK, None, claim),
                             Change("nodes/worker", None, claim)])
        store.read()
        assert store.commit([Change("pools", "{}", "{}"), Change("nodes/worker", claim, OTHER),
                             Change(BLOCK, claim, None)])
        shows(store, {"pools": "{}", "nodes/worker": OTHER})
        assert store.unheard() is None
    for method, path in (("GET", "/api/v1/secrets"), ("GET", "/api/v1/pods"), ("GET", LEASES.format("kube-system")),
                         ("POST", LEASES.format("kube-system")), ("DELETE", f"{NODES}/worker"),
                         ("PATCH", f"{NODES}/worker"), ("GET", f"{NODES}/worker")):
        body: Item | None = None if method == "GET" else {}
        kind = MERGE if method == "PATCH" else "application/json"
        assert ask(server, method, path, body, kind, AGENT_TOKEN)[0] == 403, (method, path)


# How the API is found


def test_a_pods_service_account(tmp_path: Path) -> None:
    with pytest.raises(CniError) as caught:
        KubernetesStore("")
    assert caught.value.code == INVALID_CONFIG and "service account of this pod cannot be used" in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "a: [", "\x00", '{"clusters": [], "contexts": []}',
                                     '{"clusters": [], "contexts": [], "current-context": "x"}'])
def test_a_kubeconfig_that_is_none(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CniError) as caught:
        KubernetesStore(str(path))
    assert caught.value.code == INVALID_CONFIG and f"kubeconfig {path} cannot be used" in str(caught.value)
