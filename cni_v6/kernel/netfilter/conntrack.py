"""Conntrack requests and answers as bytes: which flows to delete (linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace
from socket import AF_INET, AF_INET6

from cni_v6.kernel.netfilter.messages import NFGENMSG
from cni_v6.kernel.netlink.message import HEADER, Message, attribute, by_kind, each, nest, packed, u8, u32
from cni_v6.kernel.netlink.uapi import NLA_F_NESTED
from cni_v6.net.addresses import version as version_of
from cni_v6.values import dataclass

NFNL_SUBSYS_CTNETLINK = 1
_GET, _DELETE, _GET_STATS = (NFNL_SUBSYS_CTNETLINK << 8 | number for number in (1, 2, 5))
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V6_SRC = 1, 3
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_STATS_GLOBAL_ENTRIES = 1
IPPROTO_UDP = 17
# The parts of a tuple that a filter compares; net/netfilter/nf_internals.h numbers the bits by the attributes.
FILTER_IP_SRC, FILTER_PROTO_NUM, FILTER_PROTO_DST_PORT = 1 << 0, 1 << 3, 1 << 5
FAMILIES = {4: AF_INET, 6: AF_INET6}


@dataclass(frozen=True, slots=True)
class Wanted:
    """UDP flows to delete: with one of these source addresses in either direction, or to one of these ports."""

    version: int
    sources: frozenset[bytes]
    ports: frozenset[int]

    def filterable(self) -> Wanted:
        """The part that a filter in the kernel can match.

        It has no IPv6 addresses. As seen with 6.18, the filter then matches all flows but those of the address:
        ctnetlink_filter_match_tuple has !ipv6_addr_cmp, which is true for equal addresses, where it means unequal.
        """
        return self if self.version == 4 else replace(self, sources=frozenset())


def wanted(addresses: Iterable[str], ports: Iterable[tuple[int, int]]) -> list[Wanted]:
    """The flows to delete, one value for each IP version that has any.

    The container's address is the source of the packets that it sends. These are the original direction if it opened
    the flow, and the reply direction if a peer did, with or without a translated port.
    """
    sources = [(version_of(address), packed(address)) for address in addresses]
    numbers = list(ports)
    found = (
        Wanted(
            version, frozenset(data for family, data in sources if family == version),
            frozenset(port for family, port in numbers if family == version),
        )
        for version in FAMILIES
    )
    return [flows for flows in found if flows.sources or flows.ports]


def delete_matching(what: Wanted) -> list[Message]:
    """Requests that delete all filterable flows: one for each address and direction, and for each port.

    Linux 6.11 and later; EOPNOTSUPP before.
    """
    chosen = what.filterable()
    sources = sorted(chosen.sources)
    addresses = [nest(CTA_TUPLE_IP | NLA_F_NESTED, attribute(CTA_IP_V4_SRC, source)) for source in sources]
    ports = [attribute(CTA_PROTO_DST_PORT, port.to_bytes(2, "big")) for port in sorted(chosen.ports)]
    return [
        *(
            _matching(_DELETE, what.version, side, FILTER_IP_SRC, addresses=address)
            for address in addresses
            for side in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY)
        ),
        *(_matching(_DELETE, what.version, CTA_TUPLE_ORIG, FILTER_PROTO_DST_PORT, ports=port) for port in ports),
    ]


def dump_udp(version: int) -> Message:
    """A dump of UDP flows; before Linux 5.8, which has no filter, of all flows."""
    return _matching(_GET, version, CTA_TUPLE_ORIG, 0)


def count_flows() -> Message:
    """A request for the number of flows. If there is none, no dump is needed, which walks the whole table anyway."""
    return Message(_GET_STATS, 0, NFGENMSG.pack(0, 0, 0))


def read_count(data: bytes) -> int:
    given = by_kind(data, HEADER.size + NFGENMSG.size)
    return int.from_bytes(given[CTA_STATS_GLOBAL_ENTRIES], "big")


def delete_if_wanted(what: Wanted, data: bytes) -> Message | None:
    """The request that deletes the flow in a message of a dump; None if the flow is not wanted."""
    given = by_kind(data, HEADER.size + NFGENMSG.size)
    (source, protocol, port), (answering, _, _) = (_tuple(given[side]) for side in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY))
    if protocol != IPPROTO_UDP or (port not in what.ports and not what.sources & {source, answering}):
        return None
    body = b"".join(_again(given, kind) for kind in (CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID))
    return Message(_DELETE, 0, NFGENMSG.pack(FAMILIES[what.version], 0, 0) + body)


def _tuple(payload: bytes) -> tuple[bytes, int, int]:
    """One direction of a flow: source address, protocol and destination port (0 if it has none)."""
    parts = {kind: by_kind(data) for kind, data in each(payload)}
    addresses, protocol = parts[CTA_TUPLE_IP], parts[CTA_TUPLE_PROTO]
    source = addresses.get(CTA_IP_V6_SRC) or addresses[CTA_IP_V4_SRC]
    port = struct.unpack("!H", protocol.get(CTA_PROTO_DST_PORT, b"\0\0"))[0]
    return source, protocol[CTA_PROTO_NUM][0], port


def _again(given: Mapping[int, bytes], kind: int) -> bytes:
    flag = NLA_F_NESTED if kind == CTA_TUPLE_ORIG else 0
    return attribute(kind | flag, given[kind]) if kind in given else b""


def _matching(
    kind: int, version: int, side: int, flags: int, *, addresses: bytes = b"", ports: bytes = b""
) -> Message:
    protocol = nest(CTA_TUPLE_PROTO | NLA_F_NESTED, u8(CTA_PROTO_NUM, IPPROTO_UDP), ports)
    # CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS have the numbers of the tuples that they are about.
    chosen = nest(CTA_FILTER | NLA_F_NESTED, u32(side, flags | FILTER_PROTO_NUM))
    body = nest(side | NLA_F_NESTED, addresses, protocol) + chosen
    return Message(kind, 0, NFGENMSG.pack(FAMILIES[version], 0, 0) + body)
