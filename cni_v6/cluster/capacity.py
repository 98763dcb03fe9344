"""How full a node's blocks are: whether it needs another one of a pool, and which it can do without. Pure.

A block goes in two steps. Empty for a while, it leaves the configuration list, so that no container gets an address of
it any more. Empty for as long after that, it is given back. A runtime may have read the list before: what it starts
meanwhile has a lease, and the block is back in the list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cni_v6.cluster.blocks import ends
from cni_v6.cluster.config import Pool
from cni_v6.net import intervals
from cni_v6.net.addresses import version
from cni_v6.net.intervals import Span

Used = Mapping[str, int]  # leases in each block of the pools, the node's own or not; one without any may be missing
CALM = 2  # times ``Pool.low`` must be free in the others before a block is one too many: else it is soon claimed again


class Leases(Protocol):
    """The leases of the node's network, by blocks of the pools of which a node may have several."""

    def used(self) -> Used | None:
        """None if there is no store of leases: nobody had an address, or it was removed under running containers.

        :raises CniError: they cannot be counted.
        """
        ...

    def look(self) -> Used | None:
        """The same, believing nothing that was known before."""
        ...

    def attend(self, own: Sequence[str]) -> None:
        """From now on tell when ``situation`` is another one for these blocks of the node."""
        ...


@dataclass(frozen=True, slots=True)
class Withheld:
    """What no container of a block gets, or one alone: spans by family. ``reserved``: those for a workload."""

    spans: Mapping[int, Sequence[Span]]
    reserved: Mapping[int, Sequence[Span]]

    def count(self, block: str) -> int:
        """How many addresses of a block."""
        first, last = ends(block)
        found = intervals.meeting(self.spans[version(block)], first, last)
        return intervals.total((max(low, first), min(high, last)) for low, high in found)

    def reserves(self, block: str) -> bool:
        """Whether an address of a block is reserved."""
        return bool(intervals.meeting(self.reserved[version(block)], *ends(block)))


NOTHING = Withheld({4: (), 6: ()}, {4: (), 6: ()})


def of_pool(pool: Pool, own: Iterable[str]) -> list[str]:
    return [block for block in own if pool.is_block(block)]


def strays(pool: Pool, own: Collection[str], used: Used) -> list[str]:
    """Blocks in which the node has leases, and which are not its own."""
    return sorted(block for block, leases in used.items() if leases and pool.is_block(block) and block not in own)


def is_short(pool: Pool, blocks: Collection[str], used: Used, withheld: Withheld = NOTHING) -> bool:
    """Whether a node with these blocks of a pool needs another one."""
    return pool.may_have_several and sum(_free(pool, block, used, withheld) for block in blocks) < pool.low


def dispensable(
    pool: Pool, blocks: Sequence[str], used: Used, withheld: Withheld = NOTHING, kept: Collection[str] = ()
) -> list[str]:
    """The empty blocks of a pool that a node can do without, all at once; the youngest go first.

    :param blocks: those of the node, in the order of their claims. One always stays.
    :param kept: those that stay whatever is in them.
    """
    if not pool.may_have_several:
        return []
    free = sum(_free(pool, block, used, withheld) for block in blocks)
    found: list[str] = []
    for block in reversed(blocks):
        left = free - _free(pool, block, used, withheld)
        is_empty = not used.get(block) and not withheld.reserves(block) and block not in kept
        if is_empty and left >= CALM * pool.low and len(found) + 1 < len(blocks):
            found.append(block)
            free = left
    return found


def _free(pool: Pool, block: str, used: Used, withheld: Withheld) -> int:
    """How many containers may still get an address of a block."""
    return max(0, pool.room - used.get(block, 0) - withheld.count(block))


def situation(pools: Iterable[Pool], own: Sequence[str], used: Used, withheld: Withheld = NOTHING) -> object:
    """What of the leases decides anything: only when it is another one is there something to do."""
    return [(is_short(pool, blocks, used, withheld), dispensable(pool, blocks, used, withheld),
             strays(pool, blocks, used)) for pool in pools for blocks in [of_pool(pool, own)]]


# What becomes of a block that is not needed


@dataclass(frozen=True, slots=True)
class Idle:
    """A block that is not needed. ``since``: when that was seen first. ``closed``: when the configuration list was
    written without it, None while that has it. Both in seconds of one clock."""

    since: float
    closed: float | None = None


Idles = Mapping[str, Idle]


def observed(before: Idles, unneeded: Iterable[str], now: float) -> Idles:
    """What is known of the blocks that are not needed now; one that was needed again begins anew."""
    return {block: before.get(block, Idle(now)) for block in unneeded}


def leaving(idle: Idles, now: float, seconds: float) -> frozenset[str]:
    """The blocks that the configuration list must be without."""
    return frozenset(block for block, known in idle.items()
                     if known.closed is not None or now - known.since >= seconds)


def closed(idle: Idles, blocks: Collection[str], now: float) -> Idles:
    """The list is without these blocks now."""
    return {block: replace(known, closed=now) if block in blocks and known.closed is None else known
            for block, known in idle.items()}


def due(idle: Idles, now: float, seconds: float) -> list[str]:
    """The blocks to give back."""
    return [block for block, known in idle.items() if known.closed is not None and now - known.closed >= seconds]


def wait(idle: Idles, now: float, seconds: float) -> float | None:
    """For how long nothing of this changes by time alone; None: for ever. What is due is to be done now."""
    last = (known.since if known.closed is None else known.closed for known in idle.values())
    return min((left for moment in last if (left := moment + seconds - now) > 0), default=None)


# What to say


def complaints(
    pools: Iterable[Pool], own: Sequence[str], used: Used, withheld: Withheld, holders: Mapping[str, str], *,
    joined: bool,
) -> Iterator[str]:
    """Why a node has too few addresses left; which of its containers are where another node's belong.

    :param holders: the nodes that have blocks, by block.
    :param joined: the node could claim blocks in this step.
    """
    for pool in pools:
        blocks = of_pool(pool, own)
        for block in strays(pool, blocks, used):
            if block in holders:
                yield (f"containers of this node have addresses of block {block}, which node {holders[block]} has: end "
                       "them, as other nodes do not reach them")
        if not blocks or not is_short(pool, blocks, used, withheld):
            continue
        few = f"fewer than {pool.low} addresses of pool {pool.cidr} are left on this node"
        if len(blocks) >= pool.most:
            yield f"{few}, and it has the most blocks that it may have (maxBlocks: {pool.most})"
        elif not joined:
            yield f"{few}, and it can claim no other block now"
        else:
            yield (f"{few}, and the pool has no free block of /{pool.block}: remove nodes that are gone (cni-v6ctl "
                   "nodes --remove NAME), or start a cluster with a larger pool")
