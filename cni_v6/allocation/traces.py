"""What the allocator still knows of the past of a set: addresses that wait, and those that are never given again."""

from __future__ import annotations

from cni_v6.allocation.ranges import RangeSet, origin
from cni_v6.allocation.release_queue import Queue
from cni_v6.allocation.used import UsedAddresses
from cni_v6.net import intervals
from cni_v6.net.addresses import from_text
from cni_v6.net.intervals import Span
from cni_v6.values import dataclass

MOST = 4096  # addresses of random orders that are computed


@dataclass(frozen=True, slots=True)
class Traces:
    """``waiting``: released addresses that may be given again, with the time of their release, the oldest first.
    ``spent``: spans that were, or may have been, handed out and never are again; sorted. ``omitted``: how many
    addresses that were handed out at random are not among them.
    """

    waiting: tuple[tuple[int, float], ...] = ()
    spent: tuple[Span, ...] = ()
    omitted: int = 0


def of(used: UsedAddresses, queue: Queue, addresses: RangeSet) -> Traces:
    """The traces of a set."""
    released = ((from_text(entry.address), entry.time) for entry in queue)
    waiting = tuple((value, time) for (family, value), time in released if origin(addresses, family, value))
    closed = intervals.without(used.intervals, used.open)
    spent = [(max(low, part.first), min(high, part.last)) for part in addresses.written
             for low, high in intervals.meeting(closed, part.first, part.last)]
    orders = [order for order in used.draws if any(intervals.meeting(order.spans, part.first, part.last)
                                                   for part in addresses.written)]
    given = [order.address(place) for order in orders for place in range(min(order.next, MOST // len(orders)))]
    drawn = ((value, value) for value in given if origin(addresses, addresses.family, value))
    omitted = sum(order.next for order in orders) - len(given)
    return Traces(waiting, intervals.merged((*spent, *drawn)), omitted)
