"""``make wheels``: a wheel carries the courier of its processor; from it a node's plugins are installed."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from cni_v6 import __version__
from tests.couriers import NAMES
from tests.distributions import PYTHON_DIR, WHEELS, distributions
from tests.netns import networks
from tests.netns.networks import DUAL
from tests.sandbox import Node

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheels")]

MACHINE = platform.machine()
TAG = f"py3-none-manylinux_2_17_{MACHINE}.musllinux_1_1_{MACHINE}"
CONFIG = networks.gateway(*DUAL)
PT_INTERP = 3  # elf(5)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distributions(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def ctl(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's command in a fresh virtual environment, for which pip has chosen among the wheels."""
    place = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    folders = ("--find-links", dist, "--find-links", WHEELS)
    subprocess.run(
        [place / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index", *folders,
         "cni-v6"], check=True,
    )
    return place / "bin/cni-v6ctl"


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with a /usr/local/lib of its own: there the courier looks for Python executables."""
    with closing(Node(engine=True)) as made:
        made.run("mount", "-t", "tmpfs", "none", str(PYTHON_DIR.parents[1]))
        yield made


def test_the_same_source_makes_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """Later, elsewhere, with another time zone."""
    again = distributions(tmp_path / "else where", {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "HOME": str(tmp_path)})
    found, wanted = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (again, dist))
    assert found.keys() == wanted.keys() and len(found) == 3
    assert [name for name in found if found[name] != wanted[name]] == []


def test_each_wheel_says_for_whom_it_is(dist: Path) -> None:
    assert {path.name for path in dist.iterdir()} == {
        f"cni_v6-{__version__}.tar.gz", f"cni_v6-{__version__}-py3-none-any.whl", f"cni_v6-{__version__}-{TAG}.whl"}
    with ZipFile(dist / f"cni_v6-{__version__}-{TAG}.whl") as wheel:
        lines = wheel.read(f"cni_v6-{__version__}.dist-info/WHEEL").decode().splitlines()
        courier = wheel.read("cni_v6/courier")
        assert "cni_v6/courier,sha256=" in wheel.read(f"cni_v6-{__version__}.dist-info/RECORD").decode()
    assert "Root-Is-Purelib: false" in lines
    assert f"Tag: py3-none-manylinux_2_17_{MACHINE}" in lines and f"Tag: py3-none-musllinux_1_1_{MACHINE}" in lines
    assert PT_INTERP not in program_headers(courier), "linked statically: it needs no C library, of whichever version"
    with ZipFile(dist / f"cni_v6-{__version__}-py3-none-any.whl") as pure:
        assert "cni_v6/courier" not in pure.namelist()


def program_headers(program: bytes) -> set[int]:
    """The types of an ELF file's program headers, 64 bits and least significant byte first (elf(5))."""
    assert program[4:6] == b"\x02\x01"
    [offset] = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    return {struct.unpack_from("<I", program, offset + size * number)[0] for number in range(count)}


def test_from_the_source_everything_else_can_be_made(dist: Path) -> None:
    with tarfile.open(dist / f"cni_v6-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "setup.cfg", "tools/install", "tools/wheels", "courier/courier.c", "bin/cni-v6ctl",
            "conf/10-cni-v6-kubernetes.conflist", "deploy/kubernetes/daemonset.yaml", "docs/runtimes.md"} <= names
    assert not any("__pycache__" in name or name == "cni_v6/courier" for name in names)


def report(node: Node, ctl: Path, *words: object) -> Any:
    return json.loads(node.run(str(ctl), *map(str, words), "--json", env=node.environment).stdout)


def test_pip_install_and_cni_v6ctl_install_make_a_node(ctl: Path, node: Node, tmp_path: Path) -> None:
    told = report(node, ctl, "install", "--bin-dir", tmp_path)
    assert (told["plugins"], told["pythonDir"]) == ("courier", str(PYTHON_DIR))
    assert {step["path"] for step in told["files"]} == {
        f"{folder}/{name}" for folder in (tmp_path, PYTHON_DIR) for name in NAMES}
    for name in NAMES:
        assert tmp_path.joinpath(name).read_bytes().startswith(b"\x7fELF")
        assert node.file(f"{PYTHON_DIR}/{name}").read_bytes().startswith(f"#!{ctl.parent}/python".encode())

    call = {"container_id": "a", "ifname": "eth0", "netns": node.container("a"), "path": (str(tmp_path),)}
    node.plugin("cni-v6", "STATUS", CONFIG, path=(str(tmp_path),)).ok()  # nobody answers: the courier becomes Python
    result = node.plugin("cni-v6", "ADD", CONFIG, **call).ok()  # which leaves an engine behind
    node.plugin("cni-v6", "CHECK", {**CONFIG, "prevResult": result}, **call).ok()
    node.plugin("cni-v6", "DEL", CONFIG, **call).ok()
    assert "1.1.0" in node.plugin("cni-v6-ipam", "VERSION", CONFIG, path=(str(tmp_path),)).ok()["supportedVersions"]

    told = report(node, ctl, "uninstall", "--bin-dir", tmp_path)
    assert {step["action"] for step in told["files"]} == {"removed"} and told["warnings"] == []
    assert list(tmp_path.iterdir()) == [] and list(node.file(str(PYTHON_DIR.parents[1])).iterdir()) == []


def test_for_a_node_without_python_nothing_but_couriers_is_put(ctl: Path, node: Node, tmp_path: Path) -> None:
    told = report(node, ctl, "install", "--bin-dir", tmp_path, "--courier-only")
    assert (told["plugins"], told["pythonDir"]) == ("courier", None)
    assert {step["path"] for step in told["files"]} == {f"{tmp_path}/{name}" for name in NAMES}
    assert list(node.file(str(PYTHON_DIR.parents[1])).iterdir()) == []
    call = {"container_id": "a", "ifname": "eth0", "netns": node.container("a"), "path": (str(tmp_path),)}
    assert "no cni-v6 engine answers on this node" in node.plugin("cni-v6", "ADD", CONFIG, **call).error(11)


def test_the_courier_must_not_stand_where_it_looks_for_python(ctl: Path, node: Node) -> None:
    done = node.run(str(ctl), "install", "--bin-dir", str(PYTHON_DIR), env=node.environment, check=False)
    assert done.returncode == 1 and "the courier would execute itself" in done.stderr
