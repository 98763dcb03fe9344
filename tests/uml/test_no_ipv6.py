"""A node that was booted with ``ipv6.disable=1``: there is no IPv6 in its kernel, nor its sysctls."""

from __future__ import annotations

from pathlib import Path

import pytest

from cni_v6.errors import IPV6_DISABLED, NOT_AVAILABLE
from tests.netns import nft
from tests.netns.networks import DUAL, GATEWAY4, SUBNET4, Pod, leases, pods, veths
from tests.sandbox import Node
from tests.uml.networks import gateway, network

pytestmark = [
    pytest.mark.uml(parameters="ipv6.disable=1"), pytest.mark.timeout(700), pytest.mark.xdist_group("uml without ipv6")
]


def test_an_ipv4_network_works(node: Node) -> None:
    assert not Path("/proc/sys/net/ipv6").exists()
    first, second = pods(node, gateway(SUBNET4), "a", "b")
    assert first.ping(GATEWAY4) and first.ping(second.address(4))
    assert first.check().ok() is None
    assert first.call("STATUS").ok() is None
    first.delete()
    second.delete()


def test_a_network_with_ipv6_says_what_is_wrong(node: Node) -> None:
    pod = Pod(node, gateway(*DUAL), "a")
    assert "ipv6.disable=1" in pod.call("ADD").error(IPV6_DISABLED)
    assert "ipv6.disable=1" in pod.call("STATUS", network(*DUAL)).error(NOT_AVAILABLE)
    assert (node.ip_json("link", "show", "type", "bridge"), veths(node), leases(node)) == ([], set(), set())


def test_the_operators_commands_that_look(node: Node) -> None:
    [pod] = pods(node, gateway(SUBNET4), "a")
    assert pod.host in nft.ctl(node, "list").stdout
    assert "the node        yes: through cni0, on every port" in nft.ctl(node, "explain", pod.address(4)).stdout
    assert "network pods: the node has all that its containers need" in nft.ctl(node, "doctor", check=False).stdout
    pod.delete()
