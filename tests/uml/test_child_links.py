"""Networks of ipvlans and vlans, which the running kernel may lack: the contract, packets, the reference's results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from tests.contract.kernels import KernelTestbed, linux_testbed
from tests.contract.test_child_links import (  # noqa: F401 (tests of this module too, with its testbed)
    test_a_master_has_macvlans_or_ipvlans,
    test_a_vlan_beside_an_ipvlan,
    test_a_vlan_of_a_master_has_one_interface,
    test_ipvlans_of_a_master_have_each_address_once,
    test_mac_and_mtu_of_a_vlan,
    test_one_is_made_down_in_its_namespace,
    test_one_is_undone,
    test_the_mode_of_ipvlans_is_their_masters,
    test_vlans_of_a_master_side_by_side,
    test_whether_an_ipvlan_resolves_neighbours,
)
from tests.contract.test_macvlan import WIRE
from tests.netns import networks, wire
from tests.netns.networks import OUTSIDE, SUBNET4, SUBNET6, UPLINK, Pod
from tests.netns.test_doctor import kinds_found
from tests.netns.test_macvlan import BEHIND, LEFT, LINK4, LINK6, ROUTES, router  # noqa: F401 (a fixture of it too)
from tests.sandbox import REFERENCE_PLUGINS, Node, need

# A kernel of their own, so that no kernel is kept for too long: it hands the parameter on, and nobody reads it.
pytestmark = [
    pytest.mark.uml(parameters="tests=child_links"), pytest.mark.timeout(700),
    pytest.mark.xdist_group("uml child links"),
]

IPVLAN, VLAN, ID = "cni-v6-ipvlan", "cni-v6-vlan", 5
TAGGED = f"eth0.{ID}"  # the router's interface in the VLAN


@pytest.fixture(scope="module")
def shared() -> Iterator[KernelTestbed]:
    with linux_testbed() as made:
        yield made


@pytest.fixture
def testbed(shared: KernelTestbed) -> Iterator[KernelTestbed]:
    """One node for all: what each made goes with the master."""
    yield shared
    shared.kernel.remove([ops.DeleteLink(HOST, WIRE)])


def ipam(*ranges: dict[str, Any]) -> dict[str, Any]:
    return {"type": "cni-v6-ipam", "ranges": [[part] for part in ranges], **ROUTES}


ON_LINK = ipam({"subnet": LINK6, "rangeStart": "2001:db8:ffff::c000", "gateway": "fe80::1"},
               {"subnet": LINK4, "rangeStart": "192.0.2.128", "gateway": OUTSIDE[4]})
BEYOND = ipam({"subnet": SUBNET6}, {"subnet": SUBNET4})  # the router has a route to these by way of the node


def network(kind: str, **keys: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"vlanId": ID} if kind == VLAN else {"mode": "l2"}
    return {"cniVersion": "1.1.0", "name": "pods", "type": kind, "master": UPLINK, "ipam": ON_LINK, **own, **keys}


def pod(node: Node, config: dict[str, Any], name: str, *, quick: bool = True) -> Pod:
    made = Pod(node, config, name)
    if quick:
        networks.set_sysctl(node, "ipv6/conf/default/dad_transmits", "0", made.netns)
    return made


def in_vlan(node: Node, netns: str) -> None:
    """Give the router's addresses to its interface in the VLAN: outside of that nobody is there."""
    node.run("ip", "link", "add", "link", "eth0", "name", TAGGED, "type", "vlan", "id", str(ID), netns=netns)
    networks.set_sysctl(node, f"ipv6/conf/{TAGGED}/accept_dad", "0", netns)
    node.run("ip", "address", "flush", "dev", "eth0", netns=netns)
    node.run("ip", "link", "set", TAGGED, "up", netns=netns)
    for address in (f"{OUTSIDE[4]}/24", f"{OUTSIDE[6]}/64", "fe80::1/64"):
        node.run("ip", "address", "add", address, "dev", TAGGED, netns=netns)


# ipvlan


def test_two_containers_of_an_ipvlan(node: Node, router: str) -> None:  # noqa: F811 (the fixture)
    """They reach each other and what is behind the router, and are reached from there, over both families."""
    config = network(IPVLAN)
    with node.unchanged(ignore=LEFT):
        first, second = (pod(node, config, name) for name in "ab")
        with wire.packets(router, "eth0") as tap:
            first.add()
            for family in (4, 6):
                wire.await_frames(tap, lambda frame: wire.announces(frame, first.address(family), first.mac))
        second.add()
        works(node, router, first, second)
        first.delete()
        second.delete(netns="")
        assert networks.leases(node) == set()
        for name in "ab":
            assert [each["ifname"] for each in node.ip_json("link", "show", netns=node.containers[name])] == ["lo"]
            node.remove_container(name)


def test_two_containers_in_a_mode_of_layer_3(node: Node, router: str) -> None:  # noqa: F811 (the fixture)
    """What they send leaves by the node's routes through the master, and the router has a route to the node."""
    for gateway in OUTSIDE.values():
        node.run("ip", "route", "add", "default", "via", gateway, "dev", UPLINK)
    first, second = (pod(node, network(IPVLAN, mode="l3s", ipam=BEYOND), name) for name in "ab")
    first.add()
    second.add()
    works(node, router, first, second)
    first.delete()
    second.delete()


def works(node: Node, beyond: str, first: Pod, second: Pod) -> None:
    """They have the master's MAC, and everybody reaches everybody; CHECK and STATUS agree."""
    config = first.config
    assert first.mac == second.mac == networks.link(node, UPLINK)["address"]
    info = first.link()["linkinfo"]
    assert (info["info_kind"], info["info_data"]["mode"]) == ("ipvlan", config["mode"])
    for family in (4, 6):
        assert first.ping(BEHIND[family]) and first.ping(second.address(family))
        assert networks.ping(node, first.address(family), beyond)
    for made in (first, second):
        made.check().ok()
    node.plugin(IPVLAN, "STATUS", config).ok()


