"""Node and containers of an ipvlan reach each other (``hostAccess``), in a kernel that has ipvlans."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cni_v6 import errors
from tests.netns import networks
from tests.netns.networks import NODE_OUTSIDE, OUTSIDE, UPLINK, Pod
from tests.netns.test_macvlan import BEHIND, LEFT, router  # noqa: F401 (a fixture of it too)
from tests.sandbox import Node
from tests.uml.test_child_links import BEYOND, IPVLAN, ON_LINK, network, pod

# A kernel of their own, so that no kernel is kept for too long: it hands the parameter on, and nobody reads it.
pytestmark = [
    pytest.mark.uml(parameters="tests=host_access"), pytest.mark.timeout(400),
    pytest.mark.xdist_group("uml host access"),
]


@pytest.mark.parametrize("mode", ["l2", pytest.param("l3", marks=pytest.mark.crossed), "l3s"])
def test_node_and_container_reach_each_other(node: Node, router: str, mode: str) -> None:  # noqa: F811 (the fixture)
    """The node has an ipvlan of its own, which goes with the last container; the kernel needs no ARP there."""
    for gateway in OUTSIDE.values():
        node.run("ip", "route", "add", "default", "via", gateway, "dev", UPLINK)
    config = network(IPVLAN, mode=mode, ipam=ON_LINK if mode == "l2" else BEYOND, hostAccess=True)
    with node.unchanged(ignore=LEFT):
        made = pod(node, config, "a")
        made.add()
        assert loops(node, lambda: made.ping(NODE_OUTSIDE[4]) and made.ping(NODE_OUTSIDE[6])) == (mode != "l2")
        for family in (4, 6):
            assert networks.ping(node, made.address(family)) and made.ping(BEHIND[family])
        own = networks.link(node, str(made.result["interfaces"][1]["name"]))
        assert (own["linkinfo"]["info_data"]["mode"], "NOARP" in own["flags"]) == (mode, True)
        assert own["address"] == made.mac == networks.link(node, UPLINK)["address"]
        assert node.ip_json("neighbour", "show", "dev", own["ifname"], "nud", "permanent") == []
        made.check().ok()
        if mode == "l2":
            is_told_of_strict_filtering(node, made)
        made.delete(netns="")
        node.remove_container("a")


def is_told_of_strict_filtering(node: Node, made: Pod) -> None:
    """With strict reverse path filtering IPv4 stops, CHECK names the setting, and with that it starts again."""
    before = networks.sysctl(node, f"ipv4/conf/{UPLINK}/rp_filter")
    networks.set_sysctl(node, f"ipv4/conf/{UPLINK}/rp_filter", "1")
    words = "the node drops what containers send it over IPv4 (rp_filter 1): run sysctl -w"
    assert f"{words} net/ipv4/conf/{UPLINK}/rp_filter=2" in made.check().error(errors.CHECK_FAILED)
    assert made.ping(NODE_OUTSIDE[6]) and not made.ping(NODE_OUTSIDE[4], patience=1)
    networks.set_sysctl(node, f"ipv4/conf/{UPLINK}/rp_filter", "2")
    assert made.ping(NODE_OUTSIDE[4]) and networks.ping(node, made.address(4))
    networks.set_sysctl(node, f"ipv4/conf/{UPLINK}/rp_filter", before)


def loops(node: Node, work: Callable[[], bool]) -> bool:
    """Whether what is done for this passes the node's loopback interface."""
    def received() -> int:
        return int(node.ip_json("-statistics", "link", "show", "dev", "lo")[0]["stats64"]["rx"]["packets"])

    before = received()
    assert work()
    return received() > before
