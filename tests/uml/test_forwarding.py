"""IPv6 forwarding on a kernel that has no ``force_forwarding`` (before 6.17), and a node that lives on advertisements.

What holds for every kernel is ``tests/netns/test_forwarding.py``, some of it run here as well.
"""

from __future__ import annotations

import pytest

from tests.netns import networks
from tests.netns.networks import DUAL, UPLINK
from tests.netns.test_forwarding import (  # noqa: F401 (tests and fixtures of this module too)
    ROUTER,
    SECOND,
    default_routes,
    learn,
    router,
    test_its_containers_reach_the_world,
)
from tests.sandbox import Node
from tests.uml.networks import gateway

pytestmark = [pytest.mark.uml, pytest.mark.timeout(700), pytest.mark.xdist_group("uml")]


def test_the_node_keeps_its_route_and_goes_on_listening(node: Node, router: str) -> None:  # noqa: F811 (the fixture)
    assert not node.run("ls", "/proc/sys/net/ipv6/conf/default").stdout.count("force_forwarding")
    [pod] = networks.pods(node, gateway(*DUAL), "a")
    assert default_routes(node) == [(UPLINK, ROUTER, "ra")]
    forwarding = {name: networks.sysctl(node, f"ipv6/conf/{name}/forwarding") for name in ("all", UPLINK, "cni0")}
    assert forwarding == {"all": "1", UPLINK: "1", "cni0": "1"}
    assert {name: networks.sysctl(node, f"ipv6/conf/{name}/accept_ra") for name in (UPLINK, "default", "cni0")} == {
        UPLINK: "2", "default": "2", "cni0": "0"
    }
    learn(node, router, UPLINK, SECOND)
    assert pod.check().ok() is None


def test_an_interface_that_comes_later_listens_too(node: Node) -> None:
    """It starts with ``default``'s accept_ra, in a node that forwards already."""
    networks.pods(node, gateway(*DUAL), "a")
    netns = networks.uplink(node)
    learn(node, netns, UPLINK, SECOND)
