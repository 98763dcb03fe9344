"""Requests and answers of etcd's JSON gateway."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from cni_v6.cluster import etcd_messages as etcd
from cni_v6.cluster.etcd_messages import Endpoint
from cni_v6.cluster.mirror import Event, Forgotten, Kept
from cni_v6.cluster.records import Change
from cni_v6.errors import DECODING_FAILURE, INVALID_CONFIG, IO_FAILURE, CniError


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(("text", "endpoints", "prefix"), [
    ("http://10.0.0.1/a", [Endpoint(False, "10.0.0.1", 2379)], "/a/"),
    ("https://e1:2380,http://[fd00::2]:1/a/b-c/", [Endpoint(True, "e1", 2380), Endpoint(False, "fd00::2", 1)],
     "/a/b-c/"),
])
def test_a_target(text: str, endpoints: list[Endpoint], prefix: str) -> None:
    assert etcd.parse_target(text) == (tuple(endpoints), prefix)
    assert [str(endpoint) for endpoint in endpoints][0] in ("http://10.0.0.1:2379", "https://e1:2380")
    assert str(Endpoint(False, "fd00::2", 1)) == "http://[fd00::2]:1"


@pytest.mark.parametrize("text", [
    "", "/a", "http://h", "http://h/", "h:2379/a", "ftp://h/a", "http://h:0/a", "http://h:65536/a", "http://h//a",
    "http://h/a,http://g/a", ",http://h/a", "http://h x/a",
])
def test_no_target(text: str) -> None:
    with pytest.raises(CniError) as caught:
        etcd.parse_target(text)
    assert caught.value.code == INVALID_CONFIG and "write etcd:http://" in caught.value.details


def test_all_keys_with_a_prefix_are_asked_for() -> None:
    asked = {"key": coded("/a/"), "range_end": coded("/a0")}
    assert etcd.range_request("/a/") == asked and etcd.watch_request("/a/", 8) == {
        "create_request": {**asked, "start_revision": "9", "progress_notify": True}}
    kept = {"key": coded("/a/nodes/x"), "value": coded("{}"), "mod_revision": "7"}
    empty = {"key": coded("/a/nodes/y"), "mod_revision": "8"}
    garbage = {"key": coded("/a/z"), "value": base64.b64encode(b"\xff").decode(), "mod_revision": "9"}
    data = json.dumps({"header": {"revision": "12"}, "kvs": [kept, empty, garbage], "count": "3"}).encode()
    objects = {"nodes/x": Kept("{}", 7), "nodes/y": Kept("", 8), "z": Kept("\ufffd", 9)}
    assert etcd.read_range(data, "/a/") == (objects, 12)
    assert etcd.read_range(b'{"header": {"revision": "3"}}', "/a/") == ({}, 3)


@pytest.mark.parametrize("kv", [
    {"key": coded("/b/x"), "mod_revision": "7"}, {"key": "?", "mod_revision": "7"}, {"key": coded("/a/x")},
    {"key": coded("/a/x"), "mod_revision": "-7"}, {"key": coded("/a/x"), "mod_revision": "7" * 20}, 7,
])
def test_an_answer_that_is_none(kv: Any) -> None:
    with pytest.raises(CniError) as caught:
        etcd.read_range(json.dumps({"header": {"revision": "12"}, "kvs": [kv]}).encode(), "/a/")
    assert caught.value.code == DECODING_FAILURE
    with pytest.raises(CniError, match="header is null"):
        etcd.read_range(b"{}", "/a/")


def test_a_commit() -> None:
    known = {"x": Kept("1", 7), "y": Kept("2", 8), "z": Kept("3", 9)}
    changes = [Change("w", None, "0"), Change("x", "1", "4"), Change("y", "2", None), Change("z", "3", "3")]
    asked = etcd.commit_request(changes, known, "/a/")
    assert asked == {
        "compare": [{"key": coded(f"/a/{key}"), "target": "MOD", "mod_revision": revision}
                    for key, revision in (("w", "0"), ("x", "7"), ("y", "8"), ("z", "9"))],
        "success": [
            {"request_put": {"key": coded("/a/w"), "value": coded("0")}},
            {"request_put": {"key": coded("/a/x"), "value": coded("4")}},
            {"request_delete_range": {"key": coded("/a/y")}},
        ],
    }
    for change in (Change("x", "2", "4"), Change("x", None, "4"), Change("w", "1", None)):
        assert etcd.commit_request([change], known, "/a/") is None
    assert etcd.read_commit(b'{"header": {"revision": "12"}, "succeeded": true}') == 12
    assert etcd.read_commit(b'{"header": {"revision": "12"}}') is None


def line(result: Any) -> bytes:
    return json.dumps({"result": result}).encode()


def test_lines_of_a_watch() -> None:
    for nothing in ({"header": {"revision": "9"}, "created": True}, {"header": {"revision": "11"}}):
        assert etcd.read_watch(line(nothing), "/a/", 9) == ([], 0)
    put = {"kv": {"key": coded("/a/nodes/x"), "value": coded("{}"), "mod_revision": "7"}}
    deleted = {"type": "DELETE", "kv": {"key": coded("/a/nodes/y"), "mod_revision": "8"}}
    events = [Event("nodes/x", "{}", 7), Event("nodes/y", None, 8)]
    assert etcd.read_watch(line({"header": {"revision": "99"}, "events": [put, deleted]}), "/a/", 9) == (events, 8)
    for garbage in (b"garbage", line({"events": [{}]}), line({"events": [{"kv": {"key": coded("/b")}}]})):
        with pytest.raises(CniError) as caught:
            etcd.read_watch(garbage, "/a/", 9)
        assert caught.value.code == DECODING_FAILURE


def test_a_watch_that_etcd_ends() -> None:
    for forgotten in ({"header": {"revision": "8"}, "created": True}, {"canceled": True, "compact_revision": "9"}):
        with pytest.raises(Forgotten):
            etcd.read_watch(line(forgotten), "/a/", 9)
    for ended, says in ((line({"canceled": True, "cancel_reason": "no leader"}), "no leader"),
                        (b'{"error": {"grpc_code": 14, "message": "leaving"}}', "leaving")):
        with pytest.raises(CniError, match=says) as caught:
            etcd.read_watch(ended, "/a/", 9)
        assert caught.value.code == IO_FAILURE


def test_what_etcd_refuses() -> None:
    assert etcd.refusal(400, b'{"error": "etcdserver: no space", "code": 8}') == "status 400: 'etcdserver: no space'"
    assert etcd.refusal(500, b'{"message": "no leader"}') == "status 500: 'no leader'"
    assert etcd.refusal(502, b"<html>") == "status 502"


def test_reports_are_where_no_watch_looks() -> None:
    """``+`` is in no prefix that ``--cluster`` can have, so no other cluster has its objects there."""
    prefix = etcd.reports_prefix("/prod/")
    assert prefix == "/prod+reports/" and etcd.key_request("a") == {"key": "YQ=="}
    assert etcd.set_request("a", "b") == {"success": [{"request_put": {"key": "YQ==", "value": "Yg=="}}]}
    assert etcd.set_request("a", None) == {"success": [{"request_delete_range": {"key": "YQ=="}}]}
