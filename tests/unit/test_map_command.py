"""``cni-v6ctl map`` as a command: its files, its exit codes, what it asks the node."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cni_v6.allocation.ranges import RangeSet
from cni_v6.allocation.traces import Traces
from cni_v6.ctl import main, map as command
from cni_v6.ctl.map import png
from cni_v6.drawing import svg
from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.leases.memory import MemoryLeases
from tests.unit.fake_context import CONFIG, DATA_DIR, FOREIGN, FakeContext

Capture = pytest.CaptureFixture[str]
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


class Damaged(MemoryLeases):
    """Its allocator's state cannot be read."""

    def traces(self, ranges: RangeSet) -> Traces:
        raise CniError(STORE_FAILED, "damaged")


@pytest.fixture
def fake() -> FakeContext:
    found = FakeContext()
    for name in ("a", "b"):
        found.add(name)
    return found


@pytest.fixture
def conf_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "net.d"
    folder.mkdir()
    (folder / "10-pods.conf").write_text(json.dumps(CONFIG))
    (folder / "20-again.conf").write_text(json.dumps(CONFIG | {"bridge": "other"}))
    (folder / "30-foreign.conf").write_text(json.dumps(FOREIGN | {"name": "foreign"}))
    (folder / "40-wrong.conf").write_text(json.dumps(CONFIG | {"name": "wrong", "mtu": "x"}))
    return folder


def drawn(fake: FakeContext, conf_dir: Path, *arguments: str, privileged: bool = True) -> int:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    chosen = parser.parse_args(["map", "--conf-dir", str(conf_dir), *arguments])
    return command.run(chosen, fake.context, lambda: privileged, lambda: "rack1")


def test_facts_as_json(fake: FakeContext, conf_dir: Path, capsys: Capture) -> None:
    before = fake.state()
    assert drawn(fake, conf_dir, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["node"], found["firewallLoaded"]) == ("rack1", True)
    [segment] = found["segments"]
    assert (segment["kind"], segment["name"], segment["networks"]) == ("bridge", "cni0", ["pods"])
    assert [attachment["containerID"] for attachment in segment["attachments"]] == ["a", "b"]
    assert {attachment["state"] for attachment in segment["attachments"]} == {"up"}
    assert [(space["prefix"], space["counts"]["used"]) for space in found["addressSpaces"]] == [
        ("2001:db8:1::/64", 2), ("10.1.0.0/24", 2)]
    assert fake.state() == before


def test_a_page_and_its_facts(fake: FakeContext, conf_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    assert drawn(fake, conf_dir, "pods", "--json", "--output", str(tmp_path / "map.html")) == 0
    assert json.loads(capsys.readouterr().out)["node"] == "rack1"
    html = (tmp_path / "map.html").read_text()
    assert html.startswith("<!DOCTYPE html>") and (Path(command.__file__).parent / "page.js").read_text() in html


@pytest.mark.parametrize("theme", [[], ["--theme", "dark"]])
def test_a_picture_replaces_an_older_one(
    fake: FakeContext, conf_dir: Path, tmp_path: Path, capsys: Capture, theme: list[str]
) -> None:
    path = tmp_path / "map.svg"
    path.write_text("old")
    assert drawn(fake, conf_dir, "--output", str(path), *theme) == 0
    assert capsys.readouterr().out == f"{path}: 2 attachments, 2 address spaces\n"
    ElementTree.parse(path)
    assert ("prefers-color-scheme" in path.read_text()) == (not theme)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["map.svg", "net.d"]


def test_a_png(fake: FakeContext, conf_dir: Path, tmp_path: Path) -> None:
    assert drawn(fake, conf_dir, "--output", str(tmp_path / "map.png")) == 0
    content = (tmp_path / "map.png").read_bytes()
    assert content.startswith(PNG_HEAD)
    assert int.from_bytes(content[16:20], "big") == 2400


def test_a_png_without_the_library_names_the_extra(fake: FakeContext, conf_dir: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "resvg_py", None)
        with pytest.raises(CniError, match="pip install 'cni-v6\\[map\\]'"):
            drawn(fake, conf_dir, "--output", str(tmp_path / "map.png"))
    assert not (tmp_path / "map.png").exists()


def test_a_png_without_a_font_says_so() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "MONO", "'No Such Font'")
        with pytest.raises(CniError, match="needs a fixed-width font"):
            png.require()


def test_a_network_of_which_nothing_is_known(fake: FakeContext, conf_dir: Path) -> None:
    with pytest.raises(CniError, match="no attachment of network nosuch"):
        drawn(fake, conf_dir, "nosuch", "--json")


def test_a_network_without_attachments(conf_dir: Path, capsys: Capture) -> None:
    assert drawn(FakeContext(), conf_dir, "pods", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["segments"] == [] and found["addressSpaces"][0]["counts"]["used"] == 0


def test_a_network_without_a_configuration(fake: FakeContext, tmp_path: Path, capsys: Capture) -> None:
    assert drawn(fake, tmp_path / "none", "--output", str(tmp_path / "map.svg")) == 0
    assert capsys.readouterr().err == "cni-v6ctl: note: no configuration was found of pods (--conf-dir)\n"
    assert "No configuration was found of pods" in (tmp_path / "map.svg").read_text()


def test_who_may_not_see_the_firewall(fake: FakeContext, conf_dir: Path, capsys: Capture) -> None:
    assert drawn(fake, conf_dir, "--json", privileged=False) == 0
    assert json.loads(capsys.readouterr().out)["firewallLoaded"] is None


def test_an_allocator_that_cannot_be_read(fake: FakeContext, conf_dir: Path, capsys: Capture) -> None:
    store: Any = Damaged("pods", entropy=bytes)
    fake.stores["pods", DATA_DIR] = store
    assert drawn(fake, conf_dir, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["addressSpaces"] == []
    assert "cni-v6ctl: the address space of pods is not drawn: damaged" in said.err


def test_a_file_that_cannot_be_written(fake: FakeContext, conf_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "map.svg").mkdir()
    with pytest.raises(CniError, match="map.svg is no file"):
        drawn(fake, conf_dir, "--output", str(tmp_path / "map.svg"))
    with pytest.raises(CniError, match="cannot write --output"):
        drawn(fake, conf_dir, "--output", str(tmp_path / "none/map.svg"))


@pytest.mark.parametrize("arguments, words", [
    (["map"], "--output FILE or --json is needed"),
    (["map", "--output", "map.gif"], "'map.gif' does not end with .svg, .png or .html"),
])
def test_wrong_usage(arguments: list[str], words: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err
