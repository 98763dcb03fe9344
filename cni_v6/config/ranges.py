"""Read the ranges of the configuration, check each against its subnet, and subtract what is excluded.

``ipam.exclude`` is subtracted here: a written range becomes several, with the same subnet and gateway. So allocation
need not know of exclusions, and the store keeps nothing about them.
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
    :param prefixes: the prefixes of the interfaces that ranges follow, by interface.
    :raises CniError: INVALID_CONFIG where a key lies outside the subnet, or no address is left to hand out.
    """
    follow = interface_prefix.read(section)
    subnet = interface_prefix.subnet(follow, prefixes) if follow else section.text("subnet")
    family, network, length = parse_prefix(subnet)
    last = network + (1 << BITS[family] - length) - 1
    whole = Range(family, network, length, network + 1, last - (family == 4), "")
    gateway = _gateway(section, whole, LINK_LOCAL_GATEWAY if follow else to_text(family, whole.network + 1))
    start, end = _end(section, "rangeStart", whole), _end(section, "rangeEnd", whole)
    written = replace(
        whole, first=whole.first if start is None else start, last=whole.last if end is None else end, gateway=gateway,
    )
    if written.first > written.last:
        raise wrong(
            section.at("rangeStart"), to_text(family, written.first),
            f"is after rangeEnd {to_text(family, written.last)}", "swap them",
        )
    return _without_ends(written, whole, section, log)


def _gateway(section: Section, whole: Range, default: str) -> str:
    text = section.text("gateway")
    if not text:
        return default
    family, value = from_text(text)
    if whole.family == 6 and link_local(family, value, BITS[family]):
        return text
    if not _inside(whole, family, value):
        remedy = "write an address of the subnet"
        if whole.family == 6:
            remedy += ', or "link-local"'
        raise wrong(section.at("gateway"), text, f"is not in {ranges.subnet(whole)}", remedy)
    if family == 4 and value in (whole.network, whole.last + 1):
        raise wrong(
            section.at("gateway"), text, f"is the network or broadcast address of {ranges.subnet(whole)}",
            f"write a host address, such as {to_text(4, whole.first)}",
        )
    return text


def _end(section: Section, name: str, whole: Range) -> int | None:
    text = section.text(name)
    if not text:
        return None
    family, value = from_text(text)
    if not _inside(whole, family, value):
        reason = f"is not in network {ranges.subnet(whole)}"
        raise wrong(section.at(name), text, reason, "write an address of the subnet")
    return value


def _inside(whole: Range, family: int, value: int) -> bool:
    shift = BITS[whole.family] - whole.prefixlen
    return family == whole.family and value >> shift == whole.network >> shift


def _without_ends(written: Range, whole: Range, section: Section, log: Log) -> Range:
    """The range without the network and broadcast addresses. The reference hands them out where they are written."""
    first, last = max(written.first, whole.first), min(written.last, whole.last)
    if first > last:
        raise wrong(
            section.path, {}, f"has no address to hand out of {ranges.subnet(whole)}", "widen rangeStart or rangeEnd",
        )
    if (first, last) != (written.first, written.last):
        kept = f"{to_text(whole.family, first)} to {to_text(whole.family, last)}"
        log.info(f"{section.path}: network and broadcast address are not handed out, only {kept}")
    return replace(written, first=first, last=last)


# What is excluded


class Exclusion(NamedTuple):
    """An entry of ``exclude``: the addresses ``first`` to ``last``, both included."""

    path: str
    text: str
    family: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path} ({self.text})"


def read_exclusions(ipam: Section) -> tuple[Exclusion, ...]:
    """
    :raises CniError: INVALID_CONFIG for more than MOST entries.
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
    paths = {address: follow.path for follow in follows for address in prefixes[follow.interface].own}
    return tuple(_exclusion(f"{path}.from", address) for address, path in paths.items())


def subtract(full: RangeSet, excluded: Sequence[Exclusion], path: str) -> RangeSet:
    """The set without what is excluded.

    :param path: of the set's first range, for the message.
    :raises CniError: INVALID_CONFIG where nothing is left of it.
    """
    holes = intervals.merged((entry.first, entry.last) for entry in excluded if entry.family == full.family)
    if not holes:
        return full
    left = RangeSet(tuple(part for written in full.written for part in _parts(written, holes)), full.written)
    if not ranges.size(left):
        raise CniError(
            INVALID_CONFIG, f"{_causes(excluded)} no address of the set of {path}: {ranges.describe(full)}",
            "exclude less of it, add a range to the set, or remove the set",
        )
    return left


def without(range_set: RangeSet, addresses: Iterable[str]) -> RangeSet:
    """The set without these addresses, canonical; the same object if it has none of them."""
    values = (value for family, value in map(from_text, addresses) if family == range_set.family)
    holes = intervals.merged((value, value) for value in values
                             if any(part.first <= value <= part.last for part in range_set.ranges))
    if not holes:
        return range_set
    return RangeSet(tuple(left for part in range_set.ranges for left in _parts(part, holes)), range_set.written)


def _causes(excluded: Sequence[Exclusion]) -> str:
    keys = sorted({entry.path.partition("[")[0] for entry in excluded})
    return f"{' and '.join(keys)} {'leave' if len(keys) > 1 else 'leaves'}"


def _parts(written: Range, holes: Sequence[intervals.Span]) -> Iterator[Range]:
    left = intervals.without([(written.first, written.last)], holes)
    return (replace(written, first=first, last=last) for first, last in left)


def warn_of_idle(excluded: Sequence[Exclusion], sets: Sequence[RangeSet], log: Log) -> None:
    """Warn of an entry that no range has an address of: a slip, or one for a range that was removed."""
    written = [part for range_set in sets for part in range_set.written]
    spans = {family: sorted((part.first, part.last) for part in written if part.family == family) for family in BITS}
    for entry in excluded:
        if not intervals.meeting(spans[entry.family], entry.first, entry.last):
            log.warning(f"{entry} excludes nothing: no range has an address of it")


def covering(excluded: Sequence[Exclusion], family: int, value: int) -> Exclusion | None:
    """The first entry that holds the address; None where it is not excluded."""
    found = (entry for entry in excluded if entry.family == family and entry.first <= value <= entry.last)
    return next(found, None)
