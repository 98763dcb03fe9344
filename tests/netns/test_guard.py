"""Nobody on a bridge speaks for another: what a container with root in its namespace may try, by packets."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from cni_v6.plan.firewall import link_local
from tests.netns import frames, networks, nft, spoofed_frames, traffic, wire
from tests.netns.frames import BROADCAST, IPV4, IPV6, UDP, VLAN, Host
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, SUBNET4, Pod
from tests.netns.spoofed_frames import (
    ADDRESS,
    CLIENT4,
    CLIENT6,
    MAC,
    MANNERS,
    NODE,
    SERVER4,
    SERVER6,
    STRANGE6,
    VICTIM,
    Spoof,
)
from tests.sandbox import Node

END = b"that was all"
PORT = 8080
BRIDGED = Path("/proc/sys/net/bridge")  # where the kernel has br_netfilter
RTM_NEWNEIGH = struct.pack("=H", 28)  # linux/rtnetlink.h

SEGMENTS = [
    pytest.param(networks.gateway(*DUAL), {MAC, MANNERS, ADDRESS}, id="guard"),
    pytest.param(networks.network(), {MAC, MANNERS}, id="layer-2"),
    pytest.param(networks.gateway(*DUAL, guard=False, macspoofchk=True), {MAC}, id="macspoofchk"),
    pytest.param(networks.gateway(*DUAL, guard=False), set(), id="off"),
]


class Segment:
    """A bridge, with a victim that is as credulous as Linux can be made, and an attacker; everybody knows everybody."""

    def __init__(self, node: Node, config: Mapping[str, Any]) -> None:
        self.node = node
        self.victim, self.attacker = networks.pods(node, config, "victim", "attacker")
        if "ipam" not in config:
            self._settle()
        self.hosts = {
            "victim": host(self.victim), "attacker": host(self.attacker),
            "gateway": Host(mac := networks.link(node, "cni0")["address"], GATEWAY4, GATEWAY6, link_local(mac)),
        }
        for key, value in (("accept_ra", "2"), ("autoconf", "1"), ("accept_redirects", "1")):
            networks.set_sysctl(node, f"ipv6/conf/eth0/{key}", value, self.victim.netns)
        for place, ifname in ((self.victim.netns, "eth0"), ("", "cni0")):
            # It would keep for a second what it has just learned (arp_process, net/ipv4/arp.c); and learn unasked.
            networks.set_sysctl(node, f"ipv4/neigh/{ifname}/locktime", "0", place)
            networks.set_sysctl(node, f"ipv4/conf/{ifname}/arp_accept", "1", place)
            networks.link_local(node, ifname, place)  # lies are told to it, too
        for address in (GATEWAY4, GATEWAY6, self.hosts["victim"].ip4, self.hosts["victim"].ip6):
            assert self.attacker.ping(address)
        for address in (GATEWAY4, GATEWAY6):
            assert self.victim.ping(address)

    def _settle(self) -> None:
        """Addresses on a network that has none to give."""
        members = ("", "cni0"), (self.victim.netns, "eth0"), (self.attacker.netns, "eth0")
        for number, (netns, ifname) in enumerate(members, 1):
            for address in (f"10.66.0.{number}/24", f"fd00:6::{number}/64"):
                nodad = ["nodad"] if ":" in address else []
                self.node.run("ip", "address", "add", address, "dev", ifname, *nodad, netns=netns)

    def end(self, target: Host) -> bytes:
        """An honest frame of the attacker."""
        attacker = self.hosts["attacker"]
        message = frames.udp(attacker.ip6, target.ip6, (PORT, PORT), END)
        packet = frames.ip(attacker.ip6, target.ip6, UDP, message)
        return frames.ethernet(attacker.mac, target.mac, IPV6, packet)

    def heard(self, sent: Iterable[bytes]) -> dict[str, set[bytes]]:
        """Send from the attacker's interface. Returns what came in, at the victim's and at the node's."""
        netns = self.attacker.netns
        with wire.packets(self.victim.netns, "eth0") as near, wire.packets(self.node.path, "cni0") as bridge:
            with wire.packets(netns, "eth0", 0) as sender, wire.in_order():
                for frame in (*sent, self.end(self.hosts["victim"]), self.end(self.hosts["gateway"])):
                    sender.send(frame)
            return {place: set(wire.frames_before(tap, END)) for place, tap in ((VICTIM, near), (NODE, bridge))}

    def told(self, told: Iterable[Spoof]) -> set[str]:
        """The lies that reach who they are for."""
        listed = list(told)
        heard = self.heard(lie.frame for lie in listed)
        return {lie.name for lie in listed if frames.as_received(lie.frame) in heard[lie.at]}

    def believed(self) -> set[str]:
        """What the victim or the node has learned that is not so."""
        truth = {
            address: host.mac for host in self.hosts.values() for address in (host.ip4, host.ip6, host.link_local)
        }
        wrong = {
            f"{place}: {entry['dst']} is at {entry['lladdr']}"
            for place, netns, ifname in (("victim", self.victim.netns, "eth0"), ("node", "", "cni0"))
            for entry in self.node.ip_json("neighbour", "show", "dev", ifname, netns=netns)
            if entry.get("lladdr", "") not in ("", truth.get(entry["dst"]))
        }
        wrong |= {f"victim: {route['dst']} by {route['gateway']}" for route in self.victim.routes()
                  if route.get("gateway") not in (GATEWAY4, GATEWAY6)}
        places = networks.addresses(self.node, "eth0", self.victim.netns), networks.addresses(self.node, "cni0")
        return wrong | {f"router of {ip_interface(text).network}" for place in places for text in place
                        if text.startswith("2001:db8:")}

    def learned(self, mac: str, port: str) -> Callable[[bytes], bool]:
        """Whether a notification says that from now on the bridge sends what is for a MAC to this port."""
        head = struct.pack("=BxxxI", socket.AF_BRIDGE, networks.link(self.node, port)["ifindex"])  # linux/neighbour.h
        return lambda news: news[4:6] == RTM_NEWNEIGH and news[16:24] == head and frames.hardware(mac) in news


