"""The ipvlan and vlan plugins on a node of fakes, where they differ from macvlan (``test_macvlan``)."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments import repair
from cni_v6.errors import CniError
from cni_v6.kernel import awaits, child_link, ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.netlink.socket import Answer
from cni_v6.kernel.ops import HOST
from cni_v6.leases import port_record
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.plan import child, reach
from cni_v6.protocol.names import Owner, node_group, node_interface, unnamed_interface
from tests.unit.fake_context import DATA_DIR, FakeContext, gc
from tests.unit.test_macvlan import OWNER, SPACE, WIRE, WIRE_MAC, inside, node, situation, sysctl

IPVLAN, VLAN, MACVLAN = "cni-v6-ipvlan", "cni-v6-vlan", "cni-v6-macvlan"
V6, V4 = {"subnet": "2001:db8:1::/64", "gateway": "fe80::1"}, {"subnet": "10.1.0.0/24"}
COMMON: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "lan", "master": WIRE,
    "ipam": {"type": "cni-v6-ipam", "ranges": [[V6], [V4]], "routes": [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]},
}
L2: dict[str, Any] = {**COMMON, "type": IPVLAN}
L3: dict[str, Any] = {**L2, "mode": "l3"}
TAGGED: dict[str, Any] = {**COMMON, "type": VLAN, "vlanId": 5}


def call(fake: FakeContext, command: str, conf: dict[str, Any], name: str = "c1", **env: str) -> Any:
    return fake.call(command, name if command not in ("GC", "STATUS") else "", conf, type=conf["type"], **env)


@pytest.mark.parametrize(("conf", "kind", "mode", "dad", "announced", "waits"), [
    pytest.param(L2, "ipvlan", "l2", "1", False, True, id="l2"),
    pytest.param(L3, "ipvlan", "l3", "0", False, False, id="l3"),
    pytest.param({**L2, "mode": "l3s"}, "ipvlan", "l3s", "0", False, False, id="l3s"),
    pytest.param(TAGGED, "vlan", "5", "1", True, True, id="vlan"),
])
def test_the_life_of_a_container(
    conf: dict[str, Any], kind: str, mode: str, dad: str, announced: bool, waits: bool
) -> None:
    """With the master's MAC; without neighbours there is no duplicate address detection, and nobody to tell."""
    fake = node()
    result = call(fake, "ADD", conf).ok()
    assert result["interfaces"] == [{"name": "eth0", "mac": WIRE_MAC, "mtu": 1500, "sandbox": SPACE}]
    assert result["ips"] == [
        {"address": "2001:db8:1::1/64", "gateway": "fe80::1", "interface": 0},
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0},
    ]
    assert inside(fake) == {"eth0": Link("eth0", WIRE_MAC, 1500, kind, up=True, arp=waits, alias="cni-v6 lan/c1/eth0")}
    routes = {route.dst: route.gateway for route in fake.kernel.spaces[SPACE].routes["eth0"]}
    assert routes == {"::/0": "fe80::1", "0.0.0.0/0": "10.1.0.1"}
    assert [sysctl(fake, name) for name in ("accept_ra", "autoconf", "accept_dad")] == ["0", "0", dad]
    assert bool(fake.kernel.announced) == announced
    assert any(isinstance(step, awaits.AwaitAddresses) for step in fake.kernel.applied) == waits
    assert awaits.AwaitReception(SPACE, "eth0", ("2001:db8:1::1",)) in fake.kernel.applied
    notified = sysctl(fake, "ndisc_notify"), fake.kernel.spaces[SPACE].sysctls["ipv4/conf/eth0/arp_notify"]
    assert notified == (("1", "1") if waits else ("0", "0"))
    [record] = fake.attachments("lan")
    assert (record.host, record.port) == ("", ChildLink(SPACE, WIRE, kind=kind, mode=mode))
    call(fake, "CHECK", {**conf, "prevResult": result}).ok()
    call(fake, "STATUS", conf).ok()
    call(fake, "DEL", conf).ok()
    assert inside(fake) == {} and fake.attachments("lan") == [] and set(fake.kernel.spaces[HOST].links) == {"lo", WIRE}


