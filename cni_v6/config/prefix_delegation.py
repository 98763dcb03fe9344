"""``delegate``: the length of a prefix that is delegated to a container.

The prefix comes from the network's first IPv6 set with sequential order and without reuse. Only for such a set is it
known, without reading leases, that nobody has an address in a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import SEQUENTIAL, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.config.reader import Section, show, wrong
from cni_v6.net import addresses
from cni_v6.net.addresses import BITS
from cni_v6.values import dataclass

LEAST = 1000  # prefixes that a set must have room for: each is given once


@dataclass(frozen=True, slots=True)
class PrefixRequest:
    """The prefix that a container is to get.

    ``index``: number of the set that it is taken from. ``everybody``: all containers of the network get one, so each
    of them needs a route to the others' prefixes.
    """

    index: int
    length: int
    path: str
    everybody: bool


def read(
    sections: tuple[Section, Section, Section], sets: Sequence[RangeSet], policy: AllocationPolicy
) -> PrefixRequest | None:
    """
    :param sections: ``runtimeConfig``, ``args.cni`` and ``ipam``, the first that says something counts.
    :raises CniError: INVALID_CONFIG where there is no such set, or no room in it.
    """
    found = ((section.at("delegate"), section.number("delegate")) for section in sections)
    path, length = next(((path, length) for path, length in found if length is not None), ("", None))
    if length is None:
        return None
    index = _index(path, length, sets, policy)
    range_set = sets[index]
    longest = max(written.prefixlen for written in range_set.written)
    if length <= longest:
        raise wrong(path, length, f"is no part of {ranges.describe(range_set)}", f"write more than {longest}")
    room = blocks(range_set, length)
    if room < LEAST:
        raise wrong(
            path, length, f"leaves room for {room} prefixes in {ranges.describe(range_set)}; each is given once, so "
            f"{LEAST} are the least", "write a longer one, or a larger range",
        )
    return PrefixRequest(index, length, path, everybody=sections[-1].number("delegate") is not None)


def blocks(range_set: RangeSet, length: int) -> int:
    """How many aligned prefixes of a length lie in the ranges of a set."""
    shift = BITS[range_set.family] - length
    return sum(max(0, (part.last + 1 >> shift) - (part.first - 1 >> shift) - 1) for part in range_set.ranges)


def _index(path: str, length: int, sets: Sequence[RangeSet], policy: AllocationPolicy) -> int:
    own = [index for index, range_set in enumerate(sets) if range_set.family == 6]
    if not own:
        raise wrong(path, length, "cannot be given: no range is IPv6", "add an IPv6 range, or remove it")
    if policy.order != SEQUENTIAL:
        raise wrong(
            path, length, f"and ipam.allocation: {show(policy.order)} exclude each other: which prefix is free could "
            "not be told", 'set allocation to "sequential", or remove one of them',
        )
    found = next((index for index in own if policy.never_reuses(sets[index])), None)
    if found is None:
        raise wrong(
            path, length, "cannot be given: the IPv6 ranges give their addresses again",
            'write a range of 2^32 addresses or more, such as a /64, or "reuse": "never"',
        )
    return found


def check(
    top: Section, wanted: PrefixRequest | None, sets: Sequence[RangeSet] | None, *, is_gateway: bool,
    nptv6: tuple[str, str] | None,
) -> None:
    """What would keep a prefix from being of use.

    :param top: the configuration of the bridge plugin.
    :param sets: of our own allocation; None where another plugin has the addresses, or nobody.
    :raises CniError: INVALID_CONFIG.
    """
    if sets is None:
        _refuse_foreign(top.section("runtimeConfig"), top.section("args").section("cni"))
    if wanted is None or sets is None:
        return
    if not is_gateway:
        raise wrong(
            wanted.path, wanted.length, "needs isGateway: the node routes the prefix to the container",
            'set "isGateway": true',
        )
    if nptv6 and any(addresses.overlap(nptv6[0], ranges.subnet(part)) for part in sets[wanted.index].written):
        raise wrong(
            wanted.path, wanted.length, f"and nptv6 exclude each other: {nptv6[0]} is translated address by address",
            "remove one of them",
        )


def refuse_alone(wanted: PrefixRequest | None) -> None:
    """Where another main plugin has asked for addresses: it would give the prefix to an interface, and route nothing.

    :raises CniError: INVALID_CONFIG.
    """
    if wanted:
        raise wrong(
            wanted.path, wanted.length, 'needs "type": "cni-v6", which routes the prefix', "remove it, or use cni-v6",
        )


def _refuse_foreign(*sections: Section) -> None:
    for section in sections:
        length = section.number("delegate")
        if length is not None:
            raise wrong(
                section.at("delegate"), length, "has no effect: the addresses are not ours",
                'set ipam.type to "cni-v6-ipam", or remove it',
            )
