"""CHECK and STATUS of a bridge: compare the result and the configuration with what the kernel has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cni_v6.allocation import ranges
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.errors import INVALID_CONFIG, LIMITED, NOT_AVAILABLE, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import (
    BRIDGE_PORTS_MAX,
    GetAddresses,
    GetLink,
    GetPorts,
    GetPortVlans,
    GetRoutes,
    GetSysctl,
    Link,
    Question,
    RouteEntry,
    Snapshot,
)
from cni_v6.plan import bridge, bridge_port, families, features, forwarding, gateways, mtu, outage
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.site import Site
from cni_v6.protocol.result import Address, Interface, Result, Route

MAIN_TABLE = 254  # linux/rtnetlink.h: RT_TABLE_MAIN


def questions(site: Site, conf: BridgeConf, result: Result) -> tuple[Question, ...]:
    """The questions that CHECK asks the kernel."""
    ifname, gateway = site.owner.ifname, conf.gateway_interface
    needed: list[Question] = [GetLink(HOST, conf.bridge), GetLink(HOST, _host(site, result))]
    needed += [GetLink(site.netns, ifname), GetAddresses(site.netns, ifname), GetRoutes(site.netns, ifname)]
    needed += [GetSysctl(site.netns, key) for key, _ in _expected_sysctls(site, result)]
    if conf.is_gateway:
        needed += [GetAddresses(HOST, gateway), GetSysctl(HOST, "ipv4/ip_forward"), *forwarding.questions(gateway)]
    if conf.vlan or conf.vlan_trunk:
        needed.append(GetPortVlans(_host(site, result)))
    return tuple(needed)


def compare(site: Site, conf: BridgeConf, result: Result, seen: Snapshot) -> list[str]:
    """The differences between ``result`` and the kernel, one phrase for each.

    :raises CniError: INVALID_CONFIG when the result names no interface of this container.
    """
    return [
        *_bridge(conf, result, seen),
        *_host_interface(site, conf, result, seen),
        *_container(site, conf, result, seen),
        *_routes(site, result, seen),
        *_gateway(conf, result, seen),
    ]


def _find(result: Result, name: str, sandbox: str) -> Interface | None:
    found = (known for known in result.interfaces if known.name == name and known.sandbox == sandbox)
    return next(found, None)


def _host(site: Site, result: Result) -> str:
    """The host interface: ours has a derived name; the reference plugin's is random, so the result has to name it."""
    if _find(result, site.host, ""):
        return site.host
    candidates = [interface.name for interface in result.interfaces if not interface.sandbox]
    return candidates[1] if len(candidates) > 1 else site.host


def _bridge(conf: BridgeConf, result: Result, seen: Snapshot) -> Iterable[str]:
    link = seen.link(HOST, conf.bridge)
    if link is None or link.kind != "bridge":
        yield f"bridge {conf.bridge} is missing" if link is None else f"{conf.bridge} is no bridge"
        return
    if not link.up:
        yield f"bridge {conf.bridge} is down"
    if conf.promisc and not link.promisc:
        yield f"bridge {conf.bridge} is not promiscuous"
    named = _find(result, conf.bridge, "")
    if named and named.mac:
        yield from _differs(f"bridge {conf.bridge}", "mac", named.mac.lower(), link.mac)


def _host_interface(site: Site, conf: BridgeConf, result: Result, seen: Snapshot) -> Iterable[str]:
    name = _host(site, result)
    link = seen.link(HOST, name)
    if link is None:
        yield f"host interface {name} is missing"
        return
    named = _find(result, name, "") or Interface(name, "")
    yield from _interface(f"host interface {name}", named, link, up=True)
    yield from _differs(name, "bridge", conf.bridge, link.master)
    hairpin, isolated = bridge_port.port_flags(conf)
    yield from _differs(name, "hairpin", hairpin, link.hairpin)
    yield from _differs(name, "isolated", isolated, link.isolated)
    if conf.vlan or conf.vlan_trunk:
        vlans = seen.port_vlans(name)
        if conf.vlan and (conf.vlan, True) not in vlans:
            yield f"{name} is not in vlan {conf.vlan} untagged"
        present = {vlan for vlan, _ in vlans}
        absent = [vlan for low, high in conf.vlan_trunk for vlan in range(low, high + 1) if vlan not in present]
        if absent:
            yield f"{name} lacks trunk vlans {absent}"


