"""Which routes a node must have, and what makes them of those that it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.facts import AddRoute, Op, RemoveRoute, Route, Underlay
from cni_v6.cluster.membership import Member, own_blocks
from cni_v6.cluster.records import Claim, Cluster, NodeRecord


@dataclass(frozen=True, slots=True)
class Wanted:
    """``complaints``: why blocks have no route, in words."""

    routes: frozenset[Route]
    complaints: tuple[str, ...] = ()


class _NoRoute(Exception):
    """Why a block has no route."""


def wanted(member: Member, conf: AgentConf, cluster: Cluster, underlay: Underlay | None) -> Wanted:
    """A route to each block of another node, and an unreachable one for each own block.

    Without that, a packet to an address of the block that no container has would go out by the default route. The
    network's own routes win over it. Only blocks of the node's own pools have routes: no object of the store can draw
    other packets to a node.
    """
    routes = [Route(prefix) for prefix in own_blocks(member, conf, cluster)]
    complaints = []
    for claim in cluster.claims:
        if (claim.node, claim.id) == (member.name, member.id):
            continue
        try:
            routes.append(_to(claim, conf, cluster, underlay))
        except _NoRoute as reason:
            complaints.append(f"no route to block {claim.prefix} of node {claim.node}: {reason}")
    return Wanted(frozenset(routes), tuple(complaints))


def difference(seen: Iterable[Route], routes: Iterable[Route]) -> Iterator[Op]:
    """What to do so that a node has exactly these routes. Removals come first: a prefix may get another next hop."""
    there, needed = frozenset(seen), frozenset(routes)
    yield from (RemoveRoute(route) for route in sorted(there - needed, key=str))
    yield from (AddRoute(route) for route in sorted(needed - there, key=str))


def _to(claim: Claim, conf: AgentConf, cluster: Cluster, underlay: Underlay | None) -> Route:
    if conf.pool_of(claim.prefix) is None:
        raise _NoRoute("it is not a block of a pool of this node")
    node = cluster.nodes.get(claim.node)
    if node is None or node.id != claim.id or node.removed:
        raise _NoRoute("that node is not in the cluster's store")
    if node.carrier != conf.carrier:
        raise _NoRoute(f"its carrier is {node.carrier}, and here it is {conf.carrier}")
    if underlay is None:
        raise _NoRoute("this node has no interface to the other nodes")
    return Route(claim.prefix, underlay.ifname, _next_hop(claim, node, underlay))


def _next_hop(claim: Claim, node: NodeRecord, underlay: Underlay) -> str:
    """Of the block's own family if both nodes have it, else of IPv6."""
    families = {4: any(":" not in address for address in underlay.addresses),
                6: any(":" in address for address in underlay.addresses)}
    for family in (4, 6) if ":" not in claim.prefix else (6,):
        hop = node.address(family)
        if hop and families[family]:
            return hop
    raise _NoRoute("the two nodes have no address of one family to reach it")
