"""Macvlan networks: containers on an uplink of the node, beside strangers; nothing of them is on the node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.protocol.names import Owner, container_mac, unnamed_interface
from tests.conftest import COURIER, node_reached_by
from tests.netns import networks, nft, wire
from tests.netns.networks import MACVLAN, NODE_OUTSIDE, OUTSIDE, UPLINK, Pod
from tests.netns.test_check_gc_status import collect, listed
from tests.sandbox import REFERENCE_PLUGINS, Node, need

LINK6, LINK4 = "2001:db8:ffff::/64", "192.0.2.0/24"  # what ``networks.outside`` has on the uplink
ROUTES = {"routes": [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]}
BEHIND = {4: "198.51.100.1", 6: "2001:db8:beef::1"}  # a host behind the router
LEFT = r"attachments/\.(seen|memo)"


@pytest.fixture(autouse=True)
def macvlan() -> Any:
    """All networks here are macvlan."""
    token = networks.main.set(MACVLAN)
    yield
    networks.main.reset(token)


@pytest.fixture(params=["engine"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """Calls are carried by an engine; the first test shows the other ways."""
    yield from node_reached_by(request)


@pytest.fixture
def router(node: Node) -> str:
    """The namespace of the router at the far end of the uplink, its link-local address fe80::1 too."""
    netns = networks.outside(node)
    node.run("ip", "address", "add", "fe80::1/64", "dev", "eth0", "nodad", netns=netns)
    for address in BEHIND.values():
        node.run("ip", "address", "add", address, "dev", "lo", netns=netns)
    return netns


def network(**keys: Any) -> dict[str, Any]:
    """Two IPv6 prefixes with the router's link-local address as gateway, and IPv4; the upper half of each."""
    ranges = [
        [{"subnet": LINK6, "rangeStart": "2001:db8:ffff::c000", "gateway": "fe80::1"}],
        [{"subnet": "fd00:9::/64", "gateway": "link-local"}],
        [{"subnet": LINK4, "rangeStart": "192.0.2.128", "gateway": OUTSIDE[4]}],
    ]
    return networks.network("::/0", ipam={"ranges": ranges, **ROUTES}, **keys)


@pytest.mark.parametrize("node", ["process", "engine", COURIER], indirect=True)
def test_life_of_two_containers(node: Node, router: str) -> None:
    """Strangers, the router and what is behind it are reached, and the node is as if nothing were there."""
    with node.unchanged(ignore=LEFT):
        first, second = (Pod(node, network(), name) for name in "ab")
        with wire.packets(router, "eth0") as tap:
            first.add()
            wire.await_frames(tap, lambda frame: wire.announces(frame, first.address(6), first.mac))
            wire.await_frames(tap, lambda frame: wire.announces(frame, first.address(4), first.mac))
        assert first.result["interfaces"] == [
            {"name": "eth0", "mac": first.mac, "mtu": 1500, "sandbox": first.netns}]
        assert [ip["interface"] for ip in first.result["ips"]] == [0, 0, 0]
        assert first.result["ips"][0]["gateway"] == "fe80::1"
        link = first.link()
        assert (link["linkinfo"]["info_kind"], link["linkinfo"]["info_data"]["mode"]) == ("macvlan", "bridge")
        assert link["operstate"] == "UP"
        second.add()
        for family in (4, 6):
            assert first.ping(BEHIND[family]) and first.ping(second.address(family))
            assert networks.ping(node, first.address(family), router)
        for pod in (first, second):
            pod.check().ok()
        node.plugin(MACVLAN, "STATUS", network()).ok()
        first.delete()
        first.delete(netns="")
        second.delete(netns="")  # the record says where it is
        assert "eth0" not in {each["ifname"] for each in node.ip_json("link", "show", netns=second.netns)}
        assert networks.leases(node, "pods") == set()
        for name in "ab":
            node.remove_container(name)


@pytest.mark.slow
def test_a_name_of_the_node_is_in_nobodys_way(node: Node, router: str) -> None:
    node.run("ip", "link", "add", "eth0", "type", "bridge")
    pod = Pod(node, network(), "a")
    pod.add()
    assert pod.ping(BEHIND[6]) and networks.link(node, "eth0")["linkinfo"]["info_kind"] == "bridge"


