"""What a container with root in its namespace may try on its segment, as frames. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tests.netns import frames
from tests.netns.frames import (
    ALL_NODES,
    ALL_NODES_MAC,
    BROADCAST,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    IGMP,
    IPV4,
    IPV6,
    OPTIONS,
    REPLY,
    REQUEST,
    SERVICE_VLAN,
    UDP,
    VLAN,
    Host,
)

MAC, MANNERS, ADDRESS = "MAC", "manners", "address"  # which part of the guard it is for
VICTIM, NODE = "victim", "node"

STRANGE_MAC = "02:00:00:00:00:66"
STRANGE4, STRANGE6 = "198.51.100.7", "2001:db8:666::7"
# Meant for the bridge itself: IEEE 802.1Q, table 8-1.
SPANNING_TREE, LLDP, PAE = "01:80:c2:00:00:00", "01:80:c2:00:00:0e", "01:80:c2:00:00:03"
ALL_SYSTEMS, ALL_SYSTEMS_MAC = "224.0.0.1", "01:00:5e:00:00:01"  # RFC 1112
EXPERIMENT = 0x88B5  # IEEE 802, local experimental ethertype
REDIRECT4, ROUTER_ADVERTISEMENT4 = 5, 9  # ICMP
SERVER4, CLIENT4, SERVER6, CLIENT6 = 67, 68, 547, 546  # DHCP's ports

EVERYBODY = Host(ALL_NODES_MAC, "255.255.255.255", ALL_NODES, ALL_NODES)
ROUTED = frames.routed()

# CVE-2021-27853: a filter that looks at one place of the frame only does not find what is further in.
WRAPPINGS: Mapping[str, tuple[tuple[tuple[int, int], ...], tuple[tuple[int, bytes], ...]]] = {
    "plain": ((), ()),
    "VLAN 0": (((VLAN, 0),), ()),
    "service VLAN 0": (((SERVICE_VLAN, 0),), ()),
    "stacked tags": (((SERVICE_VLAN, 0), (VLAN, 0)), ()),
    "hop-by-hop options": ((), (frames.options(HOP_BY_HOP),)),
    "destination options": ((), (frames.options(OPTIONS),)),
    "a routing header": ((), (ROUTED,)),
    "all of them": (
        ((VLAN, 0), (VLAN, 0)), (frames.options(HOP_BY_HOP), frames.options(OPTIONS), ROUTED),
    ),
}


@dataclass(frozen=True, slots=True)
class Spoof:
    """:param at: who gets to hear it, or both where it is for everybody."""

    name: str
    part: str
    at: str
    frame: bytes


def prefixes() -> dict[str, str]:
    """The prefix that each wrapping's advertisement is for."""
    return {name: f"2001:db8:bad:{number}::" for number, name in enumerate(WRAPPINGS, 1)}


def spoofs(attacker: Host, victim: Host, gateway: Host) -> list[Spoof]:
    """In an order in which the later do not undo what the earlier did."""
    return [
        *_router(attacker, victim, gateway), *_querier(attacker), *_routing(attacker), *_pieces(attacker, victim),
        *_servers(attacker, victim), *_options(attacker, victim),
        *_sources(attacker, victim, gateway), *_others(attacker, victim, gateway),
        *_claims4(attacker, victim, gateway), *_claims6(attacker, victim, gateway),
    ]


