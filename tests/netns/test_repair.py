"""The bridge is deleted, or a port is taken out of it, while containers run: they are plugged in again, by packets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import networks, nft, traffic
from tests.netns.networks import DUAL, NODE_OUTSIDE, OUTSIDE, SUBNET4, SUBNET6, UPLINK, Pod
from tests.outputs import unwrapped
from tests.sandbox import Node
from tests.snapshot import Snapshot

TRACES = r"\.seen|\.memo|last_reserved|cursors|released"


@pytest.fixture
def node(quiet_node: Node) -> Node:
    """Without an engine, which would repair a bridge as soon as it is deleted (``test_watch``)."""
    return quiet_node


def published(number: int, **keys: Any) -> dict[str, Any]:
    """A network with masquerade, and a published port of one container."""
    mapping = {"hostPort": 8000 + number, "containerPort": 80, "protocol": "tcp"}
    return networks.gateway(*DUAL, **{"ipMasq": True, "runtimeConfig": {"portMappings": [mapping]}, **keys})


def running(node: Node, *names: str, **keys: Any) -> list[Pod]:
    pods = [Pod(node, published(number, **keys), name) for number, name in enumerate(names)]
    for pod in pods:
        pod.add()
    return pods


def all_is_well(node: Node, beyond: str, pods: Sequence[Pod]) -> None:
    """Each container reaches the others, its gateway and the world; from there its published port is reached, and
    nothing else."""
    for number, pod in enumerate(pods):
        assert pod.check().ok() is None
        for family in (4, 6):
            assert pod.ping(OUTSIDE[family])
            assert all(pod.ping(other.address(family)) for other in pods)
            with traffic.listening(pod.netns, family, 80) as open_port, traffic.listening(pod.netns, family, 81):
                with traffic.unanswered(beyond, (pod.address(family), 81)):
                    traffic.called(beyond, (NODE_OUTSIDE[family], 8000 + number), open_port)


def same(node: Node, before: Snapshot) -> None:
    assert before.difference(node.snapshot(), TRACES) == []


def check(node: Node, *arguments: str) -> tuple[int, list[str]]:
    """``cni-v6ctl check``: its exit status and what it prints."""
    done = nft.ctl(node, "check", *arguments, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, unwrapped(done.stdout).splitlines()


def test_the_next_add_plugs_in_what_is_left_of_a_deleted_bridge(node: Node) -> None:
    beyond = networks.outside(node)
    pods = running(node, "a", "b", "c", "d")
    all_is_well(node, beyond, pods)
    before = node.snapshot()
    node.run("ip", "link", "delete", "cni0")
    words = node.plugin("cni-v6", "STATUS", published(9)).error(errors.LIMITED)
    assert "a/eth0, b/eth0, c/eth0 and 1 more" in words and "cni-v6ctl check pods --repair" in words
    assert f"{pods[0].host} is in no bridge, not in cni0" in pods[0].check().error(errors.CHECK_FAILED)
    late = Pod(node, published(4), "late")
    answer = late.call("ADD")
    late.result = answer.ok()
    assert "bridge cni0 was gone: plugged 4 containers of network pods in again" in answer.stderr
    node.plugin("cni-v6", "STATUS", published(9)).ok()
    all_is_well(node, beyond, [*pods, late])
    late.delete()
    node.remove_container("late")
    same(node, before)


@pytest.mark.slow
def test_check_repairs_without_any_configuration(node: Node) -> None:
    """Two networks of the bridge, closed to their neighbours; with prefixes, and an uplink that is answered on."""
    networks.uplink(node)
    node.run("ip", "address", "add", "fd00:6::ffff/64", "dev", UPLINK, "nodad")
    ranges = [[{"subnet": SUBNET6, "gateway": "link-local"}], [{"subnet": SUBNET4}]]
    ipam = {"type": "cni-v6-ipam", "ranges": ranges, "delegate": 80}
    pods = running(node, "a", "b", ingress="isolated", ndpProxy=UPLINK, ipam=ipam)
    [flat] = networks.pods(node, networks.network(name="flat", portIsolation=True), "flat")
    assert check(node) == (0, ["nothing differs on 2 networks"])
    before = node.snapshot()
    node.run("ip", "link", "delete", "cni0")
    status, lines = check(node)
    assert status == 1 and "pods: bridge cni0 is missing" in lines and "flat: bridge cni0 is missing" in lines
    for pod in (*pods, flat):
        words = f"{pod.config['name']}/{pod.name}/eth0: host interface {pod.host} is in no bridge, not in cni0"
        assert words in lines
    status, lines = check(node, "pods", "--repair")
    assert status == 0 and lines[-1] == "nothing differs on 1 network"
    assert any(line.endswith(f"plug {pods[0].host} into bridge cni0") for line in lines)
    status, lines = check(node)
    assert (status, len(lines)) == (1, 3) and lines[0].startswith("flat/flat/eth0: ")
    assert check(node, "--repair")[0] == 0
    same(node, before)
    for pod in pods:
        assert pod.check().ok() is None
    assert pods[0].ping("10.66.0.1") and not pods[0].ping(pods[1].address(4), patience=1)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [
    pytest.param("ip link set {host} nomaster", id="port out of its bridge"),
    pytest.param("ip link add br9 type bridge; ip link set {host} master br9", id="port in another one"),
    pytest.param("ip address flush dev cni0 scope global", id="gateways"),
    pytest.param("echo 0 > /proc/sys/net/ipv4/ip_forward", id="forwarding"),
    pytest.param("nft flush set inet cni_v6 published6", id="elements"),
    pytest.param("nft flush ruleset", id="tables"),
])
def test_single_losses(node: Node, damage: str) -> None:
    beyond = networks.outside(node)
    pods = running(node, "a", "b")
    before = node.snapshot()
    node.run("sh", "-ec", damage.format(host=pods[0].host))
    status, lines = check(node)
    assert status == 1 and len(lines) >= 2
    [document] = json.loads("\n".join(check(node, "--json")[1]))
    assert document["network"] == "pods" and document["differences"] == document["left"] != []
    status, lines = check(node, "--repair")
    assert status == 0, lines
    node.run("sh", "-c", "ip link delete br9 2>/dev/null; true")
    same(node, before)
    all_is_well(node, beyond, pods)


def test_a_bridge_with_nobody_left_is_no_concern(node: Node) -> None:
    networks.set_up(node, published(0))
    node.run("ip", "link", "delete", "cni0")
    node.plugin("cni-v6", "STATUS", published(0)).ok()
    assert check(node) == (0, ["nothing differs on 1 network"])
    pod = Pod(node, published(0), "a")
    answer = pod.call("ADD")
    answer.ok()
    assert answer.stderr == ""
