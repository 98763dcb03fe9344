"""Who reaches a container from outside its network and inside: ``published``, ``open`` and ``isolated``, by packets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.netns import frames, networks, port_probe, traffic, wire
from tests.netns.frames import ARP, BROADCAST, ICMPV6, IPV4, IPV6, UDP
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, NODE_OUTSIDE, OUTSIDE, Pod
from tests.netns.port_probe import END, Probed, all_ports, probe_and_watch
from tests.netns.test_guard import host
from tests.sandbox import Node, need

OPEN = (22, 80, 443, 5432, 8080)
PORTS = sorted({*OPEN, *range(1, 50), 53, 67, 123, 500, 65535})
NOTHING = Probed(set(), set())
PLAIN, BRIDGED = "bridged frames alone", "bridged frames pass IP's rules"
NARROW = {4: ("198.51.100.1/24", "198.51.100.9"), 6: ("2001:db8:fffe::1/64", "2001:db8:fffe::9")}
FAMILIES = (4, 6)
OTHER_DUAL = ("fd00:7::/64", "10.67.0.0/24")


def filter_bridged(node: Node, how: str) -> None:
    """br_netfilter, as Docker and Kubernetes have it, or not."""
    there = Path("/proc/sys/net/bridge").exists()
    need(there or how == PLAIN, "needs br_netfilter")
    for family in ("", "6"):
        if there:
            networks.set_sysctl(node, f"bridge/bridge-nf-call-ip{family}tables", "01"[how == BRIDGED])


def beyond(node: Node) -> str:
    """An outside host with a link behind it that takes no more than 1280 bytes."""
    netns = networks.outside(node)
    networks.narrow(node, netns, [NARROW[family][0] for family in FAMILIES])
    for family in FAMILIES:
        node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family])
        node.run("ip", f"-{family}", "route", "add", "default", "via", NODE_OUTSIDE[family], netns=netns)
    return netns


def other(node: Node, **keys: Any) -> Pod:
    """A container of a second network."""
    [pod] = networks.pods(node, networks.gateway(*OTHER_DUAL, name="other", bridge="other0", **keys), "other")
    return pod


def converse(caller: str, address: str, listener: str) -> None:
    """A connection and a datagram with its answer."""
    family = traffic.family_of(address)
    with traffic.listening(listener, family, 9000) as server:
        traffic.called(caller, (address, 9000), server)
    with traffic.udp(listener, family, port=9000) as server, traffic.udp(caller, family) as client:
        traffic.asked(client, (address, 9000), server)


def ways(outside: str, neighbour: Pod, pod: Pod) -> list[tuple[tuple[str, str], str]]:
    """Everybody outside a container's network, and everything of it that they may try; everybody knows the way."""
    found = [((netns, "eth0"), pod.address(family)) for netns in (outside, neighbour.netns) for family in FAMILIES]
    for (netns, _), address in found:
        assert networks.ping(pod.node, address, netns)
    return found


@pytest.mark.parametrize("how", [PLAIN, BRIDGED])
@pytest.mark.usefixtures("main_plugin")
def test_published_is_closed_to_the_outside(node: Node, how: str) -> None:
    outside = beyond(node)
    filter_bridged(node, how)
    first, second = networks.pods(node, networks.gateway(*DUAL), "a", "b")
    foreign = other(node)
    with traffic.serving(first.netns, *OPEN):
        for caller, address in ways(outside, foreign, first):
            assert probe_and_watch(caller, address, PORTS, (first.netns, "eth0")) == NOTHING
    for family in FAMILIES:
        converse(first.netns, OUTSIDE[family], outside)
        converse(first.netns, second.address(family), second.netns)
        converse(second.netns, first.address(family), first.netns)
        converse(node.path, first.address(family), first.netns)
        converse(first.netns, (GATEWAY4, GATEWAY6)[family == 6], node.path)
        assert traffic.path_mtu(first.netns, first.address(family), NARROW[family][1]) == 1280
        assert arrives(error(outside, first.address(family)), outside, first)


def error(netns: str, address: str) -> tuple[str, bytes]:
    """Something that was sent is too big: what says so of a flow that the node never saw."""
    family = traffic.family_of(address)
    inner = frames.ip(address, NARROW[family][1], UDP, frames.udp(address, NARROW[family][1], (7, 7)))
    kind, code = (3, 4) if family == 4 else (2, 0)
    return address, frames.icmp(kind, code, (1280).to_bytes(4, "big") + inner)


