"""Without root: what needs it says so first and changes nothing, everything else works; root of a user namespace is
root."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.process.test_engine import CONFIG, engine_of
from tests.sandbox import REFERENCE_PLUGINS, ROOT, Node, Reply, need, reply

pytestmark = [pytest.mark.xdist_group("install"), pytest.mark.slow]

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--")
# As in a container: user id 0, but not this capability.
NO_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--")
NEED_PRIVILEGE = ("ADD", "DEL", "CHECK", "GC", "STATUS")


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """An installation that everybody can read and execute: a checkout is perhaps below /root."""
    need((ROOT / ".venv/wheels").is_dir(), "needs the wheels that make test puts into .venv")
    top = Path(f"/run/unprivileged-{os.environ.get('PYTEST_XDIST_WORKER', 'tests')}")
    install = [str(ROOT / "tools/install")]
    env = os.environ | {"PREFIX": f"{top}/usr", "CNI_BIN_DIR": f"{top}/cni"}
    env.pop("PYTHON", None)
    subprocess.run(install, env=env, check=True, capture_output=True)
    behind = top / "usr/lib/cni-v6/bin/cni-v6"  # the courier
    interpreter = behind.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!").split(" ")[0]
    runs = subprocess.run([*NOBODY, interpreter, "-c", ""], check=False, capture_output=True).returncode == 0
    need(runs, f"needs a Python that everybody can execute, not {interpreter}")
    yield top
    subprocess.run([*install, "--remove"], env=env, check=True, capture_output=True)
    assert not top.exists()


def call(
    node: Node, program: Path, command: str, *, who: tuple[str, ...] = NOBODY, config: Mapping[str, Any] | None = None,
    **env: str,
) -> Reply:
    """A call of a plugin by another user."""
    container = {"CNI_CONTAINERID": "a", "CNI_IFNAME": "eth0", "CNI_NETNS": node.containers["a"]}
    variables = {**node.environment, **container, "CNI_COMMAND": command, "CNI_PATH": REFERENCE_PLUGINS, **env}
    stdin = json.dumps({**(config or CONFIG), "cni.dev/valid-attachments": []})
    done = node.run(*who, str(program), env=variables, stdin=stdin, check=False)
    return reply(done.stdout.encode(), done.stderr.encode(), done.returncode)


def ctl(node: Node, installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without an engine a node has no folder of its own, and other nodes may have left something in the usual one.
    env = {"CNI_V6_RUN_DIR": "/run/cni-v6-of-nobody", **node.environment}
    return node.run(*NOBODY, str(installed / "usr/sbin/cni-v6ctl"), *arguments, env=env, check=False)


@pytest.mark.parametrize("command", NEED_PRIVILEGE)
def test_needs_root_is_said_first(node: Node, installed: Path, command: str) -> None:
    """Before the namespace, which that user cannot enter, and before anything in the configuration."""
    node.container("a")
    with node.unchanged():
        said = call(node, installed / "cni/cni-v6", command).error(112)
        assert said.startswith(f"cni-v6 {command} needs root: user id 65534 has no CAP_NET_ADMIN")
        wrong = {"cniVersion": "1.1.0", "name": "", "bridge": 7}
        assert call(node, installed / "cni/cni-v6", command, config=wrong).error(112) == said


def test_user_id_0_without_the_capability_is_told_which(node: Node, installed: Path) -> None:
    node.container("a")
    with node.unchanged():
        said = call(node, installed / "cni/cni-v6", "ADD", who=NO_NET_ADMIN).error(112)
    assert said == "cni-v6 ADD needs root: user id 0 has no CAP_NET_ADMIN here; give the container CAP_NET_ADMIN"


@pytest.mark.parametrize("plugin", ["cni-v6", "cni-v6-ipam"])
def test_version_needs_no_root(node: Node, installed: Path, plugin: str) -> None:
    node.container("a")
    program = installed / "cni" / plugin
    assert "1.1.0" in call(node, program, "VERSION").ok()["supportedVersions"]
    assert node.run(*NOBODY, str(program), "--version", env=node.environment).stdout.startswith(f"{plugin} ")


def test_no_engine_is_left_behind(warm_node: Node, installed: Path) -> None:
    warm_node.container("a")
    folder = Path(f"/run/everybodys-{warm_node.name}")
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    call(warm_node, installed / "cni/cni-v6", "STATUS", CNI_V6_RUN_DIR=str(folder / "run")).error(112)
    assert engine_of(warm_node) is None
    assert not list(folder.iterdir())
    folder.rmdir()


@pytest.mark.parametrize("command", NEED_PRIVILEGE)
def test_the_stores_refusal_says_needs_root_first(node: Node, installed: Path, command: str) -> None:
    node.container("a")
    with node.unchanged():
        said = call(node, installed / "cni/cni-v6-ipam", command).error(50 if command == "STATUS" else 103)
    assert said.startswith("needs root: lease store: /var/lib/cni/networks/pods: Permission denied")


def test_addresses_alone_need_no_root_where_the_store_is_the_users(node: Node, installed: Path) -> None:
    node.container("a")
    store = Path(f"/run/store-{node.name}")
    store.mkdir()
    os.chown(store, 65534, 65534)
    config = {**CONFIG, "type": "macvlan", "ipam": {**CONFIG["ipam"], "dataDir": f"{store}/leases"}}
    run_dir = f"{store}/run"
    result = call(node, installed / "cni/cni-v6-ipam", "ADD", config=config, CNI_V6_RUN_DIR=run_dir).ok()
    assert [address["address"] for address in result["ips"]] == ["fd00:7::2/64", "10.7.0.2/24"]
    call(node, installed / "cni/cni-v6-ipam", "DEL", config=config, CNI_V6_RUN_DIR=run_dir).ok()
    subprocess.run(["rm", "-r", store], check=True)


@pytest.mark.parametrize("arguments", [
    ("gc",), ("gc", "--dry-run"), ("reload",), ("teardown",), ("renumber", "/nothing"), ("engine",),
    ("engine", "--stop"),
], ids=" ".join)
def test_the_operators_command_says_needs_root_first(node: Node, installed: Path, arguments: tuple[str, ...]) -> None:
    with node.unchanged():
        done = ctl(node, installed, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"cni-v6ctl: error 112: cni-v6ctl {arguments[0]} needs root: user id 65534")
    assert done.stderr.count("\n") == 1


def test_reading_the_store_needs_root_where_it_is_roots(node: Node, installed: Path) -> None:
    sample = str(installed / "usr/share/cni-v6/10-cni-v6-dualstack.conflist")
    assert ctl(node, installed, "list").returncode == 0, "there is none yet, which everybody can see"
    node.plugin("cni-v6", "ADD", CONFIG, container_id="a", ifname="eth0", netns=node.container("a")).ok()
    for arguments in (("list",), ("ipam", "burn", sample)):
        done = ctl(node, installed, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("cni-v6ctl: error 103: needs root: cannot read /")


def test_the_plan_says_what_it_could_not_see(node: Node, installed: Path) -> None:
    sample = str(installed / "usr/share/cni-v6/10-cni-v6-dualstack.conflist")
    done = ctl(node, installed, "plan", sample)
    assert done.returncode == 0
    assert done.stderr == (
        "cni-v6ctl: note: not root, so the firewall's tables cannot be read; the plan takes them for missing\n"
    )
    as_root = node.run(str(installed / "usr/sbin/cni-v6ctl"), "plan", sample, env=node.environment)
    assert as_root.stderr == ""


@pytest.mark.parametrize("arguments", [("--version",), ("schema",), ("plan-prefix", "2001:db8::/48")], ids=" ".join)
def test_what_needs_no_root_works(node: Node, installed: Path, arguments: tuple[str, ...]) -> None:
    done = ctl(node, installed, *arguments)
    assert done.returncode == 0 and done.stdout


# A user namespace of its own, its root in a network and a mount namespace: what rootless containers are made of.
ROOTLESS = """
set -eu
mount -t tmpfs tmpfs /var/lib/cni
mkdir -p "$MOUNTED"
mount -t tmpfs tmpfs "$MOUNTED"
touch "$MOUNTED/a"
unshare --net sh -euc 'ip link set lo up; mount --bind /proc/self/ns/net "$MOUNTED/a"'
ip link set lo up
"$PLUGIN"
nsenter --net="$MOUNTED/a" ping -6 -n -c 1 -W 10 fd00:7::1 >&2
"""


def test_root_of_a_user_namespace_is_root(node: Node, installed: Path) -> None:
    mounted = f"/tmp/rootless-{node.name}"
    unshare = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--")
    need(node.run(*NOBODY, *unshare, "true", check=False).returncode == 0, "needs user namespaces")
    env = {
        "PLUGIN": str(installed / "cni/cni-v6"), "MOUNTED": mounted, "CNI_V6_ENGINE": "off", "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "a", "CNI_IFNAME": "eth0", "CNI_NETNS": f"{mounted}/a", "CNI_PATH": REFERENCE_PLUGINS,
        "CNI_V6_RUN_DIR": f"{mounted}/run",
    }
    done = node.run(*NOBODY, *unshare, "sh", "-c", ROOTLESS, env=env, stdin=json.dumps(CONFIG), check=False)
    os.rmdir(mounted)
    result = reply(done.stdout.encode(), done.stderr.encode(), done.returncode).ok()
    assert result["ips"][0]["address"] == "fd00:7::2/64"
