"""CHECK and STATUS of a bridge: compare the result and the configuration with what the kernel has."""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.errors import INVALID_CONFIG, LIMITED, NOT_AVAILABLE, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import (
    BRIDGE_PORTS_MAX,
    GetAddresses,
    GetLink,
    GetLinks,
    GetPortVlans,
    GetRoutes,
    GetSysctl,
    Link,
    Question,
    RouteEntry,
    Snapshot,
)
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bridge, bridge_port, forwarding, gateways
from cni_v6.plan.site import Site
from cni_v6.protocol.names import owner_of_alias
from cni_v6.protocol.result import Address, Interface, Result, Route

MAIN_TABLE = 254  # linux/rtnetlink.h: RT_TABLE_MAIN
NAMED = 3  # of the containers that STATUS says are cut off


def questions(site: Site, conf: BridgeConf, result: Result) -> tuple[Question, ...]:
    """The questions that CHECK asks the kernel."""
    ifname, gateway = site.owner.ifname, conf.gateway_interface
    needed: list[Question] = [GetLink(HOST, conf.bridge), GetLink(HOST, _host(site, result))]
    needed += [GetLink(site.netns, ifname), GetAddresses(site.netns, ifname)]
    needed += [GetRoutes(site.netns, name) for name in _inside(site, result)]
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
        *_gateway(conf, _addresses(site, result, site.owner.ifname), seen),
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
    if link.master != conf.bridge:
        yield f"{name} is in {f'bridge {link.master}' if link.master else 'no bridge'}, not in {conf.bridge}"
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
    for ip in _addresses(site, result, ifname):
        if ip.address not in present:
            yield f"address {ip.address} is missing on {ifname}"
    for key, value in _expected_sysctls(site, result):
        yield from _differs("container", f"net/{key}", value, seen.sysctl(site.netns, key))


def _interface(what: str, named: Interface, link: Link, *, up: bool) -> Iterable[str]:
    if named.mac:
        yield from _differs(what, "mac", named.mac.lower(), link.mac)
    if named.mtu:
        yield from _differs(what, "mtu", named.mtu, link.mtu)
    yield from _differs(what, "up", up, link.up)


def changed_mac(site: Site, record: Attachment | None, seen: Snapshot) -> Iterable[str]:
    """The difference between the container's MAC and the one that the guard lets pass.

    A chained plugin that changes the MAC also changes it in the result, so the result does not tell.

    :param seen: answers to ``questions``.
    """
    policy, link = record.policy if record else None, seen.link(site.netns, site.owner.ifname)
    if policy and link and policy.guard and policy.mac not in ("", link.mac):
        yield (f"interface {site.owner.ifname}: mac is {link.mac}, and the guard lets only {policy.mac} pass; "
               "no chained plugin (tuning) may change it: ask for a MAC by capability mac, args.cni.mac or MAC= in "
               "CNI_ARGS")


def _inside(site: Site, result: Result) -> list[str]:
    """The container's interfaces: its own, and those of other plugins of a chain."""
    others = (known.name for known in result.interfaces if known.sandbox == site.netns)
    return list(dict.fromkeys((site.owner.ifname, *others)))


def _addresses(site: Site, result: Result, ifname: str) -> list[Address]:
    """The addresses of an interface of the container. Those of no interface are its own's, where that has no other."""
    index = next(
        (
            number
            for number, interface in enumerate(result.interfaces)
            if interface.name == ifname and interface.sandbox == site.netns
        ),
        None,
    )
    found = [ip for ip in result.ips if ip.interface is not None and ip.interface == index]
    return found or [ip for ip in result.ips if ip.interface is None and ifname == site.owner.ifname]


def _expected_sysctls(site: Site, result: Result) -> Iterable[tuple[str, str]]:
    ifname = site.owner.ifname
    if any(ip.family == 6 for ip in _addresses(site, result, ifname)):
        yield f"ipv6/conf/{ifname}/disable_ipv6", "0"
        if _find(result, site.host, ""):  # the reference plugin does not set these
            yield f"ipv6/conf/{ifname}/accept_ra", "0"
            yield f"ipv6/conf/{ifname}/autoconf", "0"


def _routes(site: Site, result: Result, seen: Snapshot) -> Iterable[str]:
    """A route of the result is of one of the container's interfaces, it does not say which."""
    hops = {name: _addresses(site, result, name) for name in _inside(site, result)}
    for route in result.routes:
        if not any(
            _same_route(route, bridge.next_hop(route, ips), entry)
            for name, ips in hops.items() for entry in seen.routes(site.netns, name)
        ):
            gateways_named = dict.fromkeys(bridge.next_hop(route, ips) or "the link" for ips in hops.values())
            yield f"route {route.dst} via {' or '.join(gateways_named)} is missing"


def _same_route(route: Route, gateway: str | None, entry: RouteEntry) -> bool:
    key = (route.dst, gateway, route.table or MAIN_TABLE)
    optional = ((route.mtu, entry.mtu), (route.advmss, entry.advmss), (route.priority, entry.priority))
    return key == (entry.dst, entry.gateway, entry.table) and all(value in (None, actual) for value, actual in optional)


