"""Addresses that are one workload's alone: ``ipam.reserve``.

No range hands them out, as if they were excluded; the workload that they are for has them as if it had asked for them.
So nothing that hands out addresses has to know of it, and the store keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import RangeSet
from cni_v6.config import workload
from cni_v6.config.ranges import MOST, Exclusion, covering
from cni_v6.config.reader import Section, named, show, wrong
from cni_v6.errors import ADDRESS_UNAVAILABLE, CniError
from cni_v6.net.addresses import from_text


class Reservation(NamedTuple):
    """One address of a workload; ``key``: the path of the workload, ``path``: of the address."""

    identity: str
    key: str
    path: str
    text: str

    @property
    def exclusion(self) -> Exclusion:
        """What the ranges lack."""
        family, value = from_text(self.text)
        return Exclusion(self.path, self.text, family, value, value)


def read(ipam: Section, excluded: Sequence[Exclusion]) -> tuple[Reservation, ...]:
    """Every address that is reserved, none of them twice, and none that is excluded.

    :raises CniError: INVALID_CONFIG.
    """
    found = tuple(_read(ipam))
    if found and len(found) + len(excluded) > MOST:
        raise wrong(
            ipam.at("reserve"), {}, f"and ipam.exclude have {len(found) + len(excluded)} addresses and prefixes, more "
            f"than {MOST}", "reserve or exclude fewer",
        )
    taken: dict[str, str] = {}
    for each in found:
        other = taken.setdefault(each.text, each.path)
        if other != each.path:
            raise wrong(each.path, each.text, f"is reserved by {other} already", "reserve it once")
        entry = covering(excluded, *from_text(each.text))
        if entry:
            raise wrong(each.path, each.text, f"is excluded by {entry}", "take it out of one of them")
    return found


def _read(ipam: Section) -> Iterator[Reservation]:
    path = ipam.at("reserve")
    for who, texts in ipam.named("reserve").items():
        key = named(path, who)
        if not workload.is_one(who):
            raise wrong(
                path, who, "is no workload", "write a pod as namespace/name, a container by its name or its id",
            )
        if not texts:
            raise wrong(key, [], "reserves nothing", "write an address into it, or remove it")
        for at, text in enumerate(texts):
            yield Reservation(who, key, f"{key}[{at}]" if len(texts) > 1 else key, text)


def check(reserved: Sequence[Reservation], sets: Sequence[RangeSet]) -> None:
    """Each is an address that a container can have, and a workload has one of each set at most.

    :raises CniError: INVALID_CONFIG.
    """
    gateways = [ranges.gateways(one) for one in sets]
    holders: dict[tuple[str, int], str] = {}
    for each in reserved:
        family, value = from_text(each.text)
        number = number_of(sets, each.text)
        if number is None:
            where = ranges.describe_all(sets)
            raise wrong(each.path, each.text, f"is in none of the ranges: {where}", "reserve an address of a range")
        if any(one.family == family and value in found for one, found in zip(sets, gateways)):
            raise wrong(each.path, each.text, "is the gateway", "reserve another address")
        other = holders.setdefault((each.identity, number), each.text)
        if other != each.text:
            raise wrong(each.path, each.text, f"is in the same range set as {other}", "reserve one of each set at most")


def number_of(sets: Sequence[RangeSet], text: str) -> int | None:
    """The number of the set that an address is of, reserved or excluded though it may be."""
    family, value = from_text(text)
    return next((number for number, one in enumerate(sets) if ranges.origin(one, family, value)), None)


def reserved_for(
    reserved: Mapping[str, str], sets: Sequence[RangeSet], requested: tuple[str, ...], who: str
) -> tuple[str, ...]:
    """What a workload asks for, with what is reserved for it.

    :param reserved: address -> the workload it is for.
    :raises CniError: ADDRESS_UNAVAILABLE for what is another's, and for a second address of a set.
    """
    own = tuple(text for text, holder in reserved.items() if holder == who)
    numbers = {number_of(sets, text): text for text in own}
    for text in requested:
        holder = reserved.get(text, who)
        if holder != who:
            raise CniError(
                ADDRESS_UNAVAILABLE, f"{text} is reserved: {named('ipam.reserve', holder)}",
                f"ask for another address, or change ipam.reserve; this workload is {show(who)}",
            )
        mine = numbers.get(number_of(sets, text), text)
        if mine != text:
            raise CniError(
                ADDRESS_UNAVAILABLE, f"{text} is asked for, and {mine} of the same range set is reserved: "
                f"{named('ipam.reserve', who)}", "ask for no other, or change ipam.reserve",
            )
    return *(text for text in requested if text not in own), *own
