"""The operator's command: list, plan, schema; the engine's own has tests of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import __version__, names
from cni_v6.ctl import main
from cni_v6.ctl import plan as plan_command
from cni_v6.errors import CniError
from cni_v6.kernel import Link
from cni_v6.leases import Attachment
from cni_v6.memory import MemoryDataDirs
from cni_v6.names import Owner
from cni_v6.ops import HOST
from cni_v6.store import DiskLeases
from tests.unit.harness import CONFIG, FOREIGN, World

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cni-v6ctl {__version__}\n"


def test_no_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: cni-v6ctl" in capsys.readouterr().err


def test_help_names_every_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(f"\n    {command} " in told for command in ("list", "plan", "schema"))


# list


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Two networks with three attachments; a lease of the reference plugin among them, and a file that is neither."""
    held = [
        Attachment(Owner("pods", "b2", "eth0"), ("2001:db8::3", "10.1.0.3"), "veth0b2", created=86400.0, boot="b"),
        Attachment(Owner("pods", "a1", "eth0"), ("2001:db8::2", "10.1.0.2"), "veth0a1", created=0.0, boot="b"),
        Attachment(Owner("layer2", "a1", "net1"), (), "veth1a1", created=86400.0, boot="b"),
    ]
    for each in held:
        with DiskLeases(each.owner.network, str(tmp_path), boot="b").transaction() as leases:
            leases.put(each)
    (tmp_path / "notes").write_text("mine")
    return str(tmp_path)


def test_list(store: str, capsys: Capture) -> None:
    assert main(["list", "--data-dir", store]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "HOST", "INTERFACE", "SINCE"]
    assert [row[:3] for row in rows[1:]] == [["layer2", "a1", "net1"], ["pods", "a1", "eth0"], ["pods", "b2", "eth0"]]
    assert rows[1][3:5] == ["-", "veth1a1"]
    assert rows[2][3:] == ["2001:db8::2", "10.1.0.2", "veth0a1", "-"]
    assert rows[3][3:6] == ["2001:db8::3", "10.1.0.3", "veth0b2"]
    assert rows[3][6].startswith("1970-01-0")


def test_list_is_aligned(store: str, capsys: Capture) -> None:
    main(["list", "--data-dir", store])
    lines = capsys.readouterr().out.splitlines()
    column = lines[0].index("HOST INTERFACE")
    assert all(line[column:].startswith("veth") and line[column - 1] == " " for line in lines[1:])
    assert [line for line in lines if line != line.rstrip()] == []


