"""What the agent's kernel does: the fake and the real one."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import pytest

from cni_v6.cluster import srv6
from cni_v6.cluster.facts import (
    SRV6,
    SRV6_IN,
    TUNNEL,
    Add,
    Device,
    Endpoint,
    Entry,
    Facts,
    Forward,
    Neighbour,
    NodeKernel,
    Pair,
    Passage,
    Remove,
    RemoveDevice,
    Route,
    SegmentRoute,
    SetGate,
    SetNodes,
    SetTable,
    Tunnel,
    Underlay,
    Vacate,
)
from cni_v6.cluster.fake import FakeNode
from cni_v6.cluster.linux import LinuxNode
from cni_v6.cluster.news import News
from cni_v6.cluster.records import NodeRecord
from cni_v6.cluster.routes import Wanted, device_difference
from cni_v6.cluster.wireguard_values import WIREGUARD, Encrypted
from cni_v6.errors import KERNEL_REFUSED
from tests.netns import networks
from tests.netns.wire import PATIENCE, inside
from tests.sandbox import Node

OWN6, OWN4 = Route("fd42:0:0:1::/64"), Route("10.244.0.64/26")
ROUTES = (
    OWN6, OWN4, Route("fd42:0:0:2::/64", "eth0", "fd00:11::2"), Route("10.244.0.128/26", "eth0", "172.30.0.2"),
    Route("10.244.1.0/26", "eth0", "fd00:11::2"), Route("fd42:1:2:3::10:0/122", "eth0", "fe80::2"),
)
ADDRESSES = ("172.30.0.1", "fd00:11::1")
ENCRYPTED = Encrypted(1320, "eth0", ("fd42::/48", "10.244.0.0/16"), ("fd42:0:0:1::/64",))


UNDERLAY = Underlay("eth0", 1400, True, ADDRESSES)
TUNNEL_OF_NODE = Tunnel("eth0", "fd00:11::1", "02:00:00:00:00:01", "fe80::ff:fe00:1", 1330)
OTHER_MAC, OTHER_TUNNEL = "02:00:00:00:00:02", "fe80::ff:fe00:2"
OTHER: tuple[Entry, ...] = (
    Endpoint(OTHER_MAC, "fd00:11::2"), Neighbour(OTHER_TUNNEL, OTHER_MAC),
    Route("fd42:0:0:2::/64", TUNNEL, OTHER_TUNNEL), Route("10.244.1.0/26", TUNNEL, OTHER_TUNNEL),
)


@dataclass
class Bench:
    """``set_up`` sets the interface to the others up or down. ``add``, ``gateways``: addresses on a bridge."""

    kernel: NodeKernel
    set_up: Callable[[bool], None]
    add: Callable[[str], None]
    gateways: Callable[[], set[str]]


@contextmanager
def linux_bench() -> Iterator[tuple[LinuxNode, Node]]:
    """A real kernel whose node has a link to others."""
    with closing(Node()) as node:
        networks.link_to_others(node)
        node.run("ip", "address", "add", "fd00:11::77/64", "dev", "eth0", "nodad", "preferred_lft", "0")
        with closing(inside(node.path, lambda: LinuxNode("eth0"))) as kernel:
            yield kernel, node


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.netns)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "linux":
        with linux_bench() as (kernel, node):
            node.run("ip", "link", "add", "cni0", "type", "bridge")
            yield Bench(kernel, lambda up: void(node.run("ip", "link", "set", "eth0", "up" if up else "down")),
                        lambda address: void(node.run("ip", "address", "add", address, "dev", "cni0")),
                        lambda: set(networks.addresses(node, "cni0")))
        return
    fake = FakeNode(Underlay("eth0", 1400, True, ADDRESSES), closed=["eth0"])

    def set_fake(up: bool) -> None:
        fake.underlay = Underlay("eth0", 1400, up, ADDRESSES)
        fake.entries = {route for route in fake.entries if up or not isinstance(route, Route | SegmentRoute)
                        or route.ifname != "eth0"}

    yield Bench(fake, set_fake, fake.gateways.add, lambda: fake.gateways)


@pytest.fixture
def real() -> Iterator[tuple[LinuxNode, Node]]:
    with linux_bench() as made:
        yield made


def void(_: object) -> None:
    """A function's value is of no interest."""


