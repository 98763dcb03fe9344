"""A table of nf_tables whose rules leave packets untracked, as messages; made whole, or not at all. Pure.

By hand, as it is small, and no program is needed that way: the node agent has it loaded (``cluster.untracked``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from cni_v6.firewall.sets import INET
from cni_v6.kernel.netfilter.listing import GETRULE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE
from cni_v6.kernel.netfilter.messages import FAMILIES, NFGENMSG, NFNL_SUBSYS_NFTABLES, UDATA_COMMENT
from cni_v6.kernel.netlink.message import Message, attribute, nest, packed, text
from cni_v6.kernel.netlink.uapi import AF_INET6, NLA_F_NESTED, NLM_F_CREATE

NLM_F_APPEND = 0x800  # linux/netlink.h
# linux/netfilter/nf_tables.h
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (NFNL_SUBSYS_NFTABLES << 8 | number for number in (0, 2, 3, 6))
NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE = 1, 1, 3, 4, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_RULE_USERDATA, NFTA_LIST_ELEM = 1, 2, 7, 1
NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_META_DREG, NFTA_META_KEY, NFTA_DATA_VALUE = 1, 2, 1, 2, 1
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA = 1, 2, 3
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFT_REG_1, NFT_CMP_EQ, NFT_META_IIFNAME, NFT_META_NFPROTO, NFT_PAYLOAD_NETWORK_HEADER = 1, 0, 6, 15, 1
NF_INET_PRE_ROUTING, NF_IP_PRI_RAW, IFNAMSIZ = 0, -300, 16  # linux/netfilter.h, netfilter_ipv4.h, if.h
DESTINATION = 24  # offset in the IPv6 header
CHAIN = "prerouting_untracked"


def make(table: str, rules: Iterable[Message]) -> list[Message]:
    """What makes the table anew, as one transaction; it may be there or not.

    :param rules: as ``from_interface`` and ``to_prefix`` make them.
    """
    hook = nest(NFTA_CHAIN_HOOK | NLA_F_NESTED, _number(NFTA_HOOK_HOOKNUM, NF_INET_PRE_ROUTING),
                _number(NFTA_HOOK_PRIORITY, NF_IP_PRI_RAW))
    chain = (text(NFTA_CHAIN_TABLE, table) + text(NFTA_CHAIN_NAME, CHAIN) + hook + text(NFTA_CHAIN_TYPE, "filter"))
    return [*remove(table), _message(_NEWTABLE, text(NFTA_TABLE_NAME, table)), _message(_NEWCHAIN, chain), *rules]


def remove(table: str) -> list[Message]:
    """What removes the table, as one transaction; it may be there or not."""
    return [_message(kind, text(NFTA_TABLE_NAME, table)) for kind in (_NEWTABLE, _DELTABLE)]


def from_interface(table: str, ifname: str, comment: str) -> Message:
    """A rule: what comes in by an interface is not tracked."""
    name = ifname.encode().ljust(IFNAMSIZ, b"\0")
    return _rule(table, comment, _meta(NFT_META_IIFNAME), _is_equal(name))


def to_prefix(table: str, prefix: str, comment: str) -> Message:
    """A rule: what is for an IPv6 prefix of whole bytes is not tracked."""
    network, _, length = prefix.partition("/")
    size = int(length) // 8
    loaded = _expression("payload", _number(NFTA_PAYLOAD_DREG, NFT_REG_1),
                         _number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER),
                         _number(NFTA_PAYLOAD_OFFSET, DESTINATION), _number(NFTA_PAYLOAD_LEN, size))
    of_ipv6 = (_meta(NFT_META_NFPROTO), _is_equal(bytes((AF_INET6,))))
    return _rule(table, comment, *of_ipv6, loaded, _is_equal(packed(network)[:size]))


def dump_rules(table: str) -> Message:
    """A dump of the table's rules."""
    return Message(GETRULE, 0, _header() + text(NFTA_RULE_TABLE, table))


def _rule(table: str, comment: str, *conditions: bytes) -> Message:
    expressions = nest(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED, *conditions, _expression("notrack"))
    content = comment.encode() + b"\0"
    remark = attribute(NFTA_RULE_USERDATA, bytes((UDATA_COMMENT, len(content))) + content)
    return _message(_NEWRULE, text(NFTA_RULE_TABLE, table) + text(NFTA_RULE_CHAIN, CHAIN) + expressions + remark)


def _meta(key: int) -> bytes:
    return _expression("meta", _number(NFTA_META_DREG, NFT_REG_1), _number(NFTA_META_KEY, key))


def _is_equal(value: bytes) -> bytes:
    data = nest(NFTA_CMP_DATA | NLA_F_NESTED, attribute(NFTA_DATA_VALUE, value))
    return _expression("cmp", _number(NFTA_CMP_SREG, NFT_REG_1), _number(NFTA_CMP_OP, NFT_CMP_EQ), data)


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
