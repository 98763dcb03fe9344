"""Node and containers of an ipvlan reach each other (``hostAccess``), in a kernel that has ipvlans."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cni_v6 import errors
from tests.netns import networks, nft
from tests.netns.networks import NODE_OUTSIDE, OUTSIDE, UPLINK, Pod
from tests.netns.test_macvlan import BEHIND, LEFT, router  # noqa: F401 (a fixture of it too)
from tests.sandbox import Node
from tests.uml.test_child_links import BEYOND, IPVLAN, ON_LINK, network, pod

# A kernel of their own, so that no kernel is kept for too long: it hands the parameter on, and nobody reads it.
pytestmark = [
    pytest.mark.uml(parameters="tests=host_access"), pytest.mark.timeout(700),
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


def sent(node: Node, ifname: str) -> int:
    """How many packets left by an interface of the node."""
    return int(node.ip_json("-statistics", "link", "show", "dev", ifname)[0]["stats64"]["tx"]["packets"])


# A packet that goes around leaves 60 times, until its hop limit of 64 ends. Besides, the interface may send some of its
# own meanwhile, such as reports of its groups (RFC 3810).
AROUND = 30


def test_a_packet_to_an_address_that_was_given_up_does_not_go_around(
    node: Node, router: str  # noqa: F811 (the fixture)
) -> None:
    """Nor what comes from outside for it, on a node that forwards; the other container is reached, by rules of the
    administrator too."""
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        networks.set_sysctl(node, key, "1")
    config = network(IPVLAN, mode="l2", ipam=ON_LINK, hostAccess=True)
    gone, stays = (pod(node, config, name) for name in "ab")
    for made in (gone, stays):
        made.add()
    own = str(gone.result["interfaces"][1]["name"])
    node.run("ip", "link", "delete", "eth0", netns=gone.netns)
    for family in (4, 6):
        address = gone.address(family)
        node.run("ip", "neighbour", "replace", address, "lladdr", gone.mac, "dev", "eth0", netns=router)
        for place in ("", router):
            before = sent(node, own)
            assert not networks.ping(node, address, place, patience=1)
            assert sent(node, own) - before < AROUND, f"what {place or 'the node'} sent to {address}"
        assert networks.ping(node, stays.address(family)) and stays.ping(NODE_OUTSIDE[family])
        assert networks.ping(node, stays.address(family), router)
    is_told_of_rules(node, stays)
    for made in (gone, stays):
        assert "iif" in node.run("ip", "rule", "show").stdout and "iif" in node.run("ip", "-6", "rule", "show").stdout
        made.delete()
    assert "iif" not in node.run("ip", "rule", "show").stdout + node.run("ip", "-6", "rule", "show").stdout


def is_told_of_rules(node: Node, made: Pod) -> None:
    """Without one of the rules CHECK fails, and ``check --repair`` makes all of them again, in their order."""
    before = [node.run("ip", *family, "rule", "show").stdout for family in ((), ("-6",))]
    for family in ((), ("-6",)):
        made.check().ok()
        node.run("ip", *family, "rule", "delete", "iif", UPLINK, "pref", "32765", "table", "main")
        assert f"what comes back by {UPLINK} are missing" in made.check().error(errors.CHECK_FAILED)
        assert nft.ctl(node, "check", "--repair", check=False).returncode == 0
    made.check().ok()
    assert [node.run("ip", *family, "rule", "show").stdout for family in ((), ("-6",))] == before


def test_the_masters_mac_changes(node: Node, router: str) -> None:  # noqa: F811 (the fixture)
    """The kernel gives it to all ipvlans, and they tell the link. Node and container do not reach each other until the
    container is attached again, and CHECK says so."""
    made = pod(node, network(IPVLAN, mode="l2", ipam=ON_LINK, hostAccess=True), "a")
    made.add()
    for family in (4, 6):
        assert made.ping(OUTSIDE[family]) and made.ping(NODE_OUTSIDE[family])
    node.run("ip", "link", "set", UPLINK, "address", "02:00:5e:00:53:77")
    found = {}
    for family in (4, 6):
        address, own = made.address(family), NODE_OUTSIDE[family]
        found[family] = (made.ping(OUTSIDE[family]), networks.ping(node, address, router),
                         made.ping(own, patience=1), networks.ping(node, address, patience=1))
    assert found == {4: (True, True, False, False), 6: (True, True, False, False)}
    assert "mac is" in made.check().error(errors.CHECK_FAILED)
    made.delete()
    made.add()
    for family in (4, 6):
        assert made.ping(NODE_OUTSIDE[family]) and networks.ping(node, made.address(family))
    made.check().ok()
