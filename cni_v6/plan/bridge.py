"""Plans an ADD of the bridge plugin: its operations and its result, before anything is changed.

Pure: takes the configuration, the addresses and a snapshot of the kernel; returns operations and the result. Names and
MACs are derived, so the result is known before the operations run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cni_v6.config.bridge import BridgeConf
from cni_v6.config.main import once
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.plan import (
    bridge_port,
    container,
    families,
    features,
    gateways,
    mac as plan_mac,
    mtu as plan_mtu,
    prefix_routes,
)
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol import names
from cni_v6.protocol.result import Address, Interface, Result, Route


def questions(site: Site, conf: BridgeConf) -> tuple[Question, ...]:
    """The questions to the kernel that an ADD needs answered before it allocates addresses."""
    vlan = bridge_port.questions(conf, site.node) if conf.is_gateway else ()
    return *container.questions(site, conf), *_of_all(conf), *vlan


@once
def _of_all(conf: BridgeConf) -> tuple[Question, ...]:
    """The questions that are the same for all containers of a network."""
    addresses = [GetAddresses(HOST, conf.gateway_interface)] if conf.is_gateway else []
    own = GetLink(HOST, conf.bridge), *bridge_port.setting_questions(conf.bridge), *families.host_questions()
    return *own, *addresses, *plan_mac.questions(conf), *features.questions(conf)


def check_free(site: Site, conf: BridgeConf, seen: Snapshot) -> None:
    """Refuse, before anything is allocated, an attachment that cannot work.

    :raises CniError: NODE_CONFLICT, ALREADY_ATTACHED, ADDRESS_UNAVAILABLE for a requested MAC.
    """
    features.check(conf, seen)
    bridge = seen.link(HOST, conf.bridge)
    if bridge and bridge.kind != "bridge":
        words = f"bridge: {conf.bridge} exists and is no bridge but a {bridge.kind or 'network'} interface"
        raise CniError(NODE_CONFLICT, words, "choose another name for the bridge, or remove that interface")
    container.check_free(site, seen)
    plan_mac.refuse_taken(conf, site, seen)


def plan_add(site: Site, conf: BridgeConf, allocation: Allocation, seen: Snapshot) -> Plan:
    """Operations and result of an ADD.

    :param seen: answers to ``questions``, and to ``features.more_questions`` for a gateway with IPv6 addresses.
    :raises CniError: NODE_CONFLICT, IPV6_DISABLED.
    """
    off = families.ipv6_off(site.netns, seen, gateway=conf.is_gateway)
    off = off or plan_mtu.too_small(conf, seen)
    if off and 6 in allocation.families():  # from another IPAM plugin: ours allocates none then
        raise off
    bridge, known_mtu = seen.link(HOST, conf.bridge), plan_mtu.mtu(conf, allocation.families(), seen)
    conf = conf if known_mtu == conf.mtu else replace(conf, mtu=known_mtu)
    mtu = conf.mtu or (bridge.mtu if bridge else plan_mtu.DEFAULT_MTU)
    addresses = [ip.ip for ip in allocation.ips]
    mac = plan_mac.mac(conf, site.owner, site.node, addresses, seen)
    announced = plan_mac.to_announce(conf, site.node, addresses, seen)
    routes = _routes(conf, allocation)
    route_steps = tuple(
        container.route(site, route, allocation.ips) for route in routes if not conf.disable_container_interface
    )
    steps = (
        *bridge_port.not_yet_set(bridge_port.drop_repeated_sysctls((
            *make_bridge(conf, site.node, allocation.families(), seen), *bring_up(conf, site.node, seen),
            *_gateway(site, conf, allocation, seen, mtu=mtu),
        )), seen),
        *_port(site, conf, seen, mtu=mtu, mac=mac),
        *_container(site, conf, allocation, seen, announced),
        *route_steps,
        *features.container_steps(site, conf, replace(allocation, routes=routes), seen),
        *_arrival(site, conf, allocation, seen, mac, announced),
        *features.arrival_steps(conf, allocation, seen),
    )
    interfaces = (
        Interface(conf.bridge, bridge_port.bridge_mac(conf, site.node, seen), mtu=mtu),
        Interface(site.host, names.host_mac(site.owner), mtu=mtu),
        Interface(site.owner.ifname, mac, sandbox=site.netns, mtu=mtu),
        *bridge_port.gateway_result(conf, site.node, allocation.families(), seen, mtu=mtu),
    )
    ips = tuple(Address(ip.address, ip.gateway, interface=2) for ip in allocation.ips)
    ips += prefix_routes.in_result(allocation.delegated)
    return Plan(steps, Result(interfaces, ips, routes, conf.dns or allocation.dns), route_steps)


# The bridge, and the gateway on it


def make_bridge(conf: BridgeConf, node: str, families: frozenset[int], seen: Snapshot) -> Iterable[Op]:
    """Create the bridge, or complete it; ``bring_up`` comes after it.

    :param node: the node's machine id (``Site.node``).
    """
    bridge = seen.link(HOST, conf.bridge)
    filtering = bool(conf.vlan or conf.vlan_trunk)
    if bridge is None:
        mac = bridge_port.bridge_mac(conf, node, seen)
        yield ops.EnsureBridge(conf.bridge, mac, conf.mtu, conf.multicast_snooping, filtering)
    elif not bridge_port.is_own_bridge(conf, node, seen):
        yield ops.PinMac(conf.bridge, bridge_port.bridge_mac(conf, node, seen))
    if filtering and not (bridge and bridge.vlan_filtering):  # on a new one too: another network may create it first
        yield ops.SetBridge(conf.bridge, vlan_filtering=True)
    if not bridge_port.passes_rules(conf, bridge):
        yield ops.SetBridge(conf.bridge, netfilter=bridge_port.ALL_FRAMES)
    if bridge_port.is_own_bridge(conf, node, seen) and bridge_port.has_ipv6(seen):
        yield from bridge_port.disable_autoconf(conf.bridge, created=bridge is None, families=families)


def bring_up(conf: BridgeConf, node: str, seen: Snapshot) -> Iterable[Op]:
    """Bring the bridge up, promiscuous and in its link group where that is wanted; arguments as ``make_bridge``."""
    bridge = seen.link(HOST, conf.bridge)
    group = None if conf.is_gateway and conf.vlan else bridge_port.group(conf, node, seen)
    if bridge is None or not bridge.up or (conf.promisc and not bridge.promisc) or group is not None:
        yield ops.SetLink(HOST, conf.bridge, up=True, promisc=True if conf.promisc else None, group=group)


def _gateway(site: Site, conf: BridgeConf, allocation: Allocation, seen: Snapshot, *, mtu: int) -> Iterable[Op]:
    if not conf.is_gateway or not allocation.ips:
        return
    if conf.vlan:
        yield from bridge_port.gateway(conf, site.node, allocation.families(), seen, mtu=mtu)
    yield from gateways.steps(conf, allocation.ips, site.node, seen)
    if 4 in allocation.families():
        yield ops.SetSysctl(HOST, "ipv4/ip_forward", "1")
        yield from bridge_port.loopback_ports(conf)
    yield from features.node_steps(conf, allocation, seen)


# The container


def _port(site: Site, conf: BridgeConf, seen: Snapshot, *, mtu: int, mac: str) -> Iterable[Op]:
    owner, host = site.owner, site.host
    yield ops.CreateVeth(host, names.host_mac(owner), conf.bridge, site.netns, owner.ifname, mac, mtu)
    yield ops.SetAlias(HOST, host, names.alias(owner))
    yield ops.ClaimMac(host, conf.bridge, mac)
    if any(bridge_port.port_flags(conf)):
        yield ops.SetPort(host, *bridge_port.port_flags(conf))
    yield from bridge_port.vlans(host, conf, seen)
    yield from bridge_port.disable_ipv6(host, seen)


def _routes(conf: BridgeConf, allocation: Allocation) -> tuple[Route, ...]:
    """IPAM's routes. With ``isDefaultGateway``, also a default route for each family that has none."""
    routes = list(allocation.routes)
    if conf.is_default_gateway:
        for ip in allocation.ips:
            default = container.DEFAULT_ROUTE[ip.family]
            if ip.gateway and not any(route.dst == default and route.table is None for route in routes):
                routes.append(Route(default, ip.gateway))
    return tuple(routes)


