"""Who a container is to a host beyond the node: itself, the node, a fixed address, or its translated prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.netns import networks, nft, traffic
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, NODE_OUTSIDE, OUTSIDE, SUBNET4, SUBNET6, UPLINK, Pod
from tests.netns.traffic import End, family_of
from tests.sandbox import Node

GLOBAL6 = "2001:db8:6::/64"
KINDS = ("unique local", "global", "private")  # of the addresses of a container, in the order of the ranges
RANGES = (SUBNET6, GLOBAL6, SUBNET4)
ALL, PRIVATE = set(KINDS), {"unique local", "private"}

ELSEWHERE = {4: "198.51.100.2", 6: "2001:db8:fffe::2"}  # further away than the outside host, and the same machine
ELSEWHERE_PREFIX = {4: "198.51.100.0/24", 6: "2001:db8:fffe::/64"}
NARROW = {4: "198.51.100.{}", 6: "2001:db8:fffe::{}"}  # beyond a link with IPv6's least MTU
FIXED = {4: "203.0.113.7", 6: "2001:db8:fffd::7"}  # an address of the node that no link has

INTERNAL, EXTERNAL = SUBNET6, "2001:db8:77::/64"
NPTV6 = {"nptv6": {"internal": INTERNAL, "external": EXTERNAL}, "masquerade": {"ipv4": "on", "ipv6": "off"}}

# keys of the configuration, who is hidden, from whom
CASES: list[tuple[Mapping[str, Any], set[str]]] = [
    ({}, set()),
    ({"ipMasq": True}, ALL),
    ({"ipMasq": True, "ipMasqBackend": "nftables"}, ALL),
    ({"ipMasq": False}, set()),
    ({"masquerade": {}}, PRIVATE),
    ({"masquerade": {"ipv4": "auto", "ipv6": "off"}}, {"private"}),
    ({"masquerade": {"ipv4": "off", "ipv6": "auto"}}, {"unique local"}),
    ({"masquerade": {"ipv4": "off", "ipv6": "on"}}, {"unique local", "global"}),
    ({"masquerade": {"ipv4": "on", "ipv6": "off"}, "guard": False, "ingress": "open"}, {"private"}),
]


@pytest.fixture
def beyond(node: Node) -> str:
    """A host beyond the node that knows the way to every address here, and a link with a small MTU behind it."""
    netns = networks.outside(node)
    lengths = {family: ELSEWHERE_PREFIX[family].partition("/")[2] for family in (4, 6)}
    networks.narrow(node, netns, [f"{ELSEWHERE[family]}/{length}" for family, length in lengths.items()])
    for family in (4, 6):
        node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family])
        node.run("ip", "address", "add", FIXED[family], "dev", "lo")
    for prefix in (GLOBAL6, EXTERNAL, FIXED[6], FIXED[4]):
        node.run("ip", "route", "add", prefix, "via", NODE_OUTSIDE[family_of(prefix)], netns=netns)
    return netns


def own(pod: Pod) -> dict[str, str]:
    """A pod's addresses by their kind."""
    return dict(zip(KINDS, (ip["address"].partition("/")[0] for ip in pod.result["ips"])))


def seen(pod: Pod, address: str, beyond: str, target: str) -> str:
    """The address that a host sees of the container, the same by TCP and UDP."""
    family = family_of(address)
    with traffic.udp(beyond, family, target) as server, traffic.udp(pod.netns, family, address) as client:
        by_udp = traffic.asked(client, (target, server.getsockname()[1]), server).address
    with traffic.listening(beyond, family, 0) as listener:
        caller, _ = traffic.called(pod.netns, (target, listener.getsockname()[1]), listener, address)
    assert caller.address == by_udp
    return by_udp


@pytest.mark.usefixtures("main_plugin")
def test_an_address_is_hidden_behind_the_nodes_as_the_configuration_says(node: Node, beyond: str) -> None:
    for number, (keys, hidden) in enumerate(CASES):
        [pod] = networks.pods(node, networks.gateway(*RANGES, **keys), f"c{number}")
        for kind, address in own(pod).items():
            expected = NODE_OUTSIDE[family_of(address)] if kind in hidden else address
            assert seen(pod, address, beyond, OUTSIDE[family_of(address)]) == expected, f"{keys}: {kind}"
        pod.delete()


@pytest.mark.usefixtures("main_plugin")
def test_some_see_the_real_source_and_a_fixed_one_is_what_the_others_see(node: Node, beyond: str) -> None:
    keep = {"nonMasquerade": list(ELSEWHERE_PREFIX.values())}
    snat = {"snat": {"ipv4": FIXED[4], "ipv6": FIXED[6]}}
    for keys, sources, kept in (
        ({"ipMasq": True, **keep}, NODE_OUTSIDE, True),
        ({"ipMasq": True, **snat, **keep}, FIXED, True),
        ({"ipMasq": True, **snat}, FIXED, False),
        ({"ipMasq": True, "snat": {"ipv4": FIXED[4]}}, {4: FIXED[4], 6: NODE_OUTSIDE[6]}, False),
        ({"ipMasq": True, "snat": {"ipv6": FIXED[6]}, "nonMasquerade": ["::/0"]}, {4: NODE_OUTSIDE[4], 6: ""}, False),
    ):
        [pod] = networks.pods(node, networks.gateway(*RANGES, **keys), "c")
        for address in own(pod).values():
            family = family_of(address)
            source = sources[family] or address
            assert seen(pod, address, beyond, OUTSIDE[family]) == source, keys
            assert seen(pod, address, beyond, ELSEWHERE[family]) == (address if kept else source), keys
        pod.delete()
    [pod] = networks.pods(node, networks.gateway(*RANGES, masquerade={}, **snat), "c")
    assert {kind: seen(pod, address, beyond, OUTSIDE[family_of(address)]) for kind, address in own(pod).items()} == {
        "unique local": FIXED[6], "global": own(pod)["global"], "private": FIXED[4]
    }


