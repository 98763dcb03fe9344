"""The carrier ``wireguard``: packets between the nodes are encrypted, and their sources are proven.

A node is a peer of each other one, and what it may send are packets from its own blocks (allowed IPs). The kernel drops
what has another source. The node itself sends from the first address of its own block, which no container has: it is
the anycast address of routers (RFC 4291, 2.6.1), or the address of the network.

The private key is in a file of the node, and goes to the kernel alone, which derives the public one. That is in the
node's record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from netaddr import IPAddress, IPNetwork

from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.facts import Underlay
from cni_v6.cluster.records import NodeRecord
from cni_v6.cluster.wireguard_values import Address, Encrypted, Peer
from cni_v6.config.main import IPV6_MIN_MTU
from cni_v6.net.addresses import host_prefix, is_link_local, version

# The outer headers of IPv6 and UDP; header and tag of an encrypted packet (wg_setup, drivers/net/wireguard/device.c).
OVERHEAD = 40 + 8 + 16 + 16


class NoPeer(Exception):
    """Why a node has no part in WireGuard, or cannot be reached by it."""


def device(conf: AgentConf, blocks: Iterable[str], underlay: Underlay) -> Encrypted:
    """A node's own interface.

    :param blocks: the node's.
    :raises NoPeer: if IPv6 would not fit.
    """
    mtu = mtu_of(underlay)
    if mtu < IPV6_MIN_MTU:
        least = IPV6_MIN_MTU + OVERHEAD
        raise NoPeer(f"{underlay.ifname} has an MTU of {underlay.mtu}, and IPv6 needs {least} to be encrypted")
    return Encrypted(mtu, underlay.ifname, tuple(pools(conf)), tuple(blocks))


def own(blocks: Iterable[str]) -> Iterator[Address]:
    """The addresses of a node's own interface."""
    for block in blocks:
        yield Address(host_prefix(block))


def peer(node: NodeRecord, blocks: tuple[str, ...], conf: AgentConf, underlay: Underlay) -> Peer:
    """What the interface must know of another node.

    :param blocks: those of its blocks that may have routes, in order.
    :raises NoPeer: it cannot be reached that way.
    """
    if not node.public_key:
        raise NoPeer(f"node {node.name} has no WireGuard key in the cluster's store yet")
    endpoint = _endpoint(node, underlay)
    for cidr in pools(conf):
        if version(cidr) == version(endpoint) and IPAddress(endpoint) in IPNetwork(cidr):
            raise NoPeer(f"its address {endpoint} is of pool {cidr}: what is encrypted would be encrypted again")
    return Peer(node.public_key, endpoint, blocks)


def mtu_of(underlay: Underlay) -> int:
    """What fits an encrypted packet."""
    return underlay.mtu - OVERHEAD


def pools(conf: AgentConf) -> Iterator[str]:
    """Those of this cluster and of the others."""
    yield from (pool.cidr for pool in conf.pools)
    yield from (pool.cidr for other in conf.clusters for pool in other.pools)


def _endpoint(node: NodeRecord, underlay: Underlay) -> str:
    families = {version(address) for address in underlay.addresses if not is_link_local(address)}
    for family in (6, 4):
        address = node.address(family)
        if address and family in families and not is_link_local(address):
            return address
    raise NoPeer("the two nodes have no addresses of one family, not link-local, to reach it")
