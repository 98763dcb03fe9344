"""What a node must have in its kernel to reach the blocks of the others, and what makes it of what it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from cni_v6.cluster import keys, srv6, vxlan, wireguard
from cni_v6.cluster.config import AgentConf, Pool, pool_of
from cni_v6.cluster.facts import (
    ORDER,
    SRV6,
    SRV6_IN,
    TUNNEL,
    Add,
    Device,
    Endpoint,
    Entry,
    Facts,
    Forward,
    Op,
    Pair,
    Passage,
    Remove,
    RemoveDevice,
    Route,
    SegmentRoute,
    SetGate,
    SetNodes,
    SetTable,
    Tunnel,
    Underlay,
)
from cni_v6.cluster.keys import BGP, DIRECT, VXLAN
from cni_v6.cluster.membership import Member, own_blocks
from cni_v6.cluster.records import Claim, Cluster, NodeRecord
from cni_v6.cluster.wireguard_values import WIREGUARD, Encrypted, Peer
from cni_v6.net.addresses import version


@dataclass(frozen=True, slots=True)
class Wanted:
    """``forwarding``: the interfaces that packets come in by which go on to containers, or to other nodes.

    ``complaints``: why blocks cannot be reached, in words.
    """

    entries: frozenset[Entry]
    device: Device | None = None
    forwarding: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()

    @property
    def nodes(self) -> frozenset[str]:
        """The IPv6 addresses of the other nodes, for the carrier's table: those that it sends to."""
        found = {entry.node for entry in self.entries if isinstance(entry, Endpoint)}
        found |= {entry.gateway for entry in self.entries if isinstance(entry, SegmentRoute) and entry.gateway}
        found |= {entry.endpoint for entry in self.entries if isinstance(entry, Peer) and version(entry.endpoint) == 6}
        return frozenset(found)


_NO_DEVICE = (vxlan.NoTunnel, srv6.NoPair, wireguard.NoPeer)
_MISSING = {VXLAN: "tunnel", keys.SRV6: "SRv6", keys.WIREGUARD: "WireGuard"}  # without the carrier's interface


BlocksOf = Callable[[NodeRecord], tuple[str, ...]]


class NoRoute(Exception):
    """Why a block has no route."""


class NoNode(NoRoute):
    """It is claimed, and its node is not in the store: an agent claims blocks before it says that the node is there."""


class Ways:
    """What was found for each block at last: for a block and a node that are as before it is not looked for again."""

    def __init__(self) -> None:
        self._basis: tuple[object, ...] = ()
        self._found: dict[str, tuple[tuple[Claim, NodeRecord | None, tuple[Claim, ...]], tuple[Entry, ...] | NoRoute]]
        self._found = {}

    def to(
        self, claims: Iterable[Claim], conf: AgentConf, cluster: Cluster, underlay: Underlay | None,
        device: Device | None,
    ) -> Iterator[tuple[Claim, tuple[Entry, ...] | NoRoute]]:
        """The entries that each block needs, or why there is no route to it."""
        basis = (conf, underlay, device, cluster.shared_keys)
        before = self._found if basis == self._basis else {}
        self._basis, self._found = basis, {}
        blocks_of = routed_blocks(cluster, conf.pools)
        for claim in claims:
            node = cluster.nodes.get(claim.node)
            # ``records`` gives the same objects for what is as before: they are soon compared.
            about = (claim, node, cluster.of_owner[claim.node, claim.id])
            known = before.get(claim.prefix)
            if known is None or known[0] != about:
                known = (about, _way(claim, conf, cluster, underlay, device, blocks_of))
            self._found[claim.prefix] = known
            yield claim, known[1]


