"""Which address families a container is attached with: what the node lacks, and what a container may go without.

A family that ``ipam.required`` does not name is left out as a whole where one of its sets is exhausted or the node has
it off; what is left is attached as if the configuration had nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cni_v6.allocation.ranges import RangeSet
from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, CniError

NAMES = {4: "ipv4", 6: "ipv6"}


def optional(ipam: Section, sets: Sequence[RangeSet]) -> frozenset[int]:
    """The families that a container may go without, from ``ipam.required``.

    :raises CniError: INVALID_CONFIG for a family without a range, and where none is left.
    """
    found = frozenset(one.family for one in sets)
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
    """The families that a container goes without, and why, before any address is leased.

    :param without: those that it may.
    :param off: why there is no IPv6.
    :raises CniError: IPV6_DISABLED where it is required.
    """
    if off is None or not any(one.family == 6 for one in sets):
        return {}
    if 6 not in without:
        raise off
    return {6: off}
