"""Chains and rules of nf_tables as messages, for small tables that are made without ``nft``. Pure.

A family is a number here (NFPROTO_*). Each message is one of a transaction.
"""

from __future__ import annotations

import struct

from cni_v6.kernel.netfilter.listing import (
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_TABLE,
    NFTA_RULE_EXPRESSIONS,
)
from cni_v6.kernel.netfilter.messages import (
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_RULE_CHAIN,
    NFTA_RULE_TABLE,
)
from cni_v6.kernel.netlink.message import Message, attribute, nest, text
from cni_v6.kernel.netlink.uapi import NLA_F_NESTED, NLM_F_CREATE

# linux/netfilter/nf_tables.h
NEWTABLE, _NEWCHAIN, _NEWRULE = (NFNL_SUBSYS_NFTABLES << 8 | number for number in (0, 3, 6))
NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 4, 7, 1, 2
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_META_DREG, NFTA_META_KEY = 1, 2
NFT_META_IIFNAME, NFT_META_OIFNAME, NFT_META_NFPROTO, NFT_META_L4PROTO = 6, 7, 15, 16
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA, NFT_CMP_EQ, NFT_CMP_NEQ = 1, 2, 3, 0, 1
NFTA_CT_DREG, NFTA_CT_KEY, NFT_CT_STATE, NFT_CT_STATUS = 1, 2, 0, 2
NFTA_BITWISE_SREG, NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_XOR = 1, 2, 3, 4, 5
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFT_REG_1, IFNAMSIZ = 1, 16  # linux/if.h


def chain(family: int, table: str, name: str, hook: int, priority: int, flags: int = NLM_F_CREATE) -> Message:
    """A chain of type filter at a hook (NF_INET_*)."""
    at = nested(NFTA_CHAIN_HOOK, number(NFTA_HOOK_HOOKNUM, hook), number(NFTA_HOOK_PRIORITY, priority))
    body = text(NFTA_CHAIN_TABLE, table) + text(NFTA_CHAIN_NAME, name) + at + text(NFTA_CHAIN_TYPE, "filter")
    return Message(_NEWCHAIN, flags, NFGENMSG.pack(family, 0, 0) + body)


def rule(
    family: int, table: str, of_chain: str, *expressions: bytes, flags: int = NLM_F_CREATE, remark: bytes = b""
) -> Message:
    """A rule of these expressions.

    :param flags: with NLM_F_APPEND it is the chain's last rule, else the first.
    :param remark: its attribute NFTA_RULE_USERDATA; b"" for none.
    """
    place = text(NFTA_RULE_TABLE, table) + text(NFTA_RULE_CHAIN, of_chain)
    body = place + nested(NFTA_RULE_EXPRESSIONS, *expressions) + remark
    return Message(_NEWRULE, flags, NFGENMSG.pack(family, 0, 0) + body)


def expression(name: str, *attributes: bytes) -> bytes:
    return nested(NFTA_LIST_ELEM, text(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *attributes))


def meta(key: int) -> bytes:
    """Load what the kernel knows of a packet (NFT_META_*) into the register."""
    return expression("meta", number(NFTA_META_KEY, key), number(NFTA_META_DREG, NFT_REG_1))


def payload(base: int, offset: int, size: int) -> bytes:
    """Load bytes of a packet into the register."""
    return expression("payload", number(NFTA_PAYLOAD_DREG, NFT_REG_1), number(NFTA_PAYLOAD_BASE, base),
                      number(NFTA_PAYLOAD_OFFSET, offset), number(NFTA_PAYLOAD_LEN, size))


def connection(key: int) -> bytes:
    """Load what is known of a packet's connection (NFT_CT_*) into the register."""
    return expression("ct", number(NFTA_CT_KEY, key), number(NFTA_CT_DREG, NFT_REG_1))


def masked(mask: bytes) -> bytes:
    """Of the register, only the bits of a mask stay."""
    data = nested(NFTA_BITWISE_MASK, attribute(NFTA_DATA_VALUE, mask))
    none = nested(NFTA_BITWISE_XOR, attribute(NFTA_DATA_VALUE, bytes(len(mask))))
    return expression("bitwise", number(NFTA_BITWISE_SREG, NFT_REG_1), number(NFTA_BITWISE_DREG, NFT_REG_1),
                      number(NFTA_BITWISE_LEN, len(mask)), data, none)


def compare(value: bytes, how: int = NFT_CMP_EQ) -> bytes:
    """Compare the register with a value; if that fails, the rule ends."""
    data = nested(NFTA_CMP_DATA, attribute(NFTA_DATA_VALUE, value))
    return expression("cmp", number(NFTA_CMP_SREG, NFT_REG_1), number(NFTA_CMP_OP, how), data)


def matches(key: int, value: bytes) -> bytes:
    """The rule goes on if what the kernel knows of a packet (NFT_META_*) has this value."""
    return meta(key) + compare(value)


def ifname(name: str) -> bytes:
    """An interface's name as a value: the kernel compares all 16 bytes."""
    return name.encode().ljust(IFNAMSIZ, b"\0")


def number(kind: int, value: int) -> bytes:
    """A number of 32 bits, in the network's byte order, as nf_tables has all of them."""
    return attribute(kind, struct.pack("!i", value))


def nested(kind: int, *parts: bytes) -> bytes:
    return nest(kind | NLA_F_NESTED, *parts)
