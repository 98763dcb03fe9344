"""The loopback plugin, as a runtime calls it for every container before its networks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox import Node

pytestmark = pytest.mark.both_ways
CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "cni-loopback", "type": "loopback"}


def call(node: Node, command: str, netns: str, **more: Any) -> Any:
    return node.plugin("loopback", command, {**CONFIG, **more}, container_id="a", ifname="lo", netns=netns)


def is_up(node: Node, netns: str) -> bool:
    return "LOWER_UP" in node.run("ip", "-brief", "link", "show", "dev", "lo", netns=netns).stdout


def test_it_comes_up_with_its_addresses_and_goes_down(node: Node) -> None:
    netns = node.container("a")
    node.run("ip", "link", "set", "lo", "down", netns=netns)
    with node.unchanged():
        result = call(node, "ADD", netns).ok()
        assert is_up(node, netns)
        [interface] = result["interfaces"]
        assert (interface["name"], interface["sandbox"]) == ("lo", netns)
        assert {ip["address"] for ip in result["ips"]} == {"127.0.0.1/8", "::1/128"}
        assert {ip["interface"] for ip in result["ips"]} == {0}
        node.run("ping", "-6", "-n", "-c", "1", "-W", "10", "::1", netns=netns)
        call(node, "CHECK", netns, prevResult=result).ok()
        for _ in range(2):
            call(node, "DEL", netns, prevResult=result).ok()
        assert not is_up(node, netns)
        assert "interface lo of the container is down" in call(node, "CHECK", netns, prevResult=result).error(104)


def test_a_namespace_that_is_gone_is_no_failure(node: Node) -> None:
    with node.unchanged():
        call(node, "DEL", "/run/netns/gone").ok()
        node.plugin("loopback", "DEL", CONFIG, container_id="a", ifname="lo").ok()
        call(node, "ADD", "/run/netns/gone").error(3)
