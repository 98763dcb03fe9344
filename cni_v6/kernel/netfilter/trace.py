"""nf_tables messages of tracing: rules that mark packets to be traced, and what the kernel tells of each. Pure.

The rules are in tables of their own, which belong to the socket that makes them (NFT_TABLE_F_OWNER): the kernel removes
them when it is closed, however its process ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from cni_v6.firewall.sets import BRIDGE, INET
from cni_v6.kernel.netfilter.listing import GETCHAIN, attributes
from cni_v6.kernel.netfilter.messages import NFGENMSG, NFNL_SUBSYS_NFTABLES
from cni_v6.kernel.netlink.message import HEADER, Message, as_text, attribute, by_kind, nest, packed, text
from cni_v6.kernel.netlink.uapi import NLA_F_NESTED, NLM_F_CREATE
from cni_v6.net import packets
from cni_v6.net.addresses import version
from cni_v6.net.packets import Headers
from cni_v6.values import dataclass

NFNLGRP_NFTRACE = 9  # linux/netfilter/nfnetlink.h
# linux/netfilter.h: NFPROTO_*
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
NUMBERS = {name: number for number, name in FAMILIES.items()}
IPV4, IPV6 = 2, 10
NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT = 0, 3
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")  # NF_INET_*, NF_BR_*
# linux/netfilter/nf_tables.h
_NEWTABLE, _NEWCHAIN, _NEWRULE, TRACE = (NFNL_SUBSYS_NFTABLES << 8 | number for number in (0, 3, 6, 17))
NFTA_TABLE_NAME = NFTA_CHAIN_TABLE = NFTA_RULE_TABLE = 1
NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER = 2, 2
NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE = 3, 4, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 2, 4
NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 1, 2
NFTA_META_DREG, NFTA_META_KEY, NFTA_META_SREG = 1, 2, 3
NFT_META_IIFNAME, NFT_META_NFTRACE, NFT_META_NFPROTO = 6, 12, 15
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA, NFT_CMP_EQ = 1, 2, 3, 0
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN, NETWORK_HEADER = 1, 2, 3, 4, 1
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA, NFTA_DATA_VALUE = 1, 2, 1
REGISTER = 1
(NFTA_TRACE_TABLE, NFTA_TRACE_CHAIN, NFTA_TRACE_RULE_HANDLE, NFTA_TRACE_TYPE, NFTA_TRACE_VERDICT, NFTA_TRACE_ID,
 NFTA_TRACE_LL_HEADER, NFTA_TRACE_NETWORK_HEADER, NFTA_TRACE_TRANSPORT_HEADER, NFTA_TRACE_IIF, _, NFTA_TRACE_OIF, _, _,
 NFTA_TRACE_NFPROTO, NFTA_TRACE_POLICY) = range(1, 17)
POLICY, RETURN, RULE = 1, 2, 3  # enum nft_trace_types
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1: "continue", -2: "break", -3: "jump", -4: "goto",
            -5: "return"}
# Where the network header has the addresses: source and destination (RFC 791, RFC 8200).
PLACES = {4: (12, 16), 6: (8, 24)}
EARLIEST, AFTER_NAT = -450, -99  # priorities: before NF_IP_PRI_CONNTRACK_DEFRAG, after NF_IP_PRI_NAT_DST


@dataclass(frozen=True, slots=True)
class Event:
    """A rule that matched a traced packet, or the end of a chain. ``chain``: of the table ``family table``.

    ``number``: of the packet. ``kind``: POLICY, RETURN or RULE. ``verdict``: nft's word. ``to``: the chain of a jump.
    ``iif`` and ``oif``: indices, 0 for none. ``headers``: only in the first event of a packet at a hook.
    """

    number: int
    family: str
    table: str
    chain: str
    kind: int
    verdict: str
    handle: int = 0
    to: str = ""
    iif: int = 0
    oif: int = 0
    headers: Headers | None = None


def tables(name: str, port: str, addresses: Iterable[str], other: str = "") -> Iterator[Message]:
    """Messages of a transaction that has the packets of a container traced, both ways.

    :param name: of the tables.
    :param port: the container's host interface, where its packets come in, whatever their source is.
    :param addresses: of the container.
    :param other: trace only what it sends to this address; all that comes to the container is traced.
    """
    for family, hooks in ((INET, (NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT)), (BRIDGE, (NF_INET_PRE_ROUTING,))):
        yield Message(_NEWTABLE, NLM_F_CREATE, _of(family) + text(NFTA_TABLE_NAME, name)
                      + _be32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER))
        for hook in hooks:
            yield _chain(family, name, f"hook{hook}", hook, EARLIEST)
    yield _chain(INET, name, "translated", NF_INET_PRE_ROUTING, AFTER_NAT)
    own = _interface(port)
    for family in (INET, BRIDGE):
        matches = own + (_address(version(other), 1, other, family) if other else b"")
        yield _rule(family, name, f"hook{NF_INET_PRE_ROUTING}", matches)
    for address in addresses:
        yield _rule(BRIDGE, name, f"hook{NF_INET_PRE_ROUTING}", _address(version(address), 1, address, BRIDGE))
        for chain in ("translated", f"hook{NF_INET_LOCAL_OUT}", f"hook{NF_INET_PRE_ROUTING}"):
            yield _rule(INET, name, chain, _address(version(address), 1, address, INET))


def _of(family: str) -> bytes:
    return NFGENMSG.pack(NUMBERS[family], 0, 0)


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _nested(kind: int, *parts: bytes) -> bytes:
    return nest(kind | NLA_F_NESTED, *parts)


def _chain(family: str, table: str, name: str, hook: int, priority: int) -> Message:
    at = _nested(NFTA_CHAIN_HOOK, _be32(NFTA_HOOK_HOOKNUM, hook), _be32(NFTA_HOOK_PRIORITY, priority))
    body = text(NFTA_CHAIN_TABLE, table) + text(NFTA_CHAIN_NAME, name) + at + text(NFTA_CHAIN_TYPE, "filter")
    return Message(_NEWCHAIN, NLM_F_CREATE, _of(family) + body)


def _rule(family: str, table: str, chain: str, matches: bytes) -> Message:
    """``matches meta nftrace set 1``"""
    one = _nested(NFTA_IMMEDIATE_DATA, attribute(NFTA_DATA_VALUE, b"\1"))
    marks = _expression("immediate", _be32(NFTA_IMMEDIATE_DREG, REGISTER) + one)
    marks += _expression("meta", _be32(NFTA_META_KEY, NFT_META_NFTRACE) + _be32(NFTA_META_SREG, REGISTER))
    body = text(NFTA_RULE_TABLE, table) + text(NFTA_RULE_CHAIN, chain)
    return Message(_NEWRULE, NLM_F_CREATE, _of(family) + body + _nested(NFTA_RULE_EXPRESSIONS, matches + marks))


def _expression(name: str, data: bytes) -> bytes:
    return _nested(NFTA_LIST_ELEM, text(NFTA_EXPR_NAME, name), _nested(NFTA_EXPR_DATA, data))


def _equal(value: bytes) -> bytes:
    data = _nested(NFTA_CMP_DATA, attribute(NFTA_DATA_VALUE, value))
    return _expression("cmp", _be32(NFTA_CMP_SREG, REGISTER) + _be32(NFTA_CMP_OP, NFT_CMP_EQ) + data)


def _interface(name: str) -> bytes:
    """``iifname name``; the kernel compares all 16 bytes of it."""
    load = _expression("meta", _be32(NFTA_META_KEY, NFT_META_IIFNAME) + _be32(NFTA_META_DREG, REGISTER))
    return load + _equal(name.encode().ljust(16, b"\0"))


def _address(family: int, which: int, address: str, table: str) -> bytes:
    """``ip daddr address``. ``which``: 0 for the source, 1 for the destination."""
    found = b""
    if table == INET:
        load = _expression("meta", _be32(NFTA_META_KEY, NFT_META_NFPROTO) + _be32(NFTA_META_DREG, REGISTER))
        found = load + _equal(bytes((IPV6 if family == 6 else IPV4,)))
    data = packed(address)
    return found + _expression("payload", b"".join((
        _be32(NFTA_PAYLOAD_DREG, REGISTER), _be32(NFTA_PAYLOAD_BASE, NETWORK_HEADER),
        _be32(NFTA_PAYLOAD_OFFSET, PLACES[family][which]), _be32(NFTA_PAYLOAD_LEN, len(data)),
    ))) + _equal(data)


def dump_chains() -> Message:
    """A dump of all chains, whose base chains have a hook and a priority."""
    return Message(GETCHAIN, 0, NFGENMSG.pack(0, 0, 0))


def read_hook(data: bytes) -> tuple[tuple[str, str, str], str] | None:
    """((family, table, chain), the hook's name) of a base chain in a message of a dump; None for any other chain."""
    given = attributes(data)
    if NFTA_CHAIN_HOOK not in given:
        return None
    number = int.from_bytes(by_kind(given[NFTA_CHAIN_HOOK]).get(NFTA_HOOK_HOOKNUM, b""), "big")
    place = FAMILIES.get(data[HEADER.size], ""), as_text(given[NFTA_CHAIN_TABLE]), as_text(given[NFTA_CHAIN_NAME])
    return place, HOOKS[number] if number < len(HOOKS) else "ingress"


def read(data: bytes) -> Event | None:
    """What a message tells; None for one that tells of something else than a trace."""
    kind = struct.unpack_from("=H", data, 4)[0]
    if kind != TRACE:
        return None
    given = attributes(data)

    def number(key: int) -> int:
        return int.from_bytes(given.get(key, b""), "big")

    verdict = by_kind(given.get(NFTA_TRACE_VERDICT, b""))
    code = int.from_bytes(verdict.get(NFTA_VERDICT_CODE, b""), "big", signed=True)
    if NFTA_TRACE_VERDICT not in given:
        code = int.from_bytes(given.get(NFTA_TRACE_POLICY, b"\0\0\0\1"), "big")
    return Event(
        number(NFTA_TRACE_ID), FAMILIES.get(data[HEADER.size], ""), as_text(given.get(NFTA_TRACE_TABLE)),
        as_text(given.get(NFTA_TRACE_CHAIN)), number(NFTA_TRACE_TYPE), VERDICTS.get(code, str(code)),
        number(NFTA_TRACE_RULE_HANDLE), as_text(verdict.get(NFTA_VERDICT_CHAIN)), number(NFTA_TRACE_IIF),
        number(NFTA_TRACE_OIF), _headers(given.get(NFTA_TRACE_NETWORK_HEADER, b""),
                                         given.get(NFTA_TRACE_TRANSPORT_HEADER, b"")),
    )


def _headers(network: bytes, transport: bytes) -> Headers | None:
    """The kernel gives the network header and the start of the transport header apart (nf_trace_fill_pkt_info)."""
    found = packets.read(network)
    return packets.of_transport(found.source, found.target, found.protocol, transport) if found and transport else found
