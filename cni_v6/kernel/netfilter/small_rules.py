"""The rules of a small table (``small_table``), each a message with a comment. Pure."""

from __future__ import annotations

import struct

from cni_v6.kernel.netfilter import rules as rules_of
from cni_v6.kernel.netfilter.conntrack import IPPROTO_UDP
from cni_v6.kernel.netfilter.messages import NFTA_DATA_VALUE, NFTA_RULE_USERDATA, UDATA_COMMENT
from cni_v6.kernel.netfilter.rules import (
    NFT_CMP_NEQ,
    NFT_CT_STATE,
    NFT_CT_STATUS,
    NFT_META_IIFNAME,
    NFT_META_L4PROTO,
    NFT_META_NFPROTO,
    NFT_META_OIFNAME,
    NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER,
    NFT_REG_1,
    NFTA_IMMEDIATE_DATA,
    NFTA_IMMEDIATE_DREG,
    NFTA_PAYLOAD_BASE,
    NFTA_PAYLOAD_LEN,
    NFTA_PAYLOAD_OFFSET,
    compare,
    connection,
    expression,
    ifname,
    masked,
    matches,
    meta,
    nested,
    number,
    payload,
)
from cni_v6.kernel.netfilter.small_table import (
    FAMILY,
    FLAGS,
    FORWARD,
    INPUT,
    NODES,
    SENT_UNTRACKED,
    UNTRACKED,
    Chain,
)
from cni_v6.kernel.netlink.message import Message, attribute, packed, text
from cni_v6.kernel.netlink.uapi import AF_INET, AF_INET6
from cni_v6.net.addresses import BITS, version

# linux/netfilter/nf_tables.h
NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_SET_ID, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV = 1, 2, 4, 5, 1
NFTA_PAYLOAD_SREG = 5
NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, NFT_REG_VERDICT = 2, 1, 0
NF_DROP, NF_ACCEPT = 0, 1  # linux/netfilter.h
DESTINATION = 24  # offset in the IPv6 header
SOURCE = 8  # as well
SOURCES, DESTINATIONS = {6: SOURCE, 4: 12}, {6: DESTINATION, 4: 16}  # offsets in the header of each family
NFPROTO = {6: AF_INET6, 4: AF_INET}
ECHO_REQUEST = {6: (58, 128), 4: (1, 8)}  # protocol and type (RFC 4443, RFC 792)
# linux/netfilter/nf_conntrack_common.h: NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED; IPS_DST_NAT
ANSWERED, TRANSLATED = 1 << 1 | 1 << 2, 1 << 5
PORTS_END = 4  # of the UDP header: source and destination, two bytes each


def untracked_from(table: str, name: str, comment: str) -> Message:
    """A rule: what comes in by an interface is not tracked."""
    return _rule(table, UNTRACKED, comment, matches(NFT_META_IIFNAME, ifname(name)), expression("notrack"))


def untracked_to(table: str, prefix: str, comment: str) -> Message:
    """A rule: what is for an IPv6 prefix of whole bytes is not tracked."""
    return _rule(table, UNTRACKED, comment, *_to(prefix), expression("notrack"))


def drop_strangers_to(table: str, prefix: str, comment: str) -> Message:
    """A rule: what is for an IPv6 prefix of whole bytes is dropped, unless its source is one of NODES."""
    return _rule(table, UNTRACKED, comment, *_to(prefix), *_of_a_stranger(), expression("counter"), _verdict(NF_DROP))


def drop_from(table: str, source: str, comment: str, *, by: str = "", not_by: str = "") -> Message:
    """A rule: what has a source of a prefix is dropped, before connections are tracked.

    :param by: only what comes in by this interface; "" for all.
    :param not_by: only what comes in by another interface than this one; "" for all.
    """
    way = matches(NFT_META_IIFNAME, ifname(by)) if by else b""
    other_way = meta(NFT_META_IIFNAME) + compare(ifname(not_by), NFT_CMP_NEQ) if not_by else b""
    return _rule(table, UNTRACKED, comment, *_from(source), way, other_way, expression("counter"), _verdict(NF_DROP))