@pytest.mark.parametrize("conf", [L2, TAGGED])
def test_gc_and_del_find_it_by_the_record(conf: dict[str, Any]) -> None:
    fake = node()
    call(fake, "ADD", conf).ok()
    fake.now += 10
    call(fake, "GC", gc(config=conf)).ok()
    assert inside(fake) == {} and fake.attachments("lan") == []
    call(fake, "ADD", conf).ok()
    call(fake, "DEL", conf, CNI_NETNS="").ok()
    assert inside(fake) == {}


@pytest.mark.parametrize("conf", [L2, TAGGED])
def test_del_takes_what_a_kill_left(conf: dict[str, Any]) -> None:
    fake = node()
    kind = conf["type"].removeprefix("cni-v6-")
    fake.kernel.add_link(SPACE, Link(unnamed_interface(OWNER), WIRE_MAC, 1500, kind))
    call(fake, "DEL", conf).ok()
    assert inside(fake) == {}


@pytest.mark.parametrize(("conf", "kind"), [(L2, "ipvlan"), (TAGGED, "vlan")])
def test_del_of_a_container_of_the_reference_plugin(conf: dict[str, Any], kind: str) -> None:
    """Its interface has no alias; it is known by the leased addresses. Another kind of interface is left alone."""
    for found, left in ((kind, False), ("macvlan", True)):
        fake = node()
        result = call(fake, "ADD", conf).ok()
        [record] = fake.attachments("lan")
        fake.kernel.delete(SPACE, "eth0")
        with fake.leases("lan").transaction() as leases:
            leases.drop(record.owner)
            leases.put(type(record)(record.owner, record.addresses))
        fake.kernel.add_link(SPACE, Link("eth0", WIRE_MAC, 1500, found))
        fake.kernel.spaces[SPACE].addresses["eth0"] = [ip["address"] for ip in result["ips"]]
        call(fake, "DEL", conf).ok()
        assert bool(inside(fake)) == left


@pytest.mark.parametrize(("conf", "found", "says"), [
    (L2, ("ipvlan", "l3"), "mode is l3, not l2"), (TAGGED, ("vlan", "6"), "id is 6, not 5"),
    (TAGGED, ("macvlan", "bridge"), "eth0 is no vlan"),
])
def test_check_names_the_difference(conf: dict[str, Any], found: tuple[str, str], says: str) -> None:
    fake = node()
    result = call(fake, "ADD", conf).ok()
    fake.kernel.children[SPACE, "eth0"] = (HOST, WIRE, *found)
    assert says in call(fake, "CHECK", {**conf, "prevResult": result}).error(errors.CHECK_FAILED)


def test_the_nodes_own_addresses() -> None:
    """They are left out of an ipvlan's ranges. In a VLAN they are another link's."""
    for conf, first in ((L2, "10.1.0.3"), (TAGGED, "10.1.0.2")):
        fake = node()
        fake.kernel.spaces[HOST].addresses[WIRE] = ["10.1.0.2/24"]
        assert call(fake, "ADD", conf).ok()["ips"][1]["address"] == f"{first}/24"


# hostAccess

SHARED = {**L2, "hostAccess": True}
NODE = node_interface("lan", WIRE)


