"""The MAC of a container, and whether its addresses have to be announced.

A neighbour may keep the MAC of an address in its cache for a long time (RFC 826; RFC 4861, section 7.3.3). If another
container gets the address, that neighbour cannot reach it until the cache entry expires. Two things prevent this. On a
bridge of this node alone, a container's MAC is derived from its IPv4 address, so the cache stays right for the next
holder. Other addresses are announced with a gratuitous ARP or an unsolicited NA. A bridge delivers such a frame into
every container's namespace (docs/design/performance.md has the cost beside a thousand containers), so it is sent only
where a cache may be wrong.

Pure. The MAC is not derived from an IPv6 address: ``renumber`` changes that address and the container keeps its MAC, so
the next holder of the address would have the same MAC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cni_v6.allocation.ranges import origin
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetMacHolder, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.net.addresses import from_text, version
from cni_v6.plan import bridge_port
from cni_v6.plan.site import Site
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner


def mac(conf: BridgeConf, owner: Owner, node: str, addresses: Iterable[str], seen: Snapshot) -> str:
    """The MAC of the container's interface: the requested one, else a derived one.

    :param node: the node's machine id (``Site.node``).
    :param addresses: the container's addresses, without prefix length.
    :param seen: answers to ``bridge.questions``.
    """
    source = _source(conf, node, addresses, seen)
    return conf.mac or (names.address_mac(owner.network, node, source) if source else names.container_mac(owner))


def questions(conf: BridgeConf) -> tuple[Question, ...]:
    """The question about a requested MAC: who on the bridge has it."""
    return (GetMacHolder(conf.bridge, conf.mac),) if conf.mac else ()


def refuse_taken(conf: BridgeConf, site: Site, seen: Snapshot) -> None:
    """Refuse a requested MAC that another interface on the segment has: the guard would let both send from it.

    Includes what the node is about to make: the bridge, the gateway interface in a VLAN, the container's own port.
    A MAC that another call is about to use is refused by the kernel (``ops.ClaimMac``).

    :raises CniError: ADDRESS_UNAVAILABLE.
    """
    if not conf.mac:
        return
    bridge, port = Link(conf.bridge, "", 0, kind="bridge"), Link(site.host, "", 0, alias=names.alias(site.owner))
    known = {names.host_mac(site.owner): port}
    if seen.link(HOST, conf.bridge) is None:
        known[names.bridge_mac(conf.bridge, site.node)] = bridge
    if conf.is_gateway and conf.vlan:
        known[names.container_mac(bridge_port.gateway_owner(conf, site.node))] = Link(conf.gateway_interface, "", 0)
    holder = seen.mac_holder(conf.bridge, conf.mac) or known.get(conf.mac)
    if holder:
        from cni_v6.kernel import mac_claims  # only where it is needed: the start-up path pays for every import

        raise mac_claims.taken(conf.mac, holder)


def to_announce(conf: BridgeConf, node: str, addresses: Collection[str], seen: Snapshot) -> frozenset[int]:
    """The families with an address that neighbours may have in their caches with another MAC; arguments as ``mac``."""
    if not _is_private(conf, node, seen):
        return frozenset(map(version, addresses))
    requested = conf.ipam.requested if isinstance(conf.ipam, IpamConf) else ()
    unchanged = set(given_once(conf, addresses)).difference(requested)  # another container may have requested it before
    if not conf.mac:
        unchanged.add(_source(conf, node, addresses, seen))
    return frozenset(version(address) for address in addresses if address not in unchanged)


def given_once(conf: MainConf, addresses: Iterable[str]) -> list[str]:
    """The addresses that no other container gets, unless one requests them."""
    if not isinstance(conf.ipam, IpamConf):
        return []
    sets = [range_set for range_set in conf.ipam.sets if conf.ipam.policy.never_reuses(range_set)]
    return [address for address in addresses if any(origin(range_set, *from_text(address)) for range_set in sets)]


def _source(conf: BridgeConf, node: str, addresses: Iterable[str], seen: Snapshot) -> str:
    """The address that the MAC is derived from, "" for none."""
    if not _is_private(conf, node, seen):
        return ""
    return next((address for address in addresses if version(address) == 4), "")


def _is_private(conf: BridgeConf, node: str, seen: Snapshot) -> bool:
    """Whether this node alone assigns the segment's addresses. An administrator's bridge may connect other nodes
    that do, and switches that learn the port of a MAC from frames."""
    return conf.is_gateway and bridge_port.is_own_bridge(conf, node, seen)
