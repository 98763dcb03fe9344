"""``pip install .``: the commands it makes work, for a person and for a runtime."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import __version__
from tests.process.test_engine import CONFIG
from tests.sandbox import REFERENCE_PLUGINS, ROOT, Node, need

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pip install")]

SOURCES = ("cni_v6", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
WHEELS = ROOT / ".venv/wheels"
QUIET = ("--disable-pip-version-check", "--quiet")


def run(*argv: object) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands in a virtual environment with nothing but our wheel and what it requires."""
    need(WHEELS.is_dir(), "needs the wheels that make test puts into .venv")
    top = tmp_path_factory.mktemp("pip")
    source = top / "source"  # setuptools writes beside what it builds
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        shutil.copytree(path, source / name) if path.is_dir() else shutil.copy(path, source / name)
    # Without isolation: pip would fetch setuptools, which .venv has already.
    build = ("wheel", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir", top)
    run(sys.executable, "-m", "pip", *QUIET, *build, source)
    run(sys.executable, "-m", "venv", top / "venv")
    [wheel] = top.glob("cni_v6-*.whl")
    run(top / "venv/bin/python", "-m", "pip", *QUIET, "install", "--no-index", "--find-links", WHEELS, wheel)
    return top / "venv/bin"


@pytest.mark.parametrize("command", ["cni-v6", "cni-v6-ipam", "cni-v6ctl"])
def test_each_command_tells_its_version(commands: Path, command: str) -> None:
    assert run(commands / command, "--version").splitlines()[0] == f"{command} {__version__}"


def test_the_wheel_requires_what_setup_cfg_says_and_brings_no_tests(commands: Path) -> None:
    installed = {path.name for path in commands.parent.glob("lib/python*/site-packages/*") if path.is_dir()}
    assert {"cni_v6", "pyroute2", "netaddr", "filelock"} <= installed
    assert installed.isdisjoint({"tests", "tools", "conf"})


def test_the_wheel_brings_the_map_page(commands: Path, node: Node, tmp_path: Path) -> None:
    argv = [commands / "cni-v6ctl", "map", "--output", tmp_path / "map.html"]
    node.run(*map(str, argv))
    assert "Content-Security-Policy" in (tmp_path / "map.html").read_text()


def test_the_operators_command_works(commands: Path) -> None:
    assert '"$schema"' in run(commands / "cni-v6ctl", "schema")


def test_a_runtime_attaches_and_detaches_a_container(commands: Path, node: Node) -> None:
    def call(command: str, name: str) -> Any:
        netns = node.containers.get(name) or node.container(name)
        path = (str(commands), REFERENCE_PLUGINS)
        return node.plugin("cni-v6", command, CONFIG, container_id=name, ifname="eth0", netns=netns, path=path).ok()

    call("ADD", "stays")  # brings what belongs to the network: bridge, gateway, forwarding
    node.container("a")
    with node.unchanged():
        result = call("ADD", "a")
        assert [address["address"] for address in result["ips"]] == ["fd00:7::3/64", "10.7.0.3/24"]
        node.run("ping", "-6", "-n", "-c", "1", "-W", "10", "fd00:7::1", netns=node.containers["a"])
        assert "fd00:7::3 10.7.0.3" in listed(commands, node)
        call("DEL", "a")
    assert "fd00:7::3" not in listed(commands, node)


def test_ipam_alone_leases_and_frees_an_address(commands: Path, node: Node) -> None:
    config = {**CONFIG, "type": "macvlan"}
    path = (str(commands), REFERENCE_PLUGINS)
    attachment = {"container_id": "a", "ifname": "eth0", "netns": node.container("a"), "path": path}
    result = node.plugin("cni-v6-ipam", "ADD", config, **attachment).ok()
    assert result["ips"][0]["address"] == "fd00:7::2/64"
    assert "fd00:7::2 10.7.0.2" in listed(commands, node)
    node.plugin("cni-v6-ipam", "DEL", config, **attachment).ok()
    assert "fd00:7::2" not in listed(commands, node)


def listed(commands: Path, node: Node) -> str:
    return node.run(str(commands / "cni-v6ctl"), "list", env=node.environment).stdout