def with_addresses(*addresses: str) -> FakeContext:
    fake = node()
    fake.kernel.spaces[HOST].addresses[WIRE] = ["fe80::7/64", *addresses]
    return fake


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_the_node_has_an_ipvlan_as_long_as_a_container_needs_it(mode: str) -> None:
    """With the master's MAC, which containers have the node's addresses at; it resolves no neighbours."""
    fake, conf = with_addresses("10.1.0.1/24", "2001:db8:1::99/64"), {**SHARED, "mode": mode}
    result = call(fake, "ADD", conf).ok()
    assert result["interfaces"][1:] == [{"name": NODE, "mac": WIRE_MAC, "mtu": 1500}]
    link = fake.kernel.spaces[HOST].links[NODE]
    assert (link.kind, link.mac, link.up, link.arp) == ("ipvlan", WIRE_MAC, True, False)
    assert fake.kernel.children[HOST, NODE] == (HOST, WIRE, "ipvlan", mode)
    assert fake.kernel.spaces[SPACE].neighbours == {"eth0": {"10.1.0.1": WIRE_MAC, "2001:db8:1::99": WIRE_MAC}}
    assert {route.dst for route in fake.kernel.spaces[HOST].routes[NODE]} == {"2001:db8:1::1/128", "10.1.0.2/32"}
    [record] = fake.attachments("lan")
    assert record.port == ChildLink(SPACE, WIRE, node=NODE, kind="ipvlan", mode=mode)
    call(fake, "CHECK", {**conf, "prevResult": result}).ok()
    call(fake, "STATUS", conf).ok()
    call(fake, "DEL", conf).ok()
    assert set(fake.kernel.spaces[HOST].links) == {"lo", WIRE}


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_what_comes_back_to_the_master_is_refused_while_the_node_has_an_ipvlan_there(mode: str) -> None:
    """Of several networks on one master: until the last of them has none."""
    fake, conf = with_addresses("10.1.0.1/24"), {**SHARED, "mode": mode}
    other = {**conf, "name": "other", "ipam": {**conf["ipam"], "ranges": [[{"subnet": "10.2.0.0/24"}]]}}
    group = node_group(WIRE)
    refused = {(WIRE, group)} if mode == "l2" else set()
    for number, config in enumerate((conf, other), 1):
        fake.container(f"c{number}")
        call(fake, "ADD", config, f"c{number}").ok()
        assert fake.kernel.refused == refused
    assert (fake.kernel.spaces[HOST].links[NODE].group == group) == (mode == "l2")
    fake.kernel.refused.clear()
    fake.container("c3")
    call(fake, "ADD", conf, "c3").ok()
    for name, config, left in (("c3", conf, refused), ("c1", conf, refused), ("c2", other, set())):
        assert fake.kernel.refused == refused
        call(fake, "DEL", config, name).ok()
        assert fake.kernel.refused == left


def test_a_network_that_comes_while_the_last_one_goes() -> None:
    fake = with_addresses("10.1.0.1/24")
    call(fake, "ADD", SHARED).ok()
    apply = fake.kernel.apply

    def meanwhile(steps: Any) -> Any:
        steps = tuple(steps)
        if any(isinstance(step, ops.AllowReturn) for step in steps):
            fake.kernel.add_link(HOST, Link("node2", WIRE_MAC, 1500, kind="ipvlan", group=node_group(WIRE)))
        return apply(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake.kernel, "apply", meanwhile)
        call(fake, "DEL", SHARED).ok()
    assert fake.kernel.refused == {(WIRE, node_group(WIRE))}


@pytest.mark.parametrize("spoil", ["is missing", "is down", "resolves neighbours"])
def test_what_the_node_s_ipvlan_lacks_is_mended(spoil: str) -> None:
    fake = with_addresses("10.1.0.1/24")
    result = call(fake, "ADD", SHARED).ok()
    if spoil == "is missing":
        fake.kernel.delete(HOST, NODE)
    else:  # it resolves neighbours whenever it comes up
        fake.kernel.apply([ops.SetLink(HOST, NODE, up=spoil != "is down")])
    check = {**SHARED, "prevResult": result}
    assert f"the node's ipvlan {NODE} {spoil}" in call(fake, "CHECK", check).error(errors.CHECK_FAILED)
    with fake.leases("lan").transaction() as leases:
        assert repair.mend(repair.look(leases, fake.context()), fake.context()) == []
    call(fake, "CHECK", check).ok()
    fake.kernel.apply([ops.SetLink(HOST, NODE, up=False)])
    fake.container("c2")
    call(fake, "ADD", SHARED, "c2").ok()
    assert not fake.kernel.spaces[HOST].links[NODE].arp


