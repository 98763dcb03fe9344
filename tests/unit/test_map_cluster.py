"""The nodes of a cluster in the picture of a node: what is said of each, where it stands, what the store has of it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from cni_v6.cluster import records, report
from cni_v6.cluster.file_store import FileStore
from cni_v6.cluster.records import Change, Claim, NodeRecord
from cni_v6.cluster.report import Answer, Report
from cni_v6.ctl.map import cluster as reader
from cni_v6.ctl.map import shape
from cni_v6.drawing import picture, svg
from cni_v6.drawing.cluster import KINDS, PARTLY, REACHED, REMOVED, UNKNOWN, UNREACHED, Block, Member, card
from cni_v6.drawing.document import facts_of
from cni_v6.drawing.layout import WIDTH
from tests.unit import sample_pictures as sample


def text_of(members: Sequence[Member]) -> list[str]:
    return [line.text for tile in card(members, 0).tiles for line in tile.words]


def facts(members: Sequence[Member]) -> picture.Facts:
    return replace(sample.facts(2), cluster=members)


@pytest.mark.parametrize("count", [0, 1, 3, 12, 13, 48, 49, 100, 1000])
def test_nothing_overlaps_and_nothing_is_cut(count: int) -> None:
    found = card(sample.members(count), 50)
    assert found.box.y == 50 and found.box.x + found.box.width <= WIDTH and len(found.tiles) == count
    boxes = [line.box for line in found.words] + [tile.box for tile in found.tiles]
    assert all(found.box.has(box) for box in boxes)
    rows = sorted(boxes, key=lambda box: box.y)
    assert not any(box.meets(other) for number, box in enumerate(rows) for other in rows[number + 1:number + 20])
    for tile in found.tiles:
        inside = [*(line.box for line in tile.words), *(bar for bar, _ in tile.bars)]
        assert all(tile.box.has(box) for box in inside) and all(0 <= part <= 1 for _, part in tile.bars)
        assert not any(box.meets(other) for number, box in enumerate(inside) for other in inside[number + 1:])
        assert all(line.size >= 10 for line in tile.words)


@pytest.mark.parametrize("count", [3, 100])
def test_names_and_leases_of_all_nodes_are_legible(count: int) -> None:
    """None of them is shortened, with names as long as those of Kubernetes' nodes often are."""
    members = sample.members(count)
    shown = text_of(members)
    for member in members:
        assert member.name in shown and all(block.fullness in shown for block in member.blocks)
        assert count > 3 or all(block.prefix in shown for block in member.blocks)


def test_those_that_are_not_reached_come_first() -> None:
    members = sample.members(100)
    random.Random(1).shuffle(members)
    states = [tile.member.state for tile in card(members, 0).tiles]
    assert list(dict.fromkeys(states)) == [UNREACHED, PARTLY, UNKNOWN, REACHED, REMOVED]


def test_long_names_and_many_blocks_stay_in_their_boxes() -> None:
    long = "n" * 300
    block = Block("2001:db8:1111:2222:3333:4444:5555:6660/126", 10**6, 10**6 + 1)
    for count in (1, 20, 60):
        members = [Member(f"{long}{number}", PARTLY, long, (long,) * 9, (block,) * 9, (long, long))
                   for number in range(count)]
        for tile in card(members, 0).tiles:
            assert all(tile.box.has(line.box) for line in tile.words)
            assert "and 5 more blocks" in [line.text for line in tile.words]


def test_words_of_a_node() -> None:
    assert Block("fd42::/64", None, 9).fullness == "-" and Block("fd42::/64", 1200, 2**64).fullness == "1,200 leases"
    assert Block("10.0.0.0/26", 7, 61).fullness == "7 of 61"
    lonely = Member("a", UNKNOWN, "direct", (), ())
    assert lonely.label == "node a, carrier direct: no block; not measured" and "no block" in text_of([lonely])
    full = Member("b", UNREACHED, "vxlan", (), (Block("10.0.0.0/26", 61, 61),), ("IPv4 not since noon",))
    assert full.label == "node b, carrier vxlan: 10.0.0.0/26 (61 of 61); not reached: IPv4 not since noon"


@pytest.mark.parametrize("count", [0, 3, 100])
def test_a_picture_is_well_formed(count: int) -> None:
    members = sample.members(count)
    tree = ElementTree.fromstring(picture.whole(facts(members), sample.moment, svg.AUTO))
    groups = [element for element in tree.iter() if element.get("class") == "member"]
    said = {int(group.get("data-node") or ""): group[0].text for group in groups}
    assert said == {number: member.label for number, member in enumerate(members)} and len(groups) == count
    empty = [element.text for element in tree.iter() if (element.text or "").startswith("No node has written")]
    assert bool(empty) == (count == 0)
    known = {*svg.COLOURS, *KINDS.values(), "tile", "chip", "box", "ink title", "ink", "muted", "used"}
    assert {element.get("class") for group in groups for element in group.iter() if element.get("class")} <= {
        "member", *known}


def test_facts_as_json() -> None:
    members = sample.members(3)
    document = facts_of(facts(members))
    assert [member["node"] for member in document["cluster"]] == [member.name for member in members]
    assert document["cluster"][0]["blocks"][1] == {"prefix": "10.244.0.0/26", "leases": 0, "room": 61}
    for written in (document, facts_of(facts(sample.members(30))), without := facts_of(sample.facts(1))):
        assert [*Draft202012Validator(shape.OUTPUT.schema).iter_errors(json.loads(json.dumps(written)))] == []
    assert without["cluster"] is None


# From a store


def test_what_a_store_has(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "store.json"))
    nodes = [NodeRecord(name, f"id-{name}", (f"fd00:11::{number}",), "vxlan", removed=name == "e")
             for number, name in enumerate("abcde", 1)]
    claims = [Claim("10.244.0.0/26", "a", "id-a"), Claim("fd42:8e1f:6a00:1::/64", "a", "id-a")]
    changes = [*(Change(node.key, None, records.encode_node(node)) for node in nodes),
               *(Change(claim.key, None, records.encode_claim(claim)) for claim in claims)]
    assert store.commit(changes)

    def says(by: str, **answers: bool) -> None:
        found = tuple(Answer(name, 6, answer, 100) for name, answer in answers.items())
        store.report(by, report.encode(Report(f"id-{by}", {"10.244.0.0/26": 7} if by == "a" else {}, found, 100)))

    says("a", b=True, c=False, d=False)
    says("b", a=True, c=True)
    says("e", a=False)  # it was removed: nothing of it counts
    a, b, c, d, e = reader.members(f"file:{tmp_path}/store.json")
    assert [member.state for member in (a, b, c, d, e)] == [REACHED, REACHED, PARTLY, UNREACHED, REMOVED]
    assert a.blocks == (Block("fd42:8e1f:6a00:1::/64", None, 2**64 - 2), Block("10.244.0.0/26", 7, 61))
    assert c.answers == ("IPv6 to 1 of 2",) and e.answers == () and a.addresses == ("fd00:11::1",)
    store.report("a", None)
    assert [member.state for member in reader.members(f"file:{tmp_path}/store.json")][3] == UNKNOWN
    store.close()


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else a node that is left out would look like one that is not there."""
    with closing(FileStore(str(tmp_path / "store.json"))) as store:
        assert store.commit([Change("nodes/a\x1b[31m", None, "[]")])
    assert reader.members(f"file:{tmp_path}/store.json") == []
    said = capsys.readouterr().err
    assert said.startswith("cni-v6ctl: object ") and "is left out" in said and "\x1b" not in said
