"""One container on two networks, as Multus attaches it: each result says what the container has."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns import networks, traffic
from tests.netns.networks import DUAL, NODE_OUTSIDE, SUBNET4, Pod
from tests.sandbox import Node

SECOND = ("fd00:7::/64", "10.67.0.0/24")
PORTS = {"capabilities": {"portMappings": True},
         "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}


def both(node: Node, first: dict[str, Any], second: dict[str, Any]) -> tuple[Pod, Pod]:
    return Pod(node, first, "web"), Pod(node, second, "web", "net1")


def second_network(*subnets: str, **keys: Any) -> dict[str, Any]:
    return networks.gateway(*subnets, name="others", bridge="cni1", **keys)


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_the_second_default_route_stands_beside_the_first(node: Node, version: str) -> None:
    one, two = both(
        node, networks.gateway(*DUAL, cniVersion=version), second_network(*SECOND, cniVersion=version)
    )
    one.add()
    reply = two.call("ADD")
    two.result = reply.ok()
    for pod, metrics in ((one, {0, 1024}), (two, {1, 1025})):
        found = {(route["dst"], route["gateway"], route.get("metric", 0)) for route in pod.routes()}
        assert {metric for _, _, metric in found} == metrics
        told = {(route["dst"], route.get("gw")) for route in pod.result["routes"]}
        assert told == {("::/0" if ":" in hop else "0.0.0.0/0", hop) for _, hop, _ in found}
        pod.check().ok()
        if version == "1.1.0":
            assert {route.get("priority") for route in two.result["routes"]} == {1, 1025}
    for dst in ("0.0.0.0/0", "::/0"):
        assert f"warning: route {dst} via " in reply.stderr
    one.delete()
    two.check().ok()
    assert two.ping(SECOND[1].replace("0/24", "1")), "by the route that is left"


def test_a_route_whose_metric_is_taken_is_left_out(node: Node) -> None:
    routes = {"routes": [{"dst": "10.9.0.0/16", "priority": 7}]}
    first = networks.network(SUBNET4, isGateway=True, ipam=routes)
    one, two = both(node, first, networks.network(SECOND[1], isGateway=True, name="others", bridge="cni1", ipam=routes))
    one.add()
    reply = two.call("ADD")
    two.result = reply.ok()
    assert "routes" not in two.result and two.routes() == []
    assert "warning: route 10.9.0.0/16 is left out" in reply.stderr
    for pod in (one, two):
        pod.check().ok()


def test_a_port_that_both_are_to_publish_is_the_firsts(node: Node) -> None:
    outside = networks.outside(node)
    one, two = both(node, networks.gateway(SUBNET4, **PORTS), second_network(*SECOND, **PORTS))
    one.add()
    reply = two.call("ADD")
    two.result = reply.ok()
    assert "warning: port tcp/8080 is left out: interface eth0 of this container publishes it" in reply.stderr
    with traffic.serving(one.netns, 80):
        for family in (4, 6):  # the second network is the only one with IPv6
            assert traffic.answering(outside, NODE_OUTSIDE[family], [8080]) == {8080}, f"IPv{family}"
        for pod in (one, two):
            pod.check().ok()
        two.delete()
        assert traffic.answering(outside, NODE_OUTSIDE[4], [8080]) == {8080}, "it is the first one's still"
        assert traffic.answering(outside, NODE_OUTSIDE[6], [8080]) == set()
    one.delete()


def test_what_came_in_goes_out(node: Node) -> None:
    """A plugin before ours made another interface; CHECK gets the result of both."""
    pod = Pod(node, networks.gateway(*DUAL), "a")
    node.run("ip", "link", "add", "lan0", "address", "02:00:00:00:00:05", "type", "bridge", netns=pod.netns)
    node.run("ip", "address", "add", "192.0.2.9/24", "dev", "lan0", netns=pod.netns)
    node.run("ip", "link", "set", "lan0", "up", netns=pod.netns)
    node.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1", "dev", "lan0", netns=pod.netns)
    earlier = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lan0", "mac": "02:00:00:00:00:05", "sandbox": pod.netns}],
        "ips": [{"interface": 0, "address": "192.0.2.9/24", "gateway": "192.0.2.1"}],
        "routes": [{"dst": "198.51.100.0/24"}],
    }
    result = pod.add({**pod.config, "prevResult": earlier})
    assert [known["name"] for known in result["interfaces"]] == ["lan0", "cni0", pod.result["interfaces"][2]["name"],
                                                                 "eth0"]
    assert result["ips"][0] == earlier["ips"][0]
    assert [ip["interface"] for ip in result["ips"]] == [0, 3, 3]
    assert [route["dst"] for route in result["routes"]][0] == "198.51.100.0/24"
    pod.check().ok()
    node.run("ip", "route", "del", "198.51.100.0/24", netns=pod.netns)
    assert "route 198.51.100.0/24 via 10.66.0.1 or 192.0.2.1 is missing" in pod.check().error(104)
    pod.delete()