def _container(site: Site, conf: BridgeConf, result: Result, seen: Snapshot) -> Iterable[str]:
    ifname = site.owner.ifname
    named = _find(result, ifname, site.netns)
    if named is None:
        words = f"prevResult names no interface {ifname} in {site.netns}"
        raise CniError(INVALID_CONFIG, words, "pass the result of this container's ADD")
    link = seen.link(site.netns, ifname)
    if link is None:
        yield f"interface {ifname} is missing in the container"
        return
    yield from _interface(f"interface {ifname}", named, link, up=not conf.disable_container_interface)
    present = seen.addresses(site.netns, ifname)
    for ip in _own_addresses(site, result):
        if ip not in present:
            yield f"address {ip} is missing on {ifname}"
    for key, value in _expected_sysctls(site, result):
        yield from _differs("container", f"net/{key}", value, seen.sysctl(site.netns, key))


def _interface(what: str, named: Interface, link: Link, *, up: bool) -> Iterable[str]:
    if named.mac:
        yield from _differs(what, "mac", named.mac.lower(), link.mac)
    if named.mtu:
        yield from _differs(what, "mtu", named.mtu, link.mtu)
    yield from _differs(what, "up", up, link.up)


def _own_addresses(site: Site, result: Result) -> list[str]:
    """The addresses of this container's interface. Later plugins of a chain may add some on other interfaces."""
    index = next(
        (
            number
            for number, interface in enumerate(result.interfaces)
            if interface.name == site.owner.ifname and interface.sandbox == site.netns
        ),
        None,
    )
    return [ip.address for ip in result.ips if ip.interface is None or ip.interface == index]


def _expected_sysctls(site: Site, result: Result) -> Iterable[tuple[str, str]]:
    ifname = site.owner.ifname
    if any(":" in address for address in _own_addresses(site, result)):
        yield f"ipv6/conf/{ifname}/disable_ipv6", "0"
        if _find(result, site.host, ""):  # the reference plugin does not set these
            yield f"ipv6/conf/{ifname}/accept_ra", "0"
            yield f"ipv6/conf/{ifname}/autoconf", "0"


def _routes(site: Site, result: Result, seen: Snapshot) -> Iterable[str]:
    present = seen.routes(site.netns, site.owner.ifname)
    for route in result.routes:
        gateway = bridge.next_hop(route, result.ips)
        if not any(_same_route(route, gateway, entry) for entry in present):
            yield f"route {route.dst} via {gateway or 'the link'} is missing"


def _same_route(route: Route, gateway: str | None, entry: RouteEntry) -> bool:
    key = (route.dst, gateway, route.table or MAIN_TABLE)
    optional = ((route.mtu, entry.mtu), (route.advmss, entry.advmss), (route.priority, entry.priority))
    return key == (entry.dst, entry.gateway, entry.table) and all(value in (None, actual) for value, actual in optional)


def _gateway(conf: BridgeConf, result: Result, seen: Snapshot) -> Iterable[str]:
    if not conf.is_gateway:
        return
    interface = conf.gateway_interface
    present = seen.addresses(HOST, interface)
    for address in gateways.addresses(conf, result.ips):
        if not gateways.is_there(address, present):
            yield f"gateway address {address} is missing on {interface}"
    families = {ip.family for ip in result.ips}
    if 4 in families:
        yield from _differs("node", "net/ipv4/ip_forward", "1", seen.sysctl(HOST, "ipv4/ip_forward"))
    if 6 in families and not forwarding.is_on(seen, interface):
        yield f"IPv6 forwarding is off on {interface}"