def test_the_interface_to_the_others(bench: Bench) -> None:
    assert bench.kernel.observe() == Facts(UNDERLAY, closed=frozenset(("eth0",)))


def test_routes_come_and_go(bench: Bench) -> None:
    assert bench.kernel.apply(map(Add, ROUTES)) == []
    assert bench.kernel.observe().entries == frozenset(ROUTES)
    assert bench.kernel.apply([Remove(ROUTES[0]), Remove(ROUTES[2]), Remove(ROUTES[4])]) == []
    assert bench.kernel.observe().entries == frozenset((ROUTES[1], ROUTES[3], ROUTES[5]))
    assert bench.kernel.apply(map(Remove, ROUTES)) == []
    assert bench.kernel.observe().entries == frozenset()


def test_a_route_that_is_there_is_an_error_and_the_others_are_added(bench: Bench) -> None:
    there = Route(ROUTES[2].dst, "eth0", "fd00:11::3")
    assert bench.kernel.apply([Add(there)]) == []
    [refused] = bench.kernel.apply(map(Add, ROUTES))
    assert str(refused).startswith(f"cannot add {ROUTES[2]}: File exists")
    assert bench.kernel.observe().entries == {*ROUTES, there} - {ROUTES[2]}
    assert bench.kernel.apply([Remove(there), Add(ROUTES[2])]) == []
    assert bench.kernel.observe().entries == frozenset(ROUTES)


def test_an_interface_that_is_not_there(bench: Bench) -> None:
    [refused] = bench.kernel.apply([Add(Route(ROUTES[2].dst, "eth9", "fd00:11::2")), Add(OWN6)])
    assert "eth9: No such device" in str(refused) and bench.kernel.observe().entries == {OWN6}


def test_a_link_that_is_down(bench: Bench) -> None:
    bench.kernel.apply(map(Add, ROUTES))
    bench.set_up(False)
    underlay = bench.kernel.observe().underlay
    assert underlay and not underlay.up and bench.kernel.observe().entries == {OWN6, OWN4}
    refused = bench.kernel.apply([Add(ROUTES[2]), Add(ROUTES[4])])
    assert len(refused) == 2 and all(error.code == KERNEL_REFUSED for error in refused)


def test_the_tunnel(bench: Bench) -> None:
    before = bench.kernel.observe()
    [refused] = bench.kernel.apply([Add(OTHER[0])])
    assert "No such device" in str(refused)
    assert bench.kernel.apply([Add(TUNNEL_OF_NODE), *map(Add, OTHER), Add(OWN6)]) == []
    devices: dict[str, Device | None] = {TUNNEL: TUNNEL_OF_NODE}
    facts = Facts(UNDERLAY, devices, frozenset((*OTHER, OWN6)), frozenset(("eth0", TUNNEL)), nodes=frozenset(),
                  interfaces=frozenset({TUNNEL_OF_NODE}))
    assert bench.kernel.observe() == facts
    assert len(bench.kernel.apply([Add(TUNNEL_OF_NODE), Forward(TUNNEL), Forward("eth0")])) == 1
    moved: Entry = Endpoint(OTHER_MAC, "fd00:11::3")
    assert bench.kernel.apply([Remove(OTHER[0]), Add(moved)]) == []
    assert bench.kernel.observe() == replace(facts, entries=facts.entries - {OTHER[0]} | {moved}, closed=frozenset())
    assert bench.kernel.apply(map(Remove, reversed((moved, *OTHER[1:])))) == []
    assert bench.kernel.observe().entries == {OWN6}
    bench.kernel.apply(map(Add, OTHER))
    gone = RemoveDevice(TUNNEL)
    assert bench.kernel.apply([gone, gone, *map(Remove, OTHER), Remove(OWN6)]) == []
    assert bench.kernel.observe() == replace(before, closed=frozenset())


