"""STATUS of an engine, which looks at what has changed since all containers were in order, and at nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import networks
from tests.netns.networks import DUAL, ROUTED
from tests.netns.test_routed import DAMAGES
from tests.sandbox import Node

pytestmark = pytest.mark.parametrize("node", ["engine"], indirect=True)

NAMES = ("a", "b", "c")
BRIDGE_DAMAGES = [  # a port that is unplugged is none: an engine plugs it in again by itself
    (f"ip address delete {networks.GATEWAY4}/24 dev cni0", f"gateway address {networks.GATEWAY4}/24 is missing"),
    ("ip link set cni0 down", "bridge cni0 is down"),
    ("sysctl -w net.ipv4.ip_forward=0", "IPv4 forwarding is off"),
]


@pytest.fixture
def routed() -> Iterator[None]:
    token = networks.main.set(ROUTED)
    yield
    networks.main.reset(token)


@pytest.fixture(params=["cni-v6", ROUTED])
def main(request: pytest.FixtureRequest) -> Iterator[str]:
    token = networks.main.set(request.param)
    yield request.param
    networks.main.reset(token)


def listed(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {**config, "cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in names]}


def records(node: Node) -> list[Path]:
    folder = node.file(networks.STORE) / "pods" / "attachments"
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def is_read(node: Node, config: Mapping[str, Any]) -> set[str]:
    """The records that a STATUS reads: the time of the last access is set by the first one after a change (mount(8),
    relatime)."""
    for path in records(node):
        os.utime(path, ns=(0, path.stat().st_mtime_ns))
    node.plugin(networks.main.get(), "STATUS", config).ok()
    return {path.name for path in records(node) if path.stat().st_atime_ns}


def test_what_has_not_changed_is_not_looked_at(node: Node, main: str) -> None:
    config = networks.gateway(*DUAL)
    first, *_ = networks.pods(node, config, *NAMES)
    everything = {f"{name}:eth0" for name in NAMES}
    assert is_read(node, config) == everything
    assert is_read(node, config) == set()
    assert is_read(node, {**config, "ipMasq": True}) == everything, "it is to be judged by another configuration"
    assert is_read(node, {**config, "ipMasq": True}) == set()
    networks.pods(node, config, "d")
    assert is_read(node, {**config, "ipMasq": True}) == {"d:eth0"}
    first.delete()
    assert is_read(node, {**config, "ipMasq": True}) == set()
    node.run("ip", "link", "set", first.host, "down", check=False)
    node.run("ip", "route", "add", "192.0.2.0/24", "dev", "lo")
    assert is_read(node, {**config, "ipMasq": True}) == set(), "the routes of others are no container's"


@pytest.mark.slow
def test_what_has_changed_is_found(node: Node, routed: None) -> None:
    """All that ``DAMAGES`` has, and a route that is another's by now, each after a STATUS that found all in order."""
    networks.outside(node)
    config = networks.gateway(*DUAL)
    pod, other = networks.pods(node, config, "a", "b")
    values = {"host": pod.host, "four": pod.address(4), "six": pod.address(6)}
    taken = f"ip route replace {{four}}/32 dev {networks.UPLINK}"
    damages: list[Any] = [case.values for case in DAMAGES]
    for damage, words in [*damages, (taken, ["route {four}/32 through {host} is missing"])]:
        for _ in range(2):
            node.plugin(ROUTED, "STATUS", config).ok()
        node.run("sh", "-ec", damage.format(**values))
        for _ in range(2):
            reply = node.plugin(ROUTED, "STATUS", config)
            assert reply.code, damage
            said = reply.error(errors.LIMITED)
            assert [word for word in words if word.format(**values) not in said] == [], f"{damage}: {said}"
        node.run("sh", "-ec", said.partition("run: ")[2])
    for made in (pod, other):
        made.check().ok()


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "words"), BRIDGE_DAMAGES)
def test_what_has_changed_of_a_bridge_is_found(node: Node, damage: str, words: str) -> None:
    networks.outside(node)
    config = networks.gateway(*DUAL)
    pod, other = networks.pods(node, config, "a", "b")
    for _ in range(2):
        node.plugin("cni-v6", "STATUS", config).ok()
    node.run("sh", "-ec", damage)
    for _ in range(2):
        said = node.plugin("cni-v6", "STATUS", config).error(errors.LIMITED)
        assert words in said
    node.run("sh", "-ec", said.partition("run: ")[2])
    for made in (pod, other):
        made.check().ok()
    node.plugin("cni-v6", "STATUS", config).ok()


def test_gc_looks_at_what_has_changed(node: Node, main: str) -> None:
    """And at what its list lacks. It needs a STATUS before it."""
    config = networks.gateway(*DUAL)
    pods = networks.pods(node, config, *NAMES)
    node.plugin(main, "STATUS", config).ok()
    [late] = networks.pods(node, config, "late")
    node.plugin(main, "GC", listed(config, *NAMES, "late")).ok()
    assert len(records(node)) == 4
    node.run("rm", str(records(node)[0]), *(f"{networks.STORE}/pods/{pods[0].address(family)}" for family in (4, 6)))
    assert {path.name for path in records(node)} == {"b:eth0", "c:eth0", "late:eth0"}
    node.plugin(main, "GC", listed(config, "b", "late")).ok()
    assert {path.name for path in records(node)} == {"b:eth0", "late:eth0"}
    assert networks.veths(node) == {pods[1].host, late.host}
    for made in (pods[1], late):
        made.check().ok()


def test_a_record_that_is_lost_or_damaged_is_found(node: Node, routed: None) -> None:
    config = networks.gateway(*DUAL, ingress="open")
    pod, *_ = networks.pods(node, config, *NAMES)
    path, own = records(node)[0], [f"{networks.STORE}/pods/{pod.address(family)}" for family in (4, 6)]
    for damage, words in ((lambda: node.run("rm", str(path), *own), "the store had no record of 1 container"),
                          (lambda: path.write_text("{"), "made anew from the firewall"),
                          (lambda: node.run("rm", "-rf", f"{networks.STORE}/pods"), "the store had no record of 3")):
        for _ in range(2):
            node.plugin(ROUTED, "STATUS", config).ok()
        damage()
        assert words in node.plugin(ROUTED, "STATUS", config).error(errors.LIMITED)
        pod.check().ok()
