"""VLANs on the bridge, through the real executables: access ports, trunks, and the gateway's own port."""

from __future__ import annotations

import json

import pytest

from cni_v6.errors import CHECK_FAILED
from tests.netns.networks import (
    DUAL,
    GATEWAY4,
    GATEWAY6,
    OUTSIDE,
    PATIENCE,
    Pod,
    addresses,
    leases,
    link,
    outside,
    ping,
    pods,
    sysctl,
    veths,
)
from tests.netns.frames import BROADCAST, VLAN, ethernet
from tests.netns.test_node_settings import EXPERIMENTAL, MARK, hosts, is_given_back  # noqa: F401 (a fixture of it too)
from tests.sandbox import Node
from tests.uml.networks import gateway, network

pytestmark = [pytest.mark.uml, pytest.mark.timeout(700), pytest.mark.xdist_group("uml")]

UNTAGGED, TAGGED = {"Egress Untagged"}, set[str]()
ACCESS = {"PVID", "Egress Untagged"}


def port_vlans(node: Node, port: str) -> dict[int, set[str]]:
    """The VLANs of a bridge port with their flags."""
    [shown] = json.loads(node.run("bridge", "-j", "vlan", "show", "dev", port).stdout)
    return {entry["vlan"]: set(entry.get("flags", ())) for entry in shown["vlans"]}


def reach(one: Pod, other: Pod, patience: int = PATIENCE) -> tuple[bool, bool]:
    """Whether a ping arrives, over IPv4 and over IPv6."""
    return one.ping(other.address(4), patience), one.ping(other.address(6), patience)


def tagged(pod: Pod, vlan: int, address: str) -> None:
    """An interface in the container that tags what it sends."""
    name = f"{pod.ifname}.{vlan}"
    link_add = ("link", "add", "link", pod.ifname, "name", name, "type", "vlan", "id", str(vlan))
    for command in (link_add, ("address", "add", address, "dev", name), ("link", "set", name, "up")):
        pod.node.run("ip", *command, netns=pod.netns)


# Access ports


def test_a_vlan_is_a_network_of_its_own(node: Node) -> None:
    first, second = pods(node, network(*DUAL, vlan=100), "a", "b")
    [other] = pods(node, network(*DUAL, vlan=200), "c")
    assert link(node, "cni0")["linkinfo"]["info_data"]["vlan_filtering"] == 1
    assert reach(first, second) == (True, True)
    assert reach(first, other, 1) == (False, False)
    assert first.check().ok() is None
    for change in ("add", "delete"):  # untagged no longer, then gone
        node.run("bridge", "vlan", change, "vid", "100", "dev", first.host)
        assert "vlan 100" in first.check().error(CHECK_FAILED)
    for pod in (first, second, other):
        pod.delete()
    assert (veths(node), leases(node)) == (set(), set())


def test_the_default_vlan_is_kept_or_taken_off(node: Node) -> None:
    """As the reference plugin: kept it is untagged outwards still, but what comes in belongs to the VLAN asked for."""
    kept, removed, asked = (
        Pod(node, network(vlan=vlan, preserveDefaultVlan=preserve), name)
        for name, vlan, preserve in (("a", 100, True), ("b", 100, False), ("c", 1, False))
    )
    for pod in (kept, removed, asked):
        pod.add()
    assert port_vlans(node, kept.host) == {1: UNTAGGED, 100: ACCESS}
    assert port_vlans(node, removed.host) == {100: ACCESS}
    assert port_vlans(node, asked.host) == {1: ACCESS}
    assert kept.check().ok() is None


def test_the_default_vlan_of_a_bridge_need_not_be_1(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "type", "bridge", "vlan_default_pvid", "7")
    [pod] = pods(node, network(vlan=100, preserveDefaultVlan=False), "a")
    assert port_vlans(node, pod.host) == {100: ACCESS}


def test_a_bridge_that_filters_no_vlans_does_from_now_on(node: Node) -> None:
    [plain] = pods(node, network(*DUAL), "a")
    assert link(node, "cni0")["linkinfo"]["info_data"]["vlan_filtering"] == 0
    [pod] = pods(node, network(*DUAL, vlan=100, preserveDefaultVlan=False), "b")
    assert link(node, "cni0")["linkinfo"]["info_data"]["vlan_filtering"] == 1
    assert reach(plain, pod, 1) == (False, False)


# Trunks