def host(pod: Pod) -> Host:
    """A container by its addresses."""
    own = [text.partition("/")[0] for text in networks.addresses(pod.node, "eth0", pod.netns)]
    local = link_local(pod.mac)
    return Host(
        pod.mac, next(text for text in own if ":" not in text),
        next(text for text in own if ":" in text and text != local), local,
    )


def dropped(node: Node) -> int:
    """The packets that the guard has dropped, of bridge ports and of routed containers: those that its rules count."""
    asked = ("table", "bridge", "cni_v6"), ("chain", "inet", "cni_v6", "bound_source")
    listed = [json.loads(node.run("nft", "-j", "list", *each).stdout)["nftables"] for each in asked]
    rules = [each["rule"]["expr"] for part in listed for each in part if "rule" in each]
    return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)


def talk_to_each_other(first: Pod, second: Pod) -> None:
    for speaker, listener in ((first, second), (second, first)):
        for address in (host(listener).ip4, host(listener).ip6):
            assert speaker.ping(address)
            with traffic.listening(listener.netns, traffic.family_of(address), PORT) as server:
                traffic.called(speaker.netns, (address, PORT), server)


def steal(segment: Segment, guarded: bool) -> None:
    """Say what the victim's MAC would: nobody believes it of a guarded attacker. Nor by a frame that the bridge keeps
    to itself, which passes no prerouting hook and is learned from all the same (br_handle_frame,
    net/bridge/br_input.c)."""
    node, victim, gateway = segment.node, segment.hosts["victim"], segment.hosts["gateway"]
    stolen = segment.learned(victim.mac, segment.attacker.host)
    for number, frame in enumerate(spoofed_frames.thefts(victim, gateway), 1):
        with wire.events(node.path) as news, wire.packets(node.path, "cni0") as bridge:
            with wire.packets(segment.attacker.netns, "eth0", 0) as sender, wire.in_order():
                sender.send(frame)
                sender.send(segment.end(gateway))
            wire.frames_before(bridge, END)
            assert any(map(stolen, wire.pending(news))) != guarded
        assert segment.victim.ping(GATEWAY6)  # from which the bridge learns again
        assert not guarded or dropped(node) == number


