"""The base chains of others at the forward hook: what they drop whatever comes, read from nf_tables' messages.

iptables-nft writes its tables into nf_tables, so they are among them; those of iptables-legacy are not in nf_tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cni_v6.firewall.sets import TABLE
from cni_v6.kernel.facts import DROPS_ALL, DROPS_REST, ForwardChain
from cni_v6.kernel.netfilter import listing
from cni_v6.kernel.netfilter.listing import (
    GETCHAIN,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TABLE,
    NFTA_RULE_EXPRESSIONS,
    attributes,
)
from cni_v6.kernel.netfilter.messages import NFGENMSG, NFTA_DATA_VALUE, NFTA_RULE_CHAIN
from cni_v6.kernel.netlink.message import HEADER, Message, as_text, by_kind, each
from cni_v6.values import dataclass

# linux/netfilter.h, linux/netfilter/nf_tables.h
FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}  # NFPROTO_*
NUMBERS = {name: number for number, name in FAMILIES.items()}
NF_INET_FORWARD = 2
NF_DROP, NF_ACCEPT = 0, 1
NFT_RETURN = -5
NFTA_CHAIN_HOOK, NFTA_HOOK_HOOKNUM = 4, 1
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE = 2, 2, 1
NFTA_META_KEY, NFTA_CMP_DATA = 2, 3
NFT_META_NAMES = (6, 7)  # NFT_META_IIFNAME, NFT_META_OIFNAME
IFNAMSIZ = 16  # linux/if.h
DECIDES_NOTHING = ("counter", "log", "immediate", "reject")  # a rule of these alone holds for every packet


@dataclass(frozen=True, slots=True)
class _Expression:
    name: str
    data: bytes


def dump_chains() -> Message:
    """A dump of all chains of all families."""
    return Message(GETCHAIN, 0, NFGENMSG.pack(0, 0, 0))


def dump_rules(chain: ForwardChain) -> Message:
    """A dump of the rules of a chain's table."""
    return listing.dump_rules(NUMBERS[chain.family], chain.table)


def read_chain(data: bytes) -> ForwardChain | None:
    """A base chain of others at the forward hook; ``drops`` is what its policy says."""
    family = FAMILIES.get(data[HEADER.size], "")
    given = attributes(data)
    table = as_text(given[NFTA_CHAIN_TABLE])
    if not family or table == TABLE or NFTA_CHAIN_HOOK not in given:
        return None
    if _number(by_kind(given[NFTA_CHAIN_HOOK]).get(NFTA_HOOK_HOOKNUM)) != NF_INET_FORWARD:
        return None
    drops = DROPS_ALL if _number(given.get(NFTA_CHAIN_POLICY)) == NF_DROP else ""
    return ForwardChain(family, table, as_text(given[NFTA_CHAIN_NAME]), drops)


def judge(chain: ForwardChain, rules: Iterable[bytes]) -> ForwardChain:
    """The chain with what it drops, policy and rules together.

    Rules with conditions may accept anything, so what comes after them drops the rest.

    :param rules: of the chain's table, in their order.
    """
    drops, sure, decided = chain.drops, True, False
    names: set[str] = set()
    for data in rules:
        given = attributes(data)
        expressions = list(_expressions(given.get(NFTA_RULE_EXPRESSIONS, b"")))
        names.update(_interfaces(expressions))
        if decided or as_text(given.get(NFTA_RULE_CHAIN)) != chain.name:
            continue
        if any(expression.name not in DECIDES_NOTHING for expression in expressions):
            sure = False
            continue
        verdict = _verdict(expressions)
        if verdict in (NF_DROP, NF_ACCEPT):
            drops, decided = DROPS_ALL if verdict == NF_DROP else "", True
        elif verdict == NFT_RETURN:
            decided = True  # to the policy
        elif verdict is not None:  # a jump
            sure = False
    return replace(chain, drops=drops if sure or not drops else DROPS_REST, interfaces=frozenset(names))


def _expressions(data: bytes) -> Iterator[_Expression]:
    for _, payload in each(data):
        given = by_kind(payload)
        yield _Expression(as_text(given.get(NFTA_EXPR_NAME)), given.get(NFTA_EXPR_DATA, b""))


def _verdict(expressions: Iterable[_Expression]) -> int | None:
    """What a rule without conditions does with every packet; None for nothing."""
    for expression in expressions:
        if expression.name == "reject":
            return NF_DROP
        verdict = by_kind(by_kind(expression.data).get(NFTA_IMMEDIATE_DATA, b"")).get(NFTA_DATA_VERDICT)
        if expression.name == "immediate" and verdict is not None:
            return _number(by_kind(verdict).get(NFTA_VERDICT_CODE))
    return None


def _interfaces(expressions: Iterable[_Expression]) -> Iterator[str]:
    """The interfaces that a rule compares a packet's with; the kernel compares as many bytes as there are."""
    loaded = False
    for expression in expressions:
        given = by_kind(expression.data)
        if expression.name == "cmp" and loaded:
            value = by_kind(given.get(NFTA_CMP_DATA, b"")).get(NFTA_DATA_VALUE, b"")
            yield as_text(value) + ("" if value.endswith(b"\0") or len(value) == IFNAMSIZ else "*")
        loaded = expression.name == "meta" and _number(given.get(NFTA_META_KEY)) in NFT_META_NAMES


def _number(payload: bytes | None) -> int | None:
    """Of 32 bits, signed, in network byte order."""
    return int.from_bytes(payload, "big", signed=True) if payload else None
