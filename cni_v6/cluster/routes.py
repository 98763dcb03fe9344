"""What a node must have in its kernel to reach the blocks of the others, and what makes it of what it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cni_v6.cluster import vxlan
from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.facts import ORDER, TUNNEL, Add, Entry, Facts, Forward, Op, Remove, Route, Tunnel, Underlay
from cni_v6.cluster.keys import VXLAN
from cni_v6.cluster.membership import Member, own_blocks
from cni_v6.cluster.records import Claim, Cluster, NodeRecord


@dataclass(frozen=True, slots=True)
class Wanted:
    """``forwarding``: the interface that packets of other nodes' containers come in by.

    ``complaints``: why blocks cannot be reached, in words.
    """

    entries: frozenset[Entry]
    tunnel: Tunnel | None = None
    forwarding: str = ""
    complaints: tuple[str, ...] = ()


class _NoRoute(Exception):
    """Why a block has no route."""


def wanted(member: Member, conf: AgentConf, cluster: Cluster, underlay: Underlay | None) -> Wanted:
    """A route to each block of another node, and an unreachable one for each own block.

    Without that, a packet to an address of the block that no container has would go out by the default route. The
    network's own routes win over it. Only blocks of the node's own pools have routes: no object of the store can draw
    other packets to a node.
    """
    entries: list[Entry] = [Route(prefix) for prefix in own_blocks(member, conf, cluster)]
    tunnel, complaints = _tunnel(member, conf, cluster, underlay)
    for claim in cluster.claims:
        if (claim.node, claim.id) == (member.name, member.id):
            continue
        try:
            entries += _to(claim, conf, cluster, underlay, tunnel)
        except _NoRoute as reason:
            complaints.append(f"no route to block {claim.prefix} of node {claim.node}: {reason}")
    way = TUNNEL if tunnel else underlay.ifname if underlay else ""
    return Wanted(frozenset(entries), tunnel, way, tuple(complaints))


def _tunnel(
    member: Member, conf: AgentConf, cluster: Cluster, underlay: Underlay | None
) -> tuple[Tunnel | None, list[str]]:
    """The node's tunnel, None where the carrier has none; what hinders it."""
    if conf.carrier != VXLAN or underlay is None or member.name not in cluster.nodes:
        return None, []
    try:
        return vxlan.tunnel(cluster.nodes[member.name], underlay), []
    except vxlan.NoTunnel as reason:
        return None, [f"carrier vxlan: {reason}"]


def tunnel_difference(seen: Facts, tunnel: Tunnel | None) -> Iterator[Op]:
    """What makes the tunnel as it must be. An interface cannot get another address of the node: it is made anew."""
    if seen.tunnel == tunnel and seen.has_tunnel == (tunnel is not None):
        return
    if seen.has_tunnel:
        yield Remove(seen.tunnel or Tunnel("", "", "", "", 0))
    if tunnel:
        yield Add(tunnel)


def difference(seen: Facts, needed: Wanted) -> Iterator[Op]:
    """What to do so that a node has exactly these entries. Removals come first: a prefix may get another next hop."""
    if needed.forwarding in seen.closed:
        yield Forward(needed.forwarding)
    yield from map(Remove, reversed(_sorted(seen.entries - needed.entries)))
    yield from map(Add, _sorted(needed.entries - seen.entries))


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (ORDER.index(type(entry)), str(entry)))


def _to(
    claim: Claim, conf: AgentConf, cluster: Cluster, underlay: Underlay | None, tunnel: Tunnel | None
) -> tuple[Entry, ...]:
    """The entries that a block needs."""
    if conf.pool_of(claim.prefix) is None:
        raise _NoRoute("it is not a block of a pool of this node")
    node = cluster.nodes.get(claim.node)
    if node is None or node.id != claim.id or node.removed:
        raise _NoRoute("that node is not in the cluster's store")
    if node.carrier != conf.carrier:
        raise _NoRoute(f"its carrier is {node.carrier}, and here it is {conf.carrier}")
    if underlay is None:
        raise _NoRoute("this node has no interface to the other nodes")
    if set(node.addresses) & set(underlay.addresses):  # as of the Node that was deleted and made again
        raise _NoRoute("it has an address of this node")
    if conf.carrier != VXLAN:
        return (Route(claim.prefix, underlay.ifname, _next_hop(claim, node, underlay)),)
    if tunnel is None:
        raise _NoRoute("this node has no tunnel")
    try:
        endpoint, neighbour = vxlan.peer(node)
    except vxlan.NoTunnel as reason:
        raise _NoRoute(str(reason)) from None
    return endpoint, neighbour, Route(claim.prefix, TUNNEL, neighbour.address)


def _next_hop(claim: Claim, node: NodeRecord, underlay: Underlay) -> str:
    """Of the block's own family if both nodes have it, else of IPv6."""
    families = {4: any(":" not in address for address in underlay.addresses),
                6: any(":" in address for address in underlay.addresses)}
    for family in (4, 6) if ":" not in claim.prefix else (6,):
        hop = node.address(family)
        if hop and families[family]:
            return hop
    raise _NoRoute("the two nodes have no address of one family to reach it")
