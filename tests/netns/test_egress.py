"""Where a container with an egress list gets to, by packets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from tests.netns import frames, networks, port_probe, traffic, wire
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, NODE_OUTSIDE, OUTSIDE, Pod
from tests.netns.port_probe import END, all_ports
from tests.netns.test_guard import host
from tests.sandbox import Node

FAMILIES = (4, 6)
GATEWAYS = {4: GATEWAY4, 6: GATEWAY6}
ALLOWED = {("tcp", 443), ("tcp", 8000), ("tcp", 8001), ("udp", 53), ("udp", 9)}
LISTED = ["tcp/443", "tcp/8000-8001", "udp/53", "udp/9"]
PORTS = (22, 53, 80, 443, 7999, 8000, 8001, 8002, 5353)
LAST = 9  # the port of the packet that is allowed, and sent last
EVERY = {4: "0.0.0.0/0", 6: "::/0"}


def pod_of(node: Node, egress: list[Mapping[str, Any]], name: str = "a", **keys: Any) -> Pod:
    [pod] = networks.pods(node, networks.gateway(*DUAL, egress=egress, **keys), name)
    return pod


def prepared(node: Node) -> str:
    """An outside host, with a second address of each family."""
    netns = networks.outside(node)
    for address in ("192.0.2.3/24", "2001:db8:ffff::3/64"):
        nodad = ["nodad"] if ":" in address else []
        node.run("ip", "address", "add", address, "dev", "eth0", *nodad, netns=netns)
    for family in FAMILIES:
        assert networks.ping(node, OUTSIDE[family])
    return netns


def arrived(pod: Pod, targets: Iterable[tuple[str, Iterable[int]]], last: str, place: tuple[str, str]) -> Any:
    """What gets out of the pod: probes of ports of these addresses, and a datagram to an address where port LAST is
    allowed. ``place`` is where it would be seen."""
    family = traffic.family_of(last)
    with wire.packets(*place) as tap, wire.in_order():
        for address, ports in targets:
            port_probe.probe(pod.netns, address, ports)
        with traffic.udp(pod.netns, family) as sender:
            sender.sendto(END, (last, LAST))
        return set(filter(None, map(frames.opening, wire.frames_before(tap, END))))


def counted(node: Node, family: int) -> list[int]:
    """Packets by each entry of the lists."""
    listed = json.loads(node.run("nft", "-j", "list", "set", "inet", "cni_v6", f"allowed{family}").stdout)
    [found] = [each["set"] for each in listed["nftables"] if "set" in each]
    return [entry["elem"]["counter"]["packets"] for entry in found.get("elem", [])]


@pytest.mark.usefixtures("main_plugin")
def test_only_what_is_listed_is_reached_outside(node: Node) -> None:
    outside = prepared(node)
    pod = pod_of(node, [
        {"to": OUTSIDE[4] + "/32", "ports": LISTED}, {"to": OUTSIDE[6] + "/128", "ports": LISTED},
    ])
    place = outside, "eth0"
    for family in FAMILIES:
        before = counted(node, family)
        assert len(before) == len(LISTED) and sum(before) == 0
        second = "192.0.2.3" if family == 4 else "2001:db8:ffff::3"
        targets = [(second, PORTS), (OUTSIDE[family], PORTS)]
        assert arrived(pod, targets, OUTSIDE[family], place) == ALLOWED & all_ports(PORTS)
        assert min(counted(node, family)) >= 1
        with traffic.listening(outside, family, 443) as server:
            traffic.called(pod.netns, (OUTSIDE[family], 443), server)
        with traffic.udp(outside, family, OUTSIDE[family], 53) as server, traffic.udp(pod.netns, family) as client:
            traffic.asked(client, (OUTSIDE[family], 53), server)


@pytest.mark.usefixtures("main_plugin")
def test_the_node_is_no_exception(node: Node) -> None:
    """At none of its addresses, nor from the container's link-local one."""
    prepared(node)
    pod = pod_of(node, [
        {"to": NODE_OUTSIDE[4] + "/32", "ports": LISTED}, {"to": NODE_OUTSIDE[6] + "/128", "ports": LISTED},
    ])
    bridge = networks.link(node, pod.home)
    own = host(pod)
    link_local = networks.link_local(node, pod.home).partition("/")[0]
    with ExitStack() as stack:
        heard = {
            (family, port): stack.enter_context(traffic.udp(node.path, family, port=port))
            for family in FAMILIES for port in (53, LAST, 5353)
        }
        listeners = {
            (family, port): stack.enter_context(traffic.listening(node.path, family, port))
            for family in FAMILIES for port in (22, 443)
        }
        with wire.in_order():
            for family in FAMILIES:
                port_probe.probe(pod.netns, GATEWAYS[family], (22, 53, 443, 5353))
            with wire.packets(pod.netns, "eth0", 0) as sender:
                for source in (own.link_local, own.ip6):
                    for target in (link_local, GATEWAY6, NODE_OUTSIDE[6], "ff02::1"):
                        mac = frames.ALL_NODES_MAC if target == "ff02::1" else bridge["address"]
                        packet = frames.ip(source, target, frames.UDP, frames.udp(source, target, (7, 5353), b"probe"))
                        sender.send(frames.ethernet(own.mac, mac, frames.IPV6, packet))
            for family in FAMILIES:
                port_probe.probe(pod.netns, NODE_OUTSIDE[family], (22, 5353))
                with traffic.udp(pod.netns, family) as client:
                    client.sendto(END, (NODE_OUTSIDE[family], LAST))
        for family in FAMILIES:
            assert heard[family, LAST].recv(100) == END
            assert not any(is_called(each) for (_, port), each in heard.items() if port != LAST)
            assert not any(map(is_called, listeners.values()))
        for family in FAMILIES:
            traffic.called(pod.netns, (NODE_OUTSIDE[family], 443), listeners[family, 443])


