"""The shape that our tables have: chains, the number of rules in each, sets; and how the tables that are there differ.

Our rules are constant (``ruleset``), so their number tells whether one was added or taken out. A rule that was replaced
keeps its handle (nf_tables_newrule, net/netfilter/nf_tables_api.c): what it says tells, beside what it said before.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from cni_v6.firewall import ruleset
from cni_v6.firewall.sets import BRIDGE, INET, TABLE
from cni_v6.log import counted
from cni_v6.values import dataclass

ACCEPT = "accept"
FAMILIES = (INET, BRIDGE)
_BLOCK = re.compile(r"^    (chain|set|map) (\w+) \{\n(.*?)^    \}$", re.DOTALL | re.MULTILINE)
_NO_RULE = ("#", "type ")  # a comment, and what makes a chain a base chain


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain as the kernel lists it: its policy, "" for a chain without a hook; a digest of each rule, in order."""

    name: str
    policy: str = ""
    rules: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ours as the kernel lists it, without the sets that belong to a rule; ``dormant``: its chains are off.
    """

    family: str
    chains: tuple[Chain, ...] = ()
    sets: tuple[str, ...] = ()
    dormant: bool = False


@cache
def _expected(family: str) -> tuple[Mapping[str, int], frozenset[str]]:
    """The number of rules in each chain of a table, and the names of its sets."""
    chains: dict[str, int] = {}
    sets: set[str] = set()
    for kind, name, body in _BLOCK.findall(ruleset.table(family)):
        lines = [line.strip() for line in body.splitlines()]
        if kind == "chain":
            chains[name] = sum(bool(line) and not line.startswith(_NO_RULE) for line in lines)
        else:
            sets.add(name)
    return chains, frozenset(sets)


def differences(tables: Iterable[Table], before: Iterable[Table] = ()) -> list[str]:
    """How our tables differ from those that are loaded, one phrase for each difference.

    :param before: the tables when they did not differ, () if that is not known: then a rule that was replaced is not
        seen.
    """
    there, earlier = ({table.family: table for table in read} for read in (tables, before))
    found = []
    for family in FAMILIES:
        name = f"table {family} {TABLE}"
        if family not in there:
            found.append(f"{name} is gone")
        else:
            found += [f"{name}: {words}" for words in _of_table(there[family], earlier.get(family))]
    return found


def _of_table(table: Table, before: Table | None) -> Iterator[str]:
    chains, sets = _expected(table.family)
    if table.dormant:
        yield "it is dormant"
    for chain in table.chains:
        if chain.name not in chains:
            yield f"chain {chain.name} is not ours"
        elif len(chain.rules) != chains[chain.name]:
            yield f"chain {chain.name} has {counted(len(chain.rules), 'rule')}, not {chains[chain.name]}"
        elif chain.policy not in ("", ACCEPT):
            yield f"the policy of chain {chain.name} is {chain.policy}"
        elif before and any(other.name == chain.name and other.rules != chain.rules for other in before.chains):
            yield f"a rule of chain {chain.name} is another one"
    yield from (f"chain {name} is gone" for name in sorted(chains.keys() - {chain.name for chain in table.chains}))
    yield from (f"set {name} is gone" for name in sorted(sets.difference(table.sets)))
    yield from (f"set {name} is not ours" for name in sorted(set(table.sets) - sets))


def expected(family: str) -> Table:
    """A table of ours in its shape, without what the rules say; for the fake kernel."""
    chains, sets = _expected(family)
    hooked = set(re.findall(r"chain (\w+) \{\n *type ", ruleset.table(family)))
    made = (
        Chain(name, ACCEPT if name in hooked else "", (b"",) * count) for name, count in chains.items()
    )
    return Table(family, tuple(made), tuple(sorted(sets)))