def test_a_duplicate_is_named_and_everything_undone(node: Node, router: str) -> None:
    mac = node.ip_json("link", "show", "dev", "eth0", netns=router)[0]["address"]
    node.run("ip", "address", "add", "2001:db8:ffff::c000/64", "dev", "eth0", "nodad", netns=router)
    pod = Pod(node, network(), "a", quick=False)
    with node.unchanged(ignore=LEFT):
        message = pod.call("ADD").error(errors.ADDRESS_UNAVAILABLE)
    assert "2001:db8:ffff::c000" in message and mac in message
    assert networks.leases(node) == set()


@pytest.mark.slow
def test_a_stray_router_advertisement_configures_nothing(node: Node, router: str) -> None:
    with wire.advertising(router, "eth0", "2001:db8:bad::"):
        pod = Pod(node, network(), "a")
        pod.add()
        assert [each for each in networks.addresses(node, "eth0", pod.netns) if "bad" in each] == []


# CHECK, GC and STATUS

BREAKS = [
    pytest.param("ip link set {uplink} down", "", "master uplink0 is down", id="master down"),
    pytest.param("ip link delete {uplink}", "", "master uplink0 is missing", id="master gone"),
    pytest.param("ip link set eth0 type macvlan mode private", "{netns}", "mode is private, not bridge", id="mode"),
    pytest.param("ip link set eth0 address 02:00:00:00:00:99", "{netns}", "mac is 02:00:00:00:00:99", id="MAC"),
    pytest.param("ip link set eth0 down", "{netns}", "interface eth0: up is False", id="down"),
    pytest.param("ip address del {ip6}/64 dev eth0", "{netns}", "address {ip6}/64 is missing", id="IPv6 address"),
    pytest.param("ip -6 route del default", "{netns}", "route ::/0 via fe80::1 is missing", id="IPv6 route"),
    pytest.param("sysctl -w net.ipv6.conf.eth0.accept_ra=1", "{netns}", "accept_ra is 1, not 0", id="accept_ra"),
]


@pytest.mark.slow
def test_check_names_the_difference(node: Node, router: str) -> None:
    """One after the other, each in a container of its own, the master last: it takes them all with it."""
    for number, parameter in enumerate(sorted(BREAKS, key=lambda each: "uplink" in str(each.values[0]))):
        command, place, words = map(str, parameter.values)
        pod = Pod(node, network(), f"c{number}")
        pod.add()
        names = {"uplink": UPLINK, "ip6": pod.address(6), "netns": pod.netns}
        node.run("sh", "-ec", command.format(**names), netns=place.format(**names))
        assert words.format(**names) in pod.check().error(errors.CHECK_FAILED)
        if "down" in command and not place:
            assert "down" in node.plugin(MACVLAN, "STATUS", network()).error(errors.NOT_AVAILABLE)
            node.run("ip", "link", "set", UPLINK, "up")
    assert "no interface uplink0" in node.plugin(MACVLAN, "STATUS", network()).error(errors.NOT_AVAILABLE)
    with node.unchanged(ignore=LEFT):
        assert "no interface uplink0" in Pod(node, network(), "c0").call("ADD").error(errors.NODE_CONFLICT)


def test_gc_takes_the_interface_of_a_container_that_runs(node: Node, router: str) -> None:
    """Whatever the container did to the alias: the record says where the interface is."""
    keeps, stale, ended = (Pod(node, network(), name) for name in ("keeps", "stale", "ended"))
    for pod in (keeps, stale, ended):
        pod.add()
    node.run("ip", "link", "set", "eth0", "alias", "mine", netns=stale.netns)
    node.remove_container("ended")
    collect(node, network(), listed([keeps]))
    assert networks.leases(node) == {ip["address"].partition("/")[0] for ip in keeps.result["ips"]}
    assert [each["ifname"] for each in node.ip_json("link", "show", netns=stale.netns)] == ["lo"]
    keeps.check().ok()