def test_trunk(node: Node) -> None:
    config = network(vlanTrunk=[{"minID": 10, "maxID": 12}, {"id": 20}], preserveDefaultVlan=False)
    first, second = pods(node, config, "a", "b")
    assert port_vlans(node, first.host) == {vlan: TAGGED for vlan in (10, 11, 12, 20)}
    for vlan in (10, 30):
        tagged(first, vlan, f"192.0.2.{vlan}/28")
        tagged(second, vlan, f"192.0.2.{vlan + 1}/28")
    assert first.ping("192.0.2.11") and not first.ping("192.0.2.31", 1)
    assert first.check().ok() is None
    node.run("bridge", "vlan", "delete", "vid", "11", "dev", first.host)
    assert "[11]" in first.check().error(CHECK_FAILED)


def test_an_untagged_vlan_beside_a_trunk(node: Node) -> None:
    trunk = [{"id": 20}, {"minID": 1, "maxID": 2}]
    [pod] = pods(node, network(vlan=100, vlanTrunk=trunk, preserveDefaultVlan=False), "a")
    assert port_vlans(node, pod.host) == {1: TAGGED, 2: TAGGED, 20: TAGGED, 100: ACCESS}


# The gateway's own port


def test_the_gateway_has_a_port_of_its_own_in_the_vlan(node: Node) -> None:
    """The result names it last, as the reference plugin's does; the second ADD finds the very same one."""
    beyond = outside(node)
    first, second = pods(node, gateway(*DUAL, vlan=100, preserveDefaultVlan=False, mtu=1400), "a", "b")
    shown = link(node, "cni0.100")
    assert {GATEWAY4 + "/24", GATEWAY6 + "/64"} <= addresses(node, "cni0.100").keys()
    assert not {GATEWAY4 + "/24", GATEWAY6 + "/64"} & addresses(node, "cni0").keys()
    assert port_vlans(node, shown["link"]) == {100: ACCESS}
    assert first.result["interfaces"][3] == {"name": "cni0.100", "mac": shown["address"], "mtu": 1400}
    assert (second.result["interfaces"][3], shown["mtu"]) == (first.result["interfaces"][3], 1400)
    assert [first.ping(address) for address in (GATEWAY4, GATEWAY6, *OUTSIDE.values())] == [True] * 4
    assert ping(node, second.address(6), beyond) and reach(second, first) == (True, True)
    assert second.check().ok() is None
    for pod in (first, second):
        pod.delete()
    assert veths(node) == {"cni0.100", shown["link"]} and leases(node) == set()


def test_the_gateways_port_takes_nothing_from_its_containers(node: Node) -> None:
    pods(node, gateway(DUAL[1], vlan=100), "a")
    ends = "cni0.100", link(node, "cni0.100")["link"]
    assert [sysctl(node, f"ipv6/conf/{end}/disable_ipv6") for end in ends] == ["1", "1"]
    [later] = pods(node, gateway(*DUAL, vlan=100), "b")
    assert [sysctl(node, f"ipv6/conf/{end}/disable_ipv6") for end in ends] == ["0", "1"]
    settings = [sysctl(node, f"ipv6/conf/cni0.100/{key}") for key in ("accept_ra", "autoconf", "accept_dad")]
    assert settings == ["0", "0", "0"]
    assert later.ping(GATEWAY6)


def test_a_gateways_port_that_was_cut_off_half_way_is_finished(node: Node) -> None:
    [first] = pods(node, gateway(*DUAL, vlan=100), "a")
    node.run("ip", "link", "set", "cni0.100", "down")
    node.run("bridge", "vlan", "delete", "vid", "100", "dev", link(node, "cni0.100")["link"])
    [second] = pods(node, gateway(*DUAL, vlan=100), "b")
    assert second.ping(GATEWAY4) and second.ping(GATEWAY6)
    assert first.check().ok() is None


def test_the_gateways_interface_may_be_somebody_elses(node: Node) -> None:
    """An 8021q interface on the bridge, say: it gets the addresses, all else is its owner's."""
    node.run("ip", "link", "add", "cni0", "type", "bridge", "vlan_filtering", "1")
    node.run("bridge", "vlan", "add", "vid", "100", "dev", "cni0", "self")
    node.run("ip", "link", "add", "link", "cni0", "name", "cni0.100", "type", "vlan", "id", "100")
    node.run("ip", "link", "set", "cni0", "up")
    node.run("ip", "link", "set", "cni0.100", "up")
    [pod] = pods(node, gateway(*DUAL, vlan=100), "a")
    assert pod.ping(GATEWAY4) and pod.ping(GATEWAY6)
    assert veths(node) == {pod.host}


# Given back


def test_vlans_pass_a_bridge_again(node: Node, hosts: list[str]) -> None:  # noqa: F811 (the fixture)
    """What an administrator's hosts send each other in a VLAN that his bridge did not look at."""
    source = link(node, "eth0", hosts[0])["address"]
    is_given_back(node, hosts, ethernet(source, BROADCAST, EXPERIMENTAL, MARK, [(VLAN, 9)]), {"vlan": 7})