def _router(attacker: Host, victim: Host, gateway: Host) -> Iterator[Spoof]:
    for name, prefix in prefixes().items():
        yield Spoof(f"router advertisement: {name}", MANNERS, VICTIM, advertised(attacker, prefix, name, to=victim))
    message = frames.router_advertisement(attacker.link_local, attacker.mac, "2001:db8:bad:f::")
    packet = frames.ip(attacker.link_local, ALL_NODES, ICMPV6, message, [frames.whole_fragment()])
    yield Spoof("router advertisement: a fragment", MANNERS, VICTIM, _to_all(attacker, packet))
    message = frames.redirect(attacker.link_local, victim.ip6, STRANGE6, attacker.link_local, attacker.mac)
    yield _spoof6("redirect", MANNERS, attacker, victim, ICMPV6, message, attacker.link_local)
    inner = frames.ip(victim.ip4, STRANGE4, UDP, frames.udp(victim.ip4, STRANGE4, (9, 9)))
    message = frames.icmp(REDIRECT4, 1, frames.packed(attacker.ip4) + inner)
    yield _spoof4("IPv4 redirect", MANNERS, attacker, victim, ICMP, message, attacker.ip4)
    message = frames.icmp(ROUTER_ADVERTISEMENT4, 0, bytes.fromhex("01020708") + frames.packed(attacker.ip4) + bytes(4))
    yield _spoof4("IPv4 router advertisement", MANNERS, attacker, victim, ICMP, message, attacker.ip4)


def _querier(attacker: Host) -> Iterator[Spoof]:
    """Who asks decides, on a snooping bridge, who is still known to listen."""
    message = frames.listener_query(attacker.link_local, ALL_NODES)
    packet = frames.ip(attacker.link_local, ALL_NODES, ICMPV6, message, [frames.options(HOP_BY_HOP)])
    yield Spoof("multicast listener query", MANNERS, VICTIM, _to_all(attacker, packet))
    packet = frames.ip(attacker.ip4, ALL_SYSTEMS, IGMP, frames.membership_query())
    yield Spoof("IGMP query", MANNERS, VICTIM, frames.ethernet(attacker.mac, ALL_SYSTEMS_MAC, IPV4, packet))


def _routing(attacker: Host) -> Iterator[Spoof]:
    """What routers say to each other, and to bridges that look for them (RFC 4286)."""
    for kind, group in ((151, "ff02::6a"), (153, "ff02::6a"), (138, ALL_NODES)):
        message = frames.icmpv6(attacker.link_local, group, kind, bytes(4))
        packet = frames.ip(attacker.link_local, group, ICMPV6, message, [frames.options(HOP_BY_HOP)])
        yield Spoof(f"ICMPv6 {kind}", MANNERS, VICTIM, _to_group(attacker, group, packet))
    for kind in (0x13, 0x14, 0x30, 0x32):  # DVMRP, PIM version 1, multicast router discovery
        message = frames.icmp(kind, 0, bytes(4))
        packet = frames.ip(attacker.ip4, "224.0.0.106", IGMP, message)
        yield Spoof(f"IGMP {kind}", MANNERS, VICTIM, _to_group(attacker, "224.0.0.106", packet))
    for protocol, last in ((88, 10), (89, 5), (103, 13), (112, 18)):  # EIGRP, OSPF, PIM, VRRP
        for source, group in ((attacker.ip4, f"224.0.0.{last}"), (attacker.link_local, f"ff02::{last:x}")):
            packet = frames.ip(source, group, protocol, bytes(24))
            yield Spoof(f"protocol {protocol} from {source}", MANNERS, VICTIM, _to_group(attacker, group, packet))
    for source, group, port in (
        (attacker.ip4, "224.0.0.9", 520), (attacker.link_local, "ff02::9", 521),
        (attacker.ip4, "224.0.0.2", 1985), (attacker.link_local, "ff02::66", 2029),
    ):  # RIP, HSRP
        packet = frames.ip(source, group, UDP, frames.udp(source, group, (port, port), bytes(24)))
        yield Spoof(f"port {port} from {source}", MANNERS, VICTIM, _to_group(attacker, group, packet))
    bpdu = bytes.fromhex("424203") + bytes(35)
    yield Spoof("spanning tree", MANNERS, VICTIM, frames.ethernet(attacker.mac, SPANNING_TREE, len(bpdu), bpdu))


