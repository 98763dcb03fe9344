"""CHECK of a bridge: compare the result and the configuration with what the kernel has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cni_v6.config.bridge import BridgeConf
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel.facts import Link, RouteEntry
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAddresses, GetLink, GetPortVlans, GetRoutes, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.plan import bridge_port, container, forwarding, gateways
from cni_v6.plan.site import Site
from cni_v6.protocol.result import Address, Interface, Result, Route

MAIN_TABLE = 254  # linux/rtnetlink.h: RT_TABLE_MAIN


def questions(site: Site, conf: BridgeConf, result: Result) -> tuple[Question, ...]:
    """The questions that CHECK asks the kernel."""
    gateway = conf.gateway_interface
    needed: list[Question] = [GetLink(HOST, conf.bridge), GetLink(HOST, _host(site, result))]
    needed += inside_questions(site, result)
    if conf.is_gateway:
        needed += [GetAddresses(HOST, gateway), GetSysctl(HOST, forwarding.IP_FORWARD), *forwarding.questions(gateway)]
    if conf.vlan or conf.vlan_trunk:
        needed.append(GetPortVlans(_host(site, result)))
    return tuple(needed)


def inside_questions(site: Site, result: Result) -> tuple[Question, ...]:
    """The questions about the container's interfaces, for ``inside`` and ``routes``."""
    netns, ifname = site.netns, site.owner.ifname
    return (
        GetLink(netns, ifname), GetAddresses(netns, ifname),
        *(GetRoutes(netns, name) for name in _inside(site, result)),
        *(GetSysctl(netns, key) for key, _ in _expected_sysctls(site, result)),
    )


def compare(site: Site, conf: BridgeConf, result: Result, seen: Snapshot) -> list[str]:
    """The differences between ``result`` and the kernel, one phrase for each.

    :raises CniError: INVALID_CONFIG when the result names no interface of this container.
    """
    return [
        *_bridge(conf, result, seen),
        *_host_interface(site, conf, result, seen),
        *inside(site, result, seen, up=not conf.disable_container_interface),
        *routes(site, result, seen),
        *_gateway(conf, addresses(site, result, site.owner.ifname), seen),
    ]


def find(result: Result, name: str, sandbox: str) -> Interface | None:
    found = (known for known in result.interfaces if known.name == name and known.sandbox == sandbox)
    return next(found, None)


def _host(site: Site, result: Result) -> str:
    """The host interface: ours has a derived name; the reference plugin's is random, so the result has to name it."""
    if find(result, site.host, ""):
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
    if not bridge_port.passes_rules(conf, link):
        yield f"the frames of bridge {conf.bridge} do not pass the node's rules (netfilter)"
    named = find(result, conf.bridge, "")
    if named and named.mac:
        yield from differs(f"bridge {conf.bridge}", "mac", named.mac.lower(), link.mac)


def _host_interface(site: Site, conf: BridgeConf, result: Result, seen: Snapshot) -> Iterable[str]:
    name = _host(site, result)
    link = seen.link(HOST, name)
    if link is None:
        yield f"host interface {name} is missing"
        return
    named = find(result, name, "") or Interface(name, "")
    yield from interface(f"host interface {name}", named, link, up=True)
    if link.master != conf.bridge:
        yield f"{name} is in {f'bridge {link.master}' if link.master else 'no bridge'}, not in {conf.bridge}"
    hairpin, isolated = bridge_port.port_flags(conf)
    yield from differs(name, "hairpin", hairpin, link.hairpin)
    yield from differs(name, "isolated", isolated, link.isolated)
    if conf.vlan or conf.vlan_trunk:
        vlans = seen.port_vlans(name)
        if conf.vlan and (conf.vlan, True) not in vlans:
            yield f"{name} is not in vlan {conf.vlan} untagged"
        present = {vlan for vlan, _ in vlans}
        absent = [vlan for low, high in conf.vlan_trunk for vlan in range(low, high + 1) if vlan not in present]
        if absent:
            yield f"{name} lacks trunk vlans {absent}"


