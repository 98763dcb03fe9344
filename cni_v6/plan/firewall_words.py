"""What the firewall's elements mean for their container, in words, and which chains drop packets by them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cni_v6.firewall.sets import BRIDGE, INET, Element

MEANING = {
    "home": "reached through this interface only; its neighbours are inside",
    "home_prefixes": "reached through this interface only; its neighbours are inside",
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

# Which chains drop by a set, with counters that all containers share.
DROPS = {
    (INET, "published"): ("published",), (INET, "isolated"): ("published",), (INET, "limited"): ("allowed",),
    (INET, "containers"): ("spoofed_source",), (BRIDGE, "bound"): ("guard_source",),
    (BRIDGE, "guarded"): ("guard_link", "guard_ipv6", "guard_ipv4", "guard_udp", "guard_fragments"),
    (BRIDGE, "pinned"): ("guard_address", "guard_arp", "guard_address4", "guard_address6", "guard_discovery"),
}


def meaning(element: Element) -> str:
    """What an element means for its container."""
    return MEANING[element.set.rstrip("46")]


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
