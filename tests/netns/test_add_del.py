"""ADD and DEL through the executables: containers reach what they should, and nothing of them outlives their DEL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.netns import networks, wire
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, SUBNET4, SUBNET6, Pod
from tests.sandbox import Node

pytestmark = pytest.mark.every_way

GATEWAYS = {4: GATEWAY4, 6: GATEWAY6}
FAMILIES = [
    pytest.param(DUAL, id="dual-stack"),
    pytest.param((SUBNET6,), id="IPv6-only"),
    pytest.param((SUBNET4,), id="IPv4-only"),
]
WITH_LAYER_2 = [*FAMILIES, pytest.param((), id="layer-2")]
ENDS = ("with its namespace", "without a namespace", "after its namespace")
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


@pytest.mark.both_ways
@pytest.mark.parametrize("subnets", FAMILIES)
@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_containers_reach_each_other_and_the_gateway(node: Node, subnets: Sequence[str]) -> None:
    first, second = networks.pods(node, networks.gateway(*subnets), "a", "b")
    for family in networks.families(subnets):
        assert first.ping(GATEWAYS[family]) and (not first.gateway(family) or first.ping(first.gateway(family)))
        assert first.ping(second.address(family)) and second.ping(first.address(family))


@pytest.mark.both_ways
@pytest.mark.parametrize("subnets", FAMILIES)
@pytest.mark.usefixtures("main_plugin")
def test_a_host_beyond_the_node_and_a_container_reach_each_other(node: Node, subnets: Sequence[str]) -> None:
    beyond = networks.outside(node)
    [pod] = networks.pods(node, networks.gateway(*subnets), "a")
    for family in networks.families(subnets):
        assert networks.ping(node, pod.address(family), beyond)
        assert pod.ping(networks.OUTSIDE[family])


@pytest.mark.slow
@pytest.mark.both_ways
def test_after_the_first_add_the_node_sends_through_the_bridge(node: Node) -> None:
    """A bridge without ports has no carrier, and the kernel drops what goes out there until it has seen one. Often
    enough that it would be seen: it was so after one ADD in four."""
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    pod = Pod(node, config, "a")
    for _ in range(12):
        pod.add()
        assert networks.link(node, "cni0")["operstate"] == "UP"
        pod.delete()


@pytest.mark.parametrize("end", ENDS)
def test_after_del_the_node_is_as_before_on_layer_2(node: Node, end: str) -> None:
    come_and_gone(node, (), end)


@pytest.mark.parametrize("subnets", FAMILIES)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.usefixtures("any_plugin")
def test_after_del_the_node_is_as_before(node: Node, subnets: Sequence[str], end: str) -> None:
    come_and_gone(node, subnets, end)


def come_and_gone(node: Node, subnets: Sequence[str], end: str) -> None:
    """A container beside another one, which leaves nothing.

    :param end: what DEL finds of it.
    """
    config = networks.gateway(*subnets)
    networks.set_up(node, config)
    other = Pod(node, config, "stays")
    other.add()
    with node.unchanged():
        pod = Pod(node, config, "a")
        pod.add()
        if end == "after its namespace":
            node.remove_container("a")
        netns = "" if end == "without a namespace" else pod.netns
        pod.delete(netns=netns)
        pod.delete(netns=netns)
        if end != "after its namespace":
            assert networks.veths(node, pod.netns) == set()
            node.remove_container("a")
    assert other.check().ok() is None


@pytest.mark.parametrize("subnets", WITH_LAYER_2)
def test_the_first_container_brings_the_bridge_and_forwarding_and_nothing_else(
    node: Node, subnets: Sequence[str]
) -> None:
    networks.outside(node)
    # net/ipv4/devinet.c, inet_forward_change: with ip_forward the kernel sets the others.
    ipv4 = r"sysctl ipv4/(ip_forward|conf/\S+/forwarding|conf/all/accept_redirects) "
    own = rf"\bcni0\b|{ipv4}|sysctl ipv6/conf/\S+/force_forwarding|{networks.TABLES}|attachments/\.(seen|memo)"
    with node.unchanged(ignore=own):
        networks.set_up(node, networks.gateway(*subnets))
    assert networks.link(node, "cni0")["linkinfo"]["info_kind"] == "bridge"


@pytest.mark.usefixtures("any_plugin")
def test_del_of_what_never_was_is_fine(node: Node) -> None:
    with node.unchanged(ignore=r"attachments/\.seen"):
        Pod(node, networks.gateway(*DUAL), "a").delete()
        node.remove_container("a")


@pytest.mark.both_ways
@pytest.mark.usefixtures("any_plugin")
def test_del_needs_no_more_of_the_configuration_than_its_name(node: Node) -> None:
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    pod = Pod(node, config, "a")
    with node.unchanged():
        pod.add()
        edited = networks.network(bridge="other0", ipMasq="rubbish", isGatway=True)
        pod.delete({**edited, "ipam": {"type": "cni-v6-ipam", "ranges": 7}, "prevResult": "none"})
    assert networks.leases(node) == set()


@pytest.mark.both_ways
@pytest.mark.parametrize("subnets", FAMILIES)
@pytest.mark.usefixtures("main_plugin")
def test_the_answer_is_what_the_kernel_has(node: Node, subnets: Sequence[str]) -> None:
    [pod] = networks.pods(node, networks.gateway(*subnets), "a")
    seen = pod.link()
    *outer, inner = pod.result["interfaces"]
    assert inner == {"name": "eth0", "mac": seen["address"], "mtu": seen["mtu"], "sandbox": pod.netns}
    for interface in outer:
        found = networks.link(node, interface["name"])
        assert interface == {"name": found["ifname"], "mac": found["address"], "mtu": found["mtu"]}
    assert networks.link(node, pod.host).get("master", pod.host) == pod.home
    has = networks.addresses(node, "eth0", pod.netns)
    assert [ip["interface"] for ip in pod.result["ips"]] == [len(outer)] * len(subnets)
    assert {ip["address"] for ip in pod.result["ips"]} == {text for text in has if not text.startswith("fe80:")}
    hops = {route.get("gateway") for route in pod.routes() if route["dst"] == "default"}  # none where it is of IPv6
    assert {route.get("gw") for route in pod.result["routes"]} == hops


@pytest.mark.parametrize("subnets", FAMILIES)
@pytest.mark.usefixtures("main_plugin")
def test_no_address_is_tentative_when_add_returns(node: Node, subnets: Sequence[str]) -> None:
    [pod] = networks.pods(node, networks.gateway(*subnets), "a")
    entries = {**networks.addresses(node, "eth0", pod.netns), **networks.addresses(node, pod.home)}
    own = {text: entry for text, entry in entries.items() if not text.startswith("fe80:")}
    assert own and not [text for text, entry in own.items() if entry.get("tentative")]
    assert all(entry.get("nodad") for text, entry in own.items() if text.startswith("fd00:"))
    if len(own) < len(entries):  # the kernel's link-local ones: no DAD either, but a work queue takes the flag off
        assert networks.sysctl(node, "ipv6/conf/eth0/accept_dad", pod.netns) == "0"
        assert pod.home == pod.host or networks.sysctl(node, "ipv6/conf/cni0/accept_dad") == "0"


@pytest.mark.usefixtures("main_plugin")
def test_an_ipv4_only_container_has_no_ipv6_at_all(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(SUBNET4), "a")
    assert networks.sysctl(node, "ipv6/conf/eth0/disable_ipv6", pod.netns) == "1"
    assert set(networks.addresses(node, "eth0", pod.netns)) == {pod.result["ips"][0]["address"]}
    assert node.run("ip", "-6", "route", "show", "dev", "eth0", netns=pod.netns).stdout == ""
    own = [GATEWAY4 + "/24"] if pod.home == "cni0" else []
    assert list(networks.addresses(node, pod.home)) == own, "nor has a bridge or a link that has only IPv4"


@pytest.mark.usefixtures("main_plugin")
def test_ipv6_that_a_runtime_has_turned_off_in_the_container_is_turned_on(node: Node) -> None:
    netns = node.container("a")
    for place in ("all", "default"):
        networks.set_sysctl(node, f"ipv6/conf/{place}/disable_ipv6", "1", netns)
    first, second = networks.pods(node, networks.gateway(*DUAL), "a", "b")
    assert second.ping(first.address(6)) and first.ping(GATEWAY6)
    assert "::1/128" in networks.addresses(node, "lo", netns)


def test_layer_2_leaves_addresses_to_the_containers(node: Node) -> None:
    first, second = networks.pods(node, networks.network(), "a", "b")
    assert "ips" not in first.result and "routes" not in first.result
    assert {text for pod in (first, second) for text in networks.addresses(node, "eth0", pod.netns)
            if not text.startswith("fe80:")} == set()
    for pod, address in ((first, "198.51.100.1/24"), (second, "198.51.100.2/24")):
        assert "UP" in pod.link()["flags"]
        node.run("ip", "address", "add", address, "dev", "eth0", netns=pod.netns)
    assert first.ping("198.51.100.2")


def test_a_router_on_the_segment_gives_a_container_nothing(node: Node) -> None:
    """It advertises from before ADD on, so its advertisements meet the interface at every moment of its life."""
    config = networks.gateway(*DUAL)
    [rogue] = networks.pods(node, {**config, "guard": False}, "rogue")
    victim = Pod(node, networks.network(), "listens")
    with wire.advertising(rogue.netns, "eth0", "2001:db8:bad::"):
        pod = Pod(node, config, "a")
        pod.add()
        with wire.packets(pod.netns, "eth0") as tap:
            wire.await_frames(tap, wire.is_router_advertisement, count=3)
        mine = {text for text in networks.addresses(node, "eth0", pod.netns) if not text.startswith("fe80:")}
        assert mine == {pod.address(6) + "/64", pod.address(4) + "/24"}
        assert [route["gateway"] for route in pod.routes() if route["dst"] == "default"] == [GATEWAY4, GATEWAY6]
        assert not any(text.startswith("2001:db8:bad:") for text in networks.addresses(node, "cni0"))
        # The advertisements are good ones: an interface that listens does take them.
        victim.add()
        wire.await_state(victim.netns, lambda: _slaac(node, victim), "an address by SLAAC")
    assert pod.check().ok() is None


def _slaac(node: Node, pod: Pod) -> bool:
    return any(text.startswith("2001:db8:bad:") for text in networks.addresses(node, "eth0", pod.netns))


def _addresses_of(result: Any, version: str) -> list[str]:
    if version in ("0.1.0", "0.2.0"):
        return [result["ip4"]["ip"], result["ip6"]["ip"]]
    return [ip["address"] for ip in result["ips"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.usefixtures("main_plugin")
def test_every_version_is_answered_in_its_own_shape(node: Node, version: str) -> None:
    config = networks.gateway(*DUAL, cniVersion=version)
    pod = Pod(node, config, "a")
    result = pod.add()
    assert result["cniVersion"] == version
    routed = networks.main.get() == networks.ROUTED
    expected = ["10.66.0.2/32", "fd00:6::2/128"] if routed else ["10.66.0.2/24", "fd00:6::2/64"]
    assert sorted(_addresses_of(result, version)) == expected
    assert ("interfaces" in result) == (version not in ("0.1.0", "0.2.0"))
    assert all(("version" in ip) == (version < "1.0.0") for ip in result.get("ips", ()))
    assert all(("mtu" in interface) == (version == "1.1.0") for interface in result.get("interfaces", ()))
    if version >= "0.4.0":
        assert pod.check().ok() is None
    pod.delete({**config, "prevResult": result})
    assert networks.leases(node) == set() and networks.veths(node) == set()


@pytest.mark.both_ways
@pytest.mark.usefixtures("any_plugin")
def test_a_second_add_is_refused_and_the_first_untouched(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    with node.unchanged():
        assert "DEL" in pod.call("ADD").error(107)
        assert "exists in the container" in pod.call("ADD", container_id="other").error(107)
    assert pod.check().ok() is None


def test_a_container_has_several_interfaces(node: Node) -> None:
    netns = node.container("a")
    one = Pod(node, networks.gateway(*DUAL), "a")
    two = Pod(node, networks.network(SUBNET6, SUBNET4, name="other", bridge="other0"), "a", ifname="net1")
    one.add()
    two.add()
    assert networks.veths(node, netns) == {"eth0", "net1"}
    one.delete()
    assert networks.veths(node, netns) == {"net1"} and two.check().ok() is None
    two.delete()
    assert networks.veths(node) == set() and networks.leases(node, "pods") == networks.leases(node, "other") == set()


@pytest.mark.usefixtures("any_plugin")
def test_addresses_outlive_a_link_that_goes_down(node: Node) -> None:
    """As IPv4's do: the kernel drops IPv6 addresses with the link unless ``keep_addr_on_down`` is set."""
    pod = Pod(node, networks.gateway(*DUAL), "a")
    pod.add()
    for state in ("down", "up"):
        node.run("ip", "link", "set", "eth0", state, netns=pod.netns)
    found = {each["local"] for each in node.ip_json("address", "show", "dev", "eth0", netns=pod.netns)[0]["addr_info"]}
    assert found >= {ip["address"].partition("/")[0] for ip in pod.result["ips"]}
