"""Who reaches a container and where its packets leave, by what the kernel has; ``tests/netns/test_explain.py`` proves
it by packets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import (
    CLOSED_SEGMENT,
    GUARD_BLOCKED,
    GUARD_FULL,
    ISOLATED,
    MASQUERADED,
    OPEN,
    PUBLISHED,
    Allowed,
    Policy,
    Port,
)
from cni_v6.firewall.sets import SETS, Element
from cni_v6.kernel.facts import DROPS_ALL, DROPS_REST, ForwardChain, Link, RouteEntry
from cni_v6.leases.attachment import Attachment, GatewayAddress, RoutedLink
from cni_v6.plan import firewall_words, reach
from cni_v6.plan.reach import NEIGHBOURS, NETWORKS, NO, NODE, OUTSIDE, PERHAPS, YES, Leaving, PublishedPort
from cni_v6.plan.situation import Inside, Situation, Way, concerning, cut_off
from cni_v6.protocol.names import Owner

A4, A6, HOST = "10.1.0.2", "2001:db8::2", "veth1"
OWNER = Owner("pods", "c1", "eth0")
WEB = Port("tcp", 8080, 80, "192.0.2.1"), Port("udp", 53, 53)
ANCHORS = GatewayAddress("cni0", "10.1.0.1/24"), GatewayAddress("cni0", "2001:db8::1/64")
BRIDGE = Link("cni0", "", 1500, "bridge")
DEFAULTS = tuple(RouteEntry(dst, "fe80::1") for dst in ("0.0.0.0/0", "::/0"))


def situation(policy: Policy | None = None, **changes: object) -> Situation:
    """A container on a node where all is well."""
    policy = policy or Policy("cni0", HOST, "02:00:00:00:00:01", (A4, A6), "fe80::2", GUARD_FULL, PUBLISHED)
    record = Attachment(OWNER, (A4, A6), HOST, policy=policy, anchors=ANCHORS)
    link = Link(HOST, "", 1500, "veth", up=True, master="cni0", port_enabled=True)
    seen = Situation(
        record, link, replace(BRIDGE, up=True, group=CLOSED_SEGMENT), elements(OWNER, policy), True, (),
        {4: True, 6: True}, {A4: Way("cni0"), A6: Way("cni0")},
        {4: Way("eth0", "192.0.2.1"), 6: Way("eth0", "2001:db8:f::1")},
        Inside(link, (f"{A4}/24", f"{A6}/64"), DEFAULTS),
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


def policy(**changes: object) -> Policy:
    made = Policy("cni0", HOST, "02:00:00:00:00:01", (A4, A6), "fe80::2", GUARD_FULL, OPEN)
    return replace(made, **changes)  # type: ignore[arg-type]


def closed(seen: Situation) -> set[tuple[str, str]]:
    return {(each.who, each.address) for each in reach.reached(seen) if each.may == NO}


def whys(seen: Situation, who: str = OUTSIDE) -> set[tuple[str, str]]:
    return {(each.may, each.why) for each in reach.reached(seen) if each.who == who}


ALL = {(who, address) for who in (NEIGHBOURS, NODE, NETWORKS, OUTSIDE) for address in (A4, A6)}
BEYOND = {(who, address) for who in (NETWORKS, OUTSIDE) for address in (A4, A6)}


def test_a_published_container_is_closed_to_the_outside() -> None:
    assert closed(situation()) == BEYOND
    assert whys(situation()) == {(NO, 'ingress "published" closes it, but for replies, ping and published ports')}


def test_an_open_one_is_not() -> None:
    assert closed(situation(policy())) == set()
    assert whys(situation(policy()), NETWORKS) == {(YES, 'nothing of ours closes it (ingress "open")')}


@pytest.mark.parametrize("ingress", [OPEN, ISOLATED])
def test_an_isolated_port_is_closed_to_its_neighbours(ingress: str) -> None:
    seen = situation(policy(ingress=ingress))
    assert seen.link
    seen = replace(seen, link=replace(seen.link, isolated=True))
    assert closed(seen) == {(NEIGHBOURS, A4), (NEIGHBOURS, A6)} | (BEYOND if ingress == ISOLATED else set())


LINK = Link(HOST, "", 1500, "veth", up=True, master="cni0", port_enabled=True)


@pytest.mark.parametrize("seen, words", [
    (situation(link=None), "its host interface veth1 is not on the node"),
    (situation(policy(guard=GUARD_BLOCKED)), "it is blocked"),
    (situation(link=replace(LINK, up=False)), "host interface veth1 is down"),
    (situation(link=replace(LINK, master="")), "veth1 is in no bridge (cni-v6ctl check pods --repair)"),
    (situation(bridge=BRIDGE), "bridge cni0 is down"),
    (situation(bridge=None), "bridge cni0 is down"),
    (situation(inside=Inside(None, (), ())), "eth0 is not in the container's namespace"),
    (situation(link=replace(LINK, port_enabled=False)), "eth0 in the container is down"),
])
def test_what_cuts_it_off(seen: Situation, words: str) -> None:
    assert cut_off(seen).startswith(words)
    assert closed(seen) == ALL
    assert {each.may for each in reach.leaving(seen)} == {NO}


def test_an_address_that_the_container_has_lost() -> None:
    seen = situation(policy(), inside=Inside(LINK, (f"{A6}/64",), DEFAULTS))
    assert closed(seen) == {(who, A4) for who, _ in ALL}
    assert [each.may for each in reach.leaving(seen)] == [NO, YES]


@pytest.mark.parametrize("ways, words", [
    ({}, "the node has no route to it"), ({A4: Way("eth0"), A6: Way("eth0")}, "leads to eth0, not to cni0"),
])
def test_the_node_has_no_way_to_it(ways: dict[str, Way], words: str) -> None:
    seen = situation(policy(), ways=ways)
    assert closed(seen) == {(NODE, A4), (NODE, A6)} | BEYOND
    assert all(words in why for _, why in whys(seen, NODE))
    assert {each.may for each in reach.leaving(seen)} == {NO}


def test_what_the_firewall_does_not_know() -> None:
    seen = situation(policy())
    seen = replace(seen, elements=tuple(each for each in seen.elements if not each.set.startswith("home")))
    assert closed(seen) == {(NODE, A4), (NODE, A6)} | BEYOND
    assert [each.may for each in reach.leaving(seen)] == [YES, NO]
    bridged = replace(seen, frames_pass_rules={4: True, 6: True})
    assert closed(bridged) == closed(seen) | {(NEIGHBOURS, A6)}


def test_forwarding_is_off() -> None:
    seen = situation(policy(), forwards={4: False, 6: True})
    assert closed(seen) == {(NETWORKS, A4), (OUTSIDE, A4)}
    assert list(reach.leaving(seen))[0] == Leaving(A4, NO, why="IPv4 forwarding is off on this node")


CHAIN = ForwardChain("inet", "filter", "forward", DROPS_ALL)


@pytest.mark.parametrize("chain, may", [
    (CHAIN, NO), (replace(CHAIN, drops=DROPS_REST), PERHAPS), (replace(CHAIN, drops=""), YES),
    (replace(CHAIN, drops=DROPS_REST, interfaces=frozenset({"cni0"})), YES),
])
def test_a_chain_of_others(chain: ForwardChain, may: str) -> None:
    seen = situation(policy(), chains=(chain,))
    assert {each for each, _ in whys(seen)} == {may}
    assert {each.may for each in reach.leaving(seen)} == {may}
    assert {each for each, _ in whys(seen, NEIGHBOURS)} == {YES}
    assert {each for each, _ in whys(replace(seen, frames_pass_rules={4: True, 6: True}), NEIGHBOURS)} == {may}


def test_a_chain_of_one_family() -> None:
    seen = situation(policy(), chains=(replace(CHAIN, family="ip"),))
    assert closed(seen) == {(NETWORKS, A4), (OUTSIDE, A4)}


def test_without_the_tables_nothing_is_closed() -> None:
    seen = situation(loaded=False)
    assert closed(seen) == set() and whys(seen) == {(YES, reach.GONE)}
    assert whys(replace(seen, record=replace(seen.record, policy=None))) == {
        (YES, 'nothing of ours closes it (ingress "open"), where a route leads here')
    }


@pytest.mark.parametrize("routes, may", [((), NO), ((RouteEntry("192.0.2.0/24", "10.1.0.1"),), PERHAPS)])
def test_without_a_default_route_nobody_is_answered(routes: Sequence[RouteEntry], may: str) -> None:
    inside = Inside(LINK, (f"{A4}/24", f"{A6}/64"), (*routes, DEFAULTS[1]))
    seen = situation(policy(), inside=inside)
    assert {each.may for each in reach.reached(seen) if (each.who, each.address) == (OUTSIDE, A4)} == {may}
    assert closed(seen) == ({(NETWORKS, A4), (OUTSIDE, A4)} if may == NO else set())
    assert [each.why for each in reach.leaving(seen)][0] == "the container has no default route of IPv4"


def test_published_ports() -> None:
    seen = situation(policy(ports=WEB))
    assert set(reach.ports(seen)) == {
        PublishedPort("tcp", "192.0.2.1", 8080, A4, 80), PublishedPort("udp", "", 53, A4, 53),
        PublishedPort("udp", "", 53, A6, 53),
    }
    off = replace(seen, forwards={4: False, 6: True})
    assert [port.problem for port in reach.ports(off) if port.address == A6] == [""]
    assert {port.problem for port in reach.ports(off) if port.address == A4} == {"IPv4 forwarding is off on this node"}
    gone = list(reach.ports(replace(seen, loaded=False)))
    assert {port.problem for port in gone} == {reach.GONE}
    assert {replace(port, problem="") for port in gone} == set(reach.ports(seen)), "each family has its line"
    lost = replace(seen, elements=tuple(each for each in seen.elements if not each.set.startswith("ports_at")))
    assert [port.problem for port in reach.ports(lost) if port.host_port == 8080] == [
        "it is not in the firewall's maps (cni-v6ctl reload)"
    ]
    nowhere = replace(lost, record=replace(lost.record, policy=None, anchors=()))
    assert all(not port.problem for port in reach.ports(nowhere))


def test_the_source_of_its_packets() -> None:
    seen = situation(policy(masquerade=(A6,), snat=((A4, "192.0.2.9"),), keep=("10.0.0.0/8",)))
    assert list(reach.leaving(seen)) == [
        Leaving(A4, YES, "eth0", "192.0.2.9", "translated (snat)"),
        Leaving(A6, YES, "eth0", "2001:db8:f::1", "masqueraded"),
    ]
    assert reach.kept(seen, A4) == ["10.0.0.0/8"] and reach.kept(seen, A6) == []
    assert [each.source for each in reach.leaving(replace(seen, loaded=False))] == [A4, A6]
    none = replace(seen, uplinks={6: Way("eth0")})
    assert list(reach.leaving(none)) == [
        Leaving(A4, NO, why="the node has no default route of IPv4"),
        Leaving(A6, YES, "eth0", "the address of eth0", "masqueraded"),
    ]


def test_an_egress_list() -> None:
    seen = situation(policy(egress=(Allowed("192.0.2.0/24"),)))
    assert list(reach.leaving(seen)) == [
        Leaving(A4, PERHAPS, "eth0", A4, "its own address; only to what its egress list allows"),
        Leaving(A6, NO, why="its egress list allows nothing of this family"),
    ]


def test_the_elements_of_an_attachment() -> None:
    made = policy(ports=WEB, prefixes=(("2001:db8:5::/64", ""),))
    own = elements(OWNER, made)
    other = Policy("cni0", "veth2", "02:00:00:00:00:02", ("10.1.0.3",), "fe80::3", GUARD_FULL, ISOLATED)
    others = elements(Owner("pods", "c2", "eth0"), other)
    record = replace(situation(made).record, prefixes=("2001:db8:5::/64",))
    assert concerning(record, HOST, (*others, *own)) == own
    assert concerning(replace(record, policy=None, host=""), "other", own) == tuple(
        each for each in own if each.family == "inet" and {A4, A6, "2001:db8:5::/64"} & {each.key[0], *each.data}
    )
    assert all(map(firewall_words.meaning, own))


def test_every_set_has_a_meaning() -> None:
    assert {name.rstrip("46") for _, name in SETS} - firewall_words.MEANING.keys() == set()


def test_which_chains_drop() -> None:
    counted = {"published4": 3, "published6": 0, "guard_source": 5, "allowed4": 9}
    found = firewall_words.drops(elements(OWNER, policy(ingress=PUBLISHED)), counted)
    assert found == {"published4": 3, "published6": 0, "guard_source": 5}
    assert firewall_words.drops((Element("inet", "home4", (A4, "cni0")),), counted) == {}


def test_a_routed_container_is_bound_to_its_addresses_and_not_to_a_mac() -> None:
    made = elements(OWNER, replace(policy(), home=policy().port))
    [bound] = [element for element in made if element.set == "bound"]
    assert firewall_words.meaning(bound) == "it speaks only from its addresses"
    assert firewall_words.drops(made, {"bound_source": 4, "guard_source": 5}) == {"bound_source": 4}


PREFIX = "2001:db8:5::/64"


def delegated(ingress: str = OPEN, seen_as: str = "", **changes: object) -> Situation:
    seen = situation(policy(ingress=ingress, prefixes=((PREFIX, seen_as),)))
    ways = {**seen.ways, PREFIX: Way("cni0")}
    record = replace(seen.record, prefixes=(PREFIX,))
    return replace(seen, record=record, ways=ways, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("ingress, expected", [
    (OPEN, [PERHAPS, YES, YES, YES]), (PUBLISHED, [PERHAPS, YES, NO, NO]), (ISOLATED, [NO, YES, NO, NO]),
])
def test_a_delegated_prefix(ingress: str, expected: list[str]) -> None:
    found = [each.may for each in reach.reached(delegated(ingress)) if each.address == PREFIX]
    assert found == expected
    gone = delegated(ingress, loaded=False)
    assert [each.may for each in reach.reached(gone) if each.address == PREFIX] == [PERHAPS, YES, YES, YES]


@pytest.mark.parametrize("seen_as, source, how", [
    ("", PREFIX, "its own addresses"), (MASQUERADED, "2001:db8:f::1", "masqueraded"),
    ("2001:db8:f::7", "2001:db8:f::7", "translated (snat)"),
])
def test_what_leaves_of_a_delegated_prefix(seen_as: str, source: str, how: str) -> None:
    [found] = [each for each in reach.leaving(delegated(seen_as=seen_as)) if each.address == PREFIX]
    assert found == Leaving(PREFIX, YES, "eth0", source, how)


def routed(**changes: object) -> Situation:
    """A container with a link of its own."""
    seen = situation(policy())
    record = replace(seen.record, port=RoutedLink("02:00:00:00:00:01"))
    assert seen.link
    link = replace(seen.link, master="", port_enabled=False, running=True)
    return replace(seen, record=record, link=link, bridge=None, **changes)  # type: ignore[arg-type]


def test_a_routed_container_is_reached_by_its_neighbours_through_the_node() -> None:
    assert whys(routed(), NEIGHBOURS) == {(YES, "the node routes to it, on every port")}
    off = routed(forwards={4: False, 6: False})
    assert {may for may, _ in whys(off, NEIGHBOURS)} == {NO}
    chain = ForwardChain("inet", "filter", "forward", DROPS_ALL)
    assert {may for may, _ in whys(routed(chains=(chain,)), NEIGHBOURS)} == {NO}
    assert {may for may, _ in whys(routed(ways={}), NEIGHBOURS)} == {NO}


def test_a_routed_container_that_is_isolated() -> None:
    seen = routed()
    isolated = elements(seen.record.owner, policy(ingress=ISOLATED))
    assert whys(replace(seen, elements=isolated), NEIGHBOURS) == {(NO, 'ingress "isolated" closes it')}


def test_a_routed_container_whose_end_is_down() -> None:
    seen = routed()
    assert seen.link
    down = replace(seen, link=replace(seen.link, running=False))
    assert cut_off(down) == "eth0 in the container is down"