@pytest.mark.parametrize(("config", "guarded"), SEGMENTS)
def test_what_a_container_says_in_anothers_name(node: Node, config: Mapping[str, Any], guarded: set[str]) -> None:
    """Every lie arrives where nothing guards against it, so that those that do not arrive prove something."""
    segment = Segment(node, config)
    attacker, victim, gateway = (segment.hosts[name] for name in ("attacker", "victim", "gateway"))
    told = spoofed_frames.spoofs(attacker, victim, gateway)
    if MANNERS not in guarded and BRIDGED.exists():
        networks.set_sysctl(node, "bridge/bridge-nf-call-ip6tables", "0")  # it puts fragments together
    steal(segment, MAC in guarded)
    strange = segment.learned(spoofed_frames.STRANGE_MAC, segment.attacker.host)
    before = dropped(node) if guarded else 0
    with wire.events(node.path) as heard:
        arrived = segment.told(told)
        assert any(map(strange, wire.pending(heard))) == (MAC not in guarded)
    assert arrived == {lie.name for lie in told if lie.part not in guarded}
    if guarded:
        assert dropped(node) - before == len(told) - len(arrived)
    believed = segment.believed()
    if ADDRESS in guarded:
        assert believed == set()
        talk_to_each_other(segment.victim, segment.attacker)
    else:
        for place, false in ((VICTIM, gateway), (NODE, victim)):
            assert {f"{place}: {address} is at {attacker.mac}" for address in (false.ip4, false.ip6)} <= believed
    routers = {entry for entry in believed if entry.startswith(("router of", "victim: default"))}
    if MANNERS in guarded:
        assert routers == set()
    else:
        wanted = {f"router of {prefix}/64" for prefix in spoofed_frames.prefixes().values()}
        assert routers == {*wanted, f"victim: default by {attacker.link_local}"}


@pytest.mark.parametrize("guard", [True, False])
def test_cve_2020_10749(node: Node, guard: bool) -> None:
    """An IPv4 network, on machines that have IPv6 all the same: whoever advertises a router gets their IPv6."""
    victim, attacker = networks.pods(node, networks.gateway(SUBNET4, guard=guard), "victim", "attacker")
    for place, ifname in ((victim.netns, "eth0"), ("", "cni0")):
        networks.set_sysctl(node, f"ipv6/conf/{ifname}/disable_ipv6", "0", place)
        networks.set_sysctl(node, f"ipv6/conf/{ifname}/accept_ra", "2", place)
    liar = Host(attacker.mac, attacker.address(4), "", "fe80::bad")
    end = frames.udp(liar.ip4, victim.address(4), (PORT, PORT), END)
    frame = frames.ethernet(liar.mac, BROADCAST, IPV4, frames.ip(liar.ip4, victim.address(4), UDP, end))
    with wire.packets(victim.netns, "eth0") as near, wire.packets(node.path, "cni0") as bridge:
        with wire.packets(attacker.netns, "eth0", 0) as sender, wire.in_order():
            sender.send(spoofed_frames.advertised(liar, "2001:db8:bad:1::"))
            sender.send(frame)
        for tap in (near, bridge):
            assert any(map(wire.is_router_advertisement, wire.frames_before(tap, END))) != guard
    for place, ifname in ((victim.netns, "eth0"), ("", "cni0")):
        routes = node.ip_json("-6", "route", "show", "default", "dev", ifname, netns=place)
        assert {route["gateway"] for route in routes} == (set() if guard else {"fe80::bad"})


