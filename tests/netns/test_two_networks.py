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


# Published ports of each network


ENGINE = pytest.mark.parametrize("node", ["engine"], indirect=True)  # the rules are the same in every way in
SECOND_PORT = {"capabilities": {"portMappings": True},
               "runtimeConfig": {"portMappings": [{"hostPort": 9090, "containerPort": 80, "protocol": "tcp"}]}}


def rules(pod: Pod) -> set[tuple[str, str]]:
    """(source, table) of each rule of the container's namespace that has a source."""
    found = (rule for family in ("-4", "-6") for rule in pod.node.ip_json(family, "rule", "show", netns=pod.netns))
    return {(rule["src"], rule["table"]) for rule in found if rule["src"] != "all"}


def of_table(pod: Pod, table: str) -> set[tuple[str, str]]:
    """(destination, next hop) of each route of a table."""
    shown = [route for family in ("-4", "-6")
             for route in pod.node.ip_json(family, "route", "show", "table", table, netns=pod.netns)]
    return {(route["dst"], route.get("gateway") or route.get("via", {}).get("host", "")) for route in shown}


@ENGINE
@pytest.mark.parametrize("first_gone", [pytest.param("eth0", marks=pytest.mark.slow), "net1"])
def test_published_ports_of_both_networks_answer(node: Node, main_plugin: str, first_gone: str) -> None:
    outside = networks.outside(node)
    first, second = networks.gateway(*DUAL, **PORTS), second_network(*SECOND, **SECOND_PORT)
    for config in (first, second):  # what belongs to the networks stays
        networks.set_up(node, config)
    one, two = both(node, first, second)
    with node.unchanged(ignore=networks.TABLES):
        one.add()
        assert rules(one) == set(), "it has the default route"
        two.add()
        [table] = {table for _, table in rules(two)}
        assert rules(two) == {(two.address(family), table) for family in (4, 6)}
        assert {dst for dst, _ in of_table(two, table)} >= {"default"}
        with traffic.serving(one.netns, 80):
            for family in (4, 6):
                assert traffic.answering(outside, NODE_OUTSIDE[family], [8080, 9090]) == {8080, 9090}, f"IPv{family}"
            for pod in (one, two):
                pod.check().ok()
            left = [pod for pod in (one, two) if pod.ifname != first_gone][0]
            for pod in (one, two):
                if pod is not left:
                    pod.delete()
            port = 8080 if left is one else 9090
            for family in (4, 6):
                assert traffic.answering(outside, NODE_OUTSIDE[family], [8080, 9090]) == {port}, f"IPv{family}"
            left.check().ok()
        left.delete()
        assert rules(one) == set() and of_table(one, table) == set()


@ENGINE
def test_what_check_says_of_rules_and_their_table(node: Node) -> None:
    config = second_network(*SECOND, sourceBasedRouting=True)
    pod = Pod(node, config, "web", "net1")
    pod.add()
    [table] = {table for _, table in rules(pod)}
    assert rules(pod) == {(pod.address(family), table) for family in (4, 6)}
    pod.check().ok()
    node.run("ip", "-6", "rule", "del", "from", pod.address(6), "lookup", table, netns=pod.netns)
    node.run("ip", "route", "del", "default", "table", table, netns=pod.netns)
    said = pod.check().error(104)
    assert f"rule from {pod.address(6)}/128 to table {table} is missing" in said
    assert f"route 0.0.0.0/0 of table {table} is missing" in said
    pod.delete()
    assert rules(pod) == set()


@ENGINE
@pytest.mark.parametrize("how", ["DEL", "GC"])
def test_rules_go_without_a_namespace_of_the_call(node: Node, any_plugin: str, how: str) -> None:
    """A rule stays in the kernel when the interface goes, so it is removed by what the record says."""
    config = second_network(*SECOND, sourceBasedRouting=True)
    pod = Pod(node, config, "web", "net1")
    pod.add()
    assert len(rules(pod)) == 2
    if how == "DEL":
        pod.delete(netns="")
    else:
        node.plugin(config["type"], "GC", {**config, "cni.dev/valid-attachments": []}).ok()
    assert rules(pod) == set()


@ENGINE
@pytest.mark.slow
def test_a_macvlan_answers_who_is_beyond_its_router(node: Node) -> None:
    outside = networks.outside(node)
    beyond = {4: "198.51.100.9/32", 6: "2001:db8:9::9/128"}
    for address in beyond.values():
        node.run("ip", "address", "add", address, "dev", "lo", netns=outside)
    ranges = [[{"subnet": subnet, "gateway": networks.OUTSIDE[family], "rangeStart": start}]
              for family, subnet, start in (
                  (6, "2001:db8:ffff::/64", "2001:db8:ffff::9"), (4, "192.0.2.0/24", "192.0.2.9"))]
    lan = {"cniVersion": "1.1.0", "name": "lan", "type": networks.MACVLAN, "master": networks.UPLINK,
           "sourceBasedRouting": True, "ipam": {"type": "cni-v6-ipam", "ranges": ranges}}
    one, two = both(node, networks.gateway(*DUAL), lan)
    for pod in (one, two):
        pod.add()
    for family in (4, 6):
        source = beyond[family].partition("/")[0]
        done = node.run("ping", "-c1", f"-W{networks.PATIENCE}", "-I", source, two.address(family), netns=outside)
        assert done.returncode == 0
    for pod in (one, two):
        pod.check().ok()
        pod.delete()


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
