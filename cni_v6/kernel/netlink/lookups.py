"""Requests for one route or one neighbour by its key, and the answers.

Hand-written: CHECK sends them for every container, without an engine too (``requests``).
"""

from __future__ import annotations

import socket

from cni_v6.kernel.netlink.message import HEADER, Message, address, as_address, as_mac, by_kind, packed
from cni_v6.kernel.netlink.requests import NDMSG, get_route_to
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    NDA_DST,
    NDA_LLADDR,
    NTF_PROXY,
    NUD_PERMANENT,
    RTM_F_FIB_MATCH,
    RTM_F_LOOKUP_TABLE,
    RTM_GETNEIGH,
)


def get_exact_route(dst: str, index: int) -> Message:
    """Look up the route to the last address of a prefix: that of the table, not of the cache, with its prefix length.

    The first address of an IPv6 prefix may be the anycast address of routers (RFC 4291, 2.6.1). IPv4 tells the table
    only on request, IPv6 always, and refuses that flag (inet6_rtm_valid_getroute_req, net/ipv6/route.c).
    """
    network, _, length = dst.partition("/")
    value = packed(network)
    last = int.from_bytes(value, "big") | (1 << 8 * len(value) - int(length)) - 1
    family, flag = (socket.AF_INET6, 0) if ":" in dst else (socket.AF_INET, RTM_F_LOOKUP_TABLE)
    ip = socket.inet_ntop(family, last.to_bytes(len(value), "big"))
    return get_route_to(ip, RTM_F_FIB_MATCH | flag, index)


def get_neighbour(ip: str, index: int, *, proxy: bool = False) -> Message:
    """Look up one neighbour of an interface, or the entry by which the node answers for one (neigh_get,
    net/core/neighbour.c)."""
    header = NDMSG.pack(AF_INET6 if ":" in ip else AF_INET, index, 0, NTF_PROXY if proxy else 0, 0)
    return Message(RTM_GETNEIGH, 0, header + address(NDA_DST, ip))


def read_neighbour(data: bytes) -> str:
    """The MAC in an RTM_NEWNEIGH message; "" if it was not set for good."""
    state = NDMSG.unpack_from(data, HEADER.size)[2]
    return as_mac(by_kind(data, HEADER.size + NDMSG.size).get(NDA_LLADDR)) if state & NUD_PERMANENT else ""


def read_entry(data: bytes) -> tuple[bool, str, str]:
    """(whether it was set for good, address, MAC) of an RTM_NEWNEIGH message of a dump: of a neighbour, or of an entry
    of a forwarding database. "" for what it has not."""
    given = by_kind(data, HEADER.size + NDMSG.size)
    ip = given.get(NDA_DST)
    state = NDMSG.unpack_from(data, HEADER.size)[2]
    return bool(state & NUD_PERMANENT), as_address(ip) if ip else "", as_mac(given.get(NDA_LLADDR))