def test_rules_that_somebody_has_removed_are_mended() -> None:
    fake = with_addresses("10.1.0.1/24")
    result = call(fake, "ADD", SHARED).ok()
    check, group = {**SHARED, "prevResult": result}, node_group(WIRE)
    fake.kernel.refused.clear()
    words = f"the node's rules that refuse what comes back by {WIRE} are missing, or not as they were made"
    assert words in call(fake, "CHECK", check).error(errors.CHECK_FAILED)
    done: list[Any] = []
    apply = fake.kernel.apply

    def noted(steps: Any) -> Any:
        done.extend(steps := tuple(steps))
        return apply(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake.kernel, "apply", noted)
        with fake.leases("lan").transaction() as leases:
            assert repair.mend(repair.look(leases, fake.context()), fake.context()) == []
    assert done == [ops.AllowReturn(WIRE, group), ops.RefuseReturn(WIRE, group)], "in their order again"
    call(fake, "CHECK", check).ok()


@pytest.mark.parametrize(("everywhere", "master", "mode", "drops"), [
    ("1", "0", "l2", True), ("0", "1", "l2", True), ("1", "2", "l2", False), ("0", "0", "l2", False),
    ("1", "1", "l3", False),
])
def test_a_node_that_drops_what_containers_send_it(everywhere: str, master: str, mode: str, drops: bool) -> None:
    fake, conf = with_addresses("10.1.0.1/24"), {**SHARED, "mode": mode}
    fake.kernel.spaces[HOST].sysctls |= {
        "ipv4/conf/all/rp_filter": everywhere, f"ipv4/conf/{WIRE}/rp_filter": master,
    }
    words = f"over IPv4 (rp_filter 1): run sysctl -w net/ipv4/conf/{WIRE}/rp_filter=2"
    reply = call(fake, "ADD", conf)
    assert (words in reply.stderr) == drops
    check = call(fake, "CHECK", {**conf, "prevResult": reply.ok()})
    assert words in check.error(errors.CHECK_FAILED) if drops else check.ok() is None


# All ipvlans of a master have one mode


def test_another_mode_is_refused_while_a_container_has_one() -> None:
    """The kernel would change the mode of that container too."""
    fake = node()
    fake.container("c2")
    fake.container("c3")
    call(fake, "ADD", L2).ok()
    other = {**L3, "name": "other", "ipam": {**L3["ipam"], "ranges": [[{"subnet": "10.2.0.0/24"}]]}}
    said = call(fake, "ADD", other, "c2").error(errors.NODE_CONFLICT)
    assert "mode: l3" in said and "ipvlans in mode l2" in said and str(OWNER) in said
    assert call(fake, "STATUS", L3).error(errors.NOT_AVAILABLE)
    assert "in mode l2" in call(fake, "ADD", L3, "c3").error(errors.NODE_CONFLICT)
    call(fake, "ADD", {**other, "mode": "l2"}, "c2").ok()
    call(fake, "DEL", L2).ok()
    call(fake, "DEL", other, "c2").ok()
    call(fake, "ADD", other, "c3").ok()


@pytest.mark.parametrize("network", ["lan", "other"])
def test_of_two_modes_at_the_same_time_one_at_most_is_made(network: str) -> None:
    """At a boot the containers of two networks come together: neither has seen the other when it begins."""
    fake = node()
    fake.container("c2")
    look, begun = child.check_free, list[str]()

    def check_free(*given: Any) -> None:
        if not begun:
            begun.append(network)
            call(fake, "ADD", {**L3, "name": network}, "c2").ok()
        look(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "check_free", check_free)
        assert "ipvlans in mode l3" in call(fake, "ADD", L2).error(errors.NODE_CONFLICT)
    assert inside(fake) == {} and [record.owner.network for record in fake.attachments(network)] == [network]
    assert OWNER not in [record.owner for record in fake.attachments("lan")]


@pytest.mark.parametrize("change", [
    {"master": "up1"}, {"type": MACVLAN, "master": "up1"}, {"boot": "before"}, {"in_container": True},
])
def test_what_has_another_master_or_is_over_is_in_nobodys_way(change: dict[str, Any]) -> None:
    fake = node()
    fake.kernel.add_link(HOST, Link("up1", "02:00:00:00:01:02", 1500, up=True))
    if "type" in change or "master" in change:
        call(fake, "ADD", {**L2, "name": "first", **change}).ok()
    else:
        boot = change.get("boot", fake.context().boot)
        port = ChildLink(SPACE, WIRE, "in_container" in change, kind="ipvlan", mode="l2")
        with fake.leases("first").transaction() as leases:
            leases.put(Attachment(Owner("first", "c9", "eth0"), (), port=port, boot=boot))
    fake.container("c2")
    call(fake, "ADD", L3, "c2").ok()