def wanted(
    member: Member, conf: AgentConf, cluster: Cluster, underlay: Underlay | None, ways: Ways | None = None
) -> Wanted:
    """A route to each block of another node, and an unreachable one for each own block.

    Without that, a packet to an address of the block that no container has would go out by the default route. The
    network's own routes win over it. Only blocks of the node's own pools have routes: no object of the store can draw
    other packets to a node.
    """
    own = own_blocks(member, conf, cluster)
    entries: list[Entry] = [*map(Route, own), *unencrypted(conf)]
    device, complaints = _device(member, conf, cluster, underlay)
    if isinstance(device, Pair) and underlay:
        entries += srv6.own(member.id, own, underlay)
    if isinstance(device, Encrypted):
        entries += wireguard.own(own)
    others = (claim for claim in cluster.claims if (claim.node, claim.id) != (member.name, member.id))
    joining = dict[str, str]()  # said once, and not of each block that the node claims while it joins
    for claim, way in (ways or Ways()).to(others, conf, cluster, underlay, device):
        if isinstance(way, NoNode):
            joining[claim.node] = (f"node {claim.node} has claimed blocks, and is not in the cluster's store yet: it "
                                   "joins, or its agent ended half way. There are routes to it once it is there")
        elif isinstance(way, NoRoute):
            complaints.append(f"no route to block {claim.prefix} of node {claim.node}: {way}")
        else:
            entries += way
    complaints += joining.values()
    return Wanted(frozenset(entries), device, _entrances(underlay, device), tuple(complaints))


def _device(
    member: Member, conf: AgentConf, cluster: Cluster, underlay: Underlay | None
) -> tuple[Device | None, list[str]]:
    """The interface that the carrier needs, None where it needs none; what hinders it."""
    if underlay is None:
        return None, []
    try:
        if conf.carrier == keys.WIREGUARD:  # its public key is in the node's record: it is there first
            return wireguard.device(conf, own_blocks(member, conf, cluster), underlay), []
        if member.name not in cluster.nodes:
            return None, []
        if conf.carrier == VXLAN:
            return vxlan.tunnel(cluster.nodes[member.name], underlay), []
        return srv6.pair(cluster.nodes[member.name], underlay) if conf.carrier == keys.SRV6 else None, []
    except _NO_DEVICE as reason:
        return None, [f"carrier {conf.carrier}: {reason}"]


def _entrances(underlay: Underlay | None, device: Device | None) -> tuple[str, ...]:
    if isinstance(device, Tunnel | Encrypted):
        return (device.ifname,)
    ways = (underlay.ifname,) if underlay else ()
    return (*ways, SRV6, SRV6_IN) if device else ways


def unencrypted(conf: AgentConf) -> Iterator[Route]:
    """Unreachable routes for whole pools, whose packets must not leave the node unencrypted.

    Without a way to a block, as before there is an interface, they would follow the default route.
    """
    if conf.carrier == keys.WIREGUARD:
        yield from map(Route, wireguard.pools(conf))


def complaints(conf: AgentConf, facts: Facts) -> Iterator[str]:
    """What of the node is in the way, in words."""
    if facts.underlay is None:
        missing = f"there is no interface {conf.underlay}" if conf.underlay else "there is no default route"
        yield f"the node cannot be reached by others: {missing}"
    if conf.carrier == keys.SRV6 and conf.has_ipv4:
        yield from filter(None, [srv6.complaint(facts)])


def mtu_of(carrier: str, underlay: Underlay) -> int:
    """What a container's packets may have."""
    room = {VXLAN: vxlan.mtu_of, keys.SRV6: srv6.mtu_of, keys.WIREGUARD: wireguard.mtu_of}.get(carrier)
    return room(underlay) if room else underlay.mtu


def gate_difference(seen: Facts, gate: tuple[Passage, ...]) -> Iterator[Op]:
    if seen.gate != tuple(map(str, gate)):
        yield SetGate(gate)


def device_difference(seen: Facts, needed: Wanted) -> Iterator[Op]:
    """What makes the carrier's interface as it must be. It cannot get other settings: it is made anew.

    Its table can, as after a reload of the firewall, or when an agent of another version ran before.
    """
    device = needed.device
    stays = device.ifname if device and device.interface in seen.interfaces else ""
    for name in sorted(seen.devices):
        if name != stays and (seen.devices[name] is None or seen.devices[name] != device):
            yield RemoveDevice(name)
    if device and seen.devices.get(device.ifname) != device:
        yield SetTable(device, needed.nodes) if stays else Add(device)