def _pieces(attacker: Host, victim: Host) -> Iterator[Spoof]:
    """RFC 6980 and RFC 7113: neighbour discovery comes in one piece, and the first piece says what it is."""
    source, target = attacker.ip6, victim.ip6
    for kind in (frames.SOLICITATION, frames.ADVERTISEMENT):
        message = frames.neighbour(source, target, kind, source)
        for name, header in (("whole", frames.whole_fragment()), ("the first", frames.piece(0, True))):
            packet = frames.ip(source, target, ICMPV6, message[:8] if name == "the first" else message, [header])
            frame = frames.ethernet(attacker.mac, victim.mac, IPV6, packet)
            yield Spoof(f"a piece of ICMPv6 {kind}, {name}", MANNERS, VICTIM, frame)
    for protocol in (UDP, ICMPV6, frames.OPTIONS):
        extensions = [frames.piece(0, True), *[frames.options(OPTIONS)] * 2]
        packet = frames.ip(source, target, protocol, b"", extensions)
        frame = frames.ethernet(attacker.mac, victim.mac, IPV6, packet)
        yield Spoof(f"a first piece that ends before {protocol}", MANNERS, VICTIM, frame)


def _options(attacker: Host, victim: Host) -> Iterator[Spoof]:
    """Its own address, at somebody else's MAC; the frame's is its own. Whoever looks at the first option alone finds no
    fault."""
    own, strange = frames.hardware(attacker.mac), frames.hardware(STRANGE_MAC)
    nonce = frames.NONCE, bytes(6)
    for kind, option in ((frames.ROUTER_SOLICITATION, frames.SOURCE_MAC), (frames.SOLICITATION, frames.SOURCE_MAC),
                         (frames.ADVERTISEMENT, frames.TARGET_MAC)):
        for number, options in enumerate((
            [(option, strange)], [nonce, (option, strange)], [(option, strange), (option, own)],
            [(option, own), (option, strange)],
        )):
            source, target = attacker.ip6, victim.ip6
            subject = target if kind == frames.SOLICITATION else source
            message = frames.neighbour(source, target, kind, subject, *options)
            frame = frames.ethernet(attacker.mac, victim.mac, IPV6, frames.ip(source, target, ICMPV6, message))
            yield Spoof(f"ICMPv6 {kind} for another MAC, options {number}", ADDRESS, VICTIM, frame)


def _servers(attacker: Host, victim: Host) -> Iterator[Spoof]:
    """A client looks at what comes to its port, wherever it comes from; a relay at what a server says."""
    offer, answer = frames.dhcp(2, victim.mac, STRANGE4), frames.dhcpv6(7)
    for ports in ((SERVER4, CLIENT4), (1234, CLIENT4), (SERVER4, SERVER4)):
        message = frames.udp(attacker.ip4, victim.ip4, ports, offer)
        yield _spoof4(f"DHCP offer, ports {ports}", MANNERS, attacker, victim, UDP, message, attacker.ip4)
    for ports in ((SERVER6, CLIENT6), (1234, CLIENT6), (SERVER6, SERVER6)):
        message = frames.udp(attacker.link_local, victim.link_local, ports, answer)
        packet = frames.ip(attacker.link_local, victim.link_local, UDP, message)
        frame = frames.ethernet(attacker.mac, victim.mac, IPV6, packet)
        yield Spoof(f"DHCPv6 reply, ports {ports}", MANNERS, VICTIM, frame)


def _sources(attacker: Host, victim: Host, gateway: Host) -> Iterator[Spoof]:
    for name, source in (("strange", STRANGE4), ("the gateway's", gateway.ip4)):
        message = frames.udp(source, victim.ip4, (1, 9))
        yield _spoof4(f"{name} IPv4 source", ADDRESS, attacker, victim, UDP, message, source)
    for name, source in (("strange", STRANGE6), ("the gateway's", gateway.ip6), ("its link", gateway.link_local)):
        message = frames.udp(source, victim.ip6, (1, 9))
        yield _spoof6(f"{name} IPv6 source", ADDRESS, attacker, victim, UDP, message, source)
    packet = frames.ip(victim.ip4, gateway.ip4, UDP, frames.udp(victim.ip4, gateway.ip4, (1, 9)))
    yield Spoof("the victim's IPv4 source", ADDRESS, NODE, frames.ethernet(attacker.mac, gateway.mac, IPV4, packet))
    packet = frames.ip(victim.ip6, gateway.ip6, UDP, frames.udp(victim.ip6, gateway.ip6, (1, 9)))
    yield Spoof("the victim's IPv6 source", ADDRESS, NODE, frames.ethernet(attacker.mac, gateway.mac, IPV6, packet))


