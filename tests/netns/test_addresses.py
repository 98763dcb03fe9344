"""Who gets which address: reserved, stable, random; and containers that are attached with the one family there is."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import networks, nft
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, NODE_OUTSIDE, SUBNET4, SUBNET6, Pod
from tests.sandbox import Node, Reply

OPEN = {"ingress": "open", "guard": False}
RESERVED = ["fd00:6::d00", "10.66.0.100"]
LAST = ("10.66.0.0/30",)  # an IPv4 set for one container


def handing_out(*subnets: str, **ipam: Any) -> dict[str, Any]:
    """A network of any main plugin; a macvlan has no rules on the node."""
    keys = {} if networks.main.get() == networks.MACVLAN else OPEN
    return networks.gateway(*(subnets or DUAL), ipam=ipam, **keys)


def answers(pod: Pod, *gateways: str) -> bool:
    """Whether the node answers at these addresses; it is no part of a macvlan's network."""
    return networks.main.get() == networks.MACVLAN or all(map(pod.ping, gateways))


def workload(name: str, namespace: str = "") -> dict[str, Any]:
    """What a runtime says of it."""
    spaced = f"K8S_POD_NAMESPACE={namespace};" if namespace else ""
    return {"args": f"IgnoreUnknown=1;{spaced}K8S_POD_NAME={name}"}


def addresses(pod: Pod) -> list[str]:
    return [pod.address(6), pod.address(4)]


# Reservations


@pytest.mark.parametrize("plugin", ["cni-v6", "cni-v6-ipam"])
def test_what_is_reserved_is_its_workloads_alone(node: Node, plugin: str) -> None:
    """Not even where it is the next, the last, or asked for; a container that had it before keeps it."""
    ranges = [[{"subnet": SUBNET6}], [{"subnet": "10.66.0.0/29", "rangeEnd": "10.66.0.4"}]]
    config = handing_out(ranges=ranges, reserve={"shop/db": ["fd00:6::2", "10.66.0.3"], "proxy": "10.66.0.4"})

    def call(command: str, name: str, sent: dict[str, Any] = config, **variables: str) -> Reply:
        netns = node.containers.get(name) or node.container(name)
        return node.plugin(plugin, command, sent, container_id=name, ifname="eth0", netns=netns, **variables)

    def given(name: str, **variables: Any) -> list[str]:
        return [ip["address"].partition("/")[0] for ip in call("ADD", name, **variables).ok()["ips"]]

    assert given("a") == ["fd00:6::3", "10.66.0.2"]
    assert "1 in all, 1 taken" in call("ADD", "b").error(errors.ADDRESSES_EXHAUSTED)
    told = call("ADD", "b", args="IP=10.66.0.4").error(errors.ADDRESS_UNAVAILABLE)
    assert '10.66.0.4 is reserved: ipam.reserve["proxy"]' in told
    assert given("b", **workload("db", "shop")) == ["fd00:6::2", "10.66.0.3"]
    assert "held by b eth0" in call("ADD", "c", **workload("db", "shop")).error(errors.ADDRESS_UNAVAILABLE)
    assert given("c", **workload("proxy"))[1] == "10.66.0.4"
    call("DEL", "b").ok()
    assert "fd00:6::2 is reserved" in call("ADD", "d", args="IP=fd00:6::2").error(errors.ADDRESS_UNAVAILABLE)
    assert given("d", **workload("db", "shop")) == ["fd00:6::2", "10.66.0.3"]
    for name in "acd":
        call("DEL", name).ok()
    assert networks.leases(node) == set()


@pytest.mark.usefixtures("any_plugin")
def test_a_reservation_that_was_edited_since(node: Node) -> None:
    """CHECK and DEL of whoever had the address before, and its reservation's first ADD after them."""
    [before] = networks.pods(node, handing_out(), "a")
    config = handing_out(reserve={"shop/db": addresses(before)})
    assert before.check(config).ok() is None
    waiting = Pod(node, config, "b")
    assert "held by a eth0" in waiting.call("ADD", **workload("db", "shop")).error(errors.ADDRESS_UNAVAILABLE)
    before.delete(config)
    waiting.add(**workload("db", "shop"))
    assert addresses(waiting) == addresses(before)
    changed = handing_out(reserve={"shop/web": addresses(before)})
    assert waiting.check(changed).ok() is None
    waiting.delete(changed)
    assert networks.leases(node) == set()


