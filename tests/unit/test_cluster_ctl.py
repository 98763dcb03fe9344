"""``cni-v6ctl nodes``: what it prints of a store, and what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cni_v6.cluster import membership, records, report
from cni_v6.cluster.file_store import FileStore
from cni_v6.cluster.membership import Member
from cni_v6.cluster.records import Change
from cni_v6.cluster.report import Answer, Report
from cni_v6.ctl import main, nodes as nodes_command, screen
from tests.unit.test_cluster import CONF, LINK, UNKNOWN

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    made = FileStore(str(tmp_path / "cluster.json"))
    for name in ("b", "a"):
        objects = made.read()
        member = Member(name, f"id of {name}")
        found = membership.changes(
            member, CONF, objects, records.read(objects), underlay=LINK, kept=(), registered=UNKNOWN)
        assert made.commit(found)
    return made


def nodes(tmp_path: Path, *arguments: str) -> int:
    return main(["nodes", "--cluster", f"file:{tmp_path}/cluster.json", *arguments])


def blocks(store: FileStore, name: str) -> list[str]:
    claims = records.read(store.read()).claims
    return sorted((claim.prefix for claim in claims if claim.node == name), key=lambda prefix: ":" not in prefix)


def test_the_table(store: FileStore, tmp_path: Path, capsys: Capture) -> None:
    assert nodes(tmp_path) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["NODE", "BLOCK", "LEASED", "CARRIER", "REACHED", "AT", "ANSWERS"]
    where = ["-", "direct", "fd00:11::1,", "172.30.0.1", "-"]
    (a6, a4), (b6, b4) = blocks(store, "a"), blocks(store, "b")
    assert [line.split() for line in lines] == [["a", a6, *where], [a4, "-"], ["b", b6, *where], [b4, "-"]]


def test_what_the_agents_have_measured(store: FileStore, tmp_path: Path, capsys: Capture) -> None:
    (a6, a4), _ = blocks(store, "a"), blocks(store, "b")
    said = (Answer("a", 6, True, 1000), Answer("a", 4, False, 2000))
    store.report("b", report.encode(Report("id of b", {}, said, 2000)))
    store.report("a", report.encode(Report("id of a", {a6: 3, a4: 60}, (Answer("b", 6, True, 500),), 3000)))
    assert nodes(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["a", a6, "3"] and lines[2].split()[:4] == [a4, "60", "of", "61"]
    assert lines[1].endswith(f"IPv6 since {screen.moment(1000)}")
    assert lines[2].endswith(f"IPv4 not since {screen.moment(2000)}")
    assert nodes(tmp_path, "--json") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["leased"] == {a6: {"leases": 3, "room": (1 << 64) - 2}, a4: {"leases": 60, "room": 61}}
    assert first["measured"] == 3000 and first["answers"] == [
        {"to": "b", "family": "ipv6", "answers": True, "since": 1000},
        {"to": "b", "family": "ipv4", "answers": False, "since": 2000},
    ]
    assert second["leased"] == {} and second["answers"][0]["to"] == "a"
    assert nodes(tmp_path, "--remove", "b") == 0 and set(store.reports()) == {"a"}


def test_a_node_that_answers_some() -> None:
    found = [Answer("a", 6, answers, 1000) for answers in (True, False, True)]
    assert nodes_command.answers_of(found) == ["IPv6 to 2 of 3"] and nodes_command.answers_of([]) == []


def test_an_empty_store(tmp_path: Path, capsys: Capture) -> None:
    """As by a slip of the pen in its name."""
    assert nodes(tmp_path) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1 and "note: nobody has written to this store yet" in printed.err


def test_json(store: FileStore, tmp_path: Path, capsys: Capture) -> None:
    assert nodes(tmp_path, "--json") == 0
    first, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "node": "a", "id": "id of a", "blocks": blocks(store, "a"), "carrier": "direct",
        "addresses": ["fd00:11::1", "172.30.0.1"], "removed": False,
        "leased": {}, "measured": None, "answers": [],
    }


def test_a_node_is_removed_twice(store: FileStore, tmp_path: Path, capsys: Capture) -> None:
    had = blocks(store, "b")
    assert nodes(tmp_path, "--remove", "b") == 0
    said = capsys.readouterr().out
    assert said.startswith("node b is removed; its blocks are free: ") and all(block in said for block in had)
    assert nodes(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["b", "-", "-", "removed", "fd00:11::1,", "172.30.0.1", "-"] in map(str.split, lines)
    assert nodes(tmp_path, "--remove", "b", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"node": "b", "freed": []}
    assert nodes(tmp_path, "--remove", "b") == 1
    assert "the cluster has no node b: its nodes are: a" in capsys.readouterr().err


def test_what_cannot_be_read_is_said(store: FileStore, tmp_path: Path, capsys: Capture) -> None:
    text = store.read()["nodes/b"]
    assert store.commit([Change("nodes/b", text, '{"id":7}')])
    assert nodes(tmp_path) == 1
    printed = capsys.readouterr()
    assert "object 'nodes/b' of the cluster's store is left out: id is 7, not a string" in printed.err
    assert ["b", blocks(store, "b")[0], "-", "unknown", "-", "-"] in map(str.split, printed.out.splitlines())


@pytest.mark.parametrize("cluster", ["", "file:", "file", "zookeeper:x", "etcd:", "etcd:x"])
def test_a_store_that_is_none(cluster: str, capsys: Capture) -> None:
    assert main(["nodes", "--cluster", cluster]) == 1
    assert "write " in capsys.readouterr().err


def test_a_file_that_cannot_be_a_store(tmp_path: Path, capsys: Capture) -> None:
    assert main(["nodes", "--cluster", f"file:{tmp_path}"]) == 1 and "is a folder" in capsys.readouterr().err
    assert main(["nodes", "--cluster", f"file:{tmp_path}/no/where"]) == 1 and "no" in capsys.readouterr().err
