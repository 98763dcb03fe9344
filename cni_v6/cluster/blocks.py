"""Which block a node claims: the first free one from a place that its name decides.

So nodes that start at once seldom want the same block, and a node that comes back finds the block that it had.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

from netaddr import IPNetwork

from cni_v6.cluster.config import Pool
from cni_v6.errors import ADDRESSES_EXHAUSTED, CniError
from cni_v6.net.addresses import BITS, overlap, to_text
from cni_v6.net.intervals import Span, merged


def choose(pool: Pool, node: str, taken: Iterable[str]) -> str:
    """A block that no claim overlaps, in canonical form.

    :param taken: the prefixes of all claims of the cluster.
    :raises CniError: ADDRESSES_EXHAUSTED.
    """
    network = IPNetwork(pool.cidr)
    size = 1 << BITS[pool.family] - pool.block
    count = 1 << pool.block - network.prefixlen
    spans = merged((prefix.first, prefix.last) for prefix in map(IPNetwork, taken) if prefix.version == pool.family)
    start = int.from_bytes(hashlib.sha256(node.encode()).digest(), "big") % count
    number = _next_free(network.first, size, start, count, spans)
    if number is None:
        number = _next_free(network.first, size, 0, start, spans)
    if number is None:
        raise CniError(
            ADDRESSES_EXHAUSTED, f"pool {pool.cidr} has no free block of /{pool.block}: all {count} are claimed",
            "remove nodes that are gone (cni-v6ctl nodes --remove NAME), or start a cluster with a larger pool",
        )
    return f"{to_text(pool.family, network.first + number * size)}/{pool.block}"


def is_free(block: str, taken: Iterable[str]) -> bool:
    """Whether no claim overlaps a block."""
    return not any(overlap(block, prefix) for prefix in taken)


@lru_cache(1 << 10)  # the agent asks for its few with each container
def ends(prefix: str) -> Span:
    """The first and the last address of a prefix."""
    network = IPNetwork(prefix)
    return int(network.first), int(network.last)


def containing(pool: Pool, value: int) -> str | None:
    """The block of a pool that has an address of its family; None for one outside of the pool."""
    first, last = ends(pool.cidr)
    if not first <= value <= last:
        return None
    bits = BITS[pool.family] - pool.block
    return f"{to_text(pool.family, value >> bits << bits)}/{pool.block}"


def _next_free(base: int, size: int, number: int, end: int, spans: tuple[tuple[int, int], ...]) -> int | None:
    """The first block from ``number`` to before ``end`` without an address of the spans."""
    while number < end:
        first = base + number * size
        place = bisect_right(spans, first + size - 1, key=lambda span: span[0]) - 1
        if place < 0 or spans[place][1] < first:
            return number
        number = (spans[place][1] - base) // size + 1
    return None