@pytest.mark.usefixtures("any_plugin")
def test_an_engine_tells_workloads_apart(node: Node) -> None:
    """The same bytes on standard input, from two workloads and back."""
    config = handing_out(reserve={"shop/db": RESERVED})
    made = {}
    for name, who in (("a", "web"), ("b", "db"), ("c", "web")):
        made[name] = Pod(node, config, name)
        made[name].add(**workload(who, "shop"))
    assert addresses(made["b"]) == RESERVED
    assert made["a"].ping(RESERVED[0]) and made["c"].ping(RESERVED[1])
    assert addresses(made["c"]) == ["fd00:6::3", "10.66.0.3"]


# Stable


@pytest.mark.usefixtures("any_plugin")
def test_a_workload_has_its_address_again(node: Node) -> None:
    config = handing_out(allocation="stable")
    found = []
    for name, who in (("a", "db"), ("b", "web"), ("c", "db"), ("d", "web")):
        pod = Pod(node, config, name)
        pod.add(**workload(who, "shop"))
        found.append(addresses(pod))
        assert answers(pod, GATEWAY6, GATEWAY4) and pod.check().ok() is None
        pod.delete()
    assert found[0] == found[2] and found[1] == found[3] and found[0] != found[1]
    assert not set(found[0]) & set(found[1])
    assert IPv6Address(found[0][0]) > IPv6Address("fd00:6::1:0:0")


@pytest.mark.usefixtures("any_plugin")
def test_two_at_once_and_two_interfaces_have_addresses_of_their_own(node: Node) -> None:
    config = handing_out(allocation="stable")
    pods = [Pod(node, config, name) for name in "ab"] + [Pod(node, config, "a", "net1")]
    for pod in pods:
        pod.add(**workload("db", "shop"))
    assert len({address for pod in pods for address in addresses(pod)}) == 6


def test_nodes_with_the_same_secret_give_the_same_address(node: Node) -> None:
    """Which of the node's networks it is, and what its store knows, does not matter."""
    secret = node.file("/var/lib/cni/secret")
    secret.write_text("0123456789abcdef\n")
    first, second = (
        handing_out(allocation="stable", secretFile="/var/lib/cni/secret", dataDir=f"/var/lib/cni/{folder}")
        for folder in ("one", "two")
    )
    found = []
    for config in (first, second):
        pod = Pod(node, config, "a")
        pod.add(**workload("db", "shop"))
        found.append(addresses(pod))
        pod.delete()
    assert found[0] == found[1]
    secret.write_text("short\n")
    told = Pod(node, first, "a").call("ADD")
    assert "has 5 bytes, fewer than 16" in told.error(errors.IO_FAILURE) and "short" not in told.stderr


# Random


@pytest.mark.usefixtures("any_plugin")
def test_random_addresses_are_in_no_order_and_come_once(node: Node) -> None:
    config = handing_out(SUBNET6, allocation="random")
    pod = Pod(node, config, "a")
    found = []
    for _ in range(12):
        pod.add()
        found.append(IPv6Address(pod.address(6)))
        assert answers(pod, GATEWAY6)
        pod.delete()
    assert len(set(found)) == len(found)
    assert found != sorted(found) and found != sorted(found, reverse=True)
    spread = {int(address) >> 60 & 0xF for address in found}
    assert len(spread) > 1, "all of one sixteenth of the /64"


# Reuse


@pytest.mark.usefixtures("any_plugin")
def test_never_is_never(node: Node) -> None:
    """A set of two addresses is through after two ADDs, whoever has gone since."""
    config = handing_out("10.66.0.0/29", exclude=["10.66.0.4/30"], reuse="never")
    pod = Pod(node, config, "a")
    assert given(pod, 2) == ["10.66.0.2", "10.66.0.3"]
    pod.call("ADD").error(errors.ADDRESSES_EXHAUSTED)
    assert "rest spent" in node.plugin(config["type"], "STATUS", config).error(errors.NOT_AVAILABLE)


@pytest.mark.usefixtures("any_plugin")
def test_a_rest_that_gives_way_is_said(node: Node) -> None:
    pod = Pod(node, handing_out("10.66.0.0/30", reuseAfter="7d"), "a")
    pod.add()
    pod.delete()
    told = pod.call("ADD")
    assert told.ok()["ips"][0]["address"].partition("/")[0] == "10.66.0.2"
    assert "warning: 10.66.0.2 was released" in told.stderr


def given(pod: Pod, times: int) -> list[str]:
    """The addresses of some ADDs, each with its DEL."""
    found = []
    for _ in range(times):
        found.append(pod.add()["ips"][0]["address"].partition("/")[0])
        pod.delete()
    return found


# One family


def only(family: int, *subnets: str, **keys: Any) -> dict[str, Any]:
    return networks.gateway(*(subnets or DUAL), ipam={"required": [f"ipv{family}"]}, **keys)


def families(result: Any) -> Sequence[int]:
    return [6 if ":" in ip["address"] else 4 for ip in result["ips"]]


