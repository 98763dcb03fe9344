"""What a node changes in the cluster's store to be a member of the cluster: its record, and blocks of each pool.

Nothing is ever taken from another node, however long that has been silent. Only an operator removes a node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cni_v6.cluster import blocks, capacity
from cni_v6.cluster.capacity import NOTHING, Used, Withheld
from cni_v6.cluster.config import AgentConf, Pool
from cni_v6.cluster.facts import Underlay
from cni_v6.cluster.records import (
    BLOCKS,
    POOLS,
    Change,
    Claim,
    Cluster,
    NodeRecord,
    Objects,
    encode_claim,
    encode_node,
    encode_pools,
    mark_removed,
)
from cni_v6.cluster.store import Registered
from cni_v6.errors import INVALID_CONFIG, NODE_CONFLICT, CniError
from cni_v6.net.addresses import is_link_local, overlap


@dataclass(frozen=True, slots=True)
class Member:
    """This node: its name, and the random id of its state folder."""

    name: str
    id: str


def record(
    member: Member, conf: AgentConf, underlay: Underlay, cluster: Cluster, *, boot: str = "", public_key: str = ""
) -> NodeRecord:
    """The record that the node must have. A next hop stays what it was while the interface has it."""
    published = cluster.nodes[member.name].addresses if member.name in cluster.nodes else ()
    return NodeRecord(member.name, member.id, tuple(_next_hops(underlay, published)), conf.carrier, boot=boot,
                      public_key=public_key)


def _next_hops(underlay: Underlay, published: Sequence[str]) -> Iterator[str]:
    for family in (6, 4):
        usable = sorted(address for address in underlay.addresses if (":" in address) == (family == 6))
        if usable:
            yield min(usable, key=lambda address: (is_link_local(address), address not in published))


def other_boot(member: Member, cluster: Cluster, boot: str) -> str:
    """The boot that wrote the record of this very node, if it is not this one: before a reboot, or on a copy of it."""
    found = cluster.nodes.get(member.name)
    return found.boot if found and found.id == member.id and not found.removed and found.boot != boot else ""


def is_removed(member: Member, cluster: Cluster) -> bool:
    """Whether an operator has removed this very node."""
    found = cluster.nodes.get(member.name)
    return found is not None and found.removed and found.id == member.id


def changes(
    member: Member, conf: AgentConf, objects: Objects, cluster: Cluster, *, underlay: Underlay, kept: Collection[str],
    registered: Registered, boot: str = "", public_key: str = "", used: Used = MappingProxyType({}),
    withheld: Withheld = NOTHING,
) -> tuple[Change, ...]:
    """What to change, all at once; nothing for a member whose record and blocks are as they must be.

    A node has a block of each pool, those that it had before, those in which it has leases, and others while too few
    addresses are left. Of a pool without free blocks it has at least one, or cannot be a member.

    The order is for a store that has no transactions: a pool is known before a block of it is claimed, and a block is
    claimed before the node says that it is there.

    :param kept: blocks that the node had at last, in its order.
    :param registered: this node, as the store's engine knows it.
    :param boot: of this machine.
    :param public_key: of the node's WireGuard.
    :param used: leases of the node's network; nothing if they are not known.
    :raises CniError: NODE_CONFLICT if another node has the name, INVALID_CONFIG if the cluster's pools are others,
        ADDRESSES_EXHAUSTED.
    """
    _check_engine(conf, registered)
    if registered.blocks is None:
        _require_name(member, cluster)
    pools = _pools(conf, cluster)
    wanted = record(member, conf, underlay, cluster, boot=boot, public_key=public_key)
    found = []
    for pool in conf.pools:
        own = _of_pool(pool, member, cluster)
        needed = [_given(pool, registered, cluster)] if pool.given and not own else []
        if not pool.given:
            needed = [*_needed(pool, member, cluster, kept, used, withheld)]
        first = max((claim.order + 1 for claim in own), default=0)
        for order, prefix in enumerate(filter(None, needed), first):
            claim = Claim(prefix, member.name, member.id, order)
            found.append(Change(claim.key, None, encode_claim(claim)))
    if cluster.nodes.get(member.name) != wanted:
        found.append(Change(wanted.key, objects.get(wanted.key), encode_node(wanted)))
    if found or pools != objects.get(POOLS):
        # Also if they stay: a claim must fail if another node has changed them meanwhile.
        found.insert(0, Change(POOLS, objects.get(POOLS), pools))
    return tuple(found)


def _needed(
    pool: Pool, member: Member, cluster: Cluster, kept: Collection[str], used: Used, withheld: Withheld
) -> Iterator[str]:
    """The blocks of a pool that the node must claim.

    :raises CniError: ADDRESSES_EXHAUSTED, if it has none.
    """
    own = [claim.prefix for claim in _of_pool(pool, member, cluster)]
    taken = [*cluster.taken]
    for prefix in (*filter(pool.is_block, kept), *capacity.strays(pool, [*own, *kept], used)):
        if prefix not in own and blocks.is_free(prefix, taken):
            yield prefix
            own.append(prefix)
            taken.append(prefix)
    while not own or len(own) < pool.most and capacity.is_short(pool, own, used, withheld):
        try:
            prefix = blocks.choose(pool, member.name, taken)
        except CniError:
            if own:
                return
            raise
        yield prefix
        own.append(prefix)
        taken.append(prefix)


def release(prefix: str, objects: Objects) -> tuple[Change, Objects]:
    """What gives a block of the node's own back, and the objects after that."""
    key = BLOCKS + prefix
    return Change(key, objects[key], None), {known: text for known, text in objects.items() if known != key}


