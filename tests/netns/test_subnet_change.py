"""The ranges of a network change while containers run: the old subnet drains beside the new one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns import networks, traffic
from tests.netns.networks import GATEWAY4, GATEWAY6, NODE_OUTSIDE, OUTSIDE, Pod
from tests.netns.traffic import family_of
from tests.sandbox import Node

pytestmark = pytest.mark.slow

OLD = {6: networks.SUBNET6, 4: networks.SUBNET4}
NEW = {6: "fd00:66::/64", 4: "10.67.0.0/24"}
OLD_GATEWAYS = {GATEWAY6 + "/64", GATEWAY4 + "/24"}
NEW_GATEWAYS = {"fd00:66::1/64", "10.67.0.1/24"}


def network(subnets: dict[int, str], **keys: Any) -> dict[str, Any]:
    return networks.gateway(*subnets.values(), **keys)


def on_bridge(node: Node, ifname: str = "cni0") -> set[str]:
    """The addresses of the bridge but its link-local ones."""
    return {address for address in networks.addresses(node, ifname) if not address.startswith("fe80:")}


def reach_each_other(*pods: Pod) -> None:
    for one in pods:
        for other in pods:
            for family in (4, 6):
                assert one.ping(other.address(family)), f"{one.name} -> {other.name} by IPv{family}"


def seen_as(pod: Pod, beyond: str, family: int) -> str:
    """Whom a host beyond the node sees when the container calls."""
    with traffic.listening(beyond, family, 0) as listener:
        caller, _ = traffic.called(pod.netns, (OUTSIDE[family], listener.getsockname()[1]), listener)
        return caller.address


@pytest.mark.parametrize("force", [False, True])
def test_old_containers_go_on_beside_the_new_ones(node: Node, force: bool) -> None:
    beyond = networks.outside(node)
    old = networks.pods(node, network(OLD, ipMasq=True), "a", "b")
    config = network(NEW, ipMasq=True, forceAddress=force)
    new = networks.pods(node, config, "c", "d")
    assert on_bridge(node) == OLD_GATEWAYS | NEW_GATEWAYS
    for pod, gateways in ((old[0], (GATEWAY6, GATEWAY4)), (new[0], ("fd00:66::1", "10.67.0.1"))):
        assert all(pod.ping(gateway) for gateway in gateways)
    reach_each_other(*old, *new)
    for pod in (*old, *new):
        pod.check(config).ok()
        for family in (4, 6):
            assert seen_as(pod, beyond, family) == NODE_OUTSIDE[family]
            assert networks.ping(node, pod.address(family))
    old[0].delete(config)
    assert on_bridge(node) == OLD_GATEWAYS | NEW_GATEWAYS
    reach_each_other(old[1], *new)
    old[1].delete()  # as a runtime that keeps each container's configuration calls
    assert on_bridge(node) == NEW_GATEWAYS
    reach_each_other(*new)
    for family in (4, 6):
        assert seen_as(new[0], beyond, family) == NODE_OUTSIDE[family]


def test_what_is_left_is_what_a_node_has_that_never_had_another(node: Node) -> None:
    config = network(NEW)
    networks.set_up(node, config)
    with node.unchanged(r"\.seen|\.memo|last_reserved|cursors|released"):
        [old] = networks.pods(node, network(OLD), "a")
        [new] = networks.pods(node, config, "b")
        old.delete(config)
        new.delete(config)
        for name in "ab":
            node.remove_container(name)


def test_the_next_add_takes_away_what_nobody_is_left_of(node: Node) -> None:
    networks.set_up(node, network(OLD))
    assert on_bridge(node) == OLD_GATEWAYS
    networks.pods(node, network(NEW), "a")
    assert on_bridge(node) == NEW_GATEWAYS


def test_the_bridge_deleted_after_the_change(node: Node) -> None:
    networks.set_up(node, network(OLD))
    node.run("ip", "link", "delete", "cni0")
    [new] = networks.pods(node, network(NEW), "a")
    assert on_bridge(node) == NEW_GATEWAYS
    assert new.ping("fd00:66::1") and new.ping("10.67.0.1")


def test_gc_of_the_last_one(node: Node) -> None:
    [old] = networks.pods(node, network(OLD), "a")
    [new] = networks.pods(node, network(NEW), "b")
    valid = [{"containerID": "b", "ifname": "eth0"}]
    assert node.plugin("cni-v6", "GC", {**network(NEW), "cni.dev/valid-attachments": valid}).ok() is None
    assert on_bridge(node) == NEW_GATEWAYS
    assert old.host not in networks.veths(node)
    assert new.ping("fd00:66::1") and new.ping("10.67.0.1")


def test_back_to_the_old_subnet(node: Node) -> None:
    first, second = network(OLD), network(NEW)
    [old] = networks.pods(node, first, "a")
    [new] = networks.pods(node, second, "b")
    [again] = networks.pods(node, first, "c")
    reach_each_other(old, new, again)
    old.delete(first)
    assert on_bridge(node) == OLD_GATEWAYS | NEW_GATEWAYS
    new.delete(first)
    assert on_bridge(node) == OLD_GATEWAYS
    reach_each_other(again)
    again.delete(first)
    assert on_bridge(node) == OLD_GATEWAYS


def test_an_address_of_somebody_else_stays(node: Node) -> None:
    [old] = networks.pods(node, network(OLD), "a")
    foreign = {"10.99.0.1/24", "fd00:99::1/64"}
    for address in foreign:
        node.run("ip", "address", "add", address, "dev", "cni0")
    other = networks.gateway("10.98.0.0/24", name="other")
    networks.pods(node, other, "x")
    networks.pods(node, network(NEW), "b")
    old.delete()
    assert on_bridge(node) == foreign | NEW_GATEWAYS | {"10.98.0.1/24"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({6: "fd00:6::/64", 4: "10.66.0.0/24"}, {6: "fd00:6::/60", 4: "10.66.0.0/20"}),
        ({6: "fd00:6::/60", 4: "10.66.0.0/20"}, {6: "fd00:6::/64", 4: "10.66.0.0/24"}),
    ],
    ids=["wider", "narrower"],
)
def test_the_same_gateway_with_another_prefix(node: Node, old: dict[int, str], new: dict[int, str]) -> None:
    first, second = network(old), network(new)
    [before] = networks.pods(node, first, "a")
    [after] = networks.pods(node, second, "b")
    reach_each_other(before, after)
    for pod, config in ((before, second), (after, second)):
        assert pod.ping(GATEWAY6) and pod.ping(GATEWAY4)
    for config in (first, second):
        before.check(config).ok()
    after.check(second).ok()
    before.delete(second)
    lengths = {family: subnet.partition("/")[2] for family, subnet in new.items()}
    assert on_bridge(node) == {f"{GATEWAY6}/{lengths[6]}", f"{GATEWAY4}/{lengths[4]}"}
    assert after.ping(GATEWAY6) and after.ping(GATEWAY4)


def test_another_gateway_in_the_same_subnet(node: Node) -> None:
    """The kernel has the second IPv4 address of a subnet go with the first one."""
    [old] = networks.pods(node, network(OLD), "a")
    ranges = [[{"subnet": OLD[6], "gateway": "fd00:6::ff"}], [{"subnet": OLD[4], "gateway": "10.66.0.254"}]]
    config = network(OLD, ipam={"ranges": ranges})
    [new] = networks.pods(node, config, "b")
    reach_each_other(old, new)
    old.delete()
    assert on_bridge(node) == {"fd00:6::ff/64", "10.66.0.254/24"}
    assert new.ping("fd00:6::ff") and new.ping("10.66.0.254")


def test_the_route_of_a_prefix_behind_a_link_local_gateway(node: Node) -> None:
    def behind(subnet: str) -> dict[str, Any]:
        return networks.gateway(subnet, ipam={"ranges": [[{"subnet": subnet, "gateway": "link-local"}]]})

    def prefixes() -> set[str]:
        return {route["dst"] for route in node.ip_json("-6", "route", "show", "dev", "cni0", "proto", "static")}

    [old] = networks.pods(node, behind(OLD[6]), "a")
    [new] = networks.pods(node, behind(NEW[6]), "b")
    assert prefixes() == {OLD[6], NEW[6]}
    assert old.ping(new.address(6)) and networks.ping(node, old.address(6)) and networks.ping(node, new.address(6))
    old.delete()
    assert prefixes() == {NEW[6]}
    assert networks.ping(node, new.address(6))


def test_another_bridge(node: Node) -> None:
    [old] = networks.pods(node, network(OLD), "a")
    [new] = networks.pods(node, network(NEW, bridge="cni1"), "b")
    reach_each_other(old, new)
    old.delete(network(NEW, bridge="cni1"))
    assert on_bridge(node) == set()
    assert on_bridge(node, "cni1") == NEW_GATEWAYS


def test_a_gateway_that_another_network_has_too(node: Node) -> None:
    parts = [[{"subnet": OLD[4], "rangeEnd": "10.66.0.99"}], [{"subnet": OLD[4], "rangeStart": "10.66.0.100"}]]
    [leaves] = networks.pods(node, networks.gateway(OLD[4], ipam={"ranges": parts[:1]}), "a")
    [stays] = networks.pods(node, networks.gateway(OLD[4], name="other", ipam={"ranges": parts[1:]}), "b")
    networks.pods(node, networks.gateway(NEW[4]), "c")
    leaves.delete()
    assert on_bridge(node) == {"10.66.0.1/24", "10.67.0.1/24"} and stays.ping("10.66.0.1")


def test_a_range_that_the_set_spilt_over_from_drains_nothing(node: Node) -> None:
    ranges = [[{"subnet": "10.66.0.0/30"}, {"subnet": "10.67.0.0/24"}]]
    config = networks.gateway("10.66.0.0/30", ipam={"ranges": ranges})
    first, second = networks.pods(node, config, "a", "b")
    assert first.address(4) == "10.66.0.2" and second.address(4) == "10.67.0.2"
    assert family_of(second.address(4)) == 4
    first.delete()
    assert on_bridge(node) == {"10.66.0.1/30", "10.67.0.1/24"}
