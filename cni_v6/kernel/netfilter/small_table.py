"""A table of nf_tables with a few rules that stay as they are, as messages; made whole, or not at all. Pure.

By hand, as it is small, and no program is needed that way: the node agent has it loaded (``cluster.tables``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.firewall.sets import INET
from cni_v6.kernel.netfilter import rules as rules_of
from cni_v6.kernel.netfilter.listing import NFTA_SET_NAME, NFTA_SET_TABLE, attributes, dump_rules as dump_rules_of
from cni_v6.kernel.netfilter.messages import (
    DELSETELEM,
    DELTABLE,
    FAMILIES,
    GETSETELEM,
    NEWSETELEM,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NFTA_TABLE_NAME,
)
from cni_v6.kernel.netfilter.rules import NEWTABLE, nested, number
from cni_v6.kernel.netlink.message import Message, attribute, by_kind, each, packed, text
from cni_v6.kernel.netlink.uapi import NLM_F_CREATE
from cni_v6.net.addresses import to_text
from cni_v6.values import dataclass

NLM_F_APPEND = 0x800  # linux/netlink.h
# linux/netfilter/nf_tables.h
_NEWSET = NFNL_SUBSYS_NFTABLES << 8 | 9
NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, NFTA_SET_ID = 4, 5, 10
# linux/netfilter.h
NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_LOCAL_OUT = 0, 1, 2, 3
NF_IP_PRI_RAW, NF_IP_PRI_FILTER = -300, 0  # linux/netfilter_ipv4.h
TYPE_IP6ADDR = 8  # by which nft prints the elements of a set (include/datatype.h of nftables)
ELEMENTS = 1000  # of a message: the length of an attribute has 16 bits
NODES = "nodes"  # the table's only set: IPv6 addresses
FAMILY, FLAGS = FAMILIES[INET], NLM_F_CREATE | NLM_F_APPEND


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of the table, at a hook."""

    name: str
    hook: int
    priority: int


UNTRACKED = Chain("prerouting_untracked", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW)
SENT_UNTRACKED = Chain("output_untracked", NF_INET_LOCAL_OUT, NF_IP_PRI_RAW)
INPUT = Chain("input", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER)
FORWARD = Chain("forward", NF_INET_FORWARD, NF_IP_PRI_FILTER)


def make(table: str, chains: Iterable[Chain], rules: Iterable[Message], *, nodes: bool = False) -> list[Message]:
    """What makes the table anew, as one transaction; it may be there or not.

    :param rules: as ``small_rules`` makes them, those of a chain in order.
    :param nodes: it has the set NODES, empty.
    """
    made = [_of_table(NEWTABLE, table), *([_set(table)] if nodes else [])]
    hooked = (rules_of.chain(FAMILY, table, chain.name, chain.hook, chain.priority, FLAGS) for chain in chains)
    return [*remove(table), *made, *hooked, *rules]


def remove(table: str) -> list[Message]:
    """What removes the table, as one transaction; it may be there or not."""
    return [_of_table(kind, table) for kind in (NEWTABLE, DELTABLE)]


def _set(table: str) -> Message:
    names = text(NFTA_SET_TABLE, table) + text(NFTA_SET_NAME, NODES)
    key = number(NFTA_SET_KEY_TYPE, TYPE_IP6ADDR) + number(NFTA_SET_KEY_LEN, 16)
    return Message(_NEWSET, FLAGS, NFGENMSG.pack(FAMILY, 0, 0) + names + key + number(NFTA_SET_ID, 1))


def set_nodes(table: str, addresses: Iterable[str]) -> list[Message]:
    """What gives the set NODES these IPv6 addresses and no other ones, as one transaction."""
    elements = [nested(NFTA_LIST_ELEM, nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, packed(address))))
                for address in addresses]
    parts = (elements[first:first + ELEMENTS] for first in range(0, len(elements), ELEMENTS))
    add = (Message(NEWSETELEM, NLM_F_CREATE, _of_set(table) + nested(NFTA_SET_ELEM_LIST_ELEMENTS, *part))
           for part in parts)
    return [Message(DELSETELEM, 0, _of_set(table)), *add]  # without elements: all of them


def dump_nodes(table: str) -> Message:
    """A dump of the set NODES."""
    return Message(GETSETELEM, 0, _of_set(table))


def read_nodes(data: bytes) -> Iterator[str]:
    """The addresses in a message of the dump; "" for the element that stands for all (``*``), which has no key."""
    for _, element in each(attributes(data).get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")):
        key = by_kind(element).get(NFTA_SET_ELEM_KEY)
        yield to_text(6, int.from_bytes(by_kind(key)[NFTA_DATA_VALUE], "big")) if key else ""


def _of_set(table: str) -> bytes:
    names = text(NFTA_SET_ELEM_LIST_TABLE, table) + text(NFTA_SET_ELEM_LIST_SET, NODES)
    return NFGENMSG.pack(FAMILY, 0, 0) + names


def dump_rules(table: str) -> Message:
    """A dump of the table's rules."""
    return dump_rules_of(FAMILY, table)


def _of_table(kind: int, table: str) -> Message:
    return Message(kind, FLAGS, NFGENMSG.pack(FAMILY, 0, 0) + text(NFTA_TABLE_NAME, table))