def accept_from(table: str, source: str, comment: str) -> Message:
    """A rule: what has a source of a prefix passes the rules after this one."""
    return _rule(table, UNTRACKED, comment, *_from(source), _verdict(NF_ACCEPT))


def set_source_to(table: str, prefix: str, address: str, comment: str) -> Message:
    """A rule: what is forwarded to an IPv6 prefix of whole bytes gets a source. No checksum is changed."""
    loaded = nested(NFTA_IMMEDIATE_DATA, attribute(NFTA_DATA_VALUE, packed(address)))
    written = expression("payload", number(NFTA_PAYLOAD_SREG, NFT_REG_1),
                         number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER), number(NFTA_PAYLOAD_OFFSET, SOURCE),
                         number(NFTA_PAYLOAD_LEN, 16))
    source = expression("immediate", number(NFTA_IMMEDIATE_DREG, NFT_REG_1), loaded)
    return _rule(table, FORWARD, comment, *_to(prefix), source, written)


def _to(prefix: str) -> tuple[bytes, ...]:
    network, _, length = prefix.partition("/")
    size = int(length) // 8
    return _of_ipv6(), payload(NFT_PAYLOAD_NETWORK_HEADER, DESTINATION, size), compare(packed(network)[:size])


def _of_a_stranger() -> tuple[bytes, ...]:
    """The source of the packet, of IPv6, is none of NODES."""
    return _one_of_nodes(SOURCE, NFT_LOOKUP_F_INV)


def _one_of_nodes(offset: int, flags: int = 0) -> tuple[bytes, ...]:
    """The address at an offset of the IPv6 header is one of NODES."""
    return payload(NFT_PAYLOAD_NETWORK_HEADER, offset, 16), expression(
        "lookup", text(NFTA_LOOKUP_SET, NODES), number(NFTA_LOOKUP_SREG, NFT_REG_1), number(NFTA_LOOKUP_SET_ID, 1),
        number(NFTA_LOOKUP_FLAGS, flags),
    )


def drop_udp(table: str, chain: Chain, port: int, comment: str, *, not_by: str, out_by: str = "") -> Message:
    """A rule: UDP over IPv6 to a port is dropped, unless it comes in by an interface.

    :param out_by: only what goes out by this interface; "" for all.
    """
    out = matches(NFT_META_OIFNAME, ifname(out_by)) if out_by else b""
    by_another = meta(NFT_META_IIFNAME), compare(ifname(not_by), NFT_CMP_NEQ)
    return _rule(table, chain, comment, *_udp(port), *by_another, out, expression("counter"), _verdict(NF_DROP))


def drop_udp_of_strangers(table: str, port: int, comment: str) -> Message:
    """A rule: UDP over IPv6 to a port of the node is dropped, unless its source is one of NODES."""
    return _rule(table, INPUT, comment, *_udp(port), *_of_a_stranger(), expression("counter"), _verdict(NF_DROP))


def untracked_udp_of_nodes(table: str, port: int, comment: str, *, source: int | None = None) -> Message:
    """A rule: what comes in as UDP over IPv6 to a port, with a source of NODES, is not tracked.

    :param source: only what is sent from this port; None for all.
    """
    return _rule(table, UNTRACKED, comment, *_udp(port, source), *_one_of_nodes(SOURCE), expression("notrack"))


def untracked_udp_to_nodes(table: str, port: int, comment: str, *, source: int | None = None) -> Message:
    """A rule: what the node sends as UDP over IPv6 to a port of one of NODES is not tracked.

    :param source: only what is sent from this port; None for all.
    """
    to_nodes = _one_of_nodes(DESTINATION)
    return _rule(table, SENT_UNTRACKED, comment, *_udp(port, source), *to_nodes, expression("notrack"))