def awaited(member: Member, conf: AgentConf, cluster: Cluster, registered: Registered) -> Iterator[str]:
    """Why the node has no block of a pool whose blocks Kubernetes gives out, in words."""
    for pool in _missing(member, conf, cluster):
        fitting = [prefix for prefix in registered.blocks or () if pool.is_block(prefix)]
        if pool.given and fitting:
            yield f"block {fitting[0]}, which Kubernetes gives the node, is still claimed by another one"
        elif pool.given:
            given = ", ".join(registered.blocks or ()) or "none"
            yield f"Kubernetes gives the node no block of /{pool.block} of {pool.cidr} (spec.podCIDRs: {given})"


def _missing(member: Member, conf: AgentConf, cluster: Cluster) -> list[Pool]:
    """The pools of which the node has no block."""
    own = own_blocks(member, conf, cluster)
    return [pool for pool in conf.pools if not any(pool.is_block(prefix) for prefix in own)]


def _given(pool: Pool, registered: Registered, cluster: Cluster) -> str | None:
    """The block that Kubernetes gives the node; None for none, and while a claim of another node overlaps it.

    That is so when a Node is deleted: its claims go some seconds later.
    """
    return next((prefix for prefix in registered.blocks or () if pool.is_block(prefix)
                 and not any(overlap(prefix, taken) for taken in cluster.taken)), None)


def _check_engine(conf: AgentConf, registered: Registered) -> None:
    """Who gives a pool's blocks out must be clear: two who do not know of each other would give a block twice."""
    for number, pool in enumerate(conf.pools):
        where = f"pools[{number}]"
        if pool.given and registered.blocks is None:
            raise CniError(
                INVALID_CONFIG, f"{where}.podCIDRs: true, but the cluster's store is not Kubernetes",
                "remove podCIDRs, or start the agent with --cluster kubernetes",
            )
        theirs = next((prefix for prefix in registered.blocks or () if overlap(prefix, pool.cidr)), None)
        if theirs is not None and not pool.given:
            raise CniError(
                INVALID_CONFIG, f'{where}.cidr: "{pool.cidr}" has {theirs}, which Kubernetes gives this node itself',
                "write podCIDRs: true for this pool, or a prefix apart from the cluster's (--cluster-cidr)",
            )


def own_blocks(member: Member, conf: AgentConf, cluster: Cluster) -> tuple[str, ...]:
    """The node's blocks, in the order of the pools, and of a pool in the order of their claims."""
    return tuple(claim.prefix for pool in conf.pools for claim in _of_pool(pool, member, cluster))


def _of_pool(pool: Pool, member: Member, cluster: Cluster) -> list[Claim]:
    """The node's claims of a pool, in their order."""
    own = cluster.of_node(NodeRecord(member.name, member.id))
    return sorted((claim for claim in own if pool.is_block(claim.prefix)), key=lambda claim: claim.order)


def removal(name: str, objects: Objects, cluster: Cluster) -> tuple[Change, ...]:
    """What removes a node that is gone: its blocks become free, and its record says that it was removed.

    So its agent, should it run after all, learns of it. A node that was removed already: its record goes.

    :raises CniError: INVALID_CONFIG if there is no such node.
    """
    found = cluster.nodes.get(name)
    if found is None:
        names = ", ".join(sorted(cluster.nodes)) or "none"
        raise CniError(INVALID_CONFIG, f"the cluster has no node {name}", f"its nodes are: {names}")
    claims = tuple(
        Change(claim.key, objects[claim.key], None) for claim in cluster.claims if claim.node == name
    )
    text = objects[found.key]
    return (Change(found.key, text, None if found.removed else mark_removed(text)), *claims)


def _require_name(member: Member, cluster: Cluster) -> None:
    found = cluster.nodes.get(member.name)
    if found is not None and not found.removed and found.id != member.id:
        where = f" at {', '.join(found.addresses)}" if found.addresses else ""
        raise CniError(
            NODE_CONFLICT, f"another node has the name {member.name}{where}",
            f"if that is gone, or this is the same machine with a new disk: cni-v6ctl nodes --remove {member.name}; "
            "otherwise start this agent with another --node",
        )


def _pools(conf: AgentConf, cluster: Cluster) -> str:
    """The object ``pools`` with those of this node."""
    for number, pool in enumerate(conf.pools):
        for cidr, length in cluster.pools.items():
            _compare(number, pool, cidr, length)
    return encode_pools({**cluster.pools, **{pool.cidr: pool.block for pool in conf.pools}})


def _compare(number: int, pool: Pool, cidr: str, length: int) -> None:
    if cidr == pool.cidr and length != pool.block:
        raise CniError(
            INVALID_CONFIG, f"pools[{number}].block: {pool.block}, but in this cluster {cidr} has blocks of /{length}",
            f"write {length}, as on the other nodes",
        )
    if cidr != pool.cidr and overlap(cidr, pool.cidr):
        raise CniError(
            INVALID_CONFIG, f'pools[{number}].cidr: "{pool.cidr}" overlaps {cidr}, a pool of this cluster already',
            f"write {cidr}, as on the other nodes, or a prefix apart from it",
        )
