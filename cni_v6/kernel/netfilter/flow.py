"""How conntrack translates one flow: its request and answer as bytes (linux/netfilter/nfnetlink_conntrack.h). Pure."""

from __future__ import annotations

from cni_v6.kernel.netfilter.conntrack import (
    CTA_IP_V4_SRC,
    CTA_IP_V6_SRC,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY,
    FAMILIES,
    NFNL_SUBSYS_CTNETLINK,
)
from cni_v6.kernel.netfilter.messages import NFGENMSG
from cni_v6.kernel.netlink.message import HEADER, Message, as_address, attribute, by_kind, nest, packed, u8
from cni_v6.kernel.netlink.uapi import NLA_F_NESTED
from cni_v6.net.addresses import version
from cni_v6.net.packets import Headers

_GET = NFNL_SUBSYS_CTNETLINK << 8 | 1
CTA_PROTO_SRC_PORT, CTA_PROTO_ICMP_ID, CTA_PROTO_ICMPV6_ID = 2, 4, 7  # an ICMP type and code follow the identifier


def get_flow(packet: Headers) -> Message:
    """A request for the flow that a packet opens; ENOENT if there is none."""
    family = version(packet.source)
    first = CTA_IP_V4_SRC if family == 4 else CTA_IP_V6_SRC
    ends = attribute(first, packed(packet.source)) + attribute(first + 1, packed(packet.target))
    body = u8(CTA_PROTO_NUM, packet.protocol)
    if packet.ports:
        body += b"".join(attribute(kind, port.to_bytes(2, "big"))
                         for kind, port in zip((CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT), packet.ports))
    else:
        number = CTA_PROTO_ICMP_ID if family == 4 else CTA_PROTO_ICMPV6_ID
        body += attribute(number, max(0, packet.number).to_bytes(2, "big"))
        body += u8(number + 1, max(0, packet.kind)) + u8(number + 2, 0)
    sides = nest(CTA_TUPLE_IP | NLA_F_NESTED, ends), nest(CTA_TUPLE_PROTO | NLA_F_NESTED, body)
    return Message(_GET, 0, NFGENMSG.pack(FAMILIES[family], 0, 0) + nest(CTA_TUPLE_ORIG | NLA_F_NESTED, *sides))


def read_translation(data: bytes) -> tuple[str, str]:
    """(source, destination) of a flow as the other end sees them, who answers the other way round."""
    answer = by_kind(by_kind(data, HEADER.size + NFGENMSG.size)[CTA_TUPLE_REPLY])
    ends = by_kind(answer[CTA_TUPLE_IP])
    first = CTA_IP_V4_SRC if CTA_IP_V4_SRC in ends else CTA_IP_V6_SRC
    return as_address(ends[first + 1]), as_address(ends[first])