@pytest.mark.slow
def test_what_a_kill_left_without_its_name_goes_with_del(node: Node, router: str) -> None:
    pod = Pod(node, network(), "a")
    name = unnamed_interface(Owner("pods", "a", "eth0"))
    node.run("ip", "link", "add", name, "link", UPLINK, "netns", os.path.basename(pod.netns), "type", "macvlan")
    with node.unchanged(ignore=rf"{name}|{LEFT}"):
        pod.delete()
    assert [each["ifname"] for each in node.ip_json("link", "show", netns=pod.netns)] == ["lo"]


def test_del_leaves_what_is_somebody_elses(node: Node, router: str) -> None:
    """Without a record the alias decides; with one of another namespace too."""
    pod = Pod(node, network(), "a")
    node.run("ip", "link", "add", "eth0", "link", UPLINK, "netns", os.path.basename(pod.netns), "type", "macvlan")
    pod.delete()
    assert networks.link(node, "eth0", pod.netns)["linkinfo"]["info_kind"] == "macvlan"


# Keys


@pytest.mark.slow
def test_modes(node: Node, router: str) -> None:
    """Private: the router is reached, a neighbour is not. Passthru: one container has the master, and its MAC."""
    first, second = networks.pods(node, network(mode="private"), "a", "b")
    assert first.ping(BEHIND[6]) and not first.ping(second.address(6), patience=1)
    whole = network(mode="passthru", name="whole")
    assert "takes no macvlan in mode passthru" in Pod(node, whole, "c").call("ADD").error(errors.NODE_CONFLICT)
    first.delete()
    second.delete()
    pod = Pod(node, whole, "c")
    pod.add()
    assert pod.mac == networks.link(node, UPLINK)["address"] and pod.ping(BEHIND[4])
    pod.check().ok()


@pytest.mark.slow
def test_mac_and_mtu(node: Node, router: str) -> None:
    pod = Pod(node, network(mtu=1300, runtimeConfig={"mac": "02:00:5e:10:00:01"}), "a")
    pod.add()
    assert (pod.mac, pod.link()["mtu"]) == ("02:00:5e:10:00:01", 1300)
    other = Pod(node, network(mtu=9000), "b")
    assert "mtu: 9000 is more than the 1500 of master uplink0" in other.call("ADD").error(errors.NODE_CONFLICT)
    taken = Pod(node, network(mac=networks.link(node, UPLINK)["address"]), "b")
    assert "MAC of eth0" in taken.call("ADD").error(errors.ADDRESS_UNAVAILABLE)
    assert networks.leases(node) == {ip["address"].partition("/")[0] for ip in pod.result["ips"]}


@pytest.mark.slow
def test_the_master_of_the_default_route_and_the_nodes_own_addresses(node: Node, router: str) -> None:
    """No master is named, and the range has the node's own address, which no container gets."""
    node.run("ip", "route", "add", "default", "via", OUTSIDE[4])
    config = networks.network(LINK4, ipam={"ranges": [[{"subnet": LINK4, "gateway": OUTSIDE[4]}]], "routes": []})
    del config["master"]
    pod = Pod(node, config, "a")
    pod.add()
    assert pod.address(4) == "192.0.2.3" and pod.ping(OUTSIDE[4])
    pod.check().ok()
    asked = Pod(node, config, "b").call("ADD", {**config, "runtimeConfig": {"ips": ["192.0.2.1"]}})
    assert "the node's own" in asked.error(errors.ADDRESS_UNAVAILABLE)
    node.run("ip", "route", "del", "default")
    pod.check().ok()
    assert "no default route" in Pod(node, config, "b").call("ADD").error(errors.NODE_CONFLICT)
    assert "no default route" in node.plugin(MACVLAN, "STATUS", config).error(errors.NOT_AVAILABLE)


@pytest.mark.slow
def test_a_master_in_the_container(node: Node, router: str) -> None:
    """A second network on the interface of a first one, as Multus makes them."""
    pod = Pod(node, network(), "a")
    pod.add()
    upper = network(name="upper", master="eth0", linkInContainer=True)
    upper["ipam"] = {"type": "cni-v6-ipam", "ranges": [[{"subnet": LINK6, "rangeStart": "2001:db8:ffff::d000"}]]}
    second = Pod(node, upper, "a", "net1")
    second.add()
    assert networks.link(node, "net1", pod.netns)["linkinfo"]["info_kind"] == "macvlan"
    assert networks.ping(node, second.address(6), router)
    second.check().ok()
    second.delete(netns="")
    assert {each["ifname"] for each in node.ip_json("link", "show", netns=pod.netns)} == {"lo", "eth0"}
    pod.check().ok()