def arrives(sent: tuple[str, bytes], netns: str, pod: Pod) -> bool:
    """Whether what was sent from a raw ICMP socket is seen in the container."""
    address, message = sent
    family = traffic.family_of(address)
    protocol, _ = port_probe.ECHO[family]
    with wire.packets(pod.netns, "eth0") as tap, wire.in_order():
        with traffic.opened(netns, family, 3, protocol) as sender:
            sender.sendto(message, (address, 0))
        port_probe.echo(netns, address)
        return any(message[4:] in frame for frame in wire.frames_before(tap, END))


@pytest.mark.usefixtures("main_plugin")
def test_open_is_open(node: Node) -> None:
    outside = beyond(node)
    [pod] = networks.pods(node, networks.gateway(*DUAL, ingress="open"), "a")
    foreign = other(node)
    with traffic.serving(pod.netns, *OPEN):
        for caller, address in ways(outside, foreign, pod):
            assert probe_and_watch(caller, address, PORTS, (pod.netns, "eth0")) == (all_ports(PORTS), set(OPEN))
    for family in FAMILIES:
        converse(foreign.netns, pod.address(family), pod.netns)
        assert networks.ping(node, foreign.address(family), pod.netns)  # so that the way there is known
        caller = pod.netns, "eth0"
        assert probe_and_watch(caller, foreign.address(family), PORTS, (foreign.netns, "eth0")) == NOTHING


@pytest.mark.parametrize("how", [PLAIN, BRIDGED])
@pytest.mark.usefixtures("main_plugin")
def test_isolated_is_closed_to_the_neighbours_too(node: Node, how: str) -> None:
    outside = beyond(node)
    filter_bridged(node, how)
    first, second = networks.pods(node, networks.gateway(*DUAL, ingress="isolated"), "a", "b")
    foreign = other(node)
    with traffic.serving(first.netns, *OPEN):
        for caller, address in ways(outside, foreign, first):
            assert probe_and_watch(caller, address, PORTS, (first.netns, "eth0")) == NOTHING
        if networks.main.get() == networks.BRIDGE:
            assert bridged(first, second) == 0
        for family in FAMILIES:
            if networks.main.get() == networks.BRIDGE:
                by_the_gateway(first, second, family)
            address = first.address(family)
            assert probe_and_watch((second.netns, "eth0"), address, PORTS, (first.netns, "eth0")) == NOTHING
    for family in FAMILIES:
        converse(first.netns, OUTSIDE[family], outside)
        converse(first.netns, (GATEWAY4, GATEWAY6)[family == 6], node.path)
        converse(node.path, first.address(family), first.netns)
        assert traffic.path_mtu(first.netns, first.address(family), NARROW[family][1]) == 1280


def by_the_gateway(first: Pod, second: Pod, family: int) -> None:
    """They take the gateway for the way to each other, and the gateway has nothing to say to that."""
    node, gateway = first.node, (GATEWAY4, GATEWAY6)[family == 6]
    for name in ("all", "cni0"):
        networks.set_sysctl(node, f"ipv4/conf/{name}/send_redirects", "0")
    for pod, neighbour in ((first, second), (second, first)):
        node.run("ip", "route", "add", neighbour.address(family), "via", gateway, netns=pod.netns)


def bridged(victim: Pod, speaker: Pod) -> int:
    """How many frames a neighbour hears of those that are for it or for everybody; all of them are honest."""
    node, own, there = speaker.node, host(speaker), host(victim)
    group, mac = frames.solicited_node(there.ip6)
    sent = [
        frames.ethernet(own.mac, BROADCAST, ARP, frames.arp(frames.REQUEST, own.mac, own.ip4, there.ip4)),
        frames.ethernet(own.mac, mac, IPV6, frames.ip(
            own.ip6, group, ICMPV6, frames.solicitation(own.ip6, group, there.ip6, own.mac)
        )),
    ]
    for source, target, kind in ((own.ip4, there.ip4, IPV4), (own.ip6, there.ip6, IPV6)):
        for address in (there.mac, BROADCAST):
            packet = frames.ip(source, target, UDP, frames.udp(source, target, (9, 9)))
            sent.append(frames.ethernet(own.mac, address, kind, packet))
    assert networks.ping(node, there.ip6)
    with wire.packets(victim.netns, "eth0") as tap, wire.packets(node.path, "cni0") as bridge, wire.in_order():
        with wire.packets(speaker.netns, "eth0", 0) as sender:
            for frame in sent:
                sender.send(frame)
        wire.await_frames(bridge, lambda frame: frame == sent[-1])
        port_probe.echo(node.path, there.ip6)
        return len(set(sent) & set(wire.frames_before(tap, END)))
