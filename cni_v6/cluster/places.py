"""Where an entry of the kernel is: what the kernel tells entries apart by, and the interface that one hangs on."""

from __future__ import annotations

from cni_v6.cluster.facts import TUNNEL, Endpoint, Entry, Neighbour, Route, Rule, SegmentRoute
from cni_v6.cluster.wireguard_values import WIREGUARD, Address, Peer


def place(entry: Entry) -> tuple[str, ...]:
    """What the kernel tells entries apart by; a route by its table, its prefix and its metric."""
    match entry:
        case Route():
            return "route", entry.dst, "last" if not entry.ifname else ""
        case SegmentRoute():
            return "segment", entry.dst
        case Rule():
            return "rule", str(entry)
        case Neighbour():
            return "neighbour", entry.address
        case Peer():
            return "peer", entry.key
        case Address():
            return "address", entry.prefix
    return "endpoint", entry.mac


def interface_of(entry: Entry) -> str:
    """The interface without which there is no such entry; "" for none."""
    match entry:
        case Rule():
            return ""
        case Neighbour() | Endpoint():
            return TUNNEL
        case Peer() | Address():
            return WIREGUARD
    return entry.ifname