def _udp(port: int, source: int | None = None) -> tuple[bytes, ...]:
    """The packet is UDP over IPv6 to a port, and from one."""
    ports = struct.pack("!H", port) if source is None else struct.pack("!HH", source, port)
    return (_of_ipv6(), matches(NFT_META_L4PROTO, bytes((IPPROTO_UDP,))),
            payload(NFT_PAYLOAD_TRANSPORT_HEADER, PORTS_END - len(ports), len(ports)), compare(ports))


def accept_out_by(table: str, name: str, comment: str) -> Message:
    """A rule: what is forwarded to an interface is accepted."""
    return _rule(table, FORWARD, comment, matches(NFT_META_OIFNAME, ifname(name)), _verdict(NF_ACCEPT))


def accept_answers(table: str, comment: str) -> Message:
    """A rule: what belongs to a connection that is answered already, or to an error of one, is accepted."""
    return _rule(table, FORWARD, comment, *_connection(NFT_CT_STATE, ANSWERED), _verdict(NF_ACCEPT))


def accept_translated(table: str, comment: str) -> Message:
    """A rule: what has another destination than it was sent to, as by a published port, is accepted."""
    return _rule(table, FORWARD, comment, *_connection(NFT_CT_STATUS, TRANSLATED), _verdict(NF_ACCEPT))


def accept_echo_requests(table: str, family: int, comment: str) -> Message:
    """A rule: echo requests are accepted."""
    protocol, kind = ECHO_REQUEST[family]
    of_protocol = matches(NFT_META_NFPROTO, bytes((NFPROTO[family],))), matches(NFT_META_L4PROTO, bytes((protocol,)))
    of_type = payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1), compare(bytes((kind,)))
    return _rule(table, FORWARD, comment, *of_protocol, *of_type, _verdict(NF_ACCEPT))


def between(table: str, source: str, target: str, comment: str, *, accept: bool) -> Message:
    """A rule: what is forwarded from one prefix to another one of its family is accepted, or dropped."""
    family = version(source)
    ends = _within(SOURCES[family], source), _within(DESTINATIONS[family], target)
    of_family = matches(NFT_META_NFPROTO, bytes((NFPROTO[family],)))
    return _rule(table, FORWARD, comment, of_family, *ends, _verdict(NF_ACCEPT if accept else NF_DROP))


def _rule(table: str, chain: Chain, comment: str, *expressions: bytes) -> Message:
    content = comment.encode() + b"\0"
    remark = attribute(NFTA_RULE_USERDATA, bytes((UDATA_COMMENT, len(content))) + content)
    return rules_of.rule(FAMILY, table, chain.name, *expressions, flags=FLAGS, remark=remark)


def _of_ipv6() -> bytes:
    return matches(NFT_META_NFPROTO, bytes((AF_INET6,)))


def _from(source: str) -> tuple[bytes, bytes]:
    """The source is of a prefix."""
    family = version(source)
    return matches(NFT_META_NFPROTO, bytes((NFPROTO[family],))), _within(SOURCES[family], source)


def _within(offset: int, prefix: str) -> bytes:
    """The address at an offset of the header is of a prefix."""
    network, _, length = prefix.partition("/")
    value, bits = packed(network), BITS[version(prefix)]
    mask = ((1 << int(length)) - 1 << bits - int(length)).to_bytes(len(value), "big")
    return payload(NFT_PAYLOAD_NETWORK_HEADER, offset, len(value)) + masked(mask) + compare(value)


def _connection(key: int, bits: int) -> tuple[bytes, ...]:
    """One of these bits is set in what is known of the connection: a number in the order of the machine."""
    return connection(key), masked(struct.pack("=I", bits)), compare(bytes(4), NFT_CMP_NEQ)


def _verdict(code: int) -> bytes:
    verdict = nested(NFTA_DATA_VERDICT, number(NFTA_VERDICT_CODE, code))
    data = nested(NFTA_IMMEDIATE_DATA, verdict)
    return expression("immediate", number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT), data)
