"""nf_tables messages of tracing: rules that mark packets to be traced, and what the kernel tells of each. Pure.

The rules are in tables of their own, which belong to the socket that makes them (NFT_TABLE_F_OWNER): the kernel removes
them when it is closed, however its process ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from cni_v6.firewall.sets import BRIDGE, INET
from cni_v6.kernel.netfilter.listing import (
    GETCHAIN,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_TABLE,
    NFTA_TABLE_FLAGS,
    attributes,
)
from cni_v6.kernel.netfilter.messages import NFGENMSG, NFNL_SUBSYS_NFTABLES, NFTA_DATA_VALUE, NFTA_TABLE_NAME
from cni_v6.kernel.netfilter.rules import (
    NEWTABLE,
    NFT_META_IIFNAME,
    NFT_META_NFPROTO,
    NFT_PAYLOAD_NETWORK_HEADER,
    NFT_REG_1,
    NFTA_CHAIN_HOOK,
    NFTA_HOOK_HOOKNUM,
    NFTA_IMMEDIATE_DATA,
    NFTA_IMMEDIATE_DREG,
    NFTA_META_KEY,
    chain,
    compare,
    expression,
    ifname,
    matches,
    nested,
    number,
    payload,
    rule,
)
from cni_v6.kernel.netlink.message import HEADER, Message, as_text, attribute, by_kind, packed, text
from cni_v6.kernel.netlink.uapi import NLM_F_CREATE
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
TRACE = NFNL_SUBSYS_NFTABLES << 8 | 17
NFT_TABLE_F_OWNER = 2
NFT_META_NFTRACE, NFTA_META_SREG = 12, 3
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
        yield Message(NEWTABLE, NLM_F_CREATE, _of(family) + text(NFTA_TABLE_NAME, name)
                      + number(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER))
        for hook in hooks:
            yield chain(NUMBERS[family], name, f"hook{hook}", hook, EARLIEST)
    yield chain(NUMBERS[INET], name, "translated", NF_INET_PRE_ROUTING, AFTER_NAT)
    own = matches(NFT_META_IIFNAME, ifname(port))
    for family in (INET, BRIDGE):
        target = _address(version(other), 1, other, family) if other else b""
        yield _marks(family, name, f"hook{NF_INET_PRE_ROUTING}", own, target)
    for address in addresses:
        yield _marks(BRIDGE, name, f"hook{NF_INET_PRE_ROUTING}", _address(version(address), 1, address, BRIDGE))
        for where in ("translated", f"hook{NF_INET_LOCAL_OUT}", f"hook{NF_INET_PRE_ROUTING}"):
            yield _marks(INET, name, where, _address(version(address), 1, address, INET))


def _of(family: str) -> bytes:
    return NFGENMSG.pack(NUMBERS[family], 0, 0)


def _marks(family: str, table: str, chain: str, *matches: bytes) -> Message:
    """``matches meta nftrace set 1``"""
    one = nested(NFTA_IMMEDIATE_DATA, attribute(NFTA_DATA_VALUE, b"\1"))
    marks = (expression("immediate", number(NFTA_IMMEDIATE_DREG, NFT_REG_1), one),
             expression("meta", number(NFTA_META_KEY, NFT_META_NFTRACE), number(NFTA_META_SREG, NFT_REG_1)))
    return rule(NUMBERS[family], table, chain, *matches, *marks)


def _address(family: int, which: int, address: str, table: str) -> bytes:
    """``ip daddr address``. ``which``: 0 for the source, 1 for the destination."""
    found = matches(NFT_META_NFPROTO, bytes((IPV6 if family == 6 else IPV4,))) if table == INET else b""
    data = packed(address)
    return found + payload(NFT_PAYLOAD_NETWORK_HEADER, PLACES[family][which], len(data)) + compare(data)


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

    def told(key: int) -> int:
        return int.from_bytes(given.get(key, b""), "big")

    verdict = by_kind(given.get(NFTA_TRACE_VERDICT, b""))
    code = int.from_bytes(verdict.get(NFTA_VERDICT_CODE, b""), "big", signed=True)
    if NFTA_TRACE_VERDICT not in given:
        code = int.from_bytes(given.get(NFTA_TRACE_POLICY, b"\0\0\0\1"), "big")
    return Event(
        told(NFTA_TRACE_ID), FAMILIES.get(data[HEADER.size], ""), as_text(given.get(NFTA_TRACE_TABLE)),
        as_text(given.get(NFTA_TRACE_CHAIN)), told(NFTA_TRACE_TYPE), VERDICTS.get(code, str(code)),
        told(NFTA_TRACE_RULE_HANDLE), as_text(verdict.get(NFTA_VERDICT_CHAIN)), told(NFTA_TRACE_IIF),
        told(NFTA_TRACE_OIF), _headers(given.get(NFTA_TRACE_NETWORK_HEADER, b""),
                                       given.get(NFTA_TRACE_TRANSPORT_HEADER, b"")),
    )


def _headers(network: bytes, transport: bytes) -> Headers | None:
    """The kernel gives the network header and the start of the transport header apart (nf_trace_fill_pkt_info)."""
    found = packets.read(network)
    return packets.of_transport(found.source, found.target, found.protocol, transport) if found and transport else found