@pytest.mark.slow
def test_routes_of_router_advertisements_on_request(node: Node, router: str) -> None:
    """The default route comes from the router, an address does not."""
    with wire.advertising(router, "eth0", "2001:db8:bad::"):
        pod = Pod(node, network(acceptRa=True), "a")
        pod.add()
        wire.await_state(pod.netns, lambda: _learned(node, pod), "a route of a router advertisement")
        assert [each for each in networks.addresses(node, "eth0", pod.netns) if "bad" in each] == []
        pod.check().ok()


def _learned(node: Node, pod: Pod) -> bool:
    return any(route["protocol"] == "ra" for route in node.ip_json("-6", "route", "show", netns=pod.netns))


@pytest.mark.slow
def test_node_and_containers_reach_each_other(node: Node, router: str) -> None:
    """By the node's own addresses, both ways; the link sees neither a second MAC for them nor a question."""
    config = network(hostAccess=True)
    config["ipam"]["ranges"] = [group for group in config["ipam"]["ranges"] if "fd00" not in group[0]["subnet"]]
    with node.unchanged(ignore=LEFT):
        first, second = networks.pods(node, config, "a", "b")
        own = reach_each_other(node, router, first, second)
        said = nft.ctl(node, "explain", second.address(6)).stdout
        assert "uplink0, up, MTU 1500" in said and f"yes: through {own}" in said and "eth0 by way of fe80::1" in said
        node.remove_container("b")
        nft.ctl(node, "gc")
        node.remove_container("a")


def reach_each_other(node: Node, router: str, first: Pod, second: Pod) -> str:
    """Node and containers do, also once the first one is deleted, and once what the node has for it was mended.

    :returns: the node's own interface on the master.
    """
    node_mac = networks.link(node, UPLINK)["address"]
    for pod in (first, second):
        for family in (4, 6):
            assert pod.ping(NODE_OUTSIDE[family]) and networks.ping(node, pod.address(family))
            assert pod.ping(BEHIND[family]) and first.ping(second.address(family))
            assert mac_of(node, NODE_OUTSIDE[family], router) == node_mac
        pod.check().ok()
    own = str(first.result["interfaces"][1]["name"])
    assert networks.sysctl(node, f"ipv6/conf/{own}/accept_ra") == "0"
    first.delete()
    assert networks.ping(node, second.address(6)) and second.ping(NODE_OUTSIDE[4])
    node.run("ip", "link", "delete", own)
    kind = first.config["type"].removeprefix("cni-v6-")
    assert f"{kind} {own} is missing" in second.check().error(errors.CHECK_FAILED)
    nft.ctl(node, "check", "--repair")
    second.check().ok()
    assert networks.ping(node, second.address(6)) and second.ping(NODE_OUTSIDE[4])
    return own


def mac_of(node: Node, address: str, netns: str) -> str:
    """The MAC that a host of the link gets for an address of the node."""
    node.run("ip", "neighbour", "flush", "dev", "eth0", netns=netns)
    assert networks.ping(node, address, netns)
    return str(next(each["lladdr"] for each in node.ip_json("neighbour", "show", address, netns=netns)))


# Beside the reference plugin


