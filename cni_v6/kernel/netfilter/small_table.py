"""A table of nf_tables with a few rules that stay as they are, as messages; made whole, or not at all. Pure.

By hand, as it is small, and no program is needed that way: the node agent has it loaded (``cluster.tables``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from cni_v6.firewall.sets import INET
from cni_v6.kernel.netfilter.conntrack import IPPROTO_UDP
from cni_v6.kernel.netfilter.listing import GETRULE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE
from cni_v6.kernel.netfilter.messages import FAMILIES, NFGENMSG, NFNL_SUBSYS_NFTABLES, UDATA_COMMENT
from cni_v6.kernel.netlink.message import Message, attribute, nest, packed, text
from cni_v6.kernel.netlink.uapi import AF_INET6, NLA_F_NESTED, NLM_F_CREATE
from cni_v6.values import dataclass

NLM_F_APPEND = 0x800  # linux/netlink.h
# linux/netfilter/nf_tables.h
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (NFNL_SUBSYS_NFTABLES << 8 | number for number in (0, 2, 3, 6))
NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE = 1, 1, 3, 4, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_RULE_USERDATA, NFTA_LIST_ELEM = 1, 2, 7, 1
NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_META_DREG, NFTA_META_KEY, NFTA_DATA_VALUE = 1, 2, 1, 2, 1
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA = 1, 2, 3
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, NFT_REG_VERDICT = 1, 2, 2, 1, 0
NFT_REG_1, NFT_CMP_EQ, NFT_CMP_NEQ, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 0, 1, 1, 2
NFT_META_IIFNAME, NFT_META_OIFNAME, NFT_META_NFPROTO, NFT_META_L4PROTO = 6, 7, 15, 16
NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_DROP = 0, 1, 2, 0  # linux/netfilter.h
NF_IP_PRI_RAW, NF_IP_PRI_FILTER, IFNAMSIZ = -300, 0, 16  # linux/netfilter_ipv4.h, linux/if.h
DESTINATION = 24  # offset in the IPv6 header
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
    made = [_message(_NEWTABLE, text(NFTA_TABLE_NAME, table))]
    return [*remove(table), *made, *(_chain(table, chain) for chain in chains), *rules]


def remove(table: str) -> list[Message]:
    """What removes the table, as one transaction; it may be there or not."""
    return [_message(kind, text(NFTA_TABLE_NAME, table)) for kind in (_NEWTABLE, _DELTABLE)]


def untracked_from(table: str, ifname: str, comment: str) -> Message:
    """A rule: what comes in by an interface is not tracked."""
    return _rule(table, UNTRACKED, comment, *_is(NFT_META_IIFNAME, _name(ifname)), _expression("notrack"))


def untracked_to(table: str, prefix: str, comment: str) -> Message:
    """A rule: what is for an IPv6 prefix of whole bytes is not tracked."""
    network, _, length = prefix.partition("/")
    size = int(length) // 8
    loaded = _payload(NFT_PAYLOAD_NETWORK_HEADER, DESTINATION, size)
    return _rule(table, UNTRACKED, comment, *_of_ipv6(), loaded, _compare(packed(network)[:size]),
                 _expression("notrack"))


def drop_udp(table: str, chain: Chain, port: int, comment: str, *, not_by: str, out_by: str = "") -> Message:
    """A rule: UDP over IPv6 to a port is dropped, unless it comes in by an interface.

    :param out_by: only what goes out by this interface; "" for all.
    """
    out = _is(NFT_META_OIFNAME, _name(out_by)) if out_by else ()
    to_port = (*_is(NFT_META_L4PROTO, bytes((IPPROTO_UDP,))),
               _payload(NFT_PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT, 2), _compare(struct.pack("!H", port)))
    by_another = (_meta(NFT_META_IIFNAME), _compare(_name(not_by), NFT_CMP_NEQ))
    return _rule(table, chain, comment, *_of_ipv6(), *to_port, *by_another, *out, _drop())


def dump_rules(table: str) -> Message:
    """A dump of the table's rules."""
    return Message(GETRULE, 0, _header() + text(NFTA_RULE_TABLE, table))


def _chain(table: str, chain: Chain) -> Message:
    hook = nest(NFTA_CHAIN_HOOK | NLA_F_NESTED, _number(NFTA_HOOK_HOOKNUM, chain.hook),
                _number(NFTA_HOOK_PRIORITY, chain.priority))
    named = text(NFTA_CHAIN_TABLE, table) + text(NFTA_CHAIN_NAME, chain.name)
    return _message(_NEWCHAIN, named + hook + text(NFTA_CHAIN_TYPE, "filter"))


def _rule(table: str, chain: Chain, comment: str, *expressions: bytes) -> Message:
    content = comment.encode() + b"\0"
    remark = attribute(NFTA_RULE_USERDATA, bytes((UDATA_COMMENT, len(content))) + content)
    place = text(NFTA_RULE_TABLE, table) + text(NFTA_RULE_CHAIN, chain.name)
    return _message(_NEWRULE, place + nest(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED, *expressions) + remark)


def _name(ifname: str) -> bytes:
    return ifname.encode().ljust(IFNAMSIZ, b"\0")


def _of_ipv6() -> Sequence[bytes]:
    return _is(NFT_META_NFPROTO, bytes((AF_INET6,)))


def _is(key: int, value: bytes) -> Sequence[bytes]:
    return _meta(key), _compare(value)


def _meta(key: int) -> bytes:
    return _expression("meta", _number(NFTA_META_DREG, NFT_REG_1), _number(NFTA_META_KEY, key))


def _payload(base: int, offset: int, size: int) -> bytes:
    return _expression("payload", _number(NFTA_PAYLOAD_DREG, NFT_REG_1), _number(NFTA_PAYLOAD_BASE, base),
                       _number(NFTA_PAYLOAD_OFFSET, offset), _number(NFTA_PAYLOAD_LEN, size))


def _compare(value: bytes, how: int = NFT_CMP_EQ) -> bytes:
    data = nest(NFTA_CMP_DATA | NLA_F_NESTED, attribute(NFTA_DATA_VALUE, value))
    return _expression("cmp", _number(NFTA_CMP_SREG, NFT_REG_1), _number(NFTA_CMP_OP, how), data)


def _drop() -> bytes:
    verdict = nest(NFTA_DATA_VERDICT | NLA_F_NESTED, _number(NFTA_VERDICT_CODE, NF_DROP))
    data = nest(NFTA_IMMEDIATE_DATA | NLA_F_NESTED, verdict)
    return _expression("immediate", _number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT), data)


def _expression(name: str, *attributes: bytes) -> bytes:
    data = nest(NFTA_EXPR_DATA | NLA_F_NESTED, *attributes)
    return nest(NFTA_LIST_ELEM | NLA_F_NESTED, text(NFTA_EXPR_NAME, name), data)


def _number(kind: int, value: int) -> bytes:
    """In the network's byte order, as nf_tables has all numbers."""
    return attribute(kind, struct.pack("!i", value))


def _message(kind: int, body: bytes) -> Message:
    return Message(kind, NLM_F_CREATE | NLM_F_APPEND, _header() + body)


def _header() -> bytes:
    return NFGENMSG.pack(FAMILIES[INET], 0, 0)
