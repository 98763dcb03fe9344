"""One range of the configuration: its ends and its gateway, checked against its subnet."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import Range
from cni_v6.config import interface_prefix
from cni_v6.config.formats import LINK_LOCAL_GATEWAY, parse_prefix
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.reader import Section, wrong
from cni_v6.config.text import link_local
from cni_v6.log import Log
from cni_v6.net.addresses import BITS, from_text, to_text


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