def test_gateways_of_a_block_that_is_given_back(bench: Bench) -> None:
    kept = {"fd42:0:0:2::1/64", "10.244.0.65/26", "10.244.0.129/26"}
    for address in (*kept, "fd42:0:0:1::1/64", "10.244.0.1/26", "10.244.0.3/32"):
        bench.add(address)
    assert bench.kernel.apply([Vacate("fd42:0:0:1::/64"), Vacate("10.244.0.0/26"), Vacate("10.0.0.0/26")]) == []
    assert bench.gateways() == kept
    assert bench.kernel.apply([Vacate("10.244.0.64/26")]) == [] and bench.gateways() == kept - {"10.244.0.65/26"}


def test_a_node_keeps_the_addresses_that_others_reach_it_at(bench: Bench) -> None:
    """Though a pool has them, which nobody should write."""
    underlay = bench.kernel.observe().underlay
    assert underlay and underlay.addresses
    blocks = [f"{address}/{32 if '.' in address else 128}" for address in underlay.addresses]
    assert bench.kernel.apply(map(Vacate, blocks)) == [] and bench.kernel.observe().underlay == underlay


PASSAGES = (
    Passage("fd43:0:0:7::/64", "fd42::/48", True), Passage("fd43::/48", "fd42::/48", False),
    Passage("10.245.0.0/17", "10.244.0.0/16", False),
)


def test_a_gate(bench: Bench) -> None:
    """Also of one direction alone: what differs in a word is another gate."""
    assert bench.kernel.observe().gate == ()
    for passages in (PASSAGES, PASSAGES[1:], PASSAGES, PASSAGES[:1]):
        assert bench.kernel.apply([SetGate(passages)]) == []
        assert bench.kernel.observe().gate == tuple(map(str, passages))
    assert bench.kernel.apply([SetGate(()), SetGate(())]) == [] and bench.kernel.observe().gate == ()


PAIR = Pair(1360, "fd00:11::1")
OWN_SRV6 = tuple(srv6.own("1", ["fd42:0:0:1::/64", "10.244.0.64/26"], UNDERLAY))
OTHER_SRV6 = tuple(dict.fromkeys(
    entry for prefix in ("fd42:0:0:2::/64", "10.244.1.0/26")
    for entry in srv6.peer(NodeRecord("b", "2", ("fd00:11::2",)), prefix, UNDERLAY)
))


def test_segment_routing(bench: Bench) -> None:
    [refused] = bench.kernel.apply([Add(Route("fd42:0:0:2::/64", SRV6))])
    assert "No such device" in str(refused)
    wanted = frozenset((*OWN_SRV6, *OTHER_SRV6))
    assert len(wanted) == 9 + 5
    assert bench.kernel.apply([Add(PAIR), *map(Add, (*OWN_SRV6, *OTHER_SRV6))]) == []
    facts = Facts(UNDERLAY, {SRV6: PAIR}, wanted, frozenset(("eth0", SRV6, SRV6_IN)), nodes=frozenset(),
                  interfaces=frozenset({PAIR.interface}))
    assert bench.kernel.observe() == facts
    forward = map(Forward, (SRV6, SRV6_IN))
    refused_again = bench.kernel.apply([Add(PAIR), *map(Add, (*OWN_SRV6, *OTHER_SRV6)), *forward])
    assert len(refused_again) == 15 and bench.kernel.observe() == replace(facts, closed=frozenset(("eth0",)))
    bench.set_up(False)
    stay = {entry for entry in wanted if not isinstance(entry, SegmentRoute) or entry.ifname == SRV6_IN}
    assert bench.kernel.observe().entries == stay
    gone = RemoveDevice(SRV6)
    assert bench.kernel.apply([gone, gone, *map(Remove, (*OTHER_SRV6, *OWN_SRV6))]) == []
    after = bench.kernel.observe()
    assert (after.devices, after.entries) == ({}, frozenset())