def _differs(what: str, attribute: str, expected: object, found: object) -> Iterable[str]:
    if expected != found:
        yield f"{what}: {attribute} is {found}, not {expected}"


# STATUS


def status_questions(conf: BridgeConf, node: str, records: Iterable[Attachment]) -> tuple[Question, ...]:
    """The questions that STATUS asks the kernel, before ``outage.more_questions``.

    :param node: the node's machine id (``Site.node``).
    :param records: the network's attachments.
    """
    gateway = conf.gateway_interface
    needed: list[Question] = [GetLink(HOST, conf.bridge), GetPorts(conf.bridge)]
    needed += [GetSysctl(HOST, "ipv4/ip_forward"), *families.host_questions(), *features.questions(conf)]
    return (*needed, *forwarding.questions(gateway), *outage.questions(conf, node, records))


def check_status(conf: BridgeConf, node: str, records: Sequence[Attachment], seen: Snapshot) -> list[str]:
    """What STATUS finds in the kernel.

    :returns: warnings.
    :raises CniError: NOT_AVAILABLE when an ADD would fail, LIMITED when containers that run are cut off.
    """
    features.check(conf, seen)
    link = seen.link(HOST, conf.bridge)
    if link and link.kind != "bridge":
        words = f"bridge: {conf.bridge} exists and is no bridge"
        raise CniError(NOT_AVAILABLE, words, "choose another name for the bridge, or remove that interface")
    ports = len(seen.ports(conf.bridge))
    if ports >= BRIDGE_PORTS_MAX:
        words = f"bridge {conf.bridge} has {ports} ports, as many as a Linux bridge takes"
        raise CniError(NOT_AVAILABLE, words, "remove containers, or add a second network with its own bridge")
    of_network, required = _families(conf)
    disabled = seen.sysctl(HOST, "ipv6/conf/all/disable_ipv6")
    if 6 in required and disabled is None:
        words = "the kernel has no IPv6 and the network has IPv6 ranges"
        raise CniError(NOT_AVAILABLE, words, "boot without ipv6.disable=1, or use IPv4 ranges only")
    if conf.is_gateway and 6 in required and disabled != "0":
        words = "IPv6 is off on this node (net.ipv6.conf.all.disable_ipv6) and the network has IPv6 ranges"
        raise CniError(NOT_AVAILABLE, words, "run sysctl -w net.ipv6.conf.all.disable_ipv6=0")
    if conf.is_gateway:
        list(gateways.steps(conf, _first_gateways(conf, required), node, seen))  # for its errors
    small = mtu.too_small(conf, seen) if 6 in required else None
    present = of_network if disabled == "0" else of_network - {6}
    if link and ports and records:
        _check_running(NOT_AVAILABLE if small else LIMITED, outage.faults(conf, node, records, present, seen))
    if small:
        raise small
    return list(outage.warnings(conf, present, seen))


def _families(conf: BridgeConf) -> tuple[frozenset[int], frozenset[int]]:
    """The families of the network's ranges, and those that ``ipam.required`` names."""
    if not isinstance(conf.ipam, IpamConf):
        return frozenset(), frozenset()
    found = frozenset(addresses.family for addresses in conf.ipam.sets)
    return found, found - conf.ipam.optional


def _first_gateways(conf: BridgeConf, required: frozenset[int]) -> Iterable[Address]:
    """The gateway of the first range of each set of a required family, as of a container there."""
    parts = [one.written[0] for one in conf.ipam.sets] if isinstance(conf.ipam, IpamConf) else []
    subnets = (Address(ranges.subnet(part), part.gateway) for part in parts)
    return [each for each in subnets if each.family in required]


def _check_running(code: int, faults: Iterable[outage.Fault]) -> None:
    """:raises CniError: naming all that running containers have lost, with the commands for all of it."""
    found = list(faults)
    if found:
        commands = dict.fromkeys(command for fault in found for command in fault.commands)
        remedy = f"run: {'; '.join(commands)}" if commands else "run ADD for a container of the network"
        raise CniError(code, "; ".join(fault.what for fault in found), remedy)
