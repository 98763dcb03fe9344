"""The macvlan plugin on a node of fakes: configuration, plan and result, DEL, GC, CHECK, STATUS, what ctl finds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments import remove_interface, repair
from cni_v6.errors import CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import Lifetime, Link, RouteEntry
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLifetimes, GetRoutes
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases import port_record
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.plan import reach, slaac
from cni_v6.plan.site import Site
from cni_v6.plan.situation import Inside, Situation, Way, cut_off
from cni_v6.protocol.names import Owner, container_mac, node_interface, node_mac, unnamed_interface
from cni_v6.protocol.result import Result
from tests.unit.fake_context import BOOT, CONFIG as BRIDGED, DATA_DIR, FakeContext, dhcp_server, gc

TYPE = "cni-v6-macvlan"
WIRE, WIRE_MAC = "up0", "02:00:00:00:01:01"
V6, V4 = {"subnet": "2001:db8:1::/64", "gateway": "fe80::1"}, {"subnet": "10.1.0.0/24"}
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "lan", "type": TYPE, "master": WIRE,
    "ipam": {"type": "cni-v6-ipam", "ranges": [[V6], [V4]], "routes": [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]},
}
LAYER_2 = {key: value for key, value in CONFIG.items() if key != "ipam"}
IPV4_ALONE = {**CONFIG, "ipam": {"type": "cni-v6-ipam", "ranges": [[V4]]}}
FOREIGN = {**CONFIG, "ipam": {"type": "dhcp"}}
SPACE = "/run/netns/c1"
OWNER = Owner("lan", "c1", "eth0")


def node(**link: Any) -> FakeContext:
    """A node with an uplink, and container c1."""
    fake = FakeContext()
    fake.kernel.add_link(HOST, replace(Link(WIRE, WIRE_MAC, 1500, up=True), **link))
    fake.container("c1")
    return fake


def call(fake: FakeContext, command: str, conf: dict[str, Any] = CONFIG, name: str = "c1", **env: str) -> Any:
    return fake.call(command, name if command not in ("GC", "STATUS") else "", conf, type=TYPE, **env)


def inside(fake: FakeContext) -> dict[str, Link]:
    return {name: link for name, link in fake.kernel.spaces[SPACE].links.items() if name != "lo"}


def sysctl(fake: FakeContext, name: str) -> str:
    return fake.kernel.spaces[SPACE].sysctls[f"ipv6/conf/eth0/{name}"]


def test_a_container_on_the_uplink() -> None:
    fake = node()
    result = call(fake, "ADD").ok()
    mac = container_mac(OWNER)
    assert result["interfaces"] == [{"name": "eth0", "mac": mac, "mtu": 1500, "sandbox": SPACE}]
    assert result["ips"] == [
        {"address": "2001:db8:1::1/64", "gateway": "fe80::1", "interface": 0},
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0},
    ]
    assert result["routes"] == [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]
    assert inside(fake) == {"eth0": Link("eth0", mac, 1500, "macvlan", up=True, alias="cni-v6 lan/c1/eth0")}
    routes = {route.dst: route.gateway for route in fake.kernel.spaces[SPACE].routes["eth0"]}
    assert routes == {"::/0": "fe80::1", "0.0.0.0/0": "10.1.0.1"}
    assert [sysctl(fake, name) for name in ("accept_ra", "autoconf", "accept_dad")] == ["0", "0", "1"]
    assert fake.kernel.announced == ["2001:db8:1::1/64", "10.1.0.2/24"]
    [record] = fake.attachments("lan")
    assert (record.host, record.port, record.policy) == ("", ChildLink(SPACE, WIRE, mode="bridge"), None)
    call(fake, "CHECK", {**CONFIG, "prevResult": result}).ok()
    call(fake, "STATUS").ok()
    assert "attached" in call(fake, "ADD").error(errors.ALREADY_ATTACHED) or inside(fake)
    call(fake, "DEL").ok()
    assert inside(fake) == {} and fake.attachments("lan") == [] and set(fake.kernel.spaces[HOST].links) == {"lo", WIRE}


@pytest.mark.parametrize(("conf", "disabled", "accept_ra", "autoconf"), [
    (IPV4_ALONE, "1", "1", "1"), (LAYER_2, "0", "0", "0"), ({**LAYER_2, "acceptRa": True}, "0", "1", "1"),
    ({**CONFIG, "acceptRa": True}, "0", "2", "0"),
])
def test_what_the_kernel_may_do_by_itself(conf: dict[str, Any], disabled: str, accept_ra: str, autoconf: str) -> None:
    fake = node()
    result = call(fake, "ADD", conf).ok()
    assert [sysctl(fake, name) for name in ("disable_ipv6", "accept_ra", "autoconf")] == [disabled, accept_ra, autoconf]
    call(fake, "CHECK", {**conf, "prevResult": result}).ok()
    waits = [step for step in fake.kernel.applied if isinstance(step, awaits.AwaitAddresses)]
    assert bool(waits) == (disabled == "0" and "ipam" in conf)


def test_addresses_of_another_plugin() -> None:
    fake = node()
    fake.plugins["dhcp"] = dhcp_server()
    result = call(fake, "ADD", FOREIGN).ok()
    assert result["ips"] == [{"address": "10.9.0.5/24", "gateway": "10.9.0.1", "interface": 0}]
    call(fake, "CHECK", {**FOREIGN, "prevResult": result}).ok()
    call(fake, "STATUS", FOREIGN).ok()
    call(fake, "DEL", FOREIGN).ok()
    assert inside(fake) == {}


def test_ipv6_of_another_plugin_where_there_is_none() -> None:
    fake = node()
    fake.plugins["static"] = lambda _: {"cniVersion": "1.1.0", "ips": [{"address": "2001:db8::7/64"}]}
    for key in [key for key in fake.kernel.spaces[SPACE].sysctls if key.startswith("ipv6")]:
        del fake.kernel.spaces[SPACE].sysctls[key]
    assert "no IPv6" in call(fake, "ADD", {**CONFIG, "ipam": {"type": "static"}}).error(errors.IPV6_DISABLED)
    call(fake, "ADD", LAYER_2).ok()


def test_passthru_has_the_masters_mac() -> None:
    fake = node()
    result = call(fake, "ADD", {**CONFIG, "mode": "passthru"}).ok()
    assert result["interfaces"][0]["mac"] == inside(fake)["eth0"].mac == WIRE_MAC


def test_a_duplicate_is_undone() -> None:
    fake = node()
    fake.kernel.duplicates["2001:db8:1::1"] = "02:00:00:00:00:77"
    message = call(fake, "ADD").error(errors.ADDRESS_UNAVAILABLE)
    assert "2001:db8:1::1 of eth0 is a duplicate: the node with MAC 02:00:00:00:00:77" in message
    assert inside(fake) == {} and fake.attachments("lan") == []
    fake.kernel.duplicates["2001:db8:1::2"] = ""
    assert "duplicate: another node on the segment" in call(fake, "ADD").error(errors.ADDRESS_UNAVAILABLE)


@pytest.mark.parametrize(("link", "keys", "says"), [
    ({"up": False}, {}, "master up0 is down"), ({"mtu": 1400}, {"mtu": 1500}, "mtu: 1500 is more than the 1400"),
    ({"mtu": 1200}, {}, "an MTU of 1200, and IPv6 needs 1280"),
    ({}, {"master": "up9"}, "the node has no interface up9"),
    ({}, {"master": "up9", "linkInContainer": True}, "the container has no interface up9"),
])
def test_a_master_that_does_not_do(link: dict[str, Any], keys: dict[str, Any], says: str) -> None:
    fake = node(**link)
    assert says in call(fake, "ADD", {**CONFIG, **keys}).error(errors.NODE_CONFLICT)
    assert fake.attachments("lan") == []
    if "linkInContainer" not in keys:
        assert says in call(fake, "STATUS", {**CONFIG, **keys}).error(errors.NOT_AVAILABLE)


def test_a_small_master_is_enough_for_ipv4() -> None:
    optional = {**CONFIG, "ipam": {**CONFIG["ipam"], "required": ["ipv4"]}}
    for conf in (IPV4_ALONE, FOREIGN, optional):
        fake = node(mtu=1200)
        fake.plugins["dhcp"] = dhcp_server()
        call(fake, "STATUS", conf).ok()


def test_the_master_of_the_default_route() -> None:
    fake = node()
    conf = {key: value for key, value in CONFIG.items() if key != "master"}
    assert "no default route" in call(fake, "ADD", conf).error(errors.NODE_CONFLICT)
    fake.kernel.spaces[HOST].addresses[WIRE] = ["10.1.0.9/24"]
    fake.kernel.apply([ops.AddRoute(HOST, WIRE, "0.0.0.0/0", "10.1.0.1")])
    result = call(fake, "ADD", conf).ok()
    fake.kernel.remove([ops.RemoveRoute(HOST, WIRE, "0.0.0.0/0")])
    call(fake, "CHECK", {**conf, "prevResult": result}).ok()
    assert "no default route" in call(fake, "STATUS", conf).error(errors.NOT_AVAILABLE)


def test_the_nodes_own_addresses_are_nobody_elses() -> None:
    fake = node()
    fake.kernel.spaces[HOST].addresses[WIRE] = ["2001:db8:1::1/64", "10.1.0.2/24", "192.0.2.1/24"]
    result = call(fake, "ADD").ok()
    assert [ip["address"] for ip in result["ips"]] == ["2001:db8:1::2/64", "10.1.0.3/24"]
    fake.container("c2")
    asked = {**CONFIG, "runtimeConfig": {"ips": ["10.1.0.2"]}}
    assert "10.1.0.2 is the node's own, on up0" in call(fake, "ADD", asked, "c2").error(errors.ADDRESS_UNAVAILABLE)


def test_a_master_in_the_container() -> None:
    fake = node()
    fake.kernel.add_link(SPACE, Link("net0", WIRE_MAC, 1400, up=True))
    conf = {**CONFIG, "master": "net0", "linkInContainer": True}
    result = call(fake, "ADD", conf).ok()
    assert inside(fake)["eth0"].mtu == 1400
    assert fake.attachments("lan")[0].port == ChildLink(SPACE, "net0", True, mode="bridge")
    call(fake, "CHECK", {**conf, "prevResult": result}).ok()
    call(fake, "STATUS", conf).ok()
    with fake.leases("lan").transaction() as leases:
        assert repair.look(leases, fake.context()).differences == []  # nothing of it is on the node


# DEL and GC


def test_del_finds_it_by_the_record() -> None:
    fake = node()
    call(fake, "ADD").ok()
    fake.kernel.apply([ops.SetAlias(SPACE, "eth0", "mine")])
    call(fake, "DEL", CNI_NETNS="").ok()
    assert inside(fake) == {}


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_in_another_namespace_under_the_recorded_path_it_is_left_alone(command: str) -> None:
    fake = node()
    call(fake, "ADD").ok()
    fake.kernel.remove_netns(SPACE)
    fake.container("c1")
    fake.kernel.add_link(SPACE, Link("eth0", WIRE_MAC, 1500, "macvlan", alias="cni-v6 lan/c9/eth0"))
    fake.now += 60
    call(fake, command, gc(config=CONFIG) if command == "GC" else CONFIG).ok()
    assert set(inside(fake)) == {"eth0"} and fake.attachments("lan") == []


def test_del_without_a_record_goes_by_the_alias() -> None:
    fake = node()
    for name, alias in (("eth0", "cni-v6 lan/c9/eth0"), (unnamed_interface(OWNER), "")):
        fake.kernel.add_link(SPACE, Link(name, WIRE_MAC, 1500, "macvlan", alias=alias))
    call(fake, "DEL").ok()
    assert set(inside(fake)) == {"eth0"}
    fake.kernel.apply([ops.SetAlias(SPACE, "eth0", "cni-v6 lan/c1/eth0")])
    call(fake, "DEL").ok()
    assert inside(fake) == {}
    fake.kernel.add_link(SPACE, Link("eth0", WIRE_MAC, 1500, "veth", alias="cni-v6 lan/c1/eth0"))
    call(fake, "DEL").ok()
    assert set(inside(fake)) == {"eth0"}


def test_del_of_what_is_gone() -> None:
    fake = node()
    call(fake, "ADD").ok()
    fake.kernel.remove_netns(SPACE)
    call(fake, "DEL").ok()
    assert fake.attachments("lan") == []
    call(fake, "DEL", CNI_NETNS="").ok()


def test_del_that_cannot_enter_keeps_the_record() -> None:
    fake = node()
    call(fake, "ADD").ok()
    [record] = fake.attachments("lan")
    with pytest.MonkeyPatch.context() as patch:
        def refuse(_: Any) -> Any:
            raise CniError(errors.IO_FAILURE, "cannot enter", "busy")

        patch.setattr(fake.kernel, "observe", refuse)
        with pytest.raises(CniError, match="cannot enter"):
            remove_interface.of_records([record], fake.context())


def test_a_type_that_changed_meanwhile() -> None:
    """A container of a macvlan network is deleted by the bridge plugin: the record says what it has."""
    fake = node()
    call(fake, "ADD").ok()
    fake.call("DEL", "c1", {**BRIDGED, "name": "lan"}).ok()
    assert inside(fake) == {}


def test_what_the_reference_plugin_made_is_known_by_its_addresses() -> None:
    fake = node()
    call(fake, "ADD").ok()
    [record] = fake.attachments("lan")
    with fake.leases("lan").transaction() as leases:
        leases.update(replace(record, port=None, netns=(0, 0)))
    fake.kernel.apply([ops.SetAlias(SPACE, "eth0", "")])
    call(fake, "DEL").ok()
    assert inside(fake) == {}


def test_gc_takes_the_interface_too() -> None:
    fake = node()
    call(fake, "ADD").ok()
    fake.now += 60
    call(fake, "GC", gc("c1", config=CONFIG)).ok()
    assert set(inside(fake)) == {"eth0"}
    call(fake, "GC", gc(config=CONFIG)).ok()
    assert inside(fake) == {} and fake.attachments("lan") == []


# hostAccess

SHARED = {**CONFIG, "hostAccess": True}
NODE, NODE_MAC = node_interface("lan", WIRE), node_mac("lan", WIRE, "0e8f6a50")


def with_addresses(*addresses: str) -> FakeContext:
    fake = node()
    fake.kernel.spaces[HOST].addresses[WIRE] = ["fe80::7/64", *addresses]
    return fake


def node_routes(fake: FakeContext) -> set[str]:
    return {route.dst for route in fake.kernel.spaces[HOST].routes.get(NODE, [])}


def test_the_node_has_a_macvlan_as_long_as_a_container_needs_it() -> None:
    fake = with_addresses("192.0.2.9/24", "2001:db8:1::99/64")
    result = call(fake, "ADD", SHARED).ok()
    assert result["interfaces"][1:] == [{"name": NODE, "mac": NODE_MAC, "mtu": 1500}]
    link = fake.kernel.spaces[HOST].links[NODE]
    assert (link.up, link.mac, link.alias) == (True, NODE_MAC, "cni-v6 lan: the node on up0")
    assert node_routes(fake) == {"2001:db8:1::1/128", "10.1.0.2/32"}
    assert {step.source for step in fake.kernel.applied if isinstance(step, ops.AddRoute) and step.netns == HOST} == {
        None, "192.0.2.9"}
    assert fake.kernel.spaces[SPACE].neighbours == {"eth0": {"192.0.2.9": NODE_MAC, "2001:db8:1::99": NODE_MAC}}
    assert "192.0.2.9/32" in {route.dst for route in fake.kernel.spaces[SPACE].routes["eth0"]}  # not on-link else
    fake.container("c2")
    call(fake, "ADD", SHARED, "c2").ok()
    call(fake, "CHECK", {**SHARED, "prevResult": result}).ok()
    made = [step for step in fake.kernel.applied if isinstance(step, ops.CreateChildLink) and step.shared]
    call(fake, "DEL", SHARED).ok()
    assert len(made) == 1 and node_routes(fake) == {"2001:db8:1::2/128", "10.1.0.3/32"}
    call(fake, "DEL", SHARED, "c2").ok()
    assert NODE not in fake.kernel.spaces[HOST].links


def test_a_failed_add_leaves_no_macvlan_of_the_node() -> None:
    fake = with_addresses("192.0.2.9/24")
    fake.kernel.fail = lambda step: (
        CniError(errors.KERNEL_REFUSED, "no", "no") if isinstance(step, ops.AddRoute) and step.netns == HOST else None)
    call(fake, "ADD", SHARED).error(errors.KERNEL_REFUSED)
    assert set(fake.kernel.spaces[HOST].links) == {"lo", WIRE} and inside(fake) == {}


def test_a_family_that_the_node_lacks_is_said() -> None:
    fake = with_addresses("192.0.2.9/24")
    reply = call(fake, "ADD", SHARED)
    reply.ok()
    assert "the node has no IPv6 address on up0" in reply.stderr and node_routes(fake) == {"10.1.0.2/32"}


@pytest.mark.parametrize("spoil", ["gone", "down", "route"])
def test_what_the_node_lacks_is_mended(spoil: str) -> None:
    fake = with_addresses("192.0.2.9/24", "2001:db8:1::99/64")
    result = call(fake, "ADD", SHARED).ok()
    if spoil == "gone":
        fake.kernel.delete(HOST, NODE)
    elif spoil == "down":
        fake.kernel.apply([ops.SetLink(HOST, NODE, up=False)])
    else:
        fake.kernel.remove([ops.RemoveRoute(HOST, NODE, "10.1.0.2/32")])
    says = {
        "gone": f"macvlan {NODE} is missing", "down": f"macvlan {NODE} is down", "route": "route 10.1.0.2/32",
    }[spoil]
    assert says in call(fake, "CHECK", {**SHARED, "prevResult": result}).error(errors.CHECK_FAILED)
    with fake.leases("lan").transaction() as leases:
        found = repair.look(leases, fake.context())
        assert [says in words for _, words in found.differences] == [True]
        assert repair.mend(found, fake.context()) == []
        assert repair.look(leases, fake.context()).differences == []
    call(fake, "CHECK", {**SHARED, "prevResult": result}).ok()


def test_a_family_that_the_container_lacks_is_passed_over() -> None:
    fake = with_addresses("192.0.2.9/24", "2001:db8:1::99/64")
    call(fake, "ADD", {**IPV4_ALONE, "hostAccess": True}).ok()
    assert fake.kernel.spaces[SPACE].neighbours == {"eth0": {"192.0.2.9": NODE_MAC}}


# Addresses from a router

SLAAC = {**CONFIG, "ipam": {"type": "cni-v6-slaac"}}


def with_router(address: str = "2001:db8:5::a/64", gateway: str = "fe80::1") -> FakeContext:
    fake = node()
    fake.kernel.advertised = address, gateway
    return fake


def test_the_result_says_which_address_the_router_gave() -> None:
    fake = with_router()
    result = call(fake, "ADD", SLAAC).ok()
    assert result["ips"] == [{"address": "2001:db8:5::a/64", "gateway": "fe80::1", "interface": 0}]
    assert result["routes"] == [{"dst": "::/0", "gw": "fe80::1"}]
    assert [sysctl(fake, name) for name in ("accept_ra", "autoconf", "accept_dad")] == ["2", "1", "0"]
    [wait] = [step for step in fake.kernel.applied if isinstance(step, awaits.AwaitRouter)]
    assert wait.seconds == 10
    [record] = fake.attachments("lan")
    assert (record.addresses, record.port) == ((), PORT)
    call(fake, "STATUS", SLAAC).ok()
    space = fake.kernel.spaces[SPACE]
    space.addresses["eth0"] = ["2001:db8:6::a/64"]  # the router has another prefix by now
    call(fake, "CHECK", {**SLAAC, "prevResult": result}).ok()
    space.addresses["eth0"], space.routes["eth0"] = ["fe80::7/64"], []
    said = call(fake, "CHECK", {**SLAAC, "prevResult": result}).error(errors.CHECK_FAILED)
    assert "eth0 has not an address from a router" in said and "eth0 has not a default route from a router" in said
    call(fake, "GC", gc(config=SLAAC)).ok()
    call(fake, "DEL", SLAAC).ok()
    assert inside(fake) == {} and fake.attachments("lan") == [] and fake.delegated == []


@pytest.mark.parametrize(("advertised", "missing"), [
    (("", ""), "an address and a default route"), (("2001:db8:5::a/64", ""), "gave a default route within 3 seconds"),
])
def test_without_a_router_everything_is_undone(advertised: tuple[str, str], missing: str) -> None:
    fake = with_router(*advertised)
    conf = {**SLAAC, "ipam": {"type": "cni-v6-slaac", "slaacTimeout": 3}}
    assert missing in call(fake, "ADD", conf).error(errors.TRY_AGAIN)
    assert inside(fake) == {} and fake.attachments("lan") == []


def test_preferred_addresses_of_several_routers() -> None:
    """Deprecated ones are left out, unless there are no others; temporary ones always."""
    def seen(*lifetimes: Lifetime) -> Any:
        routes = (RouteEntry("::/0", "fe80::1"), RouteEntry("::/0", "fe80::2"), RouteEntry("2001:db8::/32", "fe80::3"))
        return Snapshot({GetLifetimes(SPACE, "eth0"): lifetimes, GetRoutes(SPACE, "eth0"): routes})

    old, new = Lifetime("2001:db8:5::a/64", preferred=0), Lifetime("2001:db8:6::a/64")
    temporary = Lifetime("2001:db8:7::a/64", temporary=True)
    place = Site(OWNER, SPACE, "n")
    both = slaac.with_addresses(place, Result(), seen(old, new, temporary))
    assert [(ip.address, ip.gateway) for ip in both.ips] == [("2001:db8:6::a/64", "fe80::1")]
    assert [route.gw for route in both.routes] == ["fe80::1", "fe80::2"]
    assert [ip.address for ip in slaac.with_addresses(place, Result(), seen(old)).ips] == ["2001:db8:5::a/64"]
    on_link = Snapshot({GetLifetimes(SPACE, "eth0"): (new,), GetRoutes(SPACE, "eth0"): (RouteEntry("::/0", None),)})
    alone = slaac.with_addresses(place, Result(), on_link)
    assert (alone.ips[0].gateway, alone.routes) == (None, ())


def test_a_router_needs_ipv6_in_the_container() -> None:
    fake = with_router()
    sysctls = fake.kernel.spaces[SPACE].sysctls
    sysctls["ipv6/conf/lo/disable_ipv6"] = "1"
    call(fake, "ADD", SLAAC).ok()
    assert sysctls["ipv6/conf/lo/disable_ipv6"] == "0"
    call(fake, "DEL", SLAAC).ok()
    for key in [key for key in sysctls if key.startswith("ipv6")]:
        del sysctls[key]
    assert "no IPv6" in call(fake, "ADD", SLAAC).error(errors.IPV6_DISABLED)
    small = node(mtu=1200)
    assert "IPv6 needs 1280" in call(small, "ADD", SLAAC).error(errors.NODE_CONFLICT)


def test_where_the_node_is_the_router_there_is_no_other() -> None:
    fake = FakeContext()
    fake.container("c1")
    conf = {**BRIDGED, "ipam": {"type": "cni-v6-slaac"}}
    assert 'use "type": "cni-v6-macvlan"' in fake.call("ADD", "c1", conf).error(errors.INVALID_CONFIG)


def test_del_of_a_layer_2_interface_that_is_gone() -> None:
    fake = node()
    call(fake, "ADD", LAYER_2).ok()
    fake.kernel.delete(SPACE, "eth0")
    call(fake, "DEL", LAYER_2).ok()
    assert fake.attachments("lan") == []


# CHECK, and what ctl finds


@pytest.mark.parametrize(("spoil", "says"), [
    ("mode", "mode is vepa, not bridge"), ("kind", "eth0 is no macvlan"), ("gone", "interface eth0 is missing"),
    ("down", "master up0 is down"), ("no master", "master up0 is missing"), ("autoconf", "autoconf is 1, not 0"),
])
def test_check_names_the_difference(spoil: str, says: str) -> None:
    fake = node()
    result = call(fake, "ADD").ok()
    kernel = fake.kernel
    if spoil == "mode":
        kernel.children[SPACE, "eth0"] = (HOST, WIRE, "macvlan", "vepa")
    elif spoil == "kind":
        del kernel.children[SPACE, "eth0"]
    elif spoil == "gone":
        kernel.delete(SPACE, "eth0")
    elif spoil == "down":
        kernel.spaces[HOST].links[WIRE] = replace(kernel.spaces[HOST].links[WIRE], up=False)
    elif spoil == "no master":
        kernel.delete(HOST, WIRE)
    else:
        kernel.spaces[SPACE].sysctls["ipv6/conf/eth0/autoconf"] = "1"
    assert says in call(fake, "CHECK", {**CONFIG, "prevResult": result}).error(errors.CHECK_FAILED)
    with fake.leases("lan").transaction() as leases:
        found = repair.look(leases, fake.context())
    assert [words for _, words in found.differences] == ([says] if "master" in says else [])
    assert found.steps == []


def test_check_without_a_record() -> None:
    fake = node()
    result = call(fake, "ADD").ok()
    fake.stores.clear()
    assert "not leased" in call(fake, "CHECK", {**CONFIG, "prevResult": result}).error(errors.CHECK_FAILED)
    fake.plugins["dhcp"] = dhcp_server()
    call(fake, "DEL").ok()
    result = call(fake, "ADD", FOREIGN).ok()
    fake.stores.clear()
    call(fake, "CHECK", {**FOREIGN, "prevResult": result}).ok()


# Who reaches it

UP, DOWN = Link(WIRE, WIRE_MAC, 1500, up=True), Link(WIRE, WIRE_MAC, 1500)
ADDRESS = "2001:db8:1::1"
INNER = Inside(Link("eth0", WIRE_MAC, 1500, up=True), (f"{ADDRESS}/64",), (RouteEntry("::/0", "fe80::1"),))


PORT = ChildLink(SPACE, WIRE, mode="bridge")


def situation(port: ChildLink = PORT, **changes: Any) -> Situation:
    found = Situation(Attachment(OWNER, (ADDRESS,), port=port), UP, None, (), True, (), {}, {}, {}, INNER)
    return replace(found, **changes)


@pytest.mark.parametrize(("changes", "why"), [
    ({}, ""), ({"inside": None}, ""), ({"link": None}, "master up0 is missing"), ({"link": DOWN}, "master up0 is down"),
    ({"port": ChildLink(SPACE, "net0", True, mode="bridge"), "link": None}, ""),
    ({"inside": replace(INNER, link=None)}, "eth0 is not in the container's namespace"),
    ({"inside": replace(INNER, link=DOWN)}, "eth0 in the container is down"),
])
def test_what_cuts_it_off(changes: dict[str, Any], why: str) -> None:
    assert cut_off(situation(**changes)).startswith(why) and bool(cut_off(situation(**changes))) == bool(why)
    verdicts = {verdict.who: verdict.may for verdict in reach.reached(situation(**changes))}
    assert (verdicts[reach.NEIGHBOURS], verdicts[reach.OUTSIDE]) == (
        (reach.NO, reach.NO) if why else (reach.YES, reach.PERHAPS))


@pytest.mark.parametrize(("node_link", "ways", "may", "why"), [
    ("", {}, reach.NO, "no frame between a macvlan and its master"),
    ("node1", {}, reach.NO, "no route to it through node1"),
    ("node1", {ADDRESS: Way(WIRE)}, reach.NO, "no route to it through node1"),
    ("node1", {ADDRESS: Way("node1")}, reach.YES, "through node1"),
])
def test_whether_the_node_reaches_it(node_link: str, ways: dict[str, Way], may: str, why: str) -> None:
    seen = situation(ChildLink(SPACE, WIRE, node=node_link), ways=ways)
    [verdict] = [verdict for verdict in reach.reached(seen) if verdict.who == reach.NODE]
    assert verdict.may == may and why in verdict.why


def test_where_its_packets_leave() -> None:
    [found] = reach.leaving(situation())
    assert (found.may, found.interface, found.source) == (reach.YES, "eth0 by way of fe80::1", ADDRESS)
    on_link = replace(INNER, routes=(RouteEntry("::/0", None),))
    assert next(reach.leaving(situation(inside=on_link))).interface == "eth0 by way of the link"
    other = replace(INNER, routes=(RouteEntry("2001:db8:9::/64", "fe80::9"), *INNER.routes))
    assert next(reach.leaving(situation(inside=other))).interface == "eth0 by way of fe80::1"
    for changes in ({"inside": replace(INNER, routes=())}, {"inside": None}, {"link": None}):
        assert next(reach.leaving(situation(**changes))).may == reach.NO


# The record, and the configuration


@pytest.mark.parametrize("link", [ChildLink(SPACE, WIRE), ChildLink("/proc/7/ns/net", "eth0.7", True),
                                  ChildLink(SPACE, WIRE, node="node1")])
def test_the_record_of_a_link(link: ChildLink) -> None:
    assert port_record.from_json(port_record.to_json(link)) == link


@pytest.mark.parametrize("raw", [
    {"netns": "run/x", "master": "up0"}, {"netns": "/x\0", "master": "up0"}, {"netns": "/x", "master": "a/b"},
    {"netns": "/x", "master": ""}, {"netns": "/x", "master": "up0", "node": "a/b"},
])
def test_a_record_that_nobody_wrote(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        port_record.from_json(raw)


@pytest.mark.parametrize(("keys", "code", "says"), [
    *(({name: value}, errors.UNSUPPORTED_FIELD, f"{name}: ") for name, value in {
        "ingress": "published", "guard": True, "macspoofchk": True, "ipMasq": True, "masquerade": {"ipv4": "on"},
        "nonMasquerade": ["10.0.0.0/8"], "snat": {"ipv4": "192.0.2.7"}, "ndpProxy": "auto", "isGateway": True,
        "nptv6": {"internal": "fd00::/64", "external": "2001:db8::/64"}, "isDefaultGateway": True,
    }.items()),
    ({"egress": []}, errors.UNSUPPORTED_FIELD, "egress needs an interface of the container on the node"),
    ({"args": {"cni": {"egress": []}}}, errors.UNSUPPORTED_FIELD, "args.cni.egress needs"),
    ({"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80}]}}, errors.UNSUPPORTED_FIELD,
     "runtimeConfig.portMappings: a list needs an interface"),
    ({"runtimeConfig": {"infinibandGUID": "c2:11"}}, errors.UNSUPPORTED_FIELD, "has no InfiniBand GUID"),
    ({"mode": "tap"}, errors.INVALID_CONFIG, "is none of bridge, private, vepa, passthru"),
    ({"mode": "passthru", "mac": "02:00:00:00:00:01"}, errors.INVALID_CONFIG, "exclude each other"),
    ({"mode": "passthru", "master": ""}, errors.INVALID_CONFIG, "write another interface as master"),
    ({"linkInContainer": True, "master": "auto"}, errors.INVALID_CONFIG, "master is missing"),
    ({"hostAccess": True, "mode": "vepa"}, errors.INVALID_CONFIG, "needs mode bridge"),
    ({"hostAccess": True, "linkInContainer": True}, errors.INVALID_CONFIG, "exclude each other"),
    ({"hostAccess": True, "ipam": {}}, errors.INVALID_CONFIG, "needs an ipam"),
    ({"hostAccess": True, "ipam": {"type": "cni-v6-slaac"}}, errors.INVALID_CONFIG, "needs an ipam with ranges"),
    ({"mtu": 1000, "ipam": {"type": "cni-v6-slaac"}}, errors.INVALID_CONFIG, "the least IPv6 needs"),
    ({"acceptRa": True, "ipam": {"type": "cni-v6-slaac"}}, errors.INVALID_CONFIG, "listens to routers anyway"),
    ({"ipam": {"type": "cni-v6-slaac", "slaacTimeout": 61}}, errors.INVALID_CONFIG, "ipam.slaacTimeout: 61"),
    ({"mtu": 1000}, errors.INVALID_CONFIG, "the least IPv6 needs"),
    ({"ipam": {**CONFIG["ipam"], "delegate": 80}}, errors.INVALID_CONFIG, "ipam.delegate: 80 needs the node as router"),
])
def test_what_a_macvlan_cannot_have(keys: dict[str, Any], code: int, says: str) -> None:
    message = call(node(), "ADD", {**CONFIG, **keys}).error(code)
    assert says in message and message.partition(": ")[2]


def test_what_asks_for_nothing_is_accepted() -> None:
    call(node(), "ADD", {**CONFIG, "guard": False, "ipMasq": False, "runtimeConfig": {"portMappings": []}}).ok()


@pytest.mark.parametrize("nothing", [{}, {"ingressRate": 0, "ingressBurst": 0}, None])
def test_a_bandwidth_that_limits_nothing_is_accepted(nothing: Any) -> None:
    """Runtimes with the capability write it for every container."""
    call(node(), "ADD", {**CONFIG, "bandwidth": nothing, "runtimeConfig": {"bandwidth": nothing}}).ok()


def test_a_bandwidth_is_refused() -> None:
    limited = {**CONFIG, "runtimeConfig": {"bandwidth": {"egressRate": 1000, "egressBurst": 1000}}}
    said = call(node(), "ADD", limited).error(errors.UNSUPPORTED_FIELD)
    assert "runtimeConfig.bandwidth" in said and "needs an interface of the container on the node" in said


@pytest.mark.parametrize(("keys", "env", "mac"), [
    ({"mac": "02:00:00:00:00:01"}, "", "02:00:00:00:00:01"),
    ({"mac": "02:00:00:00:00:01"}, "MAC=02:00:00:00:00:02", "02:00:00:00:00:02"),
    ({"mac": "02:00:00:00:00:01", "runtimeConfig": {"mac": "02:00:00:00:00:03"}}, "", "02:00:00:00:00:03"),
])
def test_whose_mac_counts(keys: dict[str, Any], env: str, mac: str) -> None:
    result = call(node(), "ADD", {**CONFIG, **keys}, CNI_ARGS=env).ok()
    assert result["interfaces"][0]["mac"] == mac


def test_where_it_is_recorded() -> None:
    fake = node()
    call(fake, "ADD").ok()
    assert (fake.attachments("lan", DATA_DIR)[0].boot, fake.attachments("lan")[0].netns) == (
        BOOT, fake.kernel.netns_id(SPACE))