def _container(
    site: Site, conf: BridgeConf, allocation: Allocation, seen: Snapshot, announced: frozenset[int]
) -> Iterable[Op]:
    """The interface of the container. An IPv6 address whose uniqueness is tested comes once the port is enabled: the
    kernel sends the solicitation as soon as the container has carrier, which it has before the port, and once."""
    tested = _tested(conf, allocation)
    yield from container.steps(
        site, allocation, seen, announced=announced, dad=conf.enable_dad, up=not conf.disable_container_interface,
        later=frozenset(ip.family for ip in tested),
    )
    if tested:
        yield awaits.AwaitPort(site.host)
        yield from container.addresses(site, tested, dad=True)


def _tested(conf: BridgeConf, allocation: Allocation) -> list[Address]:
    """The addresses whose uniqueness the kernel tests: it begins once the interface is up."""
    is_tested = conf.enable_dad and not conf.disable_container_interface
    return [ip for ip in allocation.ips if ip.family == 6] if is_tested else []


def _arrival(
    site: Site, conf: BridgeConf, allocation: Allocation, seen: Snapshot, mac: str, announced: frozenset[int]
) -> Iterable[Op]:
    """Wait for the port, for a gateway that had no carrier, as a bridge without ports has none, and for the addresses.
    Then announce those whose old MAC neighbours may still have in their caches."""
    if conf.disable_container_interface:
        return
    tested = _tested(conf, allocation)
    if not tested:
        yield awaits.AwaitPort(site.host)
    if conf.is_gateway and allocation.ips:
        gateway, bridge = (seen.link(HOST, name) for name in (conf.gateway_interface, conf.bridge))
        if not (gateway and gateway.running) and not (bridge and bridge.stp):
            yield awaits.AwaitCarrier(conf.gateway_interface)
    if tested:
        yield awaits.AwaitAddresses(site.netns, site.owner.ifname)
    else:
        yield from container.reception(site, allocation)
    if announced:
        yield ops.Announce(site.netns, site.owner.ifname, mac)