def _others(attacker: Host, victim: Host, gateway: Host) -> Iterator[Spoof]:
    strange = replace(attacker, mac=STRANGE_MAC)
    for source, target in ((attacker.ip4, victim.ip4), (attacker.ip6, victim.ip6)):
        packet = frames.ip(source, target, UDP, frames.udp(source, target, (2, 9)))
        kind = IPV6 if ":" in source else IPV4
        yield Spoof(f"strange MAC, from {source}", MAC, VICTIM, frames.ethernet(STRANGE_MAC, victim.mac, kind, packet))
    yield Spoof("strange MAC, ARP", MAC, VICTIM, _arp(strange, BROADCAST, REQUEST, attacker.ip4, victim.ip4))
    packet = frames.ip(attacker.ip6, victim.ip6, UDP, frames.udp(attacker.ip6, victim.ip6, (3, 9)))
    frame = frames.ethernet(attacker.mac, victim.mac, IPV6, packet, [(VLAN, 0)])
    yield Spoof("anything in VLAN 0", MANNERS, VICTIM, frame)
    yield Spoof(
        "a protocol nobody needs", ADDRESS, VICTIM, frames.ethernet(attacker.mac, victim.mac, EXPERIMENT, bytes(46))
    )
    # CVE-2021-27861: the same, with a length instead of a type and the type behind it.
    message = frames.router_advertisement(attacker.link_local, attacker.mac, "2001:db8:bad:e::")
    packet = b"\xaa\xaa\x03\0\0\0\x86\xdd" + frames.ip(attacker.link_local, ALL_NODES, ICMPV6, message)
    yield Spoof("LLC/SNAP", ADDRESS, VICTIM, frames.ethernet(attacker.mac, ALL_NODES_MAC, len(packet), packet))


def _claims4(attacker: Host, victim: Host, gateway: Host) -> Iterator[Spoof]:
    """Last what the other would believe."""
    probe = _arp(attacker, BROADCAST, REQUEST, "0.0.0.0", victim.ip4)
    yield Spoof("ARP probe for the victim's", ADDRESS, VICTIM, probe)
    # Its own address, at somebody else's MAC: the frame's is its own.
    message = frames.arp(REPLY, STRANGE_MAC, attacker.ip4, victim.ip4, victim.mac)
    yield Spoof("ARP for another MAC", ADDRESS, VICTIM, frames.ethernet(attacker.mac, victim.mac, frames.ARP, message))
    for liar, target, name, at in ((gateway, victim, "gateway", VICTIM), (victim, gateway, "victim", NODE)):
        own = liar.ip4
        yield Spoof(f"ARP request as the {name}", ADDRESS, at, _arp(attacker, BROADCAST, REQUEST, own, target.ip4))
        yield Spoof(f"gratuitous ARP as the {name}", ADDRESS, at, _arp(attacker, BROADCAST, REQUEST, own, own))
        yield Spoof(f"ARP reply as the {name}", ADDRESS, at, _arp(attacker, target.mac, REPLY, own, target.ip4))