@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_the_network_itself_sees_the_real_source(node: Node, beyond: str) -> None:
    """Directly, which with br_netfilter passes the node's rules too, and through the gateway."""
    first, second = networks.pods(node, networks.gateway(*RANGES, ipMasq=True), "a", "b")
    for direct in (True, False) if networks.main.get() == networks.BRIDGE else (True,):
        for kind, target in own(second).items():
            family = family_of(target)
            if not direct:
                gateway = GATEWAY6 if family == 6 else GATEWAY4
                node.run("ip", "route", "add", target, "via", gateway, "dev", "eth0", netns=first.netns)
            for source in own(first).values():
                if family_of(source) == family:
                    with traffic.udp(second.netns, family, target) as server:
                        with traffic.udp(first.netns, family, source) as client:
                            port = server.getsockname()[1]
                            assert traffic.asked(client, (target, port), server).address == source, (direct, kind)


@pytest.mark.usefixtures("main_plugin")
def test_multicast_keeps_its_source(node: Node, beyond: str) -> None:
    """Where a daemon such as smcroute has the node forward it. br_netfilter leaves it to no NAT anyway (br_nf_local_in,
    net/bridge/br_netfilter_hooks.c)."""
    [pod] = networks.pods(node, networks.gateway(*DUAL, ipMasq=True), "a")
    with traffic.no_br_netfilter(node):
        for family, group in ((4, "239.1.2.3"), (6, "ff0e::1:2:3")):
            source = pod.address(family)
            with traffic.multicast(node, family, source, group, (pod.home, UPLINK)):
                with traffic.udp(beyond, family) as member, traffic.udp(pod.netns, family, source) as client:
                    traffic.join(member, family, group, networks.link(node, "eth0", beyond)["ifindex"])
                    traffic.let_far(client, family)
                    client.sendto(b"to all", (group, member.getsockname()[1]))
                    assert member.recvfrom(100)[1][0] == source


def mapped(address: str) -> str:
    return address.replace(INTERNAL.removesuffix("/64"), EXTERNAL.removesuffix("/64"))


@pytest.mark.usefixtures("main_plugin")
def test_a_translated_prefix_keeps_addresses_apart_and_ports(node: Node, beyond: str) -> None:
    first, second = networks.pods(node, networks.gateway(*DUAL, ingress="open", **NPTV6), "a", "b")
    for pod in (first, second):
        address = pod.address(6)
        with traffic.udp(beyond, 6) as server, traffic.udp(pod.netns, 6, port=5000) as client:
            target = OUTSIDE[6], server.getsockname()[1]
            assert traffic.asked(client, target, server) == End(mapped(address), 5000)
        with traffic.listening(beyond, 6, 443) as listener:
            caller, caller_there = traffic.called(pod.netns, (OUTSIDE[6], 443), listener)
            assert caller == End(mapped(address), caller_there.port) and caller_there.address == address
        with traffic.listening(pod.netns, 6, 80) as listener:
            caller, caller_there = traffic.called(beyond, (mapped(address), 80), listener)
            assert caller == caller_there and caller.address == OUTSIDE[6]
            traffic.called(node.path, (mapped(address), 80), listener)
        assert networks.ping(node, mapped(address), beyond)
        assert seen(pod, pod.address(4), beyond, OUTSIDE[4]) == NODE_OUTSIDE[4], "IPv4 is masqueraded as it says"
    with traffic.listening(second.netns, 6, 80) as listener:
        traffic.called(first.netns, (mapped(second.address(6)), 80), listener)


@pytest.mark.usefixtures("main_plugin")
def test_a_translated_prefix_is_no_way_in_where_nothing_is_published(node: Node, beyond: str) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL, **NPTV6), "a")
    address = pod.address(6)
    with traffic.listening(pod.netns, 6, 80):
        with traffic.unanswered(beyond, (mapped(address), 80), (address, 80)):
            assert networks.ping(node, mapped(address), beyond) and networks.ping(node, address, beyond)
    assert seen(pod, address, beyond, OUTSIDE[6]) == mapped(address), "answers come in all the same"


@pytest.mark.usefixtures("main_plugin")
def test_icmp_errors_come_back_through_every_translation(node: Node, beyond: str) -> None:
    for keys in ({"ipMasq": True}, {"ipMasq": True, "snat": {"ipv4": FIXED[4], "ipv6": FIXED[6]}}, NPTV6, {}):
        [pod] = networks.pods(node, networks.gateway(*RANGES, **keys), "a")
        for number, address in enumerate(own(pod).values(), 10):  # the kernel remembers each destination's
            assert traffic.path_mtu(pod.netns, address, NARROW[family_of(address)].format(number)) == 1280, keys
        pod.delete()


@pytest.mark.usefixtures("main_plugin")
def test_reload_keeps_what_is_said(node: Node, beyond: str) -> None:
    """A connection through the translation outlives the tables it was made by."""
    [pod] = networks.pods(node, networks.gateway(*DUAL, ipMasq=True), "a")
    for family in (4, 6):
        with traffic.udp(beyond, family) as server, traffic.udp(pod.netns, family) as client:
            target = OUTSIDE[family], server.getsockname()[1]
            before = traffic.asked(client, target, server)
            nft.ctl(node, "reload")
            assert traffic.asked(client, target, server) == before
            assert before.address == NODE_OUTSIDE[family]
