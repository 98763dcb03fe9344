"""What our tables have counted: packets by rule and by element, read from nf_tables' messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cni_v6.firewall.dropped import COUNTED
from cni_v6.firewall.sets import SETS, TABLE, Element, Set
from cni_v6.kernel.netfilter import listing
from cni_v6.kernel.netfilter.listing import NFTA_RULE_EXPRESSIONS, attributes
from cni_v6.kernel.netfilter.messages import (
    FAMILIES,
    NFTA_RULE_CHAIN,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    dump_elements,
    read_elements,
    rule_comment,
)
from cni_v6.kernel.netlink.message import Message, as_text, by_kind, each

# linux/netfilter/nf_tables.h
NFTA_SET_ELEM_EXPR = 7
NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_COUNTER_PACKETS = 1, 2, 2

DROPPED = {place: declared for place, (declared, _) in COUNTED.items()}


def dump_rules(family: str) -> Message:
    """A dump of the rules of our table of a family."""
    return listing.dump_rules(FAMILIES[family], TABLE)


def of_rules(dump: Iterable[bytes]) -> Mapping[str, int]:
    """Chain -> packets that its counting rules have seen, all of them together."""
    found: dict[str, int] = {}
    for data in dump:
        rule = attributes(data)
        packets = _of_rule(rule)
        if packets is not None:
            chain = as_text(rule.get(NFTA_RULE_CHAIN))
            found[chain] = found.get(chain, 0) + packets
    return found


def of_remarked(dump: Iterable[bytes]) -> Iterator[tuple[str, int]]:
    """(comment, packets) of each counting rule."""
    for data in dump:
        packets = _of_rule(attributes(data))
        if packets is not None:
            yield rule_comment(data), packets


def _of_rule(rule: Mapping[int, bytes]) -> int | None:
    """The packets that a rule has counted; None if it counts none."""
    counts = [_packets(payload) for _, payload in each(rule.get(NFTA_RULE_EXPRESSIONS, b""))]
    counted = [count for count in counts if count is not None]
    return sum(counted) if counted else None


def dumps_of_elements() -> list[Message]:
    """Dumps of the sets whose elements count."""
    return [dump_elements(family, name) for (family, name), declared in SETS.items() if declared.counted]


def dumps_of_dropped() -> list[Message]:
    """Dumps of the sets in which rules count what they drop, container by container."""
    return [dump_elements(family, name) for family, name in DROPPED]


def of_dropped(data: bytes) -> Iterator[tuple[Element, int]]:
    """The elements of one of these sets in a message, and the packets that were dropped."""
    return of_elements(data, DROPPED)


def of_elements(data: bytes, sets: Mapping[tuple[str, str], Set] = SETS) -> Iterator[tuple[Element, int]]:
    """The elements of a counting set in a message, and the packets that each has seen."""
    listed = each(attributes(data)[NFTA_SET_ELEM_LIST_ELEMENTS])
    for element, (_, payload) in zip(read_elements(data, sets), listed):
        yield element, _packets(by_kind(payload).get(NFTA_SET_ELEM_EXPR, b"")) or 0


def _packets(expression: bytes) -> int | None:
    """The packets that an expression has counted; None if it is no counter."""
    given = by_kind(expression)
    if as_text(given.get(NFTA_EXPR_NAME)) != "counter":
        return None
    return int.from_bytes(by_kind(given.get(NFTA_EXPR_DATA, b"")).get(NFTA_COUNTER_PACKETS, b""), "big")