def test_a_dual_stack_network_on_a_node_with_ipv6_off(node: Node) -> None:
    networks.set_sysctl(node, "ipv6/conf/all/disable_ipv6", "1")
    config = only(4)
    a, b = (Pod(node, config, name) for name in "ab")
    told = a.call("ADD")
    a.result, b.result = told.ok(), b.add()
    assert "warning: attached without IPv6" in told.stderr and "IPv6 is off on this node" in told.stderr
    assert families(a.result) == [4] and {route["dst"] for route in a.result["routes"]} == {"0.0.0.0/0"}
    assert a.ping(GATEWAY4) and a.ping(b.address(4))
    assert [entry["family"] for entry in a.link()["addr_info"]] == ["inet"]
    assert networks.leases(node) == {"10.66.0.2", "10.66.0.3"}
    assert a.check().ok() is None
    assert node.plugin("cni-v6", "STATUS", config).ok() is None
    assert "IPv6 is off" in Pod(node, networks.gateway(*DUAL), "c").call("ADD").error(errors.IPV6_DISABLED)
    networks.set_sysctl(node, "ipv6/conf/all/disable_ipv6", "0")
    both = Pod(node, config, "c")
    assert families(both.add()) == [6, 4] and both.address(6) == "fd00:6::2", "none was spent before"
    assert both.ping(GATEWAY6) and both.ping(a.address(4))
    for pod in (a, b, both):
        pod.delete()
    assert networks.leases(node) == set()


def test_an_exhausted_ipv4_set(node: Node) -> None:
    """Beside it IPv6 goes on, ports and all; when there is room again, the next container has both."""
    ports = {"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": NODE_OUTSIDE[4]},
        {"hostPort": 8082, "containerPort": 80, "protocol": "tcp", "hostIP": NODE_OUTSIDE[6]},
    ]}
    config = only(6, SUBNET6, *LAST)
    [first] = networks.pods(node, config, "a")
    pod = Pod(node, {**config, "runtimeConfig": ports, "capabilities": {"portMappings": True}}, "b")
    told = pod.call("ADD")
    pod.result = told.ok()
    assert "warning: attached without IPv4" in told.stderr and "1 in all, 1 taken" in told.stderr
    assert families(pod.result) == [6] and pod.ping(GATEWAY6) and pod.ping(first.address(6))
    assert pod.check().ok() is None and first.check().ok() is None
    assert node.plugin("cni-v6", "STATUS", config).ok() is None
    assert "is exhausted" in node.plugin("cni-v6", "STATUS", only(4, SUBNET6, *LAST)).error(errors.NOT_AVAILABLE)
    listed = nft.text(node)
    assert "8080" in listed and "8082" in listed and "8081" not in listed
    first.delete()
    both = Pod(node, config, "c")
    assert families(both.add()) == [6, 4] and IPv4Address(both.address(4)) == IPv4Address("10.66.0.2")
    for each in (pod, both):
        each.delete()
    assert networks.leases(node) == set()


def test_half_a_family_is_none(node: Node) -> None:
    config = only(6, *LAST, SUBNET6, "10.67.0.0/24")
    [first] = networks.pods(node, config, "a")
    assert families(first.result) == [4, 6, 4]
    held = networks.leases(node)
    [second] = networks.pods(node, config, "b")
    assert families(second.result) == [6] and networks.leases(node) - held == {second.address(6)}
    assert second.check().ok() is None


def test_ipam_alone(node: Node) -> None:
    config = networks.network(SUBNET6, *LAST, ipam={"required": ["ipv6"]})

    def call(command: str, name: str, sent: dict[str, Any] = config) -> Reply:
        netns = node.containers.get(name) or node.container(name)
        return node.plugin("cni-v6-ipam", command, sent, container_id=name, ifname="eth0", netns=netns)

    assert families(call("ADD", "a").ok()) == [6, 4]
    told = call("ADD", "b")
    assert families(told.ok()) == [6] and "warning: attached without IPv4" in told.stderr
    assert call("CHECK", "b", {**config, "prevResult": told.stdout}).ok() is None
    call("DEL", "b").ok()


@pytest.mark.usefixtures("any_plugin")
def test_a_subnet_is_what_is_left_of(node: Node) -> None:
    """A reservation of the last address that is free is an error, before there is a container."""
    config = handing_out("10.66.0.0/30", reserve={"a": "10.66.0.2"})
    with node.unchanged(ignore="container x"):
        told = Pod(node, config, "x").call("ADD").error(errors.INVALID_CONFIG)
    assert f"ipam.reserve leaves no address of the set of ipam.ranges[0][0]: {SUBNET4[:-2]}30" in told
