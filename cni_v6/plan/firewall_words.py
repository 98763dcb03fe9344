"""What the firewall's elements mean for their container, in words, and which chains drop packets by them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cni_v6.firewall.sets import BRIDGE, INET, Element

MEANING = {
    "home": "reached through this interface only; its neighbours are inside",
    "home_prefixes": "reached through this interface only; its neighbours are inside",
    "neighbours": "reached by the other containers of its network",
    "neighbour_prefixes": "reached by the other containers of its network",
    "containers": "its address as a source is accepted from its own interface only",
    "container_prefixes": "the prefix as a source is accepted from its own interface only",
    "published": "closed to what is outside the network, but for published ports",
    "published_prefixes": "closed to what is outside the network, but for published ports",
    "isolated": "closed to everybody but the node, but for published ports",
    "isolated_prefixes": "closed to everybody but the node, but for published ports",
    "masquerade": "masqueraded beyond the network",
    "masquerade_prefixes": "masqueraded beyond the network",
    "snat": "translated beyond the network",
    "snat_prefixes": "translated beyond the network",
    "keep": "not translated to these destinations",
    "inbound": "its address outside: prefix translation",
    "outside": "its address outside, which publishes nothing by itself",
    "ports": "published port, at any address of the node",
    "ports_at": "published port, at one address of the node",
    "loopback": "published port that answers at ::1",
    "loopback_at": "published port that answers at ::1",
    "limited": "it may reach only what its egress list allows",
    "limited_prefixes": "it may reach only what its egress list allows",
    "allowed": "its egress list",
    "bound": "its port speaks only with its MAC",
    "macs": "its MAC",
    "guarded": "it says nothing as a router or DHCP server",
    "pinned": "it speaks only from its addresses",
    "sources": "its addresses, behind its MAC",
    "targets": "what its neighbour advertisements may be about",
    "options": "the MAC in its neighbour discovery",
    "source_prefixes": "its delegated prefix",
}

# Of a routed container, which has no bridge port: its interface.
MEANING_ROUTED = {"bound": "it speaks only from its addresses"}

# Why packets are dropped, by chain: every chain with a counter.
REASONS = {
    "prerouting_filter": "a loopback address from outside",
    "bound_source": "a source address that is not the container's",
    "spoofed_source": "a container's address from another interface",
    "forward_ingress": "a delegated prefix from another interface",
    "input_local": "a delegated prefix from another interface",
    "published4": "closed to what is outside the network",
    "published6": "closed to what is outside the network",
    "allowed4": "not in the egress list",
    "allowed6": "not in the egress list",
    "to_segment": "an address of the network that no container has",
    "unknown_address": "an address of the network that no container has",
    "guard_source": "a source MAC that is not the container's",
    "guard_link": "spanning tree, or a VLAN tag that hides what is in the frame",
    "guard_ipv6": "a router's message",
    "guard_ipv4": "a router's message",
    "guard_udp": "a router's or DHCP server's message",
    "guard_fragments": "a message in fragments that must not be",
    "guard_address": "a protocol that is neither IPv4, IPv6 nor ARP",
    "guard_arp": "ARP with an address that is not the container's",
    "guard_address4": "an IPv4 source address that is not the container's",
    "guard_address6": "an IPv6 source address that is not the container's",
    "guard_discovery": "neighbour discovery about an address that is not the container's",
}

# Which chains drop by a set, with counters that all containers share.
DROPS = {
    (INET, "published"): ("published",), (INET, "isolated"): ("published",), (INET, "limited"): ("allowed",),
    (INET, "containers"): ("spoofed_source",), (INET, "bound"): ("bound_source",), (BRIDGE, "bound"): ("guard_source",),
    (BRIDGE, "guarded"): ("guard_link", "guard_ipv6", "guard_ipv4", "guard_udp", "guard_fragments"),
    (BRIDGE, "pinned"): ("guard_address", "guard_arp", "guard_address4", "guard_address6", "guard_discovery"),
}


def meaning(element: Element) -> str:
    """What an element means for its container."""
    name = element.set.rstrip("46")
    return MEANING_ROUTED.get(name, MEANING[name]) if element.family == INET else MEANING[name]


def drops(elements: Iterable[Element], counters: Mapping[str, int]) -> dict[str, int]:
    """The chains that drop packets of containers like this one, and how many they have dropped, of all containers.

    :param counters: of the rules, by chain.
    """
    found: dict[str, int] = {}
    for element in elements:
        for chain in DROPS.get((element.family, element.set.rstrip("46")), ()):
            names = (chain, f"{chain}{element.set[-1]}")
            found |= {name: counters[name] for name in names if name in counters}
    return found
