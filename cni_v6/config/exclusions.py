"""Addresses that no range hands out: ``ipam.exclude``, subtracted from the ranges when they are read.

A set gets several ranges where one was written, of the same subnet and gateway. So nothing that hands out addresses has
to know of it, and the store keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.config.formats import parse_prefix
from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.log import Log
from cni_v6.net import intervals
from cni_v6.net.addresses import BITS, from_text

MOST = 512  # entries: each may cut a range in two, and an ADD looks through all of them


class Exclusion(NamedTuple):
    """One entry: the addresses ``first`` to ``last``, inclusive."""

    path: str
    text: str
    family: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path} ({self.text})"


def read(ipam: Section) -> tuple[Exclusion, ...]:
    """
    :raises CniError: INVALID_CONFIG for too many.
    """
    texts = ipam.texts("exclude")
    if len(texts) > MOST:
        raise wrong(
            ipam.at("exclude"), list(texts), f"has {len(texts)} entries, more than {MOST}",
            "write prefixes in place of addresses, or the ranges that are left",
        )
    return tuple(_exclusion(f"{ipam.at('exclude')}[{at}]", text) for at, text in enumerate(texts))


def _exclusion(path: str, text: str) -> Exclusion:
    if "/" not in text:
        family, value = from_text(text)
        return Exclusion(path, text, family, value, value)
    family, first, length = parse_prefix(text)
    return Exclusion(path, text, family, first, first + (1 << BITS[family] - length) - 1)


def subtract(one: RangeSet, excluded: Sequence[Exclusion], path: str) -> RangeSet:
    """The set without what is excluded.

    :param path: of the set's first range, for the message.
    :raises CniError: INVALID_CONFIG where nothing is left of it.
    """
    holes = intervals.merged((each.first, each.last) for each in excluded if each.family == one.family)
    if not holes:
        return one
    left = RangeSet(tuple(part for each in one.written for part in _parts(each, holes)), one.written)
    if not ranges.size(left):
        raise CniError(
            INVALID_CONFIG, f"{_causes(excluded)} no address of the set of {path}: {ranges.describe(one)}",
            "exclude less of it, add a range to the set, or remove the set",
        )
    return left


def _causes(excluded: Sequence[Exclusion]) -> str:
    keys = sorted({each.path.partition("[")[0] for each in excluded})
    return f"{' and '.join(keys)} {'leave' if len(keys) > 1 else 'leaves'}"


def _parts(one: Range, holes: Sequence[intervals.Span]) -> Iterator[Range]:
    return (replace(one, first=low, last=high) for low, high in intervals.without([(one.first, one.last)], holes))


def warn_of_idle(excluded: Sequence[Exclusion], sets: Sequence[RangeSet], log: Log) -> None:
    """An entry that no range has an address of: a slip, or of a range that went."""
    spans = {family: sorted((one.first, one.last) for each in sets for one in each.written if one.family == family)
             for family in BITS}
    for each in excluded:
        if not intervals.meeting(spans[each.family], each.first, each.last):
            log.warning(f"{each} excludes nothing: no range has an address of it")


def covering(excluded: Sequence[Exclusion], family: int, value: int) -> Exclusion | None:
    """The first entry that holds an address, None for one that is not excluded."""
    found = (each for each in excluded if each.family == family and each.first <= value <= each.last)
    return next(found, None)
