"""Plans the gateway's addresses on the gateway interface: those a network needs, and what to do about others.

Pure. ``attachments/old_gateways`` removes addresses that no container needs any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.allocation import ranges
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf, once
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import GatewayAddress
from cni_v6.net.addresses import BITS, from_text, is_link_local, overlap
from cni_v6.plan import bridge_port
from cni_v6.plan.forwarding import LOOPBACK
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.result import Address


def addresses(conf: MainConf, ips: Iterable[Address]) -> tuple[str, ...]:
    """The gateway's addresses, ``ip/prefixlen``, in the order of the container's addresses."""
    if not conf.is_gateway:
        return ()
    return tuple(dict.fromkeys(_gateway_address(ip) for ip in ips if ip.gateway))


def anchors(conf: MainConf, ips: Iterable[Address]) -> tuple[GatewayAddress, ...]:
    """The gateway addresses, or on-link routes, on the node that a container with these addresses needs.

    If it has the interface for itself, a route to each of its addresses is among them.
    """
    own = tuple(ips)
    if conf.is_shared:
        return lasting(conf, own)
    routes = (GatewayAddress(conf.gateway_interface, prefix, on_link=True) for prefix in map(host_prefix, own))
    return *lasting(conf, own), *routes


def lasting(conf: MainConf, ips: Iterable[Address]) -> tuple[GatewayAddress, ...]:
    """Those of ``anchors`` that outlive the container, since they belong to the network.

    A link-local gateway itself is not among them: several networks may have the same one, so it is never removed.
    Where containers share no interface, loopback has the gateway's addresses.
    """
    if not conf.is_gateway:
        return ()
    if conf.is_shared:
        return tuple(dict.fromkeys(_anchor(conf.gateway_interface, ip) for ip in ips if ip.gateway))
    own = (f"{ip.gateway}/{BITS[ip.family]}" for ip in ips if ip.gateway and not is_link_local(ip.gateway))
    return tuple(GatewayAddress(LOOPBACK, address) for address in dict.fromkeys(own))


def host_prefix(ip: Address) -> str:
    """The address alone as a prefix."""
    return f"{ip.ip}/{BITS[ip.family]}"


def subnet(ip: Address) -> str:
    """The prefix that an address is in."""
    return canonical_prefix(ip.address, host_bits=False) or ip.address


@once
def anchors_of_ranges(conf: MainConf) -> tuple[GatewayAddress, ...]:
    """``lasting`` for all of the network's ranges: containers may have addresses of any range of a set."""
    sets = conf.ipam.sets if isinstance(conf.ipam, IpamConf) else ()
    parts = (part for range_set in sets for part in range_set.written)
    return lasting(conf, (Address(ranges.subnet(part), part.gateway) for part in parts))


def of_ranges(conf: MainConf, texts: Iterable[str]) -> Iterator[Address]:
    """Those of ``texts`` that lie in the network's ranges, with their prefix lengths and gateways."""
    sets = conf.ipam.sets if isinstance(conf.ipam, IpamConf) else ()
    for text in texts:
        for part in (ranges.origin(range_set, *from_text(text)) for range_set in sets):
            if part:
                yield Address(f"{text}/{part.prefixlen}", part.gateway)


def steps(conf: BridgeConf, ips: Iterable[Address], node: str, seen: Snapshot) -> Iterator[Op]:
    """Add the gateway's addresses to the gateway interface, and a route to each prefix that they do not make on-link.

    :param node: the node's machine id (``Site.node``).
    :raises CniError: NODE_CONFLICT, on a bridge that is not ours.
    """
    container_addresses = tuple(ips)
    interface = conf.gateway_interface
    present = seen.addresses(HOST, interface)
    wanted = addresses(conf, container_addresses)
    if not set(present).issuperset(wanted):
        choose = _beside if bridge_port.is_ours(conf, node, seen) else _instead
        own = {*wanted, *(anchor.prefix for anchor in anchors_of_ranges(conf) if not anchor.on_link)}
        for address in wanted:
            if address not in present:
                yield from choose(conf, address, [other for other in present if other not in own])
    for anchor in anchors(conf, container_addresses):
        if anchor.on_link:
            yield ensure(anchor)