def test_a_master_in_the_container_is_the_containers_matter() -> None:
    fake = node()
    fake.kernel.add_link(SPACE, Link("net0", WIRE_MAC, 1500, up=True))
    call(fake, "ADD", {**L3, "master": "net0", "linkInContainer": True}).ok()
    assert fake.attachments("lan")[0].port == ChildLink(SPACE, "net0", True, kind="ipvlan", mode="l3")


def test_an_address_that_another_ipvlan_of_the_master_has() -> None:
    """Of a second network with the same ranges: the error says so, and nothing stays."""
    fake = node()
    fake.container("c2")
    call(fake, "ADD", L2).ok()
    call(fake, "ADD", {**L2, "name": "other"}, "c2").error(errors.ADDRESS_UNAVAILABLE)
    assert fake.attachments("other", DATA_DIR) == [] and set(fake.kernel.spaces["/run/netns/c2"].links) == {"lo"}


# What the kernel refuses


@pytest.mark.parametrize(("kind", "mode", "error", "text", "code", "says"), [
    ("vlan", "5", errno.EEXIST, "", errors.NODE_CONFLICT, "VLAN 5 of master up0 has an interface already"),
    ("ipvlan", "l2", errno.EEXIST, "", errors.ALREADY_ATTACHED, "interface eth0 is in the container already"),
    ("ipvlan", "l3", errno.EBUSY, "", errors.NODE_CONFLICT, "takes no ipvlan in mode l3: it must not be in a bridge"),
    ("vlan", "5", errno.EINVAL, "", errors.NODE_CONFLICT, "takes no vlan: not every interface takes VLANs"),
    ("ipvlan", "l2", errno.EOPNOTSUPP, "Unknown device type", errors.KERNEL_REFUSED, "type): modprobe ipvlan"),
    ("vlan", "5", errno.EOPNOTSUPP, "", errors.KERNEL_REFUSED, "on up0: Operation not supported: modprobe 8021q"),
    ("vlan", "5", errno.EPERM, "", errors.KERNEL_REFUSED, "cannot create vlan eth0"),
])
def test_what_the_kernels_refusal_means(kind: str, mode: str, error: int, text: str, code: int, says: str) -> None:
    route = SimpleNamespace(request=lambda messages: [Answer(error, text)])
    spaces: Any = SimpleNamespace(index=lambda *_: 9, get=lambda _: SimpleNamespace(file=3, route=route))
    with pytest.raises(CniError) as raised:
        child_link.create(spaces, ops.CreateChildLink(HOST, WIRE, SPACE, "eth0", "new1", kind, mode, "", 0, ""))
    assert raised.value.code == code and says in f"{raised.value.msg}: {raised.value.details}"


# Keys


def test_the_id_of_a_vlan_belongs_to_one_container() -> None:
    fake = node()
    fake.container("c2")
    call(fake, "ADD", TAGGED).ok()
    call(fake, "ADD", TAGGED, "c2").error(errors.NODE_CONFLICT)
    assert [record.owner.container_id for record in fake.attachments("lan")] == ["c1"]
    call(fake, "ADD", {**TAGGED, "vlanId": 6}, "c2").ok()


