"""How fast the addresses of a network are used up, and how long they last, from what its leases tell. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import SEQUENTIAL, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.net import intervals
from cni_v6.net.addresses import from_text
from cni_v6.planning.prefix_plan import YEAR

UNITS = (("s", 1), ("min", 60), ("h", 3600), ("d", 86400))


@dataclass(frozen=True, slots=True)
class Observed:
    """Number of addresses used in a time. ``least``: there may have been more, which are not recorded."""

    count: int
    seconds: float
    least: bool

    @property
    def rate(self) -> Fraction:
        """Addresses per second."""
        return self.count / Fraction(self.seconds)


@dataclass(frozen=True, slots=True)
class Usage:
    """A set as it is used now.

    ``spent``: what was given and is not given again, of a set that gives addresses ``once``; else 0. ``wait``: seconds
    from an address's release to its next holder. ``assumed``: the rate that somebody gave, addresses per second.
    """

    size: int
    leased: int
    spent: int
    once: bool
    order: str
    wait: float
    observed: Observed | None
    assumed: Fraction | None

    @property
    def left(self) -> int:
        """How many addresses there are to give."""
        return max(0, self.size - (self.spent if self.once else self.leased))

    @property
    def rate(self) -> Fraction | None:
        """Addresses per second; None where nobody knows."""
        return self.assumed or (self.observed.rate if self.observed else None)

    @property
    def years(self) -> Fraction | None:
        """How long what is left lasts; of a set whose addresses come again, until it comes round."""
        return self.left / self.rate / YEAR if self.rate else None

    @property
    def needed(self) -> int:
        """How large a set has to be at this rate for its addresses to wait as long as they should."""
        return self.leased + math.ceil((self.rate or 0) * Fraction(self.wait))

    @property
    def verdict(self) -> str:
        """A sentence on whether a set with reuse can keep ``ipam.reuseAfter`` at this rate; "" if not applicable."""
        if self.once or self.order == STABLE or not self.rate:
            return ""
        if self.needed <= self.size:
            return f"addresses wait {self.wait:g} s before they come again, as ipam.reuseAfter says"
        return (f"too small for ipam.reuseAfter ({self.wait:g} s): at this rate that takes {self.needed:,} addresses, "
                f"so they come again sooner")


def usage(
    addresses: RangeSet, policy: AllocationPolicy, spent: int, held: Sequence[tuple[str, float]], now: float,
    assumed: Fraction | None,
) -> Usage:
    """The usage of one set.

    :param spent: ``leases.Transaction.spent``.
    :param held: (address, time of its lease) of the network's attachments.
    :param now: seconds since the epoch, as are the times in ``held``.
    :param assumed: ADDs per second to assume; None for the observed rate.
    """
    inside = [(from_text(text), created) for text, created in held]
    mine = [(value, created) for (family, value), created in inside if ranges.origin(addresses, family, value)]
    once = policy.never_reuses(addresses)
    given = spent if once else 0
    observed = _observed(addresses, mine, now, given if policy.order == SEQUENTIAL else 0)
    return Usage(ranges.size(addresses), len(mine), given, once, policy.order, policy.wait, observed, assumed)


@dataclass(frozen=True, slots=True)
class Growth:
    """How many addresses of a set were given, over time.

    ``points``: (seconds since the epoch, number), rising; the last one is now. ``complete``: those that were released
    are counted, too.
    """

    points: tuple[tuple[float, int], ...]
    complete: bool


def growth(addresses: RangeSet, seen: Usage, held: Sequence[tuple[str, float]], now: float) -> Growth:
    """The growth of a set, as far as its leases tell. Arguments as of ``usage``; ``seen`` is its answer.

    In a sequence that never returns, the place of an address is the number of those that were given before it.
    """
    inside = [(from_text(text), created) for text, created in held]
    known = sorted((created, value) for (family, value), created in inside
                   if 0 < created <= now and ranges.origin(addresses, family, value))
    if seen.once and seen.order == SEQUENTIAL:
        points: list[tuple[float, int]] = []
        for created, value in known:
            place = _place(addresses, value)
            if place is not None and (points[-1][1] if points else 0) < place <= seen.spent:
                points.append((created, place))
        return Growth((*points, (now, seen.spent)), complete=True)
    counted = [(created, number) for number, (created, _) in enumerate(known, 1)]
    return Growth((*counted, (now, len(known))), complete=False)


def per(rate: Fraction) -> str:
    """A rate for people: in the smallest unit of time that has at least one, with three digits."""
    name, seconds = next((unit for unit in UNITS if rate * unit[1] >= 1), UNITS[-1])
    value = float(rate * seconds)
    return f"{value:,.0f}/{name}" if value >= 100 else f"{value:.3g}/{name}"


def _observed(addresses: RangeSet, held: Collection[tuple[int, float]], now: float, spent: int) -> Observed | None:
    """From the oldest attachment on, of those whose time can be believed.

    In a sequence that never returns, two addresses tell how many were given in between, released ones too. Of others
    only what is still there tells that it was given.
    """
    known = sorted((created, value) for value, created in held if 0 < created < now)
    if not known:
        return None
    seconds = now - known[0][0]
    places = [place for place in (_place(addresses, value) for _, value in known) if place is not None]
    # An address that was asked for lies anywhere, not where the sequence is.
    in_turn = [place for place in places if spent and place < spent + len(ranges.gateways(addresses))]
    between = max(in_turn) - in_turn[0] if in_turn and places[0] == in_turn[0] else 0
    if between:
        return Observed(between, seconds, least=False)
    return Observed(len(known) - 1, seconds, least=True) if len(known) > 1 else None


def _place(addresses: RangeSet, value: int) -> int | None:
    """How many addresses of the set come before one; None for one that is excluded by now."""
    return intervals.place(((part.first, part.last) for part in addresses.ranges), value)
