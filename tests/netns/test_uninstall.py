"""What is installed is what runs; what is uninstalled takes along what the plugins left on the node, and goes only when
no container needs it any more."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.netns import networks
from tests.netns.networks import DUAL
from tests.process.test_engine import ended, processes_of, running
from tests.sandbox import ROOT, Node

pytestmark = [pytest.mark.xdist_group("install"), pytest.mark.slow]
TABLES = "table inet cni_v6\ntable bridge cni_v6\n"


class Installation:
    """Of ``tools/install``, below a folder of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top / "installed"
        self.plugins = str(self.top / "bin")  # as processes_of knows them
        self.library = self.top / "usr/lib/cni-v6"
        self._env = {"PREFIX": f"{self.top}/usr", "CNI_BIN_DIR": self.plugins, "PYTHON": f"{ROOT}/.venv/bin/python",
                     "COURIER": "no"}

    def install(self, node: Node) -> None:
        node.run(f"{ROOT}/tools/install", env={**node.environment, **self._env})

    def remove(self, node: Node, **env: str) -> subprocess.CompletedProcess[str]:
        return node.run(f"{ROOT}/tools/install", "--remove", env={**node.environment, **self._env, **env}, check=False)

    def files(self) -> set[Path]:
        return {path for path in self.top.rglob("*") if not path.is_dir()}


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def node(installed: Installation) -> Iterator[Node]:
    """Its calls are of the installation, once there is one."""
    with closing(Node(engine=True, plugins=installed.plugins)) as made:
        yield made


def test_from_one_installation_to_the_next_and_to_none(node: Node, installed: Installation, tmp_path: Path) -> None:
    installed.install(node)
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    _files_are_replaced(node, installed, pod)
    wait = ended(running(node))
    installed.install(node)
    wait()
    pod.check().ok()
    _containers_keep_it(node, installed)
    shutil.copytree(installed.top, tmp_path / "saved")
    done = installed.remove(node, FORCE="yes")
    assert done.returncode == 0 and "the firewall's tables stay" in done.stderr
    assert installed.files() == set() and processes_of(node) == []
    assert node.run("nft", "list", "tables").stdout == TABLES, "the container would be open without"
    shutil.copytree(tmp_path / "saved", installed.top, dirs_exist_ok=True)
    pod.delete()
    assert installed.remove(node).stderr == ""
    assert installed.files() == set() and processes_of(node) == []
    assert node.run("nft", "list", "tables").stdout == ""


def _files_are_replaced(node: Node, installed: Installation, pod: networks.Pod) -> None:
    """As pip does it, which tells no engine: the one of the old files ends with its next call."""
    engine = running(node)
    first = installed.library / "cni_v6/__init__.py"
    aside = shutil.copy2(first, first.with_name("aside"))
    pod.check().ok()
    assert running(node) == engine
    os.replace(aside, first)
    wait = ended(engine)
    pod.check().ok()
    wait()
    pod.check().ok()
    assert running(node) != engine


def _containers_keep_it(node: Node, installed: Installation) -> None:
    engine, before = running(node), installed.files()
    done = installed.remove(node)
    assert done.returncode != 0 and "1 container is attached: pods/a/eth0" in done.stderr
    assert "FORCE=yes" in done.stderr
    assert installed.files() == before and running(node) == engine