def difference(seen: Facts, needed: Wanted) -> Iterator[Op]:
    """What to do so that a node has exactly these entries. Removals come first: a prefix may get another next hop.

    A peer of WireGuard that differs is changed, and keeps its session.
    """
    peers = {entry.key for entry in needed.entries if isinstance(entry, Peer)}
    gone = (entry for entry in seen.entries - needed.entries if not (isinstance(entry, Peer) and entry.key in peers))
    yield from (Forward(name) for name in needed.forwarding if name in seen.closed)
    if seen.nodes is not None and seen.nodes != needed.nodes:
        yield SetNodes(needed.nodes)
    yield from map(Remove, reversed(_sorted(gone)))
    yield from map(Add, _sorted(needed.entries - seen.entries))


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (ORDER.index(type(entry)), str(entry)))


def _way(
    claim: Claim, conf: AgentConf, cluster: Cluster, underlay: Underlay | None, device: Device | None,
    blocks_of: BlocksOf,
) -> tuple[Entry, ...] | NoRoute:
    if conf.pool_of(claim.prefix) is None:
        return NoRoute("it is not a block of a pool of this node")
    try:
        return tuple(way_to(claim, conf, cluster, underlay, device, blocks_of))
    except NoRoute as reason:
        return type(reason)(*reason.args)  # without the frames that it came through


def routed_blocks(cluster: Cluster, pools: Iterable[Pool]) -> BlocksOf:
    """The blocks of a node that may have routes: those of these pools. They are looked for once for each node, however
    many there are: another cluster's store may have any number."""
    pools = tuple(pools)

    @cache
    def found(node: NodeRecord) -> tuple[str, ...]:
        return tuple(sorted(claim.prefix for claim in cluster.of_node(node) if pool_of(pools, claim.prefix)))

    return found


def way_to(
    claim: Claim, conf: AgentConf, cluster: Cluster, underlay: Underlay | None, device: Device | None,
    blocks_of: BlocksOf,
) -> Iterator[Entry]:
    """The entries that a block needs.

    :raises NoRoute:
    """
    node = cluster.nodes.get(claim.node)
    if node is None or node.id != claim.id or node.removed:
        raise NoNode("its node is not in the cluster's store")
    if node.carrier != conf.carrier:
        raise NoRoute(f"its carrier is {node.carrier}, and here it is {conf.carrier}")
    if conf.carrier == BGP:
        return  # the daemon's
    if underlay is None:
        raise NoRoute("this node has no interface to the other nodes")
    if set(node.addresses) & set(underlay.addresses):  # as of the Node that was deleted and made again
        raise NoRoute("it has an address of this node")
    if conf.carrier == DIRECT:
        yield Route(claim.prefix, underlay.ifname, _next_hop(claim, node, underlay))
        return
    if device is None:
        raise NoRoute(f"this node has no {_MISSING[conf.carrier]}")
    try:
        if isinstance(device, Tunnel):
            endpoint, neighbour = vxlan.peer(node)
            yield from (endpoint, neighbour, Route(claim.prefix, TUNNEL, neighbour.address))
        elif isinstance(device, Encrypted):
            if node.public_key in cluster.shared_keys:
                raise NoRoute("another node has its WireGuard key too")
            yield from (wireguard.peer(node, blocks_of(node), conf, underlay), Route(claim.prefix, WIREGUARD))
        else:
            yield from srv6.peer(node, claim.prefix, underlay)
    except _NO_DEVICE as reason:
        raise NoRoute(str(reason)) from None


def _next_hop(claim: Claim, node: NodeRecord, underlay: Underlay) -> str:
    """Of the block's own family if both nodes have it, else of IPv6."""
    families = {4: any(":" not in address for address in underlay.addresses),
                6: any(":" in address for address in underlay.addresses)}
    for family in (4, 6) if ":" not in claim.prefix else (6,):
        hop = node.address(family)
        if hop and families[family]:
            return hop
    raise NoRoute("the two nodes have no address of one family to reach it")