def _claims6(attacker: Host, victim: Host, gateway: Host) -> Iterator[Spoof]:
    group, mac = frames.solicited_node(victim.ip6)
    message = frames.solicitation("::", group, victim.ip6)
    frame = frames.ethernet(attacker.mac, mac, IPV6, frames.ip("::", group, ICMPV6, message))
    yield Spoof("address detection of the victim's", ADDRESS, VICTIM, frame)
    for liar, target, name, at in ((gateway, victim, "gateway", VICTIM), (victim, gateway, "victim", NODE)):
        message = frames.solicitation(liar.ip6, target.ip6, target.ip6, attacker.mac)
        spoof = _spoof6(f"solicitation as the {name}", ADDRESS, attacker, target, ICMPV6, message, liar.ip6)
        yield replace(spoof, at=at)
        for own in (liar.ip6, liar.link_local):
            message = frames.advertisement(attacker.ip6, target.ip6, own, attacker.mac)
            lie = _spoof6(f"advertisement of {own}", ADDRESS, attacker, target, ICMPV6, message, attacker.ip6)
            yield replace(lie, at=at)
            packet = frames.ip(attacker.ip6, target.ip6, ICMPV6, message, [frames.options(OPTIONS)])
            frame = frames.ethernet(attacker.mac, target.mac, IPV6, packet)
            yield Spoof(f"advertisement of {own} behind options", ADDRESS, at, frame)


def honest(own: Host) -> list[tuple[int, list[tuple[int, bytes]]]]:
    """Messages of neighbour discovery, and the options that hosts put into them."""
    source, target = ((number, frames.hardware(own.mac)) for number in (frames.SOURCE_MAC, frames.TARGET_MAC))
    nonce = frames.NONCE, b"nonce!"
    return [
        *((frames.ROUTER_SOLICITATION, given) for given in ([], [source])),
        *((frames.SOLICITATION, given) for given in ([], [source], [nonce], [source, nonce])),
        *((frames.ADVERTISEMENT, given) for given in ([], [target])),
    ]


def thefts(victim: Host, gateway: Host) -> list[bytes]:
    """Frames from the victim's MAC: a bridge that learns from one sends the thief what is for the victim."""
    message = frames.arp(REQUEST, victim.mac, victim.ip4, gateway.ip4)
    return [frames.ethernet(victim.mac, target, frames.ARP, message) for target in (BROADCAST, gateway.mac, LLDP, PAE)]


def advertised(
    attacker: Host, prefix: str, wrapping: str = "plain", *, to: Host = EVERYBODY, vlan: int = 0
) -> bytes:
    """A router advertisement.

    :param to: who alone gets it where it must be one: nobody takes a routing header that came to a group.
    """
    tags, extensions = WRAPPINGS[wrapping]
    target = to if ROUTED in extensions else EVERYBODY
    message = frames.router_advertisement(attacker.link_local, attacker.mac, prefix, target.link_local)
    packet = frames.ip(attacker.link_local, target.link_local, ICMPV6, message, extensions)
    return frames.ethernet(attacker.mac, target.mac, IPV6, packet, tags + (((VLAN, vlan),) if vlan else ()))


def _to_group(attacker: Host, group: str, packet: bytes) -> bytes:
    """RFC 1112, section 6.4; RFC 2464, section 7."""
    last = frames.packed(group)[-4:]
    mac = b"\x33\x33" + last if ":" in group else b"\x01\x00\x5e" + bytes((last[1] & 0x7F,)) + last[2:]
    return frames.ethernet(attacker.mac, mac.hex(":"), IPV6 if ":" in group else IPV4, packet)


def _to_all(attacker: Host, packet: bytes) -> bytes:
    return frames.ethernet(attacker.mac, ALL_NODES_MAC, IPV6, packet)


def _spoof4(name: str, part: str, attacker: Host, target: Host, protocol: int, message: bytes, source: str) -> Spoof:
    packet = frames.ip(source, target.ip4, protocol, message)
    return Spoof(name, part, VICTIM, frames.ethernet(attacker.mac, target.mac, IPV4, packet))


def _spoof6(name: str, part: str, attacker: Host, target: Host, protocol: int, message: bytes, source: str) -> Spoof:
    packet = frames.ip(source, target.ip6, protocol, message)
    return Spoof(name, part, VICTIM, frames.ethernet(attacker.mac, target.mac, IPV6, packet))


def _arp(attacker: Host, target: str, operation: int, claimed: str, asked: str) -> bytes:
    return frames.ethernet(attacker.mac, target, frames.ARP, frames.arp(operation, attacker.mac, claimed, asked))
