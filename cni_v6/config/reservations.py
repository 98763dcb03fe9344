"""Read ``ipam.reserve``: addresses that only one workload gets.

They are excluded from the ranges, and their workload gets them as if it had asked for them. So allocation need not know
of reservations, and the store keeps nothing about them.
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
    """An address of a workload. ``key``: the path of the workload; ``path``: the path of the address."""

    identity: str
    key: str
    path: str
    text: str

    @property
    def exclusion(self) -> Exclusion:
        """The entry that excludes it from the ranges."""
        family, value = from_text(self.text)
        return Exclusion(self.path, self.text, family, value, value)


def read(ipam: Section, excluded: Sequence[Exclusion]) -> tuple[Reservation, ...]:
    """All reserved addresses.

    :raises CniError: INVALID_CONFIG for an address that is reserved twice, or excluded.
    """
    found = tuple(_read(ipam))
    if found and len(found) + len(excluded) > MOST:
        raise wrong(
            ipam.at("reserve"), {}, f"and ipam.exclude have {len(found) + len(excluded)} addresses and prefixes, more "
            f"than {MOST}", "reserve or exclude fewer",
        )
    taken: dict[str, str] = {}
    for reservation in found:
        path, text = reservation.path, reservation.text
        other = taken.setdefault(text, path)
        if other != path:
            raise wrong(path, text, f"is reserved by {other} already", "reserve it once")
        entry = covering(excluded, *from_text(text))
        if entry:
            raise wrong(path, text, f"is excluded by {entry}", "take it out of one of them")
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
    """Check the reservations against the ranges.

    :raises CniError: INVALID_CONFIG for an address that is in no range, or the gateway; for two of one workload in one
        set.
    """
    gateways = [(range_set.family, ranges.gateways(range_set)) for range_set in sets]
    holders: dict[tuple[str, int], str] = {}
    for reservation in reserved:
        path, text = reservation.path, reservation.text
        family, value = from_text(text)
        number = number_of(sets, text)
        if number is None:
            where = ranges.describe_all(sets)
            raise wrong(path, text, f"is in none of the ranges: {where}", "reserve an address of a range")
        if any(family == set_family and value in values for set_family, values in gateways):
            raise wrong(path, text, "is the gateway", "reserve another address")
        other = holders.setdefault((reservation.identity, number), text)
        if other != text:
            raise wrong(path, text, f"is in the same range set as {other}", "reserve one of each set at most")


def number_of(sets: Sequence[RangeSet], text: str) -> int | None:
    """The number of the set whose ranges, as written, hold the address. It may be reserved or excluded."""
    family, value = from_text(text)
    return next((number for number, range_set in enumerate(sets) if ranges.origin(range_set, family, value)), None)


def reserved_for(
    reserved: Mapping[str, str], sets: Sequence[RangeSet], requested: tuple[str, ...], who: str
) -> tuple[str, ...]:
    """The addresses that a workload asks for, and those that are reserved for it.

    :param reserved: address -> the workload that it is reserved for.
    :raises CniError: ADDRESS_UNAVAILABLE for another workload's address, and for a second address of a set.
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
