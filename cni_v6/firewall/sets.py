"""The sets and maps of our two tables, and an element of one as a value.

Each set is declared only here. ``ruleset`` writes its declaration for nft, ``kernel.netfilter`` an element's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

from cni_v6.values import dataclass

INET, BRIDGE = "inet", "bridge"  # the families our tables are in
TABLE = "cni_v6"

# Types, by nft's names. The type gives the length of a field (include/datatype.h of nftables).
IPV4, IPV6, MAC, IFNAME, PROTOCOL, PORT = "ipv4_addr", "ipv6_addr", "ether_addr", "ifname", "inet_proto", "inet_service"
ADDRESS = {4: IPV4, 6: IPV6}
# The target of a neighbour solicitation or advertisement: an IPv6 address 8 bytes into ICMPv6 (RFC 4861, section 4.3).
# nft knows it by name (``icmpv6 taddr``) only from 1.0.7 on, and does not compare a raw field with an ipv6_addr.
RAW_TARGET = "@th,64,128"
RAW_MAC = "@th,208,48"  # the link-layer address in an option that comes first there (RFC 4861, section 4.6.1)
RAW = (RAW_TARGET, RAW_MAC)
GROUP = "devgroup"  # the link group of an interface, a decimal number


@dataclass(frozen=True, slots=True)
class Set:
    """A set, or with ``data`` a map.

    :param key: the types of the key's fields.
    :param data: the types of the fields of a map's data; () for a set.
    :param intervals: a field of a key may be a prefix or a range.
    :param counted: each element counts packets and bytes.
    """

    family: str
    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    intervals: bool = False
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Element:
    """An element: a text for each field of the key, and of a map's data.

    An address is in canonical form, a protocol and a port are decimal numbers, a range is ``first-last``.

    :param comment: names the owner, for a person and for the error about a taken port.
    """

    family: str
    set: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    comment: str = ""


def _both(
    name: str, *key: str, data: tuple[str, ...] = (), intervals: bool = False, counted: bool = False
) -> list[Set]:
    """A set for each family, ``<name>4`` and ``<name>6``. ``address`` stands for the family's address type."""
    return [
        Set(
            INET, f"{name}{version}", tuple(address if field == "address" else field for field in key),
            tuple(address if field == "address" else field for field in data), intervals, counted,
        )
        for version, address in ADDRESS.items()
    ]


SETS: Mapping[tuple[str, str], Set] = {
    (declared.family, declared.name): declared
    for declared in (
        # A container's address and the interface through which the node reaches it. A packet from or to that interface
        # is inside the network.
        *_both("home", "address", IFNAME),
        # A routed container's address and the link group of its network's host interfaces. A packet to it from that
        # group, or from it into that group, is inside the network.
        *_both("neighbours", "address", GROUP),
        # Host interfaces with one container behind them, which sends only from its addresses in ``home``.
        Set(INET, "bound", (IFNAME,)),
        # A container's address alone: a packet with this source from another interface is spoofed.
        *_both("containers", "address"),
        # Addresses closed to the outside except for published ports; ``isolated``: to other containers too. With their
        # interface, because two networks may use the same addresses.
        *_both("published", "address", IFNAME),
        *_both("isolated", "address", IFNAME),
        # Addresses translated to the node's or to a fixed one; ``keep``: destinations without translation.
        *_both("masquerade", "address", IFNAME),
        *_both("snat", "address", IFNAME, data=("address",)),
        *_both("keep", "address", "address", intervals=True),
        # Prefix translation: outside address -> container's; ``outside6``: the outside addresses as a set, for a match.
        Set(INET, "inbound6", (IPV6,), (IPV6,)),
        Set(INET, "outside6", (IPV6,)),
        # Published ports: (protocol, port) -> (container's address, its port), for any address of the node or for one.
        *_both("ports", PROTOCOL, PORT, data=("address", PORT)),
        *_both("ports_at", "address", PROTOCOL, PORT, data=("address", PORT)),
        # Those of them that answer at ::1: (protocol, port) in ``ports6``, and of ::1 in ``ports_at6``.
        Set(INET, "loopback6", (PROTOCOL, PORT)),
        Set(INET, "loopback_at6", (PROTOCOL, PORT)),
        # Addresses that may reach only the destinations in ``allowed``: (address, destination prefix, protocol, port
        # range). With their interface, because a link-local address may exist on any.
        *_both("limited", "address", IFNAME),
        *_both("allowed", "address", "address", PROTOCOL, PORT, intervals=True, counted=True),
        # The same for prefixes that are routed to a container. Separate sets, because a set with intervals is copied at
        # each change (nft_pipapo_commit), and most containers have no prefix.
        Set(INET, "home_prefixes6", (IPV6, IFNAME), intervals=True),
        Set(INET, "neighbour_prefixes6", (IPV6, GROUP), intervals=True),
        Set(INET, "container_prefixes6", (IPV6, PROTOCOL), intervals=True),  # of any: one field alone is another kind
        Set(INET, "published_prefixes6", (IPV6, IFNAME), intervals=True),
        Set(INET, "isolated_prefixes6", (IPV6, IFNAME), intervals=True),
        Set(INET, "masquerade_prefixes6", (IPV6, IFNAME), intervals=True),
        Set(INET, "snat_prefixes6", (IPV6, IFNAME), (IPV6,), intervals=True),
        Set(INET, "limited_prefixes6", (IPV6, IFNAME), intervals=True),
        # Bridge ports. ``bound``: only with its ``macs``; ``guarded``: not as a router or DHCP server; ``pinned``: only
        # with its addresses in ``sources``, ``targets6``, ``options6``.
        Set(BRIDGE, "bound", (IFNAME,)),
        Set(BRIDGE, "macs", (IFNAME, MAC)),
        Set(BRIDGE, "guarded", (IFNAME,)),
        Set(BRIDGE, "pinned", (IFNAME,)),
        Set(BRIDGE, "sources4", (IFNAME, MAC, IPV4)),
        Set(BRIDGE, "sources6", (IFNAME, MAC, IPV6)),
        Set(BRIDGE, "targets6", (IFNAME, RAW_TARGET)),
        Set(BRIDGE, "options6", (IFNAME, RAW_MAC)),
        Set(BRIDGE, "source_prefixes6", (IFNAME, IPV6), intervals=True),
    )
}