def inside(site: Site, result: Result, seen: Snapshot, *, up: bool) -> Iterable[str]:
    """The differences of the container's interface: the link itself, its addresses, its settings.

    :raises CniError: INVALID_CONFIG when the result names no interface of this container.
    """
    ifname = site.owner.ifname
    named = find(result, ifname, site.netns)
    if named is None:
        words = f"prevResult names no interface {ifname} in {site.netns}"
        raise CniError(INVALID_CONFIG, words, "pass the result of this container's ADD")
    link = seen.link(site.netns, ifname)
    if link is None:
        yield f"interface {ifname} is missing in the container"
        return
    yield from interface(f"interface {ifname}", named, link, up=up)
    present = seen.addresses(site.netns, ifname)
    for ip in addresses(site, result, ifname):
        if ip.address not in present:
            yield f"address {ip.address} is missing on {ifname}"
    for key, value in _expected_sysctls(site, result):
        yield from differs("container", f"net/{key}", value, seen.sysctl(site.netns, key))


def interface(what: str, named: Interface, link: Link, *, up: bool) -> Iterable[str]:
    if named.mac:
        yield from differs(what, "mac", named.mac.lower(), link.mac)
    if named.mtu:
        yield from differs(what, "mtu", named.mtu, link.mtu)
    yield from differs(what, "up", up, link.up)


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


def addresses(site: Site, result: Result, ifname: str) -> list[Address]:
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
    if any(ip.family == 6 for ip in addresses(site, result, ifname)):
        yield f"ipv6/conf/{ifname}/disable_ipv6", "0"
        if find(result, site.host, ""):  # the reference plugin does not set these
            yield f"ipv6/conf/{ifname}/accept_ra", "0"
            yield f"ipv6/conf/{ifname}/autoconf", "0"


Hops = Callable[[Sequence[Address]], Sequence[Address]]


def routes(site: Site, result: Result, seen: Snapshot, hops_of: Hops = tuple) -> Iterable[str]:
    """The differences of the container's routes. The result does not say of which of its interfaces a route is.

    :param hops_of: an interface's addresses with the gateways that the kernel has for them.
    """
    hops = {name: hops_of(addresses(site, result, name)) for name in _inside(site, result)}
    for route in result.routes:
        if not any(
            _same_route(route, container.next_hop(route, ips), entry)
            for name, ips in hops.items() for entry in seen.routes(site.netns, name)
        ):
            gateways_named = dict.fromkeys(container.next_hop(route, ips) or "the link" for ips in hops.values())
            yield f"route {route.dst} via {' or '.join(gateways_named)} is missing"


def _same_route(route: Route, gateway: str | None, entry: RouteEntry) -> bool:
    key = (route.dst, gateway, route.table or MAIN_TABLE)
    optional = ((route.mtu, entry.mtu), (route.advmss, entry.advmss), (route.priority, entry.priority))
    return key == (entry.dst, entry.gateway, entry.table) and all(value in (None, actual) for value, actual in optional)


def _gateway(conf: BridgeConf, ips: list[Address], seen: Snapshot) -> Iterable[str]:
    if not conf.is_gateway:
        return
    interface = conf.gateway_interface
    own = (GatewayAddress(interface, address) for address in gateways.addresses(conf, ips))
    yield from (words for words, _ in gateways.missing(own, seen))
    families = {ip.family for ip in ips}
    if 4 in families:
        yield from differs("node", f"net/{forwarding.IP_FORWARD}", "1", seen.sysctl(HOST, forwarding.IP_FORWARD))
    if 6 in families and not forwarding.is_on(seen, interface):
        yield f"IPv6 forwarding is off on {interface}"


def differs(what: str, attribute: str, expected: object, found: object) -> Iterable[str]:
    if expected != found:
        yield f"{what}: {attribute} is {found}, not {expected}"