def ensure(anchor: GatewayAddress) -> Op:
    """Add it. It may exist already."""
    if anchor.unreachable:
        return ops.AddUnreachable(HOST, anchor.prefix)
    if anchor.on_link:
        return ops.AddRoute(HOST, anchor.home, anchor.prefix)
    return ops.AddAddress(HOST, anchor.home, anchor.prefix)


def take_away(anchor: GatewayAddress) -> Op:
    """Remove it. It may be absent already."""
    if anchor.unreachable:
        return ops.RemoveUnreachable(HOST, anchor.prefix)
    if anchor.on_link:
        return ops.RemoveRoute(HOST, anchor.home, anchor.prefix)
    return ops.RemoveAddress(HOST, anchor.home, anchor.prefix)


def missing(wanted: Iterable[GatewayAddress], seen: Snapshot) -> Iterator[tuple[str, Op]]:
    """Those that the node lacks: in words, and the operation that adds each.

    :param seen: the answers to GetAddresses, and GetRoutes for what is on-link, of each ``home``.
    """
    for anchor in dict.fromkeys(wanted):
        if anchor.on_link:
            routes = seen.routes(HOST, anchor.home)
            if not any(route.dst == anchor.prefix and route.gateway is None for route in routes):
                yield f"route {anchor.prefix} through {anchor.home} is missing", ensure(anchor)
        elif not is_there(anchor.prefix, seen.addresses(HOST, anchor.home)):
            yield f"gateway address {anchor.prefix} is missing on {anchor.home}", ensure(anchor)


def is_there(address: str, present: Iterable[str]) -> bool:
    """Whether the interface has the gateway address with this prefix length or a shorter one."""
    return any(_ip(other) == _ip(address) and _length(other) <= _length(address) for other in present)


def _beside(conf: BridgeConf, wanted: str, others: Iterable[str]) -> Iterator[Op]:
    """On a bridge of ours: add the address beside others, which containers of an earlier subnet may still need.

    The kernel has an IPv6 address on an interface only once, whatever its prefix length (ipv6_add_addr,
    net/ipv6/addrconf.c). The shorter prefix serves the containers of both subnets.
    """
    interface = conf.gateway_interface
    for other in others:
        if ":" in wanted and _ip(other) == _ip(wanted):
            if is_there(wanted, [other]):
                return
            yield ops.RemoveAddress(HOST, interface, other)
    yield ops.AddAddress(HOST, interface, wanted)


def _instead(conf: BridgeConf, wanted: str, others: Iterable[str]) -> Iterator[Op]:
    """On an administrator's bridge, as in the reference plugin: refuse a conflicting address, or replace it."""
    interface = conf.gateway_interface
    for other in others:
        if not _contradicts(wanted, other):
            continue
        if not conf.force_address:
            words = f"bridge {interface} has address {other}, the network's gateway is {wanted}"
            remedy = 'use the subnet the bridge has, another bridge, or "forceAddress": true'
            raise CniError(NODE_CONFLICT, words, remedy)
        yield ops.RemoveAddress(HOST, interface, other)
    yield ops.AddAddress(HOST, interface, wanted)


def _contradicts(wanted: str, other: str) -> bool:
    """Whether both cannot be on one bridge: a second IPv4 address, or an IPv6 prefix that overlaps."""
    if (":" in wanted) != (":" in other) or is_link_local(other):
        return False
    return ":" not in wanted or overlap(wanted, other)


def _anchor(interface: str, ip: Address) -> GatewayAddress:
    if ip.gateway and is_link_local(ip.gateway):  # the bridge has no address that makes the prefix on-link
        return GatewayAddress(interface, subnet(ip), on_link=True)
    return GatewayAddress(interface, _gateway_address(ip))


def _gateway_address(ip: Address) -> str:
    length = "64" if ip.gateway and is_link_local(ip.gateway) else ip.address.partition("/")[2]
    return f"{ip.gateway}/{length}"


def _ip(address: str) -> str:
    return address.partition("/")[0]


def _length(address: str) -> int:
    return int(address.partition("/")[2])