@pytest.mark.parametrize("device", [TUNNEL_OF_NODE, PAIR])
def test_whom_a_carrier_takes_packets_from(bench: Bench, device: Device) -> None:
    many = frozenset(f"fd00:11::{number:x}" for number in range(1, 2501))
    assert bench.kernel.apply([SetNodes(many)]) == [] and bench.kernel.observe().nodes is None
    assert bench.kernel.apply([Add(device)]) == [] and bench.kernel.observe().nodes == frozenset()
    for addresses in (frozenset({"fd00:11::2"}), many, frozenset({"fe80::2", "fd00:11::3"}), frozenset[str]()):
        assert bench.kernel.apply([SetNodes(addresses)]) == []
        assert bench.kernel.observe().nodes == addresses
    bench.kernel.apply([SetNodes(many), RemoveDevice(device.ifname)])
    assert bench.kernel.observe().nodes is None
    bench.kernel.apply([Add(device)])
    assert bench.kernel.observe().nodes == frozenset()


@pytest.mark.parametrize("device", [TUNNEL_OF_NODE, PAIR])
def test_a_table_that_is_made_anew_leaves_the_rest(bench: Bench, device: Device) -> None:
    entries = OTHER if device == TUNNEL_OF_NODE else OTHER_SRV6
    assert bench.kernel.apply([Add(device), *map(Add, entries)]) == []
    moved = replace(device, source="fd00:11::7") if isinstance(device, Pair) else device
    for addresses in (frozenset({"fd00:11::2", "fd00:11::3"}), frozenset[str]()):
        assert bench.kernel.apply([SetTable(moved, addresses)]) == []
        seen = bench.kernel.observe()
        assert seen.devices == {device.ifname: moved} and seen.interfaces == frozenset({device.interface})
        assert seen.entries == frozenset(entries) and seen.nodes == addresses


@pytest.mark.netns
@pytest.mark.parametrize("device", [TUNNEL_OF_NODE, PAIR])
def test_a_table_that_somebody_has_removed(real: tuple[LinuxNode, Node], device: Device) -> None:
    """Or that an agent of another version made: the interfaces stay, and the connections of containers."""
    kernel, node = real
    kernel.apply([Add(device)])
    kernel.observe()
    lose_tables(kernel, node)
    seen = kernel.observe()
    assert seen.devices == {device.ifname: None} and seen.interfaces == frozenset({device.interface})
    assert seen.nodes is None
    wanted = Wanted(frozenset(OTHER if device == TUNNEL_OF_NODE else OTHER_SRV6), device)
    operations = [*device_difference(seen, wanted)]
    assert operations == [SetTable(device, frozenset({"fd00:11::2"}))] and kernel.apply(operations) == []
    assert kernel.observe().devices == {device.ifname: device} and kernel.observe().nodes == frozenset({"fd00:11::2"})
    node.run("ip", "link", "set", device.ifname, "down")
    assert [*device_difference(kernel.observe(), wanted)] == [RemoveDevice(device.ifname), Add(device)]


def test_a_segment_route_that_differs_is_not_the_same(bench: Bench) -> None:
    bench.kernel.apply([Add(SegmentRoute("fd42:0:0:2::/64", "eth0", segment="5f00::1"))])
    wanted = SegmentRoute("fd42:0:0:2::/64", "eth0", segment="5f00::2")
    [other] = bench.kernel.observe().entries
    assert other == replace(wanted, segment="5f00::1")
    assert bench.kernel.apply([Remove(other), Add(wanted)]) == [] and bench.kernel.observe().entries == {wanted}


# What the fake kernel has none of: other programs, and news


