"""Decide which address families a container gets.

A family that ``ipam.required`` does not name is optional. It is left out where one of its sets is exhausted, or where
the node has it off. The container is then attached as if the configuration had the other family only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cni_v6.allocation.ranges import RangeSet
from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, CniError

NAMES = {4: "ipv4", 6: "ipv6"}


def optional(ipam: Section, sets: Sequence[RangeSet]) -> frozenset[int]:
    """The families that ``ipam.required`` does not name.

    :raises CniError: INVALID_CONFIG for a required family without a range, and for an empty list.
    """
    found = frozenset(range_set.family for range_set in sets)
    if "required" not in ipam.given:
        return frozenset()
    names, path = ipam.texts("required"), ipam.at("required")
    if not names:
        raise CniError(
            INVALID_CONFIG, f"{path} is empty: a container needs an address of one family",
            'write one, such as ["ipv6"], or leave it out: all are required then',
        )
    for at, name in enumerate(names):
        if name not in {NAMES[family] for family in found}:
            raise wrong(f"{path}[{at}]", name, "is a family that no range is of", "add a range of it, or take it out")
    return frozenset(family for family in found if NAMES[family] not in names)


def lost(sets: Sequence[RangeSet], without: Collection[int], off: CniError | None) -> Mapping[int, CniError]:
    """The families that the node cannot give, and why. Asked before an address is leased.

    :param without: the optional families.
    :param off: why the node has no IPv6; None where it has.
    :raises CniError: IPV6_DISABLED where IPv6 is required.
    """
    if off is None or not any(range_set.family == 6 for range_set in sets):
        return {}
    if 6 not in without:
        raise off
    return {6: off}