@pytest.mark.parametrize(("conf", "code", "says"), [
    ({**L2, "mode": "l4"}, errors.INVALID_CONFIG, 'write "l2", "l3" or "l3s"'),
    ({**L2, "runtimeConfig": {"mac": "02:00:00:00:00:01"}}, errors.INVALID_CONFIG, "has the MAC of its master"),
    ({**L2, "mac": "02:00:00:00:00:01"}, errors.UNSUPPORTED_FIELD, "has the MAC of its master"),
    ({**L2, "hostAccess": True, "linkInContainer": True}, errors.INVALID_CONFIG, "exclude each other"),
    ({**L2, "hostAccess": True, "ipam": {}}, errors.INVALID_CONFIG, "needs an ipam with ranges"),
    ({**TAGGED, "hostAccess": True}, errors.UNSUPPORTED_FIELD, "another link than the node's"),
    ({**L3, "acceptRa": True}, errors.INVALID_CONFIG, "acceptRa: true needs mode l2"),
    ({**L3, "ipam": {"type": "cni-v6-slaac"}}, errors.INVALID_CONFIG, "needs mode l2"),
    ({**L2, "linkInContainer": True, "master": ""}, errors.INVALID_CONFIG, "master is missing"),
    ({**L2, "egress": []}, errors.UNSUPPORTED_FIELD, "an ipvlan has none"),
    ({**L2, "isGateway": True}, errors.UNSUPPORTED_FIELD, "does not route for an ipvlan"),
    ({**L2, "ipam": {**L2["ipam"], "delegate": 80}}, errors.INVALID_CONFIG, "does not route for an ipvlan"),
    ({**TAGGED, "guard": True}, errors.UNSUPPORTED_FIELD, "a vlan has none"),
    ({**TAGGED, "vlanId": None}, errors.INVALID_CONFIG, "vlanId is missing"),
    ({**TAGGED, "vlanId": 4095}, errors.INVALID_CONFIG, "vlanId: 4095"),
    ({**TAGGED, "mtu": 1000}, errors.INVALID_CONFIG, "the least IPv6 needs"),
])
def test_what_they_cannot_have(conf: dict[str, Any], code: int, says: str) -> None:
    assert says in call(node(), "ADD", conf).error(code)


def test_frames_with_a_priority_alone() -> None:
    fake = node()
    call(fake, "ADD", {**TAGGED, "vlanId": 0}).ok()
    assert fake.kernel.children[SPACE, "eth0"] == (HOST, WIRE, "vlan", "0")


@pytest.mark.parametrize(("keys", "mac"), [
    ({}, WIRE_MAC), ({"mac": "02:00:00:00:00:07"}, "02:00:00:00:00:07"),
    ({"mac": "02:00:00:00:00:07", "runtimeConfig": {"mac": "02:00:00:00:00:08"}}, "02:00:00:00:00:08"),
])
def test_the_mac_of_a_vlan(keys: dict[str, Any], mac: str) -> None:
    fake = node()
    assert call(fake, "ADD", {**TAGGED, **keys}).ok()["interfaces"][0]["mac"] == mac == inside(fake)["eth0"].mac


@pytest.mark.parametrize("conf", [L2, TAGGED])
def test_addresses_of_a_router(conf: dict[str, Any]) -> None:
    fake = node()
    fake.kernel.advertised = "2001:db8:5::a/64", "fe80::1"
    result = call(fake, "ADD", {**conf, "ipam": {"type": "cni-v6-slaac"}}).ok()
    assert result["ips"] == [{"address": "2001:db8:5::a/64", "gateway": "fe80::1", "interface": 0}]


# Records, and what ctl says


@pytest.mark.parametrize("link", [
    ChildLink(SPACE, "eth0", kind="ipvlan", mode="l3s"), ChildLink(SPACE, "eth0", True, kind="vlan", mode="4094"),
    ChildLink(SPACE, "eth0"),
])
def test_a_record_is_read_back(link: ChildLink) -> None:
    assert port_record.from_json(port_record.to_json(link)) == link


@pytest.mark.parametrize("change", [{"kind": "tap"}, {"mode": "../x"}])
def test_a_record_that_nobody_wrote_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        port_record.from_json({"netns": SPACE, "master": "eth0", **change})


@pytest.mark.parametrize(("kind", "mode", "neighbours", "own"), [
    ("ipvlan", "l2", "it is a host of the link of up0", "between an ipvlan and its master"),
    ("vlan", "5", "it is a host of VLAN 5 of up0", "no interface in that VLAN"),
])
def test_who_reaches_it(kind: str, mode: str, neighbours: str, own: str) -> None:
    seen = situation(port=ChildLink(SPACE, WIRE, kind=kind, mode=mode))
    found = {verdict.who: verdict for verdict in reach.reached(seen)}
    assert neighbours in found[reach.NEIGHBOURS].why
    assert found[reach.NODE].may == reach.NO and own in found[reach.NODE].why