def test_a_duplicate_on_the_link(node: Node, router: str) -> None:  # noqa: F811 (the fixture)
    """Duplicate address detection finds it, the error names who has it, and nothing stays."""
    mac = node.ip_json("link", "show", "dev", "eth0", netns=router)[0]["address"]
    node.run("ip", "address", "add", "2001:db8:ffff::c000/64", "dev", "eth0", "nodad", netns=router)
    refused = pod(node, network(IPVLAN), "a", quick=False)
    message = refused.call("ADD").error(errors.ADDRESS_UNAVAILABLE)
    assert "2001:db8:ffff::c000" in message and mac in message and networks.leases(node) == set()
    assert [each["ifname"] for each in node.ip_json("link", "show", netns=refused.netns)] == ["lo"]


def test_an_address_from_a_router(node: Node, router: str) -> None:  # noqa: F811 (the fixture)
    """Ipvlans with one MAC have interface identifiers of their own all the same."""
    config = network(IPVLAN, ipam={"type": "cni-v6-slaac", "slaacTimeout": 60})
    with wire.advertising(router, "eth0", "2001:db8:5::"):
        made = [pod(node, config, name) for name in "ab"]
        for each in made:
            each.add()
            each.check().ok()
    first, second = (each.address(6) for each in made)
    assert first != second and first.startswith("2001:db8:5:") and second.startswith("2001:db8:5:")


# vlan


def test_a_container_in_a_vlan(node: Node, router: str) -> None:  # noqa: F811 (the fixture)
    """It has the VLAN of the master for itself: a second one is refused, and gets it after the first."""
    in_vlan(node, router)
    config = network(VLAN)
    with node.unchanged(ignore=LEFT):
        first = pod(node, config, "a")
        with wire.packets(router, TAGGED) as tap:
            first.add()
            for family in (6, 4):
                wire.await_frames(tap, lambda frame: wire.announces(frame, first.address(family), first.mac))
        info = first.link()["linkinfo"]
        assert (info["info_kind"], info["info_data"]["id"]) == ("vlan", ID)
        for family in (4, 6):
            assert first.ping(BEHIND[family]) and networks.ping(node, first.address(family), router)
        first.check().ok()
        node.plugin(VLAN, "STATUS", config).ok()
        second = pod(node, config, "b")
        assert "VLAN 5 of master uplink0" in second.call("ADD").error(errors.NODE_CONFLICT)
        first.delete(netns="")
        second.add()
        assert second.ping(BEHIND[6])
        second.delete()
        assert networks.leases(node) == set()
        for name in "ab":
            node.remove_container(name)


# Beside the reference plugins


PEERS = [
    pytest.param(IPVLAN, {"mode": "l2", "mtu": 1400}, id="ipvlan l2"),
    pytest.param(IPVLAN, {"mode": "l3"}, id="ipvlan l3"),
    pytest.param(VLAN, {"vlanId": ID, "mtu": 1400, "dns": {"nameservers": ["192.0.2.53"]}}, id="vlan"),
]


@pytest.mark.parametrize(("kind", "keys"), PEERS)
def test_a_network_moves_over_by_its_type(
    node: Node, router: str, kind: str, keys: dict[str, Any]  # noqa: F811 (the fixture)
) -> None:
    """Result, addresses and routes are the reference's; its containers are deleted by us."""
    reference = kind.removeprefix("cni-v6-")
    need(os.access(f"{REFERENCE_PLUGINS}/{reference}", os.X_OK), "needs containernetworking-plugins")
    is_l3 = keys.get("mode") == "l3"
    addresses = {**(BEYOND if is_l3 else ON_LINK), "type": "host-local"}
    config = network(kind, cniVersion="1.0.0", ipam=addresses, **keys)
    seen, pods = [], []
    for type_ in (reference, kind):
        each = pod(node, {**config, "type": type_}, f"by-{type_}")
        each.add()
        assert kind == VLAN or each.ping(OUTSIDE[4])
        seen.append(view(each))
        pods.append(each)
        if kind == VLAN and type_ == reference:  # which has the VLAN for itself
            Pod(node, config, each.name).delete()
    assert seen[0] == seen[1]
    if kind != VLAN:
        Pod(node, config, pods[0].name).delete()
    assert [each["ifname"] for each in node.ip_json("link", "show", netns=pods[0].netns)] == ["lo"]
    assert networks.leases(node) == {ip["address"].partition("/")[0] for ip in pods[1].result["ips"]}


def view(made: Pod) -> Any:
    """Result, addresses and routes without what belongs to one container alone."""
    result = {key: made.result.get(key) for key in ("routes", "dns")}
    result["ips"] = [{**ip, "address": ip["address"].rpartition("/")[2]} for ip in made.result["ips"]]
    own = ("sandbox", "mtu")  # the reference plugins of some versions tell no MTU
    result["interfaces"] = [{key: value for key, value in each.items() if key not in own}
                            for each in made.result["interfaces"]]
    link = made.link()
    addresses = [(entry["family"], entry["prefixlen"], entry["scope"]) for entry in link["addr_info"]]
    routes = [{key: route.get(key) for key in ("dst", "gateway", "metric")} for route in made.routes()]
    return result, sorted(addresses), routes, link["mtu"], link["address"], link["linkinfo"]


def test_doctor_finds_all_kinds_in_a_kernel_that_has_them(tmp_path: Path) -> None:
    with closing(Node()) as node:
        networks.outside(node)
        assert set(kinds_found(node, tmp_path).values()) == {"green"}