def is_called(server: Any) -> bool:
    """Whether somebody has come by now."""
    server.setblocking(False)
    try:
        server.recv(100) if server.type == 2 else server.accept()[0].close()
    except BlockingIOError:
        return False
    finally:
        server.settimeout(wire.PATIENCE)
    return True


@pytest.mark.usefixtures("main_plugin")
def test_an_empty_list_allows_nothing_but_answers(node: Node) -> None:
    """What speaks to it is answered, and it finds its gateway, and its neighbours on a bridge."""
    outside = prepared(node)
    pod = pod_of(node, [], ingress="open")
    [neighbour] = networks.pods(node, networks.gateway(*DUAL), "b")
    for family in FAMILIES:
        own, gateway = pod.address(family), GATEWAYS[family]
        assert not [each for each in node.ip_json("neighbour", "show", gateway, netns=pod.netns) if "lladdr" in each]
        for caller in (outside, node.path):
            assert networks.ping(node, own, caller)
            with traffic.listening(pod.netns, family, 9000) as server:
                traffic.called(caller, (own, 9000), server)
            with traffic.udp(pod.netns, family, port=9000) as server, traffic.udp(caller, family) as client:
                traffic.asked(client, (own, 9000), server)
        called_too = [(pod, neighbour)] if networks.main.get() == networks.BRIDGE else []
        for here, there in ((neighbour, pod), *called_too):
            with traffic.listening(there.netns, family, 9000) as server:
                traffic.called(here.netns, (there.address(family), 9000), server)
        # After its probes, the neighbour's; which may.
        with wire.packets(outside, "eth0") as tap, wire.in_order():
            port_probe.probe(pod.netns, OUTSIDE[family], PORTS)
            port_probe.echo(pod.netns, OUTSIDE[family])
            with traffic.udp(neighbour.netns, family) as sender:
                sender.sendto(b"the neighbour's", (OUTSIDE[family], LAST))
            seen = wire.frames_before(tap, b"the neighbour's")
        assert not [frame for frame in seen if frames.opening(frame) or END in frame]


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.usefixtures("main_plugin")
def test_neighbour_discovery_goes_no_further_than_the_link(node: Node, guard: bool) -> None:
    """It is no way out, whatever it carries and however far it is to go; nor is what tells of listeners."""
    outside = prepared(node)
    pod = pod_of(node, [{"to": OUTSIDE[6] + "/128", "ports": ["udp/9"]}], guard=guard)
    own, mac = host(pod), networks.link(node, pod.home)["address"]
    with wire.packets(outside, "eth0") as tap, wire.in_order():
        with wire.packets(pod.netns, "eth0", 0) as sender:
            for kind in (131, 132, 133, 135, 136, 143):
                for hops in (255, 64, 2):
                    for body in (b"secret", bytes(4) + frames.packed(own.ip6)):
                        message = frames.icmpv6(own.ip6, OUTSIDE[6], kind, body)
                        packet = bytearray(frames.ip(own.ip6, OUTSIDE[6], frames.ICMPV6, message))
                        packet[7] = hops
                        sender.send(frames.ethernet(own.mac, mac, frames.IPV6, bytes(packet)))
        with traffic.udp(pod.netns, 6) as allowed:
            allowed.sendto(END, (OUTSIDE[6], LAST))
        seen = wire.frames_before(tap, END)
    assert not [frame for frame in seen if frame[12:14] == b"\x86\xdd" and frames.packed(own.ip6) in frame[22:38]]


@pytest.mark.usefixtures("main_plugin")
def test_a_prefix_of_any_protocol(node: Node) -> None:
    """And of two lists what both allow: ``args`` of who starts the container can only take away."""
    outside = prepared(node)
    config = networks.gateway(*DUAL, egress=[{"to": EVERY[4]}, {"to": "2001:db8:ffff::/64"}])
    pod, less = Pod(node, config, "a"), Pod(node, {**config, "args": {"cni": {"egress": [{"to": EVERY[6]}]}}}, "b")
    pod.add()
    less.add()
    for family in FAMILIES:
        assert pod.ping(OUTSIDE[family])
        assert arrived(pod, [(OUTSIDE[family], PORTS)], OUTSIDE[family], (outside, "eth0")) == all_ports(PORTS)
    assert less.ping(OUTSIDE[6])
    targets = [(OUTSIDE[4], PORTS)]
    assert arrived(less, targets, OUTSIDE[6], (outside, "eth0")) == set()
