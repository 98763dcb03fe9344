"""Objects and answers of the Kubernetes API as the node agent's store has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni_v6.cluster import kubernetes_messages as kubernetes
from cni_v6.cluster.mirror import Event, Forgotten, Kept
from cni_v6.cluster.store import Registered
from cni_v6.errors import DECODING_FAILURE, IO_FAILURE, CniError
from cni_v6.protocol.json_reader import Fields

LONG = "nodes/" + ".".join(["a" * 61] * 4)
NAMES = {
    "nodes/node-1.example.org": "cni-v6-node-node-1.example.org",
    "blocks/fd42:8e1f:6a00:2cb::/64": "cni-v6-block-fd42-8e1f-6a00-02cb-0000-0000-0000-0000-64",
    "blocks/10.244.178.192/26": "cni-v6-block-10-244-178-192-26",
}


def lease(name: str, annotations: Any = None, revision: str = "7") -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": revision, "annotations": annotations}}


def read(document: dict[str, Any]) -> tuple[str, str] | None:
    return kubernetes.read_lease(Fields(document))


@pytest.mark.parametrize("key", [*NAMES, "pools", LONG, "nodes/A_1", "blocks/FD42::/64", "blocks/x", "nodes/", ""])
def test_a_lease_has_the_key_of_its_name(key: str) -> None:
    name = kubernetes.lease_name(key)
    assert len(name) <= 253 and name == NAMES.get(key, name)
    made = kubernetes.create_document(key, "{}", None)
    assert made["metadata"]["name"] == name and read({**made, "kind": "Lease"}) == (key, "{}")
    without = lease(name, {kubernetes.VALUE: "{}"})
    assert read(without) == ((key, "{}") if key in NAMES else None)


def test_no_two_keys_have_one_name() -> None:
    names = [kubernetes.lease_name(key) for key in (*NAMES, "pools", LONG, f"{LONG}b", "nodes/A", "nodes/B", "x")]
    assert len(set(names)) == len(names)
    assert sorted(name.startswith("cni-v6-object-") for name in names) == [False] * 3 + [True] * 6


@pytest.mark.parametrize("name", [
    "cni-v6-block-", "cni-v6-block-1-2-3-26", "cni-v6-block-fd42-64", "cni-v6-block-10-0-0-1-26", "other",
    "cni-v6-block-fd42-8e1f-6a00-2cb-0-0-0-0-64", "cni-v6-object-1",
])
def test_names_of_other_things(name: str) -> None:
    assert read(lease(name)) is None


def test_annotations_that_say_something_else() -> None:
    name = NAMES["blocks/10.244.178.192/26"]
    for given in (None, {}, {kubernetes.KEY: "pools"}, {kubernetes.KEY: 7, kubernetes.VALUE: 7}):
        assert read(lease(name, given)) == ("blocks/10.244.178.192/26", "")


def test_what_a_node_writes_of_itself_goes_with_its_node() -> None:
    own = '{"id":"u-1","node":"a"}'
    made = kubernetes.create_document("nodes/a", own, ("a", "u-1"))
    owner = [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u-1"}]
    assert made["metadata"]["ownerReferences"] == owner and made["spec"] == {"holderIdentity": "u-1"}
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "cni-v6"}
    assert kubernetes.query(kubernetes.LABEL) == {"labelSelector": "app.kubernetes.io/managed-by=cni-v6"}
    changed = kubernetes.patch_document(own, 8, ("a", "u-1"))
    assert changed["metadata"]["ownerReferences"] == owner and changed["metadata"]["resourceVersion"] == "8"
    for text, node in ((own, None), (own, ("b", "u-2")), ("{}", ("a", "u-1")), ("garbage", ("a", "u-1"))):
        assert "ownerReferences" not in kubernetes.create_document("nodes/a", text, node)["metadata"]
    assert kubernetes.create_document("pools", "{}", None)["spec"] == {}
    assert kubernetes.delete_document(8)["preconditions"] == {"resourceVersion": "8"}


def test_a_node() -> None:
    node = {"metadata": {"name": "a", "uid": "u-1"}, "spec": {"podCIDRs": ["10.1.2.3/24", "FD42::/64", "x"]}}
    name, text = kubernetes.read_node(Fields(node))
    assert name == "a" and kubernetes.registered(text) == Registered("u-1", ("10.1.2.0/24", "fd42::/64"))
    _, text = kubernetes.read_node(Fields({"metadata": {"name": "a", "uid": "u-1"}}))
    assert kubernetes.registered(text) == Registered("u-1", ())


def test_a_list() -> None:
    made = {"metadata": {"resourceVersion": "12"}, "items": [
        lease(NAMES["blocks/10.244.178.192/26"], {kubernetes.VALUE: "{}"}), lease("other"),
    ]}
    found = ({"blocks/10.244.178.192/26": Kept("{}", 7)}, 12)
    assert kubernetes.read_list(json.dumps(made).encode(), kubernetes.read_lease) == found
    assert kubernetes.read_object(json.dumps(lease("x")).encode()) == 7


@pytest.mark.parametrize("document", [
    {}, {"metadata": {}}, {"metadata": {"resourceVersion": "x"}}, {"metadata": {"resourceVersion": "1"}, "items": [{}]},
    {"metadata": {"resourceVersion": "1"}, "items": [lease("cni-v6-node-a", revision="")]},
])
def test_lists_that_are_none(document: dict[str, Any]) -> None:
    with pytest.raises(CniError) as caught:
        kubernetes.read_list(json.dumps(document).encode(), kubernetes.read_lease)
    assert caught.value.code == DECODING_FAILURE


def event(kind: str, item: Any) -> tuple[list[Event], int]:
    return kubernetes.read_event(json.dumps({"type": kind, "object": item}).encode(), kubernetes.read_lease)


def test_events_of_a_watch() -> None:
    item = lease("cni-v6-node-a", {kubernetes.VALUE: "{}"})
    for kind in ("ADDED", "MODIFIED"):
        assert event(kind, item) == ([Event("nodes/a", "{}", 7)], 7)
    assert event("DELETED", item) == ([Event("nodes/a", None, 7)], 7)
    assert event("ADDED", lease("other")) == ([], 7)
    assert event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}) == ([], 9)
    with pytest.raises(Forgotten):
        event("ERROR", {"code": 410})
    for kind, content, code in (("ERROR", {"code": 500, "message": "no"}, IO_FAILURE),
                                ("ADDED", None, DECODING_FAILURE), ("", {}, DECODING_FAILURE)):
        with pytest.raises(CniError) as caught:
            event(kind, content)
        assert caught.value.code == code


def test_what_the_api_refuses() -> None:
    assert kubernetes.refusal(403, b'{"message": "leases is forbidden"}') == "status 403: 'leases is forbidden'"
    assert kubernetes.refusal(502, b"<html>") == "status 502"


def test_a_report_is_a_lease_that_no_watch_selects() -> None:
    text, node = '{"id":"u-1"}', ("a", "u-1")
    made = kubernetes.report_document("a", text, node, new=True)
    assert made["metadata"]["labels"] == kubernetes.REPORT_LABEL != kubernetes.LABEL
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1" and made["kind"] == "Lease"
    assert kubernetes.read_report(Fields(made)) == ("a", text)
    patch = kubernetes.report_document("a", text, node, new=False)
    assert patch["metadata"]["annotations"] == {kubernetes.VALUE: text} and "resourceVersion" not in patch["metadata"]
    assert kubernetes.read_report(Fields(kubernetes.create_document("nodes/a", text, node))) is None
    assert kubernetes.read_report(Fields({"metadata": {"name": "else"}})) is None
