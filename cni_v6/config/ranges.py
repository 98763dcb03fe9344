"""The ranges of the configuration: each checked against its subnet, then less what is excluded.

``ipam.exclude`` is subtracted when the ranges are read: a set gets several ranges where one was written, of the same
subnet and gateway. So nothing that hands out addresses has to know of it, and the store keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.config import interface_prefix
from cni_v6.config.formats import LINK_LOCAL_GATEWAY, parse_prefix
from cni_v6.config.interface_prefix import InterfacePrefixes, InterfaceRange
from cni_v6.config.reader import Section, wrong
from cni_v6.config.text import link_local
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.log import Log
from cni_v6.net import intervals
from cni_v6.net.addresses import BITS, from_text, to_text

MOST = 512  # entries of ``exclude``: each may cut a range in two, and an ADD looks through all of them


def read(section: Section, log: Log, prefixes: InterfacePrefixes = MappingProxyType({})) -> Range:
    """
    :param prefixes: of the interface that it follows, where it does.
    :raises CniError: INVALID_CONFIG for what lies outside the subnet, and where nothing is left to hand out.
    """
    follow = interface_prefix.read(section)
    written = interface_prefix.subnet(follow, prefixes) if follow else section.text("subnet")
    family, network, length = parse_prefix(written)
    last = network + (1 << BITS[family] - length) - 1
    bare = Range(family, network, length, network + 1, last - (family == 4), "")
    gateway = _gateway(section, bare, LINK_LOCAL_GATEWAY if follow else to_text(family, bare.network + 1))
    start, end = _end(section, "rangeStart", bare), _end(section, "rangeEnd", bare)
    one = replace(
        bare, first=bare.first if start is None else start, last=bare.last if end is None else end, gateway=gateway,
    )
    if one.first > one.last:
        raise wrong(
            section.at("rangeStart"), to_text(family, one.first), f"is after rangeEnd {to_text(family, one.last)}",
            "swap them",
        )
    return _without_ends(one, bare, section, log)


def _gateway(section: Section, bare: Range, usual: str) -> str:
    text = section.text("gateway")
    if not text:
        return usual
    family, value = from_text(text)
    if bare.family == 6 and link_local(family, value, BITS[family]):
        return text
    if not _inside(bare, family, value):
        remedy = "write an address of the subnet"
        if bare.family == 6:
            remedy += ', or "link-local"'
        raise wrong(section.at("gateway"), text, f"is not in {ranges.subnet(bare)}", remedy)
    if family == 4 and value in (bare.network, bare.last + 1):
        raise wrong(
            section.at("gateway"), text, f"is the network or broadcast address of {ranges.subnet(bare)}",
            f"write a host address, such as {to_text(4, bare.first)}",
        )
    return text


def _end(section: Section, name: str, bare: Range) -> int | None:
    text = section.text(name)
    if not text:
        return None
    family, value = from_text(text)
    if not _inside(bare, family, value):
        reason = f"is not in network {ranges.subnet(bare)}"
        raise wrong(section.at(name), text, reason, "write an address of the subnet")
    return value


def _inside(one: Range, family: int, value: int) -> bool:
    shift = BITS[one.family] - one.prefixlen
    return family == one.family and value >> shift == one.network >> shift


def _without_ends(one: Range, bare: Range, section: Section, log: Log) -> Range:
    """The range less the network and broadcast addresses, which the reference hands out when told to."""
    first, last = max(one.first, bare.first), min(one.last, bare.last)
    if first > last:
        raise wrong(
            section.path, {}, f"has no address to hand out of {ranges.subnet(bare)}", "widen rangeStart or rangeEnd",
        )
    if (first, last) != (one.first, one.last):
        kept = f"{to_text(one.family, first)} to {to_text(one.family, last)}"
        log.info(f"{section.path}: network and broadcast address are not handed out, only {kept}")
    return replace(one, first=first, last=last)


# What is excluded


class Exclusion(NamedTuple):
    """One entry: the addresses ``first`` to ``last``, inclusive."""

    path: str
    text: str
    family: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path} ({self.text})"


def read_exclusions(ipam: Section) -> tuple[Exclusion, ...]:
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


def own_addresses(follows: Iterable[InterfaceRange], prefixes: InterfacePrefixes) -> tuple[Exclusion, ...]:
    """The node's own addresses in these prefixes, which no container can have."""
    found = {address: follow.path for follow in follows for address in prefixes[follow.interface].own}
    return tuple(
        Exclusion(f"{path}.from", address, 6, value, value)
        for address, path in found.items() for value in (from_text(address)[1],)
    )


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
