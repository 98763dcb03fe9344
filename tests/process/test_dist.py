"""``make dist``: one file is ``cni-v6ctl``, and makes a node of a machine that has python3 and nothing else."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import pytest

from cni_v6 import __version__
from tests.couriers import NAMES, build
from tests.distributions import PYTHON_DIR, WHEELS
from tests.netns import networks
from tests.netns.networks import DUAL
from tests.sandbox import ROOT, Node, need

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dist")]

CONFIG = networks.gateway(*DUAL)
PLACES = ("/usr/local/lib", "/usr/local/sbin")
CTL = "/usr/local/sbin/cni-v6ctl"


def made(place: Path, env: Mapping[str, str] | None = None) -> Path:
    """The file, with this processor's courier."""
    need(WHEELS.is_dir(), "needs the wheels that make test puts into .venv")
    build(place / "couriers" / platform.machine(), python=PYTHON_DIR)
    argv = [ROOT / "tools/dist", place / "dist", place / "couriers"]
    done = subprocess.run(argv, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / "dist/cni-v6ctl"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("single"))


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with python3, without this checkout and its libraries: where they are, there is nothing."""
    with closing(Node(engine=True)) as found:
        for place in (*PLACES, str(ROOT / "cni_v6"), str((ROOT / ".venv").resolve())):
            found.run("mount", "-t", "tmpfs", "none", place)
        yield found


def test_the_same_source_makes_the_same_bytes(file: Path, tmp_path: Path) -> None:
    again = made(tmp_path / "else where", {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "HOME": str(tmp_path)})
    assert again.read_bytes() == file.read_bytes()
    with ZipFile(file) as archive:
        assert f"couriers/{platform.machine()}" in archive.namelist() and archive.testzip() is None


def test_it_is_the_operators_command_as_it_is(file: Path, node: Node, tmp_path: Path) -> None:
    assert node.run(str(file), "--version").stdout == f"cni-v6ctl {__version__}\n"
    assert node.run(str(file), "list", env=node.environment).stdout.startswith("NETWORK")
    planned = node.run(str(file), "plan-prefix", "2001:db8::/48", "--json").stdout
    assert json.loads(planned)["site"] == "2001:db8::/48"
    node.run(str(file), "map", "--output", str(tmp_path / "node.html"), env=node.environment)
    assert tmp_path.joinpath("node.html").read_text().rstrip().endswith("</html>")
    done = node.run(str(file), "map", "--output", str(tmp_path / "node.png"), env=node.environment, check=False)
    assert done.returncode == 1 and "this one file takes no library: write FILE.svg or FILE.html" in done.stderr
    told = node.run(str(file), "install", "--dry-run", "--bin-dir", "/run/cni", env=node.environment)
    assert "it would be unpacked into /usr/local/lib/cni-v6" in told.stderr
    assert all(list(node.file(place).iterdir()) == [] for place in PLACES)


def test_it_installs_a_node_and_takes_it_away_again(file: Path, node: Node, tmp_path: Path) -> None:
    said = node.run(str(file), "install", "--bin-dir", str(tmp_path), "--json", env=node.environment).stdout
    assert (json.loads(said)["plugins"], json.loads(said)["pythonDir"]) == ("courier", str(PYTHON_DIR))
    for name in NAMES:
        assert tmp_path.joinpath(name).read_bytes().startswith(b"\x7fELF")
        assert node.file(f"{PYTHON_DIR}/{name}").read_text().splitlines()[0].endswith(" -ISE")
    compiled = node.file("/usr/local/lib/cni-v6/cni_v6/__pycache__").glob("shim.*.pyc")
    assert list(compiled), "nobody compiles it at a call"

    call = {"container_id": "a", "ifname": "eth0", "netns": node.container("a"), "path": (str(tmp_path),)}
    node.plugin("cni-v6", "STATUS", CONFIG, path=(str(tmp_path),)).ok()
    result = node.plugin("cni-v6", "ADD", CONFIG, **call).ok()  # which leaves an engine behind
    node.plugin("cni-v6", "CHECK", {**CONFIG, "prevResult": result}, **call).ok()
    assert json.loads(node.run(CTL, "list", "--json", env=node.environment).stdout)["containerID"] == "a"

    refused = node.run(str(file), "uninstall", "--bin-dir", str(tmp_path), env=node.environment, check=False)
    assert refused.returncode == 1 and "1 container is attached" in refused.stderr and node.file(CTL).exists()
    again = node.run(str(file), "install", "--bin-dir", str(tmp_path), "--json", env=node.environment).stdout
    assert {step["action"] for step in json.loads(again)["files"]} == {"unchanged"}
    node.plugin("cni-v6", "DEL", CONFIG, **call).ok()

    node.run(str(file), "uninstall", "--bin-dir", str(tmp_path), env=node.environment)
    assert list(tmp_path.iterdir()) == []
    assert {str(path) for place in PLACES for path in node.file(place).rglob("*")} == set()


def test_what_make_install_has_put_there_stays(file: Path, node: Node) -> None:
    """Its list is another one, and its removal would leave what this file has added."""
    node.run("sh", "-ec", "mkdir -p /usr/local/lib/cni-v6/cni_v6 && echo /usr/local/lib/cni-v6/ "
             ">/usr/local/lib/cni-v6/INSTALLED")
    done = node.run(str(file), "install", "--bin-dir", "/run/cni", env=node.environment, check=False)
    assert done.returncode == 1 and "/usr/local/lib/cni-v6 is there already, and is not of this file" in done.stderr
    node.run("sh", "-ec", "rm -r /usr/local/lib/cni-v6; echo '#!/bin/sh' >/usr/local/sbin/cni-v6ctl")
    done = node.run(str(file), "install", "--bin-dir", "/run/cni", env=node.environment, check=False)
    assert done.returncode == 1 and f"{CTL} is there already" in done.stderr
    assert not node.file("/usr/local/lib/cni-v6").exists()