def _gateway(conf: BridgeConf, ips: list[Address], seen: Snapshot) -> Iterable[str]:
    if not conf.is_gateway:
        return
    interface = conf.gateway_interface
    present = seen.addresses(HOST, interface)
    for address in gateways.addresses(conf, ips):
        if not gateways.is_there(address, present):
            yield f"gateway address {address} is missing on {interface}"
    families = {ip.family for ip in ips}
    if 4 in families:
        yield from _differs("node", "net/ipv4/ip_forward", "1", seen.sysctl(HOST, "ipv4/ip_forward"))
    if 6 in families and not forwarding.is_on(seen, interface):
        yield f"IPv6 forwarding is off on {interface}"


def _differs(what: str, attribute: str, expected: object, found: object) -> Iterable[str]:
    if expected != found:
        yield f"{what}: {attribute} is {found}, not {expected}"


# STATUS


def status_questions(conf: BridgeConf) -> tuple[Question, ...]:
    """The questions that STATUS asks the kernel."""
    gateway = conf.gateway_interface
    needed: list[Question] = [GetLink(HOST, conf.bridge), GetLinks()]
    needed += [GetSysctl(HOST, "ipv6/conf/all/disable_ipv6"), GetSysctl(HOST, "ipv4/ip_forward")]
    return (*needed, *forwarding.questions(gateway))


def check_status(conf: BridgeConf, seen: Snapshot) -> None:
    """:raises CniError: NOT_AVAILABLE when an ADD would fail, LIMITED when containers that run are cut off."""
    link = seen.link(HOST, conf.bridge)
    if link and link.kind != "bridge":
        words = f"bridge: {conf.bridge} exists and is no bridge"
        raise CniError(NOT_AVAILABLE, words, "choose another name for the bridge, or remove that interface")
    ports = sum(port.master == conf.bridge for port in seen.links())
    if ports >= BRIDGE_PORTS_MAX:
        words = f"bridge {conf.bridge} has {ports} ports, as many as a Linux bridge takes"
        raise CniError(NOT_AVAILABLE, words, "remove containers, or add a second network with its own bridge")
    families, required = _families(conf)
    disabled = seen.sysctl(HOST, "ipv6/conf/all/disable_ipv6")
    if 6 in required and disabled is None:
        words = "the kernel has no IPv6 and the network has IPv6 ranges"
        raise CniError(NOT_AVAILABLE, words, "boot without ipv6.disable=1, or use IPv4 ranges only")
    if conf.is_gateway and 6 in required and disabled != "0":
        words = "IPv6 is off on this node (net.ipv6.conf.all.disable_ipv6) and the network has IPv6 ranges"
        raise CniError(NOT_AVAILABLE, words, "run sysctl -w net.ipv6.conf.all.disable_ipv6=0")
    _check_plugged(conf, seen)
    if link and ports:
        _check_running(conf, link, families if disabled == "0" else families - {6}, seen)


def _families(conf: BridgeConf) -> tuple[frozenset[int], frozenset[int]]:
    """The families of the network's ranges, and those that ``ipam.required`` names."""
    if not isinstance(conf.ipam, IpamConf):
        return frozenset(), frozenset()
    families = frozenset(addresses.family for addresses in conf.ipam.sets)
    return families, families - conf.ipam.optional


def _check_plugged(conf: BridgeConf, seen: Snapshot) -> None:
    """Check that the containers of the network are in a bridge: one that is deleted leaves its ports behind."""
    owners = sorted(
        owner for link in seen.links()
        if not link.master and (owner := owner_of_alias(link.alias)) and owner.network == conf.network
    )
    if owners:
        first = ", ".join(f"{owner.container_id}/{owner.ifname}" for owner in owners[:NAMED])
        more = f" and {len(owners) - NAMED} more" if len(owners) > NAMED else ""
        words = f"containers are in no bridge, so they are cut off: {first}{more}"
        raise CniError(LIMITED, words, f"run cni-v6ctl check {conf.network} --repair")


def _check_running(conf: BridgeConf, link: Link, families: frozenset[int], seen: Snapshot) -> None:
    """Check what attached containers need: the bridge is up, and the node forwards."""
    if not link.up:
        raise CniError(LIMITED, f"bridge {conf.bridge} is down", f"run ip link set {conf.bridge} up")
    if not conf.is_gateway:
        return
    if 4 in families and seen.sysctl(HOST, "ipv4/ip_forward") != "1":
        raise CniError(LIMITED, "IPv4 forwarding is off on this node", "run sysctl -w net.ipv4.ip_forward=1")
    interface = conf.gateway_interface
    if 6 in families and not forwarding.is_on(seen, interface):
        remedy = f"the next ADD turns it on; or run sysctl -w net/ipv6/conf/{interface}/force_forwarding=1"
        raise CniError(LIMITED, f"IPv6 forwarding is off on {interface}", remedy)
