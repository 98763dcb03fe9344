"""Lists our tables: their chains, the digests of their rules, their sets. Messages as in ``messages``. Pure."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable

from cni_v6.firewall.sets import TABLE
from cni_v6.firewall.shape import ACCEPT, Chain, Table
from cni_v6.kernel.netfilter.messages import (
    FAMILIES,
    GETRULE,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFTA_RULE_CHAIN,
    NFTA_RULE_TABLE,
    NFTA_TABLE_NAME,
)
from cni_v6.kernel.netlink.message import HEADER, Message, as_text, by_kind, text

# linux/netfilter/nf_tables.h
_GETTABLE, GETCHAIN, _GETSET = (NFNL_SUBSYS_NFTABLES << 8 | number for number in (1, 4, 10))
NFTA_TABLE_FLAGS, NFT_TABLE_F_DORMANT = 2, 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY = 1, 3, 5
NFTA_RULE_EXPRESSIONS = 4
NFTA_SET_TABLE, NFTA_SET_NAME = 1, 2
_POLICIES = {0: "drop", 1: ACCEPT}  # NF_DROP, NF_ACCEPT
# A counter in an expression: its name, then its data, two numbers of 8 bytes each as attributes of an attribute.
_COUNTED = re.compile(rb"counter\0.{28}", re.DOTALL)
_UNNAMED = "__"  # how the names of sets and maps begin that belong to a rule

Dump = tuple[bytes, ...]


def requests(family: str) -> tuple[Message, ...]:
    """Dumps for ``read``: tables, chains, rules, sets. The kernel filters the last two by table."""
    header = NFGENMSG.pack(FAMILIES[family], 0, 0)
    return (
        Message(_GETTABLE, 0, header), Message(GETCHAIN, 0, header), dump_rules(FAMILIES[family], TABLE),
        Message(_GETSET, 0, header + text(NFTA_SET_TABLE, TABLE)),
    )


def dump_rules(family: int, table: str) -> Message:
    """A dump of the rules of any table; ``family``: NFPROTO_*."""
    return Message(GETRULE, 0, NFGENMSG.pack(family, 0, 0) + text(NFTA_RULE_TABLE, table))


def read(family: str, dumps: Iterable[Dump]) -> Table | None:
    """Our table of a family from the answers to ``requests``; None if it is not there."""
    tables, chains, rules, sets = ([attributes(data) for data in dump] for dump in dumps)
    ours = [table for table in tables if as_text(table.get(NFTA_TABLE_NAME)) == TABLE]
    if not ours:
        return None
    digests: dict[str, list[bytes]] = {}
    for rule in rules:
        digests.setdefault(as_text(rule.get(NFTA_RULE_CHAIN)), []).append(_digest(rule.get(NFTA_RULE_EXPRESSIONS)))
    made = (
        Chain(name := as_text(chain.get(NFTA_CHAIN_NAME)), _policy(chain.get(NFTA_CHAIN_POLICY)),
              tuple(digests.get(name, ())))
        for chain in chains if as_text(chain.get(NFTA_CHAIN_TABLE)) == TABLE
    )
    names = (as_text(entry.get(NFTA_SET_NAME)) for entry in sets)
    dormant = bool(_number(ours[0].get(NFTA_TABLE_FLAGS)) & NFT_TABLE_F_DORMANT)
    return Table(family, tuple(made), tuple(name for name in names if not name.startswith(_UNNAMED)), dormant)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message of nf_tables."""
    return by_kind(data, HEADER.size + NFGENMSG.size)


def _number(payload: bytes | None) -> int:
    """A number as nf_tables sends it: in the network's byte order."""
    return int.from_bytes(payload or b"", "big")


def _digest(expressions: bytes | None) -> bytes:
    """What a rule says, but for what its counters have counted."""
    return hashlib.blake2s(_COUNTED.sub(b"counter", expressions or b""), digest_size=8).digest()


def _policy(payload: bytes | None) -> str:
    return _POLICIES.get(struct.unpack("!I", payload)[0], "unknown") if payload else ""