def test_a_vlan_of_layer_2_hides_no_router(node: Node) -> None:
    """Whoever has VLANs of its own may say there what it may say without."""
    segment = Segment(node, networks.network())
    attacker, victim = segment.hosts["attacker"], segment.hosts["victim"]
    router = spoofed_frames.advertised(attacker, "2001:db8:bad:1::", vlan=10)
    packet = frames.ip(STRANGE6, victim.ip6, UDP, frames.udp(STRANGE6, victim.ip6, (1, 9)))
    other = frames.ethernet(attacker.mac, victim.mac, IPV6, packet, [(VLAN, 10)])
    heard = segment.heard([router, other])[VICTIM]
    assert frames.as_received(other) in heard and frames.as_received(router) not in heard


@pytest.mark.parametrize("guard", [True, False])
def test_neighbour_discovery_in_pieces(node: Node, guard: bool) -> None:
    """What it says stands in the second piece, where no filter finds it (RFC 7113, section 2). Linux takes no notice of
    it (RFC 6980), if it is not told to; and wants all headers in the first piece."""
    if BRIDGED.exists():
        networks.set_sysctl(node, "bridge/bridge-nf-call-ip6tables", "0")  # it puts fragments together
    segment = Segment(node, networks.gateway(*DUAL, guard=guard))
    networks.set_sysctl(node, "ipv6/conf/eth0/suppress_frag_ndisc", "0", segment.victim.netns)
    attacker, victim, gateway = (segment.hosts[name] for name in ("attacker", "victim", "gateway"))
    options = b"".join(bytes((frames.OPTIONS if number < 3 else frames.ICMPV6,)) + frames.options(0)[1] for number
                       in range(4))
    claim = frames.advertisement(attacker.link_local, victim.link_local, gateway.ip6, attacker.mac)
    router = frames.router_advertisement(attacker.link_local, attacker.mac, "2001:db8:bad:1::", victim.link_local)
    for message in (claim, router):
        for start, end in ((0, len(options) + 8), (len(options) + 8, None)):
            more = end is not None
            packet = frames.ip(attacker.link_local, victim.link_local, frames.OPTIONS, (options + message)[start:end],
                               [frames.piece(start, more)])
            with wire.packets(segment.attacker.netns, "eth0", 0) as sender, wire.in_order():
                sender.send(frames.ethernet(attacker.mac, victim.mac, IPV6, packet))
    assert segment.heard([]) and segment.attacker.ping(victim.ip6)
    wrong = {f"victim: {gateway.ip6} is at {attacker.mac}", f"victim: default by {attacker.link_local}"}
    assert segment.believed() & wrong == (set() if guard else wrong)


def test_what_is_large_comes_in_pieces(node: Node) -> None:
    """Echo requests and datagrams, in both families."""
    pod, other = networks.pods(node, networks.gateway(*DUAL), "pod", "other")
    for way in (contextlib.nullcontext(), traffic.no_br_netfilter(node) if BRIDGED.exists() else None):
        with way or contextlib.nullcontext():
            for family in (4, 6):
                address = other.address(family)
                node.run("ping", "-c1", "-W10", "-s", "5000", "-n", address, netns=pod.netns)
                with traffic.udp(other.netns, family, port=PORT) as server, traffic.udp(pod.netns, family) as client:
                    client.sendto(bytes(5000), (address, PORT))
                    assert len(server.recv(9000)) == 5000
    assert dropped(node) == 0


def test_no_port_of_a_snooping_bridge_becomes_a_routers(node: Node) -> None:
    segment = Segment(node, networks.gateway(*DUAL, multicastSnooping=True))
    told = spoofed_frames.spoofs(*(segment.hosts[name] for name in ("attacker", "victim", "gateway")))
    segment.told([lie for lie in told if lie.part == MANNERS])
    listed = node.ip_json("-d", "link", "show", "dev", segment.attacker.host)[0]
    router = listed["linkinfo"]["info_slave_data"]
    assert router["multicast_router"] == 1  # as it was: temporary ones are found out (MDB_RTR_TYPE_TEMP_QUERY)
    routers = json.loads(node.run("bridge", "-j", "-d", "mdb", "show").stdout)[0]["router"]
    assert segment.attacker.host not in json.dumps(routers)


