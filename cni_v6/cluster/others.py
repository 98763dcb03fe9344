"""Other clusters, whose stores this one reads and never writes: the ways to them, and who of them is let in.

Whoever can write such a store decides where packets for the pools go that this cluster's operator has written down for
it, and about nothing else: neither about packets for this cluster, nor for a third one, nor for nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from netaddr import IPAddress, IPNetwork

from cni_v6.cluster import records, routes, srv6
from cni_v6.cluster.config import AgentConf, OtherCluster, Pool, is_node_name, pool_of
from cni_v6.cluster.facts import (
    Device,
    Endpoint,
    Entry,
    Neighbour,
    Pair,
    Passage,
    SegmentRoute,
    Tunnel,
    Underlay,
)
from cni_v6.cluster.keys import CARRIERS
from cni_v6.cluster.membership import Member
from cni_v6.cluster.places import place
from cni_v6.cluster.records import Claim, Cluster, Objects
from cni_v6.cluster.routes import NoRoute, Wanted
from cni_v6.cluster.store import OtherClusterStore
from cni_v6.cluster.wireguard_values import Encrypted, Peer
from cni_v6.errors import DECODING_FAILURE, CniError
from cni_v6.net.addresses import overlap, version

MOST_OBJECTS = 1 << 14  # of a store: 5,000 nodes have them
# Of the objects of all other clusters, which the agent's disk has too. Six bytes of JSON each, they are less than half
# of what is read from there (``files.LIMIT``).
MOST_CHARACTERS = 1 << 22
MOST_REASONS = 5  # that are said of a cluster
Places = dict[tuple[str, ...], Entry]  # entries that are wanted already, by what the kernel tells them apart by


def with_others(
    wanted: Wanted, member: Member, conf: AgentConf, cluster: Cluster, underlay: Underlay | None,
    others: Mapping[str, Cluster],
) -> Wanted:
    """What a node must have, with the ways to other clusters.

    :param wanted: what it needs of its own cluster.
    :param others: what the stores of the others have, by their names; a cluster that nothing is known of has none.
    """
    own = (*wanted.entries, *_of_own_id(member, wanted, cluster, underlay))
    places: Places = {place(entry): entry for entry in own}
    entries, complaints = list(wanted.entries), list(wanted.complaints)
    for other in conf.clusters:
        theirs = others.get(other.name, Cluster())
        found, words = _ways(other, theirs, conf, cluster, underlay, wanted.device, places)
        entries += found
        complaints += words
    return replace(wanted, entries=frozenset(entries), complaints=tuple(complaints))


def usable(conf: AgentConf, cluster: Cluster, underlay: Underlay | None) -> list[Pool]:
    """The pools of other clusters that overlap nothing of this one."""
    return [pool for other in conf.clusters for pool in other.pools if not _spoilt(pool.cidr, cluster, underlay)]


def looked_at(
    stores: Mapping[str, OtherClusterStore], before: Mapping[str, Objects]
) -> tuple[Mapping[str, Objects], list[str]]:
    """What the stores of other clusters have, by their names, and what is in the way.

    :param before: what they had at last, which stays where one cannot be used.
    """
    known = {name: objects for name, objects in before.items() if name in stores}
    complaints = []
    for name, store in stores.items():
        try:
            objects = store.read()
            if objects is not None:
                known[name] = checked(objects, MOST_CHARACTERS // len(stores))  # each has its share, whatever others do
        except CniError as error:
            complaints.append(
                f"the store of cluster {name} cannot be used, so the routes to it stay as they are: {error}")
    return known, complaints


def checked(objects: Objects, room: int) -> Objects:
    """What a store has, if an agent can deal with it at each step, and read it from its disk at the next start.

    :param room: characters of its keys and values, at most.
    :raises CniError: DECODING_FAILURE.
    """
    if len(objects) > MOST_OBJECTS or sum(map(len, objects)) + sum(map(len, objects.values())) > room:
        raise CniError(
            DECODING_FAILURE, f"it has {len(objects)} objects, more than {MOST_OBJECTS} or than {room} characters")
    records.read(objects)
    return objects


def gate(conf: AgentConf) -> tuple[Passage, ...]:
    """Who of other clusters is forwarded to a container of this one; nothing if all of them may be."""
    found = [passage for other in conf.clusters for passage in _passages(other, conf)]
    return tuple(found) if any(not passage.is_open for passage in found) else ()


def _passages(other: OtherCluster, conf: AgentConf) -> Iterator[Passage]:
    shut = [pool.cidr for pool in other.pools if pool.cidr not in other.let_in]
    for sources, is_open in ((other.let_in, True), (shut, False)):
        for source in sources:
            yield from (Passage(source, pool.cidr, is_open) for pool in conf.pools if version(source) == pool.family)


def _of_own_id(
    member: Member, wanted: Wanted, cluster: Cluster, underlay: Underlay | None
) -> Iterable[Entry]:
    """What another node would have of this one: a node of another cluster may have nothing in the place of it."""
    node = cluster.nodes.get(member.name)
    if isinstance(wanted.device, Tunnel):
        tunnel = wanted.device
        return Endpoint(tunnel.mac, tunnel.local), Neighbour(tunnel.address, tunnel.mac)
    if isinstance(wanted.device, Encrypted) and node:
        return (Peer(node.public_key, "", ()),)
    if isinstance(wanted.device, Pair) and node and underlay and node.address(6):
        return [entry for entry in srv6.peer(node, "::/0", underlay) if isinstance(entry, SegmentRoute)]
    return ()


def _ways(
    other: OtherCluster, theirs: Cluster, conf: AgentConf, own: Cluster, underlay: Underlay | None,
    device: Device | None, places: Places,
) -> tuple[list[Entry], list[str]]:
    """The ways to a cluster; why some of its blocks have none. ``places`` gets what is found."""
    spoilt = {pool.cidr: what for pool in other.pools if (what := _spoilt(pool.cidr, own, underlay))}
    complaints = [f"no route to pool {cidr} of cluster {other.name}: it overlaps {what}"
                  for cidr, what in spoilt.items()]
    sound = [pool for pool in other.pools if pool.cidr not in spoilt]
    blocks_of = routes.routed_blocks(theirs, sound)
    found: list[Entry] = []
    refused: dict[str, list[str]] = {}
    for claim in theirs.claims:
        try:
            pool = pool_of(other.pools, claim.prefix)
            if pool is None:
                raise NoRoute("it is not a block of a pool that clusters[].pools names")
            if pool in sound:
                found += _way(claim, theirs, conf, underlay, device, blocks_of, places)
        except NoRoute as reason:
            refused.setdefault(str(reason), []).append(claim.prefix)
    complaints += (f"no route to block {prefixes[0]} of cluster {other.name}"
                   f"{f', and to {len(prefixes) - 1} more' if prefixes[1:] else ''}: {reason}"
                   for reason, prefixes in [*refused.items()][:MOST_REASONS])
    return found, complaints


def _spoilt(cidr: str, own: Cluster, underlay: Underlay | None) -> str:
    """What of this cluster a pool of another one overlaps, "" for nothing. Other nodes may have other pools."""
    for pool in own.pools:
        if overlap(pool, cidr):
            return f"{pool}, a pool of this cluster"
    network = IPNetwork(cidr)
    nodes = (address for node in own.nodes.values() for address in node.addresses)
    for address in (*(underlay.addresses if underlay else ()), *nodes):
        if version(address) == version(cidr) and IPAddress(address) in network:
            return f"{address}, an address of a node of this cluster"
    return ""


def _way(
    claim: Claim, theirs: Cluster, conf: AgentConf, underlay: Underlay | None, device: Device | None,
    blocks_of: routes.BlocksOf, places: Places,
) -> list[Entry]:
    """
    :raises NoRoute: also for what is in the place of something of this cluster or of another one.
    """
    node = theirs.nodes.get(claim.node)
    if node and not (is_node_name(node.name) and node.carrier in CARRIERS):
        raise NoRoute("its node has a name or a carrier that no agent writes")
    if node and any(_is_within(address, conf) for address in node.addresses):
        raise NoRoute("its node has an address of a container of this cluster")
    found = list(routes.way_to(claim, conf, theirs, underlay, device, blocks_of))
    for entry in found:
        if places.get(place(entry), entry) != entry:
            raise NoRoute(f"its node has the {'key' if isinstance(entry, Peer) else 'id'} of another one")
    places.update((place(entry), entry) for entry in found)
    return found


def _is_within(address: str, conf: AgentConf) -> bool:
    return any(version(address) == pool.family and IPAddress(address) in IPNetwork(pool.cidr) for pool in conf.pools)