@pytest.mark.slow
def test_a_network_moves_over_by_its_type(node: Node, router: str) -> None:
    """Result, addresses and routes are the reference's; its containers are checked and deleted by us."""
    need(os.access(f"{REFERENCE_PLUGINS}/macvlan", os.X_OK), "needs containernetworking-plugins")
    config = network(cniVersion="1.0.0", mode="bridge", mtu=1400)
    config["ipam"] |= {"type": "host-local"}
    config["ipam"]["ranges"] = [[{key: value for key, value in part.items() if value != "link-local"}
                                 for part in group] for group in config["ipam"]["ranges"]]
    seen = []
    for kind, name in (("macvlan", "theirs"), (MACVLAN, "ours")):
        pod = Pod(node, {**config, "type": kind}, name)
        networks.set_sysctl(node, "ipv6/conf/default/dad_transmits", "0", pod.netns)
        pod.add()
        assert pod.ping(BEHIND[4]) and pod.ping(BEHIND[6])
        seen.append((_view(pod), pod))
    (theirs, old), (ours, new) = seen
    assert theirs == ours
    assert new.mac == container_mac(Owner("pods", "ours", "eth0"))
    moved = Pod(node, {**config, "type": MACVLAN}, "theirs")
    moved.delete()
    assert [each["ifname"] for each in node.ip_json("link", "show", netns=moved.netns)] == ["lo"]
    assert networks.leases(node) == {ip["address"].partition("/")[0] for ip in new.result["ips"]}


def _view(pod: Pod) -> Any:
    """Result, addresses and routes without what belongs to one container alone."""
    result = {key: pod.result[key] for key in ("routes", "dns")}
    result["ips"] = [{**ip, "address": ip["address"].rpartition("/")[2]} for ip in pod.result["ips"]]
    result["interfaces"] = [sorted(set(each) - {"mtu"}) for each in pod.result["interfaces"]]
    link = pod.link()
    addresses = [(entry["family"], entry["prefixlen"], entry["scope"]) for entry in link["addr_info"]]
    routes = [{key: route.get(key) for key in ("dst", "gateway", "metric")} for route in pod.routes()]
    return result, sorted(addresses), routes, link["mtu"], link["linkinfo"]


# Addresses from a router


@pytest.fixture
def radvd(node: Node, router: str, tmp_path: Path) -> str:
    """The router's prefix; it advertises itself, and answers solicitations."""
    need(os.access("/usr/sbin/radvd", os.X_OK), "needs radvd")
    networks.set_sysctl(node, "ipv6/conf/all/forwarding", "1", router)
    (tmp_path / "radvd.conf").write_text(
        "interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; "
        "prefix 2001:db8:ffff::/64 {}; };\n"
    )
    log = ("-m", "logfile", "-l", str(tmp_path / "log"))
    node.run("radvd", "-C", str(tmp_path / "radvd.conf"), "-p", str(tmp_path / "pid"), *log, netns=router)
    return "2001:db8:ffff:"


def slaac(**keys: Any) -> dict[str, Any]:
    config = networks.network(name="pods", **keys)
    return {**config, "ipam": {"type": "cni-v6-slaac", "slaacTimeout": 60}}


def test_a_container_takes_its_address_from_the_router(node: Node, router: str, radvd: str) -> None:
    """The result says which; CHECK compares with what there is by then."""
    with node.unchanged(ignore=LEFT):
        pod = Pod(node, slaac(), "a", quick=False)
        pod.add()
        [ip] = pod.result["ips"]
        assert ip["address"].startswith(radvd) and ip["address"].endswith("/64")
        assert ip["gateway"].startswith("fe80::") and ip["interface"] == 0
        assert pod.result["routes"] == [{"dst": "::/0", "gw": ip["gateway"]}]
        assert pod.ping(BEHIND[6]) and networks.ping(node, pod.address(6), router)
        node.plugin(MACVLAN, "STATUS", slaac()).ok()
        pod.check().ok()
        node.run("ip", "address", "add", "2001:db8:ffff::77/64", "dev", "eth0", "nodad", netns=pod.netns)
        node.run("ip", "address", "del", ip["address"], "dev", "eth0", netns=pod.netns)
        pod.check().ok()
        node.run("ip", "-6", "route", "flush", "default", netns=pod.netns)
        assert "a default route" in pod.check().error(errors.CHECK_FAILED)
        pod.delete()
        node.remove_container("a")


@pytest.mark.slow
def test_without_a_router_the_error_says_what_is_missing(node: Node, router: str) -> None:
    config = slaac()
    config["ipam"]["slaacTimeout"] = 1
    pod = Pod(node, config, "a", quick=False)
    with node.unchanged(ignore=LEFT):
        message = pod.call("ADD").error(errors.TRY_AGAIN)
    assert "no router on the link of eth0 gave an address and a default route within 1 seconds" in message
