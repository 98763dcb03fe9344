"""The routed plugin on a node of fakes: plan and result, CHECK, STATUS, repair, what is found anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments import repair
from cni_v6.firewall.sets import INET
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import DROPS_ALL, DROPS_REST, ForwardChain, Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases import port_record
from cni_v6.leases.attachment import Attachment, GatewayAddress, RoutedLink
from cni_v6.plan import outage
from cni_v6.protocol.names import Owner, container_mac, host_interface, host_mac, link_group
from tests.unit.fake_context import CONFIG as BRIDGED, DATA_DIR, FakeContext, dhcp_server, gc, plugin

TYPE = "cni-v6-routed"
RANGES = BRIDGED["ipam"]["ranges"]
CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "pods", "type": TYPE,
                          "ipam": {"type": "cni-v6-ipam", "ranges": RANGES}}
OPEN: dict[str, Any] = {**CONFIG, "ingress": "open", "guard": False}
OWNER = Owner("pods", "c1", "eth0")
VETH, SPACE = host_interface(OWNER), "/run/netns/c1"
FORCE = f"ipv6/conf/{VETH}/force_forwarding"


def config(*subnets: str, ipam: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    own = {"type": "cni-v6-ipam", "ranges": [[{"subnet": subnet}] for subnet in subnets] or RANGES, **(ipam or {})}
    return {**CONFIG, "ipam": own, **keys}


def call(fake: FakeContext, command: str, name: str = "", conf: dict[str, Any] = CONFIG, **env: str) -> Any:
    return fake.call(command, name, conf, type=TYPE, **env)


def add(fake: FakeContext, name: str = "c1", conf: dict[str, Any] = CONFIG) -> Any:
    fake.container(name)
    return call(fake, "ADD", name, conf).ok()


def check(fake: FakeContext, result: Any, conf: dict[str, Any] = CONFIG) -> Any:
    return call(fake, "CHECK", "c1", {**conf, "prevResult": result})


def routes(fake: FakeContext, netns: str = SPACE, ifname: str = "eth0") -> dict[str, str | None]:
    return {route.dst: route.gateway for route in fake.kernel.spaces[netns].routes.get(ifname, [])}


def test_a_container_has_its_addresses_alone_and_the_node_a_way_to_each() -> None:
    fake = FakeContext()
    result = add(fake)
    assert result["ips"] == [
        {"address": "2001:db8:1::2/128", "gateway": "fe80::1", "interface": 1},
        {"address": "10.1.0.2/32", "interface": 1},
    ]
    assert result["routes"] == [{"dst": "::/0", "gw": "fe80::1"}, {"dst": "0.0.0.0/0"}]
    assert [each["name"] for each in result["interfaces"]] == [VETH, "eth0"]
    node, inside = fake.kernel.spaces[HOST], fake.kernel.spaces[SPACE]
    assert routes(fake) == {"::/0": "fe80::1", "0.0.0.0/0": "fe80::1"}
    assert inside.addresses["eth0"] == ["2001:db8:1::2/128", "10.1.0.2/32"]
    assert inside.neighbours == {"eth0": {"fe80::1": host_mac(OWNER)}}
    assert routes(fake, HOST, VETH) == {"2001:db8:1::2/128": None, "10.1.0.2/32": None}
    mac = container_mac(OWNER)
    assert node.neighbours[VETH] == {"2001:db8:1::2": mac, "10.1.0.2": mac}
    assert (node.addresses[VETH], node.addresses["lo"][-2:]) == (
        ["fe80::1/64"], ["2001:db8:1::1/128", "10.1.0.1/32"])
    assert node.unreachable == ["2001:db8:1::/64", "10.1.0.0/24"]
    link = node.links[VETH]
    assert (link.master, link.group, link.running) == ("", link_group("pods"), True)
    assert (node.sysctls[FORCE], node.sysctls["ipv6/conf/lo/force_forwarding"]) == ("1", "1")
    check(fake, result).ok()
    call(fake, "STATUS").ok()
    call(fake, "DEL", "c1").ok()
    assert fake.attachments() == [] and VETH not in node.links and fake.kernel.firewall.elements() == ()


def test_the_first_container_alone_looks_at_the_nodes_interfaces() -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("ens1", "02:00:00:00:00:01", 1500, up=True))
    add(fake)
    assert fake.kernel.spaces[HOST].sysctls["ipv6/conf/ens1/force_forwarding"] == "1"
    fake.kernel.spaces[HOST].sysctls["ipv6/conf/ens1/force_forwarding"] = "0"
    add(fake, "c2")
    assert fake.kernel.spaces[HOST].sysctls["ipv6/conf/ens1/force_forwarding"] == "0"


def test_a_node_that_forwards_everything_needs_no_setting_of_each_link() -> None:
    fake = FakeContext()
    fake.kernel.spaces[HOST].sysctls["ipv6/conf/all/forwarding"] = "1"
    result = add(fake)
    assert fake.kernel.spaces[HOST].sysctls[FORCE] == "0"
    check(fake, result).ok()


@pytest.mark.parametrize(("conf", "gateway", "own"), [
    (config("10.1.0.0/24"), "10.1.0.1", []),
    (config("10.1.0.0/24", ipv4Gateway="169.254.1.1"), "169.254.1.1", ["169.254.1.1/32"]),
    (config(ipv4Gateway="169.254.1.1"), "169.254.1.1", ["fe80::1/64", "169.254.1.1/32"]),
])
def test_the_next_hop_of_ipv4(conf: dict[str, Any], gateway: str, own: list[str]) -> None:
    fake = FakeContext()
    result = add(fake, conf=conf)
    assert [ip["gateway"] for ip in result["ips"] if ":" not in ip["address"]] == [gateway]
    assert routes(fake)["0.0.0.0/0"] == gateway and routes(fake)[f"{gateway}/32"] is None
    assert fake.kernel.spaces[HOST].addresses.get(VETH, []) == own
    assert fake.kernel.spaces[SPACE].neighbours["eth0"][gateway] == host_mac(OWNER)
    check(fake, result, conf).ok()


def test_addresses_of_another_plugin() -> None:
    foreign = {**CONFIG, "ipam": {"type": "dhcp"}}
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    result = add(fake, conf=foreign)
    assert result["ips"][0] == {"address": "10.9.0.5/32", "gateway": "10.9.0.1", "interface": 1}
    check(fake, result, foreign).ok()
    [record] = fake.attachments()
    assert record.anchors == (GatewayAddress("lo", "10.9.0.1/32"), GatewayAddress(VETH, "10.9.0.5/32", on_link=True))
    assert fake.kernel.spaces[HOST].unreachable == []


def test_addresses_of_another_plugin_that_names_no_gateway() -> None:
    foreign = {**CONFIG, "ipam": {"type": "other"}}
    fake = FakeContext(plugins={"other": plugin(ADD={"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24"}]})})
    assert add(fake, conf=foreign)["ips"][0]["gateway"] == "169.254.1.1"
    assert fake.attachments()[0].port == RoutedLink(container_mac(OWNER), "169.254.1.1")


@pytest.mark.parametrize(("given", "wanted"), [
    ([], {"::/0": "fe80::1", "0.0.0.0/0": "fe80::1"}),
    ([{"dst": "0.0.0.0/0"}], {"::/0": "fe80::1", "0.0.0.0/0": "fe80::1"}),
    ([{"dst": "10.0.0.0/8", "gw": "10.1.0.1"}],
     {"::/0": "fe80::1", "10.0.0.0/8": "fe80::1", "10.1.0.0/24": "fe80::1"}),
    ([{"dst": "10.1.0.0/24"}], {"::/0": "fe80::1", "10.1.0.0/24": "fe80::1"}),
])
def test_the_routes_of_a_container(given: list[dict[str, str]], wanted: dict[str, str]) -> None:
    fake, conf = FakeContext(), config(ipam={"routes": given})
    result = add(fake, conf=conf)
    assert routes(fake) == wanted
    assert {route["dst"] for route in result["routes"]} == set(wanted)
    check(fake, result, conf).ok()


@pytest.mark.parametrize(("conf", "wanted"), [
    (CONFIG, ["2001:db8:1::/64", "10.1.0.0/24"]),
    (config(ndpProxy="ens1"), []),
    (config(ipam={"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100"}]]}), []),
    (config(ipam={"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.100"}]]}), []),
])
def test_what_of_the_prefixes_is_unreachable(conf: dict[str, Any], wanted: list[str]) -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("ens1", "02:00:00:00:00:01", 1500, up=True))
    add(fake, conf=conf)
    assert fake.kernel.spaces[HOST].unreachable == wanted


def test_the_rest_of_an_old_subnet_is_unreachable_while_a_container_of_it_is_there() -> None:
    fake, new = FakeContext(), config("2001:db8:2::/64", "10.2.0.0/24")
    held = fake.kernel.spaces[HOST].unreachable
    old = ["2001:db8:1::/64", "10.1.0.0/24"]
    add(fake)
    add(fake, "c2")
    add(fake, "c3", new)
    both = [*old, "2001:db8:2::/64", "10.2.0.0/24"]
    assert held == both
    for name, left in (("c1", both), ("c2", both[2:]), ("c3", both[2:])):
        call(fake, "DEL", name, new).ok()
        assert held == left
    add(fake, conf=CONFIG)
    assert held == old, "nobody was left in the other one"
    call(fake, "DEL", "c1", new).ok()
    assert held == old


def test_a_network_that_has_no_rest_any_more() -> None:
    """Back to a bridge, or its subnet is on-link elsewhere: nothing is unreachable once its routed containers are gone.
    """
    linked = {"ranges": [[{"subnet": "2001:db8:1::/64", "gateway": "link-local"}]]}
    for later in (BRIDGED, config(ipam=linked, ndpProxy="ens1")):
        fake = FakeContext()
        fake.kernel.add_link(HOST, Link("ens1", "02:00:00:00:00:01", 1500, up=True))
        add(fake, conf=config(ipam=linked) if "ndpProxy" in later else CONFIG)
        fake.container("c2")
        fake.call("ADD", "c2", later, type=later["type"]).ok()
        assert fake.kernel.spaces[HOST].unreachable
        call(fake, "DEL", "c1").ok()
        assert ("ndpProxy" in later) == bool(fake.kernel.spaces[HOST].unreachable)
        fake.call("DEL", "c2", later, type=later["type"]).ok()
        assert fake.kernel.spaces[HOST].unreachable == []


@pytest.mark.parametrize(("conf", "words"), [
    ({key: value for key, value in CONFIG.items() if key != "ipam"}, "ipam is missing"),
    ({**CONFIG, "ipam": {"ranges": RANGES}}, "ipam.type is missing"),
    (config(ipv4Gateway="fe80::1"), "ipv4Gateway: \"fe80::1\" is no IPv4 address"),
    (config(mtu=1000), "mtu: 1000 is below 1280"),
    (config(mtu=60), "mtu: 60 is below 68"),
])
def test_what_is_refused(conf: dict[str, Any], words: str) -> None:
    fake = FakeContext()
    fake.container("c1")
    assert words in call(fake, "ADD", "c1", conf).error(errors.INVALID_CONFIG)


def test_a_second_add_is_refused() -> None:
    fake = FakeContext()
    add(fake)
    assert "attached" in call(fake, "ADD", "c1").error(errors.ALREADY_ATTACHED)


def test_ipv6_that_is_off() -> None:
    fake = FakeContext(plugins={"six": plugin(ADD={"cniVersion": "1.1.0", "ips": [{"address": "2001:db8::9/64"}]})})
    fake.kernel.spaces[HOST].sysctls["ipv6/conf/all/disable_ipv6"] = "1"
    fake.container("c1")
    assert "IPv6 is off" in call(fake, "ADD", "c1", {**CONFIG, "ipam": {"type": "six"}}).error(errors.IPV6_DISABLED)
    assert "IPv6 is off" in call(fake, "STATUS").error(errors.NOT_AVAILABLE)


def test_a_failed_add_leaves_nothing_of_the_container() -> None:
    fake = FakeContext()
    add(fake, "c0")
    before = fake.state()
    fake.container("c1")
    fake.kernel.fail = lambda op: RuntimeError("no") if isinstance(op, awaits.AwaitCarrier) else None
    assert call(fake, "ADD", "c1").code == 1
    fake.kernel.fail = lambda _: None
    del fake.kernel.spaces[SPACE]
    for mine, was in zip(fake.state()[1:], before[1:]):
        assert mine == was
    assert VETH not in fake.kernel.spaces[HOST].links


def test_the_guard_is_one_element() -> None:
    fake = FakeContext()
    add(fake)
    bound = [each for each in fake.kernel.firewall.elements() if each.set == "bound"]
    assert [(each.family, each.key) for each in bound] == [(INET, (VETH,))]
    open_one = FakeContext()
    add(open_one, conf={**CONFIG, "guard": False})
    assert "bound" not in {each.set for each in open_one.kernel.firewall.elements()}


BREAKS: list[tuple[Any, str]] = [
    (lambda node: node.addresses[VETH].clear(), f"gateway address fe80::1/64 is missing on {VETH}"),
    (lambda node: node.addresses["lo"].remove("10.1.0.1/32"), "gateway address 10.1.0.1/32 is missing on lo"),
    (lambda node: node.routes[VETH].pop(0), f"route 2001:db8:1::2/128 through {VETH} is missing"),
    (lambda node: node.neighbours.clear(), f"neighbour 10.1.0.2 is not set to {container_mac(OWNER)} on {VETH}"),
    (lambda node: node.sysctls.update({FORCE: "0"}), f"IPv6 forwarding is off on {VETH}"),
    (lambda node: node.sysctls.update({"ipv6/conf/lo/force_forwarding": "0"}), "IPv6 forwarding is off on th"),
    (lambda node: node.sysctls.update({f"ipv6/conf/{VETH}/accept_ra": "1"}), f"net/ipv6/conf/{VETH}/accept_ra is 1"),
    (lambda node: node.sysctls.update({"ipv4/ip_forward": "0"}), "forward"),
    (lambda node: node.links.update({VETH: replace(node.links[VETH], up=False)}), VETH),
    (lambda node: node.links.update({VETH: replace(node.links[VETH], group=0)}), ""),
    (lambda node: node.links.update({VETH: replace(node.links[VETH], master="br0")}), f"{VETH} is in br0"),
]


@pytest.mark.parametrize(("damage", "words"), BREAKS)
def test_check_and_repair(damage: Any, words: str) -> None:
    fake = FakeContext()
    result = add(fake, conf=OPEN)
    damage(fake.kernel.spaces[HOST])
    if words:
        assert words in check(fake, result, OPEN).error(errors.CHECK_FAILED)
    with fake.leases().transaction() as leases:
        found = repair.look(leases, fake.context())
        assert any(words in said for _, said in found.differences)
        assert repair.mend(found, fake.context()) == []
        left = repair.look(leases, fake.context()).differences
    assert left == [] or "nomaster" in left[0][1]


def test_check_of_a_host_interface_that_is_gone() -> None:
    fake = FakeContext()
    result = add(fake, conf=OPEN)
    fake.kernel.delete(HOST, VETH)
    assert f"host interface {VETH} is missing" in check(fake, result, OPEN).error(errors.CHECK_FAILED)
    with fake.leases().transaction() as leases:
        [(owner, words)] = repair.look(leases, fake.context()).differences
    assert owner == OWNER and "is not on the node" in words
    call(fake, "STATUS", conf=OPEN).ok()


def test_check_names_a_mac_that_the_node_does_not_send_to() -> None:
    fake = FakeContext()
    result = add(fake, conf=OPEN)
    inside = fake.kernel.spaces[SPACE].links
    inside["eth0"] = replace(inside["eth0"], mac="02:00:5e:10:00:09")
    assert "mac is 02:00:5e:10:00:09, and the node sends to" in check(fake, result, OPEN).error(errors.CHECK_FAILED)


PUBLISHING = {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}


def test_a_port_of_a_container_without_ipv4_needs_no_setting() -> None:
    fake = FakeContext()
    add(fake, conf=config("2001:db8:1::/64", runtimeConfig=PUBLISHING))
    with fake.leases().transaction() as leases:
        assert repair.look(leases, fake.context()).differences == []


def test_a_published_port_at_the_loopback_address_is_mended() -> None:
    fake = FakeContext()
    add(fake, conf=config(runtimeConfig=PUBLISHING))
    key = f"ipv4/conf/{VETH}/route_localnet"
    assert fake.kernel.spaces[HOST].sysctls[key] == "1"
    fake.kernel.spaces[HOST].sysctls[key] = "0"
    with fake.leases().transaction() as leases:
        found = repair.look(leases, fake.context())
        assert [words for _, words in found.differences] == [f"net/{key} is not 1"]
        repair.mend(found, fake.context())
        assert repair.look(leases, fake.context()).differences == []
    assert fake.kernel.spaces[HOST].sysctls[key] == "1"


@pytest.mark.parametrize(("damage", "words"), [
    (BREAKS[0][0], [f"ip address replace fe80::1/64 dev {VETH} nodad"]),
    (BREAKS[2][0], [f"ip route replace 2001:db8:1::2/128 dev {VETH}", "nud permanent"]),
    (BREAKS[4][0], [f"sysctl -w net/{FORCE}=1"]),
    (BREAKS[5][0], ["IPv6 forwarding is off on this node"]),
    (BREAKS[7][0], ["sysctl -w net/ipv4/ip_forward=1"]),
    (BREAKS[8][0], [f"ip link set {VETH} up"]),
])
def test_status_says_what_mends_it(damage: Any, words: list[str]) -> None:
    fake = FakeContext()
    add(fake, conf=OPEN)
    damage(fake.kernel.spaces[HOST])
    said = call(fake, "STATUS", conf=OPEN).error(errors.LIMITED)
    assert [each for each in words if each not in said] == []


def test_a_container_of_one_family() -> None:
    fake, conf = FakeContext(), {**config("2001:db8:1::/64"), "ingress": "open", "guard": False}
    result = add(fake, conf=conf)
    check(fake, result, conf).ok()
    moved = {**result, "interfaces": [{"name": "other0", "mac": ""}, result["interfaces"][1]]}
    check(fake, moved, conf).ok()  # of the reference's, which names its host interface as it likes
    four, only4 = FakeContext(), {**config("10.1.0.0/24"), "ingress": "open", "guard": False}
    add(four, conf=only4)
    call(four, "STATUS", conf=only4).ok()
    [record] = four.attachments()
    with four.leases().transaction() as leases:
        leases.update(replace(record, port=None))
    call(four, "STATUS", conf=only4).ok()


def test_a_damaged_record_has_its_link_again() -> None:
    fake = FakeContext()
    result = add(fake)
    [before] = fake.attachments()
    with fake.leases().transaction() as leases:
        leases.update(Attachment(OWNER, before.addresses, damaged=True))
    assert "made anew" in call(fake, "STATUS").error(errors.LIMITED)
    [record] = fake.attachments()
    assert record.port == before.port and set(record.anchors) < set(before.anchors)
    check(fake, result).ok()
    with fake.leases().transaction() as leases:
        assert repair.look(leases, fake.context()).differences == []


def test_status_of_a_node_whose_chains_drop() -> None:
    fake = FakeContext()
    add(fake, conf=OPEN)
    fake.kernel.firewall.others = (ForwardChain("ip", "filter", "FORWARD", DROPS_REST),)
    said = call(fake, "STATUS", conf=OPEN)
    assert said.code == 0 and 'iifname "veth*" accept' in said.stderr
    fake.kernel.firewall.others = (ForwardChain("ip", "filter", "FORWARD", DROPS_ALL),)
    assert 'oifname "veth*" accept' in call(fake, "STATUS", conf=OPEN).error(errors.LIMITED)


def test_a_scope_and_a_neighbour_as_commands() -> None:
    assert outage.command(ops.AddAddress(HOST, VETH, "169.254.1.1/32", scope=254)).endswith(" scope host")
    said = outage.command(ops.SetNeighbour(HOST, VETH, "10.1.0.2", "02:00:00:00:00:01"))
    assert said == f"ip neighbour replace 10.1.0.2 lladdr 02:00:00:00:00:01 nud permanent dev {VETH}"


@pytest.mark.parametrize("conf", [CONFIG, OPEN, config(ipv4Gateway="169.254.1.1")])
def test_a_store_that_vanished_is_rebuilt(conf: dict[str, Any]) -> None:
    fake = FakeContext()
    result = add(fake, conf=conf)
    [before] = fake.attachments()
    del fake.stores["pods", DATA_DIR]
    second = add(fake, "c2", conf)
    assert {ip["address"] for ip in second["ips"]}.isdisjoint(ip["address"] for ip in result["ips"])
    record = fake.attachments()[0]
    assert (record.port, set(record.anchors), record.addresses) == (before.port, set(before.anchors), before.addresses)
    check(fake, result, conf).ok()


def test_a_store_that_vanished_with_the_neighbours() -> None:
    fake = FakeContext()
    add(fake, conf=OPEN)
    fake.kernel.spaces[HOST].neighbours.clear()
    del fake.stores["pods", DATA_DIR]
    add(fake, "c2", OPEN)
    assert fake.attachments()[0].port == RoutedLink(container_mac(OWNER))


def test_gc_takes_what_is_not_listed() -> None:
    fake = FakeContext()
    add(fake)
    add(fake, "c2")
    fake.now += 10
    call(fake, "GC", conf=gc("c2", config=CONFIG)).ok()
    assert [record.owner.container_id for record in fake.attachments()] == ["c2"]
    assert VETH not in fake.kernel.spaces[HOST].links


def test_an_edited_subnet_drains_the_gateway_on_loopback() -> None:
    fake = FakeContext()
    add(fake)
    add(fake, "c2", config("2001:db8:2::/64"))
    held = fake.kernel.spaces[HOST].addresses["lo"]
    assert {"2001:db8:1::1/128", "10.1.0.1/32", "2001:db8:2::1/128"} <= set(held)
    call(fake, "DEL", "c1").ok()
    assert "2001:db8:1::1/128" not in held and "2001:db8:2::1/128" in held


def test_a_subnet_that_a_bridge_has_is_refused_and_the_other_way_round() -> None:
    fake = FakeContext()
    fake.add("c1", {**BRIDGED, "name": "flat"})
    fake.container("c2")
    assert "network flat" in call(fake, "ADD", "c2").error(errors.NODE_CONFLICT)
    fake = FakeContext()
    add(fake)
    fake.container("c2")
    assert "network pods" in fake.call("ADD", "c2", {**BRIDGED, "name": "flat"}).error(errors.NODE_CONFLICT)


def test_a_delegated_prefix_goes_by_the_containers_address() -> None:
    fake = FakeContext()
    conf = config("2001:db8:1::/64", ipam={"delegate": 80})
    add(fake, conf=conf)
    [record] = fake.attachments()
    assert routes(fake, HOST, VETH)[record.prefixes[0]] == record.addresses[0]
    assert set(routes(fake)) == {"::/0"}, "the default route leads there too"
    call(fake, "DEL", "c1").ok()


@pytest.mark.parametrize("raw", [
    {"mac": "02:00:00:00:00"}, {"mac": "02:00:00:00:00:01", "ipv4_gateway": "fe80::1"},
    {"mac": "02:00:00:00:00:01", "ipv4_gateway": "x"},
])
def test_a_link_that_nobody_has_written(raw: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="link"):
        port_record.from_json(raw)


@pytest.mark.parametrize("link", [RoutedLink("02:00:00:00:00:01"), RoutedLink("02:00:00:00:00:01", "169.254.1.1")])
def test_a_link_is_read_as_it_was_written(link: RoutedLink) -> None:
    assert port_record.from_json(port_record.to_json(link)) == link
