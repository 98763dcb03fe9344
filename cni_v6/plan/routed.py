"""Plans an ADD of the routed plugin: a link of its own for each container, and the node's routes to its addresses.

Nobody else is on that link, and both ends know each other's MAC from the start (``ops.SetNeighbour``). So nothing is
resolved there: no ARP, no neighbour discovery, nothing to forge, and no entry that counts against the kernel's limit.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import Range
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import once
from cni_v6.config.routed import RoutedConf
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import GatewayAddress, RoutedLink
from cni_v6.net.addresses import BITS
from cni_v6.plan import bridge_port, container, families, features, gateways, mtu as plan_mtu, prefix_routes
from cni_v6.plan.forwarding import LOOPBACK
from cni_v6.plan.site import Allocation, Plan, RoutedPrefix, Site
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Interface, Result, Route

GATEWAY = "fe80::1"  # of each link; a container knows no other
GATEWAY4 = "169.254.1.1"  # RFC 3927: never routed; of links without IPv6 if nobody names another
HOST_SCOPE = 254  # linux/rtnetlink.h: RT_SCOPE_HOST


def questions(site: Site, conf: RoutedConf) -> tuple[Question, ...]:
    """The questions to the kernel that an ADD needs answered before it allocates addresses."""
    return *container.questions(site, conf), *families.host_questions(), *features.questions(conf)


def check_free(site: Site, conf: RoutedConf, seen: Snapshot) -> None:
    """Refuse, before anything is allocated, an attachment that cannot work.

    :raises CniError: NODE_CONFLICT, ALREADY_ATTACHED.
    """
    features.check(conf, seen)
    container.check_free(site, seen)


def mac(conf: RoutedConf, owner: Owner) -> str:
    """The MAC of the container's interface: the requested one, else a derived one."""
    return conf.mac or names.container_mac(owner)


def to_record(conf: RoutedConf, owner: Owner, ips: Iterable[Address], *, six: bool = False) -> RoutedLink:
    """What is recorded of the link of a container with these addresses; ``six``: it has others of IPv6."""
    return RoutedLink(mac(conf, owner), _own4(conf, tuple(ips), six))


def _own4(conf: RoutedConf, ips: Sequence[Address], six: bool) -> str:
    """The node's IPv4 address on the link; "" where another next hop is known, or none is needed."""
    four = [ip for ip in ips if ip.family == 4]
    if conf.ipv4_gateway or not four:
        return conf.ipv4_gateway if four else ""
    return "" if six or len(four) < len(ips) or four[0].gateway else GATEWAY4


def hops(conf: RoutedConf, ips: Iterable[Address], *, six: bool = False) -> tuple[Address, ...]:
    """The container's addresses, each alone in its prefix, with the next hop that the kernel uses for its family.

    An IPv6 next hop needs IPv6 on the interface (fib6_nh_init, net/ipv6/route.c). A container without IPv6 addresses
    has none, so there it is the subnet's gateway, which is an address of the node too.

    :param six: whether it has other IPv6 addresses.
    """
    found = tuple(ips)
    both = six or any(ip.family == 6 for ip in found)
    four = _own4(conf, found, six) or (GATEWAY if both else next((ip.gateway for ip in found if ip.gateway), None))
    return tuple(Address(gateways.host_prefix(ip), GATEWAY if ip.family == 6 else four) for ip in found)


def plan_add(site: Site, conf: RoutedConf, allocation: Allocation, seen: Snapshot) -> Plan:
    """Operations and result of an ADD; parameters as of ``bridge.plan_add``.

    :raises CniError: IPV6_DISABLED.
    """
    present = allocation.families()
    off = families.ipv6_off(site.netns, seen, gateway=True)
    if off and 6 in present:  # from another IPAM plugin: ours allocates none then
        raise off
    mtu = plan_mtu.mtu(conf, present, seen)
    link, ips = to_record(conf, site.owner, allocation.ips), hops(conf, allocation.ips)
    via = (RoutedPrefix(routed.prefix, Address(gateways.host_prefix(routed.via))) for routed in allocation.delegated)
    routes = _routes(allocation)
    own = replace(allocation, ips=ips, routes=routes, delegated=tuple(via))
    route_steps = tuple(container.route(site, route, ips) for route in routes)
    steps = (
        ops.CreateVeth(
            site.host, names.host_mac(site.owner), "", site.netns, site.owner.ifname, link.mac, mtu,
            group=names.link_group(site.owner.network),
        ),
        ops.SetAlias(HOST, site.host, names.alias(site.owner)),
        *_node_settings(conf, own, seen),
        *container.steps(site, own, seen),
        *_gateways_of(site, ips),
        *route_steps,
        *features.container_steps(site, conf, own, seen),
        *host_end(site.host, link, gateways.anchors(conf, allocation.ips)),
        *map(gateways.ensure, rest(conf)),
        awaits.AwaitCarrier(site.host),
        *container.reception(site, own),
        *features.arrival_steps(conf, own, seen),
    )
    mtu = mtu or plan_mtu.DEFAULT_MTU
    interfaces = (
        Interface(site.host, names.host_mac(site.owner), mtu=mtu),
        Interface(site.owner.ifname, link.mac, sandbox=site.netns, mtu=mtu),
    )
    told = tuple(Address(ip.address, _told(ip), interface=1) for ip in ips)
    result_routes = tuple(replace(route, gw=_told_of(route, ips)) for route in routes)
    dns = conf.dns or allocation.dns
    result = Result(interfaces, told + prefix_routes.in_result(allocation.delegated), result_routes, dns)
    return Plan(steps, result, route_steps)


