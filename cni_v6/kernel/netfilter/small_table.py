"""A table of nf_tables with a few rules that stay as they are, as messages; made whole, or not at all. Pure.

By hand, as it is small, and no program is needed that way: the node agent has it loaded (``cluster.tables``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from cni_v6.firewall.sets import INET
from cni_v6.kernel.netfilter import rules as rules_of
from cni_v6.kernel.netfilter.conntrack import IPPROTO_UDP
from cni_v6.kernel.netfilter.listing import NFTA_TABLE_NAME, dump_rules as dump_rules_of
from cni_v6.kernel.netfilter.messages import FAMILIES, NFGENMSG, NFNL_SUBSYS_NFTABLES, UDATA_COMMENT
from cni_v6.kernel.netfilter.rules import (
    NEWTABLE,
    NFT_CMP_NEQ,
    NFT_CT_STATE,
    NFT_CT_STATUS,
    NFT_META_IIFNAME,
    NFT_META_L4PROTO,
    NFT_META_NFPROTO,
    NFT_META_OIFNAME,
    NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER,
    NFTA_IMMEDIATE_DATA,
    NFTA_IMMEDIATE_DREG,
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
from cni_v6.kernel.netlink.message import Message, attribute, packed, text
from cni_v6.kernel.netlink.uapi import AF_INET, AF_INET6, NLM_F_CREATE
from cni_v6.net.addresses import BITS, version
from cni_v6.values import dataclass

NLM_F_APPEND = 0x800  # linux/netlink.h
# linux/netfilter/nf_tables.h
_DELTABLE = NFNL_SUBSYS_NFTABLES << 8 | 2
NFTA_RULE_USERDATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, NFT_REG_VERDICT = 7, 2, 1, 0
NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_DROP, NF_ACCEPT = 0, 1, 2, 0, 1  # linux/netfilter.h
NF_IP_PRI_RAW, NF_IP_PRI_FILTER = -300, 0  # linux/netfilter_ipv4.h
_FAMILY, _FLAGS = FAMILIES[INET], NLM_F_CREATE | NLM_F_APPEND
DESTINATION = 24  # offset in the IPv6 header
SOURCES, DESTINATIONS = {6: 8, 4: 12}, {6: DESTINATION, 4: 16}  # offsets in the header of each family
NFPROTO = {6: AF_INET6, 4: AF_INET}
ECHO_REQUEST = {6: (58, 128), 4: (1, 8)}  # protocol and type (RFC 4443, RFC 792)
# linux/netfilter/nf_conntrack_common.h: NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED; IPS_DST_NAT
ANSWERED, TRANSLATED = 1 << 1 | 1 << 2, 1 << 5
DESTINATION_PORT = 2  # offset in the UDP header


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of the table, at a hook."""

    name: str
    hook: int
    priority: int


UNTRACKED = Chain("prerouting_untracked", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW)
INPUT = Chain("input", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER)
FORWARD = Chain("forward", NF_INET_FORWARD, NF_IP_PRI_FILTER)


def make(table: str, chains: Iterable[Chain], rules: Iterable[Message]) -> list[Message]:
    """What makes the table anew, as one transaction; it may be there or not.

    :param rules: as the functions below make them, those of a chain in order.
    """
    made = [_of_table(NEWTABLE, table)]
    hooked = (rules_of.chain(_FAMILY, table, chain.name, chain.hook, chain.priority, _FLAGS) for chain in chains)
    return [*remove(table), *made, *hooked, *rules]


def remove(table: str) -> list[Message]:
    """What removes the table, as one transaction; it may be there or not."""
    return [_of_table(kind, table) for kind in (NEWTABLE, _DELTABLE)]


def untracked_from(table: str, name: str, comment: str) -> Message:
    """A rule: what comes in by an interface is not tracked."""
    return _rule(table, UNTRACKED, comment, matches(NFT_META_IIFNAME, ifname(name)), expression("notrack"))


def untracked_to(table: str, prefix: str, comment: str) -> Message:
    """A rule: what is for an IPv6 prefix of whole bytes is not tracked."""
    network, _, length = prefix.partition("/")
    size = int(length) // 8
    loaded = payload(NFT_PAYLOAD_NETWORK_HEADER, DESTINATION, size)
    return _rule(table, UNTRACKED, comment, _of_ipv6(), loaded, compare(packed(network)[:size]), expression("notrack"))


def drop_udp(table: str, chain: Chain, port: int, comment: str, *, not_by: str, out_by: str = "") -> Message:
    """A rule: UDP over IPv6 to a port is dropped, unless it comes in by an interface.

    :param out_by: only what goes out by this interface; "" for all.
    """
    out = matches(NFT_META_OIFNAME, ifname(out_by)) if out_by else b""
    to_port = (matches(NFT_META_L4PROTO, bytes((IPPROTO_UDP,))),
               payload(NFT_PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT, 2), compare(struct.pack("!H", port)))
    by_another = meta(NFT_META_IIFNAME), compare(ifname(not_by), NFT_CMP_NEQ)
    return _rule(table, chain, comment, _of_ipv6(), *to_port, *by_another, out, _verdict(NF_DROP))


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


def dump_rules(table: str) -> Message:
    """A dump of the table's rules."""
    return dump_rules_of(_FAMILY, table)


def _rule(table: str, chain: Chain, comment: str, *expressions: bytes) -> Message:
    content = comment.encode() + b"\0"
    remark = attribute(NFTA_RULE_USERDATA, bytes((UDATA_COMMENT, len(content))) + content)
    return rules_of.rule(_FAMILY, table, chain.name, *expressions, flags=_FLAGS, remark=remark)


def _of_ipv6() -> bytes:
    return matches(NFT_META_NFPROTO, bytes((AF_INET6,)))


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


def _of_table(kind: int, table: str) -> Message:
    return Message(kind, _FLAGS, NFGENMSG.pack(_FAMILY, 0, 0) + text(NFTA_TABLE_NAME, table))