@pytest.mark.netns
def test_what_other_programs_have_is_not_seen_and_stays(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    for words in (f"{ROUTES[2].dst} via fd00:11::9 dev eth0", f"unreachable {OWN6.dst} metric 4294967295",
                  f"{ROUTES[3].dst} via 172.30.0.9 dev eth0 proto bird", f"unreachable {OWN4.dst} metric 9"):
        node.run("ip", *(["-6"] if "fd" in words else []), "route", "add", *words.split())
    node.run("ip", "route", "add", ROUTES[3].dst, "via", "172.30.0.9", "proto", "166", "table", "99")
    with node.unchanged():
        assert kernel.observe().entries == frozenset()
        assert kernel.apply(map(Add, ROUTES)) == [] and kernel.observe().entries == frozenset(ROUTES)
        assert kernel.apply(map(Remove, ROUTES)) == []
        assert kernel.apply(map(Remove, ROUTES)) == []


@pytest.mark.netns
def test_a_route_in_the_place_of_ours_is_named(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    node.run("ip", "route", "add", ROUTES[2].dst, "via", "fd00:11::9", "dev", "eth0", "metric", "2048")
    [refused] = kernel.apply([Add(ROUTES[2])])
    assert "another program has such a route" in str(refused)
    kernel.apply([Remove(ROUTES[2])])
    assert "fd00:11::9" in node.run("ip", "-6", "route", "show", ROUTES[2].dst).stdout


@pytest.mark.netns
def test_a_next_hop_that_is_not_on_the_link(real: tuple[LinuxNode, Node]) -> None:
    kernel, _ = real
    far = Route(ROUTES[2].dst, "eth0", "fd00:99::1"), Route(ROUTES[3].dst, "eth0", "198.51.100.1")
    refused = kernel.apply(map(Add, far))
    assert len(refused) == 2 and all("on its link? carriers direct and srv6" in str(error) for error in refused)


def lose_tables(kernel: LinuxNode, node: Node) -> None:
    """Somebody takes the tables of nftables away, and the agent hears of that, but not of another's table."""
    assert kernel.table_news
    node.run("nft", "add", "table", "inet", "foreign")
    assert select.select([kernel.table_news], [], [], PATIENCE)[0] and not kernel.table_news.drain()
    node.run("nft", "flush", "ruleset")
    assert select.select([kernel.table_news], [], [], PATIENCE)[0] and kernel.table_news.drain()


@pytest.mark.netns
@pytest.mark.parametrize("command", [
    "link set {} down", "link set {} mtu 1300", "address delete {address}/64 dev {}", "address add fd00::5/64 dev {}",
    "link set {} type vxlan learning", "link delete {}", "",
])
def test_a_tunnel_that_somebody_has_changed(real: tuple[LinuxNode, Node], command: str) -> None:
    kernel, node = real
    kernel.apply([Add(TUNNEL_OF_NODE)])
    kernel.observe()
    kernel.news.drain()
    if command:
        node.run("ip", *command.format(TUNNEL, address=TUNNEL_OF_NODE.address).split())
        assert select.select([kernel.news], [], [], PATIENCE)[0]
    else:
        lose_tables(kernel, node)
    assert kernel.observe().devices.get(TUNNEL) != TUNNEL_OF_NODE
    assert kernel.apply([RemoveDevice(TUNNEL), Add(TUNNEL_OF_NODE)]) == []
    assert kernel.observe().devices == {TUNNEL: TUNNEL_OF_NODE}


@pytest.mark.netns
@pytest.mark.parametrize("command", [
    f"link set {SRV6} down", f"link set {SRV6_IN} mtu 1300", f"link set {SRV6} arp on", f"link delete {SRV6_IN}",
    f"link set {SRV6_IN} address 02:00:00:00:00:01", f"address add fd00::5/64 dev {SRV6_IN}",
    f"link set {SRV6} master br9", f"link set {SRV6_IN} name else9", "",
])
def test_a_pair_that_somebody_has_changed(real: tuple[LinuxNode, Node], command: str) -> None:
    kernel, node = real
    node.run("ip", "link", "add", "br9", "type", "bridge")
    kernel.apply([Add(PAIR)])
    kernel.observe()
    kernel.news.drain()
    if command:
        node.run("ip", *command.split())
        assert select.select([kernel.news], [], [], PATIENCE)[0]
    else:
        lose_tables(kernel, node)
    assert kernel.observe().devices.get(SRV6) != PAIR
    assert kernel.apply([RemoveDevice(SRV6), Add(PAIR)]) == []
    assert kernel.observe().devices == {SRV6: PAIR}


@pytest.mark.netns
def test_a_gate_is_what_nft_says(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    kernel.apply([SetGate(PASSAGES)])
    shown = node.run("nft", "list", "table", "inet", "cni_v6_clusters").stdout
    rules = [line.strip().partition(" comment ")[0] for line in shown.splitlines() if " comment " in line]
    assert rules == [
        'oifname "cni-v6-srv6-in" accept', "ct state established,related accept", "ct status dnat accept",
        "icmpv6 type echo-request accept", "icmp type echo-request accept",
        "ip6 saddr fd43:0:0:7::/64 ip6 daddr fd42::/48 accept", "ip6 saddr fd43::/48 ip6 daddr fd42::/48 drop",
        "ip saddr 10.245.0.0/17 ip daddr 10.244.0.0/16 drop",
    ]
    kernel.observe()
    node.run("nft", "flush", "chain", "inet", "cni_v6_clusters", "forward")
    assert kernel.table_news and select.select([kernel.table_news], [], [], PATIENCE)[0] and kernel.table_news.drain()
    assert kernel.observe().gate == ()
    node.run("nft", "add", "rule", "inet", "cni_v6_clusters", "forward", "accept")
    assert kernel.observe().gate == ("",)
    assert kernel.apply([SetGate(PASSAGES)]) == [] and kernel.observe().gate == tuple(map(str, PASSAGES))
    kernel.apply([SetGate(())])
    assert node.run("nft", "list", "tables").stdout == ""


@pytest.mark.netns
@pytest.mark.parametrize(("device", "table"), [(TUNNEL_OF_NODE, "cni_v6_vxlan"), (PAIR, "cni_v6_srv6")])
def test_rules_of_a_carrier_are_what_nft_says(real: tuple[LinuxNode, Node], device: Device, table: str) -> None:
    """Somebody who changes the nodes in their set is heard."""
    kernel, node = real
    kernel.apply([Add(device), SetNodes(frozenset({"fd00:11::2"}))])
    shown = node.run("nft", "list", "table", "inet", table).stdout
    rules = [line.strip().partition(" comment ")[0] for line in shown.splitlines() if " comment " in line]
    counted = "counter packets 0 bytes 0 drop"
    assert rules == {
        "cni_v6_vxlan": [
            f'meta nfproto ipv6 udp dport 4789 iifname != "eth0" {counted}',
            f"udp dport 4789 ip6 saddr != @nodes {counted}",
            f'meta nfproto ipv6 udp dport 4789 iifname != "eth0" oifname "eth0" {counted}',
            "udp dport 4789 ip6 saddr @nodes notrack", "udp dport 4789 ip6 daddr @nodes notrack",
        ],
        "cni_v6_srv6": [
            f"ip6 daddr 5f00:0:0:a6::/64 ip6 saddr != @nodes {counted}", 'iifname "cni-v6-srv6-in" notrack',
            "ip6 daddr 5f00:0:0:a6::/64 notrack", "ip6 daddr 5f00:0:0:a6::/64 ip6 saddr set fd00:11::1",
        ],
    }[table]
    kernel.observe()
    assert kernel.table_news and (kernel.table_news.drain(), kernel.table_news.drain())[1] is False
    node.run("nft", "add", "element", "inet", table, "nodes", "{ fd00:11::66 }")
    assert select.select([kernel.table_news], [], [], PATIENCE)[0] and kernel.table_news.drain()
    assert kernel.observe().nodes == frozenset({"fd00:11::2", "fd00:11::66"})
    node.run("nft", "add", "element", "inet", table, "nodes", "{ * }")  # anybody
    assert kernel.table_news.drain() and "" in (kernel.observe().nodes or ())
    assert kernel.apply([SetNodes(frozenset({"fd00:11::2"}))]) == []
    assert kernel.observe().nodes == frozenset({"fd00:11::2"})


@pytest.mark.netns
def test_rules_of_wireguard_are_what_nft_says(real: tuple[LinuxNode, Node]) -> None:
    """They need no kernel that has it; what is left of them is seen."""
    kernel, node = real
    table = ("table", "inet", "cni_v6_wireguard")
    assert kernel.apply([SetTable(ENCRYPTED, frozenset({"fd00:11::2"}))]) == []
    assert kernel.observe().nodes == frozenset({"fd00:11::2"})
    shown = node.run("nft", "list", *table).stdout
    assert [line.strip().partition(" comment ")[0] for line in shown.splitlines() if " comment " in line] == [
        'ip6 saddr fd42::/48 iifname "eth0" counter packets 0 bytes 0 drop',
        'ip saddr 10.244.0.0/16 iifname "eth0" counter packets 0 bytes 0 drop',
        "ip6 saddr fd42:0:0:1::/64 accept",
        'ip6 saddr fd42::/48 iifname != "cni-v6-wg" counter packets 0 bytes 0 drop',
        'ip saddr 10.244.0.0/16 iifname != "cni-v6-wg" counter packets 0 bytes 0 drop',
        "udp sport 51820 udp dport 51820 ip6 saddr @nodes notrack",
        "udp sport 51820 udp dport 51820 ip6 daddr @nodes notrack",
    ]
    assert kernel.observe().devices == {WIREGUARD: None}
    assert kernel.apply([RemoveDevice(WIREGUARD)]) == [] and kernel.observe().devices == {}
    assert node.run("nft", "list", "tables").stdout == ""


@pytest.mark.netns
def test_a_reverse_path_filter(real: tuple[LinuxNode, Node]) -> None:
    """The pair's end takes IPv4 all the same; what the interface to the others does is said, and not changed."""
    kernel, node = real

    def drops(name: str, value: str) -> bool:
        networks.set_sysctl(node, f"ipv4/conf/{name}/rp_filter", value)
        dropped = kernel.observe().drops
        networks.set_sysctl(node, f"ipv4/conf/{name}/rp_filter", "0")
        return dropped

    assert [drops(*words) for words in (("eth0", "1"), ("eth0", "2"), ("all", "2"), ("eth0", "0"))] == [
        True, False, True, False]
    networks.set_sysctl(node, "ipv4/conf/default/rp_filter", "2")
    assert kernel.apply([Add(PAIR)]) == [] and kernel.observe().devices == {SRV6: PAIR}
    for key, wrong in (("rp_filter", "2"), ("accept_local", "0")):
        networks.set_sysctl(node, f"ipv4/conf/{SRV6_IN}/{key}", wrong)
        assert kernel.observe().devices == {SRV6: None}
        assert kernel.apply([RemoveDevice(SRV6), Add(PAIR)]) == [] and kernel.observe().devices == {SRV6: PAIR}
    node.run("ip", "address", "delete", "172.30.0.1/24", "dev", "eth0")
    assert drops("eth0", "2")


@pytest.mark.netns
def test_an_interface_with_the_name_of_an_end(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    node.run("ip", "link", "add", SRV6_IN, "type", "bridge")
    [refused] = kernel.apply([Add(PAIR)])
    assert f"another program has an interface {SRV6_IN}" in str(refused) and kernel.observe().devices == {SRV6: None}
    kernel.apply([RemoveDevice(SRV6)])
    assert kernel.observe().devices == {} and node.run("nft", "list", "tables").stdout == ""


@pytest.mark.netns
def test_an_interface_of_another_kind_with_the_tunnels_name(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    node.run("ip", "link", "add", TUNNEL, "type", "bridge")
    assert kernel.observe() == Facts(UNDERLAY, {TUNNEL: None}, closed=frozenset(("eth0", TUNNEL)))


@pytest.mark.netns
def test_a_vni_that_is_taken(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    node.run("ip", "link", "add", "other", "type", "vxlan", "id", "166", "local", "fd00:11::1", "dstport", "4789",
             "dev", "eth0")
    [refused] = kernel.apply([Add(TUNNEL_OF_NODE)])
    assert kernel.observe().devices == {TUNNEL: None} and kernel.apply([RemoveDevice(TUNNEL)]) == []
    assert kernel.observe().devices == {} and node.run("nft", "list", "tables").stdout == ""
    assert "another interface has VNI 166 on UDP port 4789" in str(refused)


@pytest.mark.netns
def test_the_interface_of_the_default_route(real: tuple[LinuxNode, Node]) -> None:
    _, node = real
    with closing(inside(node.path, lambda: LinuxNode(""))) as kernel:
        assert kernel.observe().underlay is None
        node.run("ip", "route", "add", "default", "via", "172.30.0.254")
        found = kernel.observe().underlay
        assert found and found.ifname == "eth0"
        node.run("ip", "link", "add", "eth1", "up", "type", "bridge")
        node.run("ip", "-6", "route", "add", "default", "dev", "eth1")
        found = kernel.observe().underlay
        assert found and found.ifname == "eth1"


@pytest.mark.netns
def test_news(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    kernel.apply(map(Add, ROUTES))
    kernel.apply([Add(TUNNEL_OF_NODE), *map(Add, OTHER[:2]), *map(Add, OWN_SRV6[-2:]), Add(OWN_SRV6[0])])
    kernel.observe()
    news = kernel.news
    for command in (
        ("-6", "route", "delete", ROUTES[2].dst), ("-4", "route", "delete", ROUTES[3].dst),
        ("address", "add", "fd00:11::5/64", "dev", "eth0"), ("address", "add", "172.30.0.5/24", "dev", "eth0"),
        ("-6", "rule", "delete", "pref", "166"), ("-6", "route", "flush", "table", "166"),
        ("link", "set", "eth0", "mtu", "1300"), ("neighbour", "delete", OTHER_TUNNEL, "dev", TUNNEL),
    ):
        news.drain()
        node.run("ip", *command)
        assert select.select([news], [], [], PATIENCE)[0] and news.drain(), command
    news.drain()
    node.run("ip", "route", "add", "198.51.100.0/24", "dev", "eth0")  # of no interest: it is not ours
    assert not select.select([news], [], [], 0)[0]


NO_INDEX = 999  # of no interface


@pytest.mark.netns
def test_what_the_agent_does_itself_is_no_news(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    kernel.news.of_interfaces([NO_INDEX], [])
    kernel.news.drain()
    kernel.apply(map(Add, ROUTES))
    assert select.select([kernel.news], [], [], PATIENCE)[0] and not kernel.news.drain()
    node.run("ip", "route", "delete", ROUTES[2].dst)
    assert select.select([kernel.news], [], [], PATIENCE)[0] and kernel.news.drain()
    for family, dst in (("-4", "default"), ("-6", "default"), ("-4", "0.0.0.0/1"), ("-6", "2000::/3")):
        node.run("ip", family, "route", "add", dst, "dev", "eth0")
        assert select.select([kernel.news], [], [], PATIENCE)[0] and kernel.news.drain()


@pytest.mark.netns
def test_containers_that_come_and_go_are_no_news(real: tuple[LinuxNode, Node]) -> None:
    _, node = real
    steps = ("link add pod0 type veth peer name pod1", "address add fd00:99::1/64 dev pod0",
             "link set pod0 up mtu 1400", "link delete pod0")

    def heard(news: News) -> list[bool]:
        found = []
        for step in steps:
            node.run("ip", *step.split())
            assert select.select([news], [], [], PATIENCE)[0], step
            found.append(news.drain())
        return found

    with closing(inside(node.path, lambda: News(0))) as news:
        assert heard(news) == [True] * 4  # while the interface to the others is not known
        news.of_interfaces([NO_INDEX], ["other0"])
        assert heard(news) == [False] * 4
        news.of_interfaces([NO_INDEX], ["pod1"])
        assert heard(news)[::3] == [True, True]
        node.run("ip", *steps[0].split())
        [link] = node.ip_json("link", "show", "dev", "pod0")
        news.of_interfaces([link["ifindex"]], [])
        news.drain()
        node.run("ip", *steps[1].split())
        assert select.select([news], [], [], PATIENCE)[0] and news.drain()
