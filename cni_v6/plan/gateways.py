"""The gateway's addresses on the node's interface: which a network needs there, and what to do about others.

Pure, like ``plan``, whose part this is. ``draining`` takes away what nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.allocation import ranges
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import Snapshot
from cni_v6.leases.attachment import GatewayAddress
from cni_v6.net.addresses import from_text, is_link_local, overlap
from cni_v6.plan import bridge_port
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.result import Address


def addresses(conf: MainConf, ips: Iterable[Address]) -> tuple[str, ...]:
    """The gateway's addresses, ``ip/prefixlen``, in the order of the container's."""
    if not conf.is_gateway:
        return ()
    return tuple(dict.fromkeys(_gateway_address(ip) for ip in ips if ip.gateway))


def anchors(conf: MainConf, ips: Iterable[Address]) -> tuple[GatewayAddress, ...]:
    """What a container with these addresses counts on, of what the network has on the node.

    Not a link-local gateway: any network may have that one, and it is in nobody's way.
    """
    if not conf.is_gateway:
        return ()
    home = conf.gateway_interface
    return tuple(dict.fromkeys(_anchor(home, ip) for ip in ips if ip.gateway))


def anchors_of_ranges(conf: MainConf) -> tuple[GatewayAddress, ...]:
    """The same, of containers of any of the network's ranges: the set may have spilt over from one to the next."""
    sets = conf.ipam.sets if isinstance(conf.ipam, IpamConf) else ()
    parts = (part for each in sets for part in each.written)
    return anchors(conf, (Address(ranges.subnet(part), part.gateway) for part in parts))


def of_ranges(conf: MainConf, texts: Iterable[str]) -> Iterator[Address]:
    """Addresses of the network's own ranges with their prefix lengths and gateways."""
    sets = conf.ipam.sets if isinstance(conf.ipam, IpamConf) else ()
    for text in texts:
        for part in (ranges.origin(each, *from_text(text)) for each in sets):
            if part:
                yield Address(f"{text}/{part.prefixlen}", part.gateway)


def steps(conf: BridgeConf, ips: Iterable[Address], node: str, seen: Snapshot) -> Iterator[Op]:
    """What gives the gateway's interface its addresses, and a route to each prefix that none of them makes on-link.

    :param node: as of ``bridge_port.is_ours``.
    :raises CniError: NODE_CONFLICT, on a bridge that is not ours.
    """
    given = tuple(ips)
    interface = conf.gateway_interface
    present = seen.addresses(HOST, interface)
    choose = _beside if bridge_port.is_ours(conf, node, seen) else _instead
    own = {*addresses(conf, given), *(each.prefix for each in anchors_of_ranges(conf) if not each.on_link)}
    for address in addresses(conf, given):
        if address not in present:
            yield from choose(conf, address, [other for other in present if other not in own])
    for anchor in anchors(conf, given):
        if anchor.on_link:
            yield ensure(anchor)


def ensure(anchor: GatewayAddress) -> Op:
    """What puts it there; there already is fine."""
    if anchor.on_link:
        return ops.AddRoute(HOST, anchor.home, anchor.prefix)
    return ops.AddAddress(HOST, anchor.home, anchor.prefix)


def take_away(anchor: GatewayAddress) -> Op:
    """What takes it away; absent is fine."""
    if anchor.on_link:
        return ops.RemoveRoute(HOST, anchor.home, anchor.prefix)
    return ops.RemoveAddress(HOST, anchor.home, anchor.prefix)


def is_there(address: str, present: Iterable[str]) -> bool:
    """Whether a gateway answers, and has its containers on-link: a shorter prefix of the same address does it too."""
    return any(_ip(each) == _ip(address) and _length(each) <= _length(address) for each in present)


def _beside(conf: BridgeConf, wanted: str, others: Iterable[str]) -> Iterator[Op]:
    """On a bridge of ours: containers of a subnet that the network had before count on its gateway still.

    IPv6 has an address on an interface once, whatever its prefix (ipv6_add_addr, net/ipv6/addrconf.c). The shorter
    prefix serves the containers of both.
    """
    interface = conf.gateway_interface
    for other in others:
        if ":" in wanted and _ip(other) == _ip(wanted):
            if is_there(wanted, [other]):
                return
            yield ops.RemoveAddress(HOST, interface, other)
    yield ops.AddAddress(HOST, interface, wanted)


def _instead(conf: BridgeConf, wanted: str, others: Iterable[str]) -> Iterator[Op]:
    """On an administrator's bridge, as the reference plugin: what contradicts is refused, or replaced."""
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
    """One IPv4 address a bridge, IPv6 ones that do not overlap."""
    if (":" in wanted) != (":" in other) or is_link_local(other):
        return False
    return ":" not in wanted or overlap(wanted, other)


def _anchor(home: str, ip: Address) -> GatewayAddress:
    if ip.gateway and is_link_local(ip.gateway):  # no address of the bridge makes the prefix on-link
        return GatewayAddress(home, canonical_prefix(ip.address, host_bits=False) or ip.address, on_link=True)
    return GatewayAddress(home, _gateway_address(ip))


def _gateway_address(ip: Address) -> str:
    length = "64" if ip.gateway and is_link_local(ip.gateway) else ip.address.partition("/")[2]
    return f"{ip.gateway}/{length}"


def _ip(address: str) -> str:
    return address.partition("/")[0]


def _length(address: str) -> int:
    return int(address.partition("/")[2])