def test_list_of_one_network_as_json(store: str, capsys: Capture) -> None:
    assert main(["list", "pods", "--json", "--data-dir", store]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[1] == {
        "network": "pods", "containerID": "b2", "ifname": "eth0", "addresses": ["2001:db8::3", "10.1.0.3"],
        "hostInterface": "veth0b2", "created": 86400.0,
    }
    assert [each["containerID"] for each in found] == ["a1", "b2"]


def test_listing_creates_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["list", "pods", "--data-dir", str(tmp_path)]) == 0
    assert main(["list", "--data-dir", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out.count("NETWORK") == 2
    assert list(tmp_path.iterdir()) == []


def test_list_of_what_is_no_store(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    assert main(["list", "--data-dir", str(tmp_path / "file")]) == 1
    assert f"cni-v6ctl: error 103: cannot read {tmp_path}/file" in capsys.readouterr().err


def test_list_of_a_name_that_leads_out_of_the_store(tmp_path: Path, capsys: Capture) -> None:
    assert main(["list", "../etc", "--data-dir", str(tmp_path)]) == 1
    assert "name '../etc' is not a network name" in capsys.readouterr().err


# plan


def conflist(folder: Path, content: object) -> Path:
    path = folder / "10-pods.conflist"
    path.write_text(json.dumps(content))
    return path


def planned(world: World, path: Path, **chosen: str) -> int:
    arguments = {"conflist": path, "container": "example", "ifname": "eth0"} | chosen
    return plan_command.run(argparse.Namespace(**arguments), world.node)


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


LIST: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "plugins": [without(CONFIG, "name", "cniVersion"), {"type": "portmap"}],
}


@pytest.mark.parametrize("content", [LIST, CONFIG], ids=["list", "single"])
def test_plan(content: object, tmp_path: Path, capsys: Capture) -> None:
    world = World()
    before = world.state()
    assert planned(world, conflist(tmp_path, content)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cni-v6 on network pods, for a container that would be its first:"
    assert lines[1].startswith("  1. load the firewall")
    assert [line for line in lines if " create bridge cni0" in line]
    assert "       inet published6: 2001:db8:1::2 . cni0" in lines
    at = lines.index("{")
    assert lines[at - 1].endswith("announce the addresses of eth0 in /run/netns/example at "
                                  + names.container_mac(Owner("pods", "example", "eth0")))
    result = json.loads("\n".join(lines[at:]))
    assert [each["address"] for each in result["ips"]] == ["2001:db8:1::2/64", "10.1.0.2/24"]
    assert world.state() == before
    assert world.kernel.applied == []


def test_plan_looks_at_this_node(tmp_path: Path, capsys: Capture) -> None:
    world = World()
    world.add("c1")
    planned(world, conflist(tmp_path, LIST), container="x", ifname="net1")
    told = capsys.readouterr().out
    assert "create bridge" not in told
    assert "its peer net1" in told
    assert [each.owner.container_id for each in world.attachments()] == ["c1"]


def test_plan_of_addresses_alone(tmp_path: Path, capsys: Capture) -> None:
    planned(World(), conflist(tmp_path, CONFIG | {"type": "cni-v6-ipam"}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cni-v6-ipam on network pods")
    assert lines[1] == "{"


def test_plan_of_several_plugins(tmp_path: Path, capsys: Capture) -> None:
    two = LIST | {"plugins": [LIST["plugins"][0], without(CONFIG, "ipam", "isDefaultGateway")]}
    planned(World(), conflist(tmp_path, two))
    assert capsys.readouterr().out.count("cni-v6 on network pods") == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"plugins": [{"type": "bridge"}]}, "has no plugin of type cni-v6 or cni-v6-ipam"),
        ({"plugins": "cni-v6"}, "has no plugin of type"),
        ({"plugins": 3}, "has no plugin of type"),
        ({"plugins": [3]}, "has no plugin of type"),
        ({}, "has no plugin of type"),
        ([], "10-pods.conflist"),
        (CONFIG | {"isGatway": True}, "isGateway"),
        (without(CONFIG, "name"), "name is missing"),
        (FOREIGN, "the addresses of dhcp are not known before it runs"),
    ],
)
def test_a_plan_that_cannot_be_made(content: object, words: str, tmp_path: Path) -> None:
    world = World()
    before = world.state()
    with pytest.raises(CniError) as caught:
        planned(world, conflist(tmp_path, content))
    assert words in str(caught.value)
    assert world.state() == before


def test_a_plan_that_does_not_fit_the_node(tmp_path: Path) -> None:
    world = World()
    world.kernel.add_link(HOST, Link("cni0", "02:00:00:00:00:01", 1500, kind="vlan"))
    with pytest.raises(CniError, match="cni0 exists and is no bridge"):
        planned(world, conflist(tmp_path, LIST))


def test_a_plan_of_a_file_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert main(["plan", str(tmp_path / "none")]) == 1
    assert f"cni-v6ctl: error 7: cannot read {tmp_path}/none" in capsys.readouterr().err


# schema


def test_schema(capsys: Capture) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "conf" / "cni-v6.schema.json").read_text()


# All commands


def test_a_reader_that_has_seen_enough(store: str) -> None:
    """``cni-v6ctl list | head -1``: no traceback, no failure."""
    reader, writer = os.pipe()
    os.close(reader)
    program = "import sys; from cni_v6.ctl import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "list", "--data-dir", store]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_rehearsal_has_no_data_folder() -> None:
    """Nothing of it is to be found again, and nothing of the node's is looked at."""
    folders = MemoryDataDirs()
    folders.remember("/elsewhere")
    assert folders.known() == folders.networks("/elsewhere") == folders.recorded("/elsewhere") == []