# The result


def _told(ip: Address) -> str | None:
    """The gateway of an address as the result has it: none of another family, which its readers do not expect."""
    return ip.gateway if ip.gateway and (":" in ip.gateway) == (ip.family == 6) else None


def _told_of(route: Route, ips: Iterable[Address]) -> str | None:
    own = next((ip for ip in ips if ip.family == route.family), None)
    return _told(own) if own and container.next_hop(route, ips) else None


def _routes(allocation: Allocation) -> tuple[Route, ...]:
    """IPAM's routes, all through the node: nobody else is there, so it makes no difference which gateway they name.

    A family without any gets a default route. With others only, it gets one to its own subnet, whose other containers
    are behind the node too.
    """
    routes = [replace(route, gw=None) for route in allocation.routes]
    for ip in allocation.ips:
        default = container.DEFAULT_ROUTE[ip.family]
        same = [route for route in routes if route.family == ip.family]
        if not same:
            routes.append(Route(default))
        elif all(route.dst != default for route in same if route.table is None):
            subnet = gateways.subnet(ip)
            routes += [] if any(route.dst == subnet for route in same) else [Route(subnet)]
    return tuple(routes)


# The link


def _node_settings(conf: RoutedConf, allocation: Allocation, seen: Snapshot) -> Iterable[Op]:
    """Sysctls of the node, before the container's end is up: no router advertisement of a container counts."""
    host, present = conf.host, allocation.families()
    yield from settings(host, present)
    if 6 not in present:
        yield from bridge_port.disable_ipv6(host, seen)
    if 4 in present:
        yield ops.SetSysctl(HOST, "ipv4/ip_forward", "1")
        yield from bridge_port.loopback_ports(conf)
    yield from features.node_steps(conf, allocation, seen)


# Of the host interface: no address of the kernel's beside ours, no route by what a container says, and no ARP, by whose
# requests a container could fill the table of neighbours that all namespaces share (arp_process, net/ipv4/arp.c).
_SETTINGS = {
    6: (("disable_ipv6", "0"), ("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_redirects", "0")),
    4: (("arp_ignore", "8"),),
}


def settings(host: str, present: Iterable[int]) -> Iterator[ops.SetSysctl]:
    """The sysctls of a host interface for the families of its container."""
    for family in present:
        yield from (ops.SetSysctl(HOST, f"ipv{family}/conf/{host}/{key}", value) for key, value in _SETTINGS[family])


def _gateways_of(site: Site, ips: Iterable[Address]) -> Iterable[Op]:
    """The container's neighbours: the node alone, which it need not ask for. A next hop has to be on-link."""
    for gateway in dict.fromkeys(ip.gateway for ip in ips if ip.gateway):
        yield ops.SetNeighbour(site.netns, site.owner.ifname, gateway, names.host_mac(site.owner))
        if ":" not in gateway:
            yield ops.AddRoute(site.netns, site.owner.ifname, f"{gateway}/32")


def host_end(host: str, link: RoutedLink, anchors: Iterable[GatewayAddress]) -> Iterable[Op]:
    """The node's addresses on the link, its way to the container's addresses, and the gateway's on loopback.

    The scope of the IPv4 address keeps it from being the source of what the node sends to the container.
    """
    known = tuple(anchors)
    routes = [anchor for anchor in known if anchor.on_link]
    if any(":" in route.prefix for route in routes):
        yield ops.AddAddress(HOST, host, f"{GATEWAY}/64")
    if link.ipv4_gateway:
        yield ops.AddAddress(HOST, host, f"{link.ipv4_gateway}/32", scope=HOST_SCOPE)
    for route in routes:
        yield ops.SetNeighbour(HOST, host, route.prefix.partition("/")[0], link.mac)
    yield from map(gateways.ensure, known)


# The rest of the network's prefixes


@once
def rest(conf: RoutedConf) -> tuple[GatewayAddress, ...]:
    """The network's prefixes, where the rest of them is to be unreachable.

    Otherwise a packet to an address that no container has would go back to the router that sent it, by the default
    route, until its hop limit is used up. Not of a subnet of which the network has only a part, because others may have
    the rest; nor of what is on-link elsewhere (``ndpProxy``, ranges that follow an interface): nobody sends that back.
    """
    if conf.ndp_proxy or not isinstance(conf.ipam, IpamConf):
        return ()
    followed = {follow.subnet for follow in conf.ipam.follows}
    parts = (part for range_set in conf.ipam.sets for part in range_set.written)
    prefixes = dict.fromkeys(map(ranges.subnet, filter(_is_whole, parts)))
    return tuple(GatewayAddress(LOOPBACK, prefix, unreachable=True) for prefix in prefixes if prefix not in followed)


def _is_whole(part: Range) -> bool:
    """Whether a range is all of its subnet, less the first and last addresses, which hosts may not have."""
    last = part.network + (1 << BITS[part.family] - part.prefixlen) - 1
    return part.first <= part.network + 1 and part.last >= last - 1