def test_a_container_may_say_what_is_its_own(node: Node) -> None:
    """What has no address yet, or asks whether it is free, has the unspecified one."""
    segment = Segment(node, networks.gateway(*DUAL))
    own, before = segment.hosts["attacker"], dropped(node)
    group, mac = frames.solicited_node(own.ip6)
    honest = [
        frames.ethernet(own.mac, BROADCAST, IPV4, frames.ip(
            "0.0.0.0", "255.255.255.255", UDP,
            frames.udp("0.0.0.0", "255.255.255.255", (CLIENT4, SERVER4), frames.dhcp(1, own.mac)),
        )),
        frames.ethernet(own.mac, frames.ALL_NODES_MAC, IPV6, frames.ip(
            own.link_local, frames.ALL_NODES, UDP,
            frames.udp(own.link_local, frames.ALL_NODES, (CLIENT6, SERVER6), frames.dhcpv6(1)),
        )),
        frames.ethernet(own.mac, BROADCAST, frames.ARP, frames.arp(frames.REQUEST, own.mac, "0.0.0.0", own.ip4)),
        frames.ethernet(own.mac, BROADCAST, frames.ARP, frames.arp(frames.REQUEST, own.mac, own.ip4, own.ip4)),
        frames.ethernet(own.mac, frames.ALL_NODES_MAC, IPV6, frames.ip(
            own.ip6, frames.ALL_NODES, frames.ICMPV6,
            frames.advertisement(own.ip6, frames.ALL_NODES, own.ip6, own.mac),
        )),
        *(frames.ethernet(own.mac, mac, IPV6, frames.ip(
            "::", group, frames.ICMPV6, frames.solicitation("::", group, address),
        )) for address in (own.ip6, own.link_local)),
        *(frames.ethernet(own.mac, frames.ALL_NODES_MAC, IPV6, frames.ip(
            own.ip6, frames.ALL_NODES, frames.ICMPV6,
            frames.neighbour(own.ip6, frames.ALL_NODES, kind, own.ip6, *given),
        )) for kind, given in spoofed_frames.honest(own)),
        frames.ethernet(own.mac, frames.ALL_NODES_MAC, IPV6, frames.ip(
            "::", frames.ALL_NODES, frames.ICMPV6, frames.listener_report(group), [frames.options(0)],
        )),
    ]
    heard = segment.heard(honest)
    for place in (VICTIM, NODE):
        assert [number for number, frame in enumerate(honest) if frame not in heard[place]] == []
    assert dropped(node) == before


def test_duplicate_address_detection_is_heard(node: Node) -> None:
    [witness] = networks.pods(node, networks.gateway(*DUAL), "witness")
    pod = Pod(node, networks.gateway(*DUAL, enabledad=True), "a")
    with wire.packets(witness.netns, "eth0") as tap:
        pod.add()
        asked = frames.packed(pod.address(6))
        wire.await_frames(tap, lambda frame: frame[22:38] == bytes(16) and frame[54] == 135 and frame[62:78] == asked)
    assert dropped(node) == 0


def test_requested_addresses_are_a_containers_own(node: Node) -> None:
    """Of every set of ranges one; and when it has gone, they are the next one's."""
    asked = ["fd00:6::77", "10.66.0.77", "fd00:7::77"]
    ranges = [[{"subnet": subnet}] for subnet in (*DUAL, "fd00:7::/64")]
    config = networks.gateway(*DUAL, capabilities={"ips": True}, ipam={"ranges": ranges})
    [other] = networks.pods(node, config, "other")
    gone = "nobody"
    for name, ask in (("first", {"args": {"cni": {"ips": asked}}}), ("second", {"runtimeConfig": {"ips": asked}})):
        pod = Pod(node, {**config, **ask}, name)
        pod.add()
        listed = nft.table(node, "bridge")
        assert pod.host in listed and gone not in listed
        for source in asked:
            assert other.ping(source)
            target = other.address(traffic.family_of(source))
            with traffic.listening(other.netns, traffic.family_of(target), PORT) as server:
                traffic.called(pod.netns, (target, PORT), server, source)
        gone = pod.host
        pod.delete()
        assert gone not in nft.table(node, "bridge")
