"""Plans an ADD of the plugins whose containers have a child of one of the node's interfaces: macvlan, ipvlan, vlan.

On the link are routers, other nodes and their containers. So duplicate address detection is on, addresses are always
announced, and what routers advertise counts only if it is asked for. The node itself does not reach the container: the
kernel passes no frame between a macvlan or an ipvlan and its master, and a vlan is a link of its own.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from cni_v6.config import ranges as config_ranges
from cni_v6.config.child import Child, ChildConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import AUTO, IPV6_MIN_MTU
from cni_v6.errors import ADDRESS_UNAVAILABLE, NODE_CONFLICT, CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, GetUplinks, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import ChildLink
from cni_v6.plan import container, families, features, host_access, slaac
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol import names
from cni_v6.protocol.result import Address, Interface, Result

_NO_AUTOCONF = ("accept_ra", "autoconf")


# The configuration, with what the node has


def master_questions(conf: ChildConf) -> tuple[Question, ...]:
    """The question which interface the master is."""
    return (GetUplinks(),) if conf.master == AUTO else ()


def with_master(conf: Child, seen: Snapshot, *, needed: bool) -> Child:
    """The configuration with the master's name. Of two default routes that of IPv4 counts, as for the reference.

    :param needed: else the configuration stays as it is without a default route.
    :raises CniError: NODE_CONFLICT if there is no default route.
    """
    if conf.master != AUTO:
        return conf
    uplinks = seen.uplinks()
    if not uplinks and not needed:
        return conf
    if not uplinks:
        words = f"master: {AUTO}: the node has no default route that could name it"
        raise CniError(NODE_CONFLICT, words, "write the name of an interface, or set a default route")
    return replace(conf, master=uplinks[0].ifname)


def address_questions(conf: ChildConf) -> tuple[Question, ...]:
    """The question for ``without_own``: the node's addresses on the master."""
    return (GetAddresses(HOST, conf.master),) if _shares_subnet(conf) else ()


def _shares_subnet(conf: ChildConf) -> bool:
    """Whether the node itself has addresses of the containers' subnets on the master."""
    return conf.is_on_masters_link and not conf.link_in_container


def without_own(conf: Child, seen: Snapshot) -> Child:
    """The configuration without the node's own addresses on the master, which are in the same subnet.

    No duplicate address detection would find them, since the master does not hear its children.

    :raises CniError: ADDRESS_UNAVAILABLE for one that is requested.
    """
    if not _shares_subnet(conf) or not isinstance(conf.ipam, IpamConf):
        return conf
    own = [address.partition("/")[0] for address in seen.addresses(HOST, conf.master)]
    taken = next((address for address in conf.ipam.requested if address in own), "")
    if taken:
        words = f"address {taken} is the node's own, on {conf.master}"
        raise CniError(ADDRESS_UNAVAILABLE, words, "ask for another address")
    sets = tuple(config_ranges.without(range_set, own) for range_set in conf.ipam.sets)
    return conf if sets == conf.ipam.sets else replace(conf, ipam=replace(conf.ipam, sets=sets))


# ADD


def place(site: Site, conf: ChildConf) -> str:
    """The namespace of the master."""
    return site.netns if conf.link_in_container else HOST


def questions(site: Site, conf: ChildConf) -> tuple[Question, ...]:
    """The questions to the kernel that an ADD needs answered before it allocates addresses."""
    return *container.questions(site, conf), GetLink(place(site, conf), conf.master), *_of_all(conf)


def _of_all(conf: ChildConf) -> tuple[Question, ...]:
    return *host_access.questions(conf), *features.questions(conf)


def check_free(site: Site, conf: ChildConf, seen: Snapshot) -> None:
    """Refuse, before anything is allocated, an attachment that cannot work.

    :raises CniError: NODE_CONFLICT, ALREADY_ATTACHED.
    """
    features.check(conf, seen)
    check_master(conf, seen.link(place(site, conf), conf.master))
    container.check_free(site, seen)


def check_master(conf: ChildConf, master: Link | None) -> None:
    """
    :raises CniError: NODE_CONFLICT for a master that is missing, down, or smaller than the MTU.
    """
    where = "the container" if conf.link_in_container else "the node"
    if master is None:
        raise CniError(NODE_CONFLICT, f"master: {where} has no interface {conf.master}",
                       "write the name of one that it has")
    if not master.up:
        raise CniError(NODE_CONFLICT, f"master {conf.master} is down, so containers on it reach nobody",
                       f"run ip link set {conf.master} up")
    if conf.mtu > master.mtu:
        words = f"mtu: {conf.mtu} is more than the {master.mtu} of master {conf.master}"
        raise CniError(NODE_CONFLICT, words, f"write 0 for the master's own, or run ip link set {conf.master} mtu ...")
    if master.mtu < IPV6_MIN_MTU and _has_ipv6(conf):
        words = f"master {conf.master} has an MTU of {master.mtu}, and IPv6 needs {IPV6_MIN_MTU} (RFC 8200, section 5)"
        raise CniError(NODE_CONFLICT, words, f"run ip link set {conf.master} mtu {IPV6_MIN_MTU}")


def _has_ipv6(conf: ChildConf) -> bool:
    """Whether a container must have IPv6."""
    sets, optional = (conf.ipam.sets, conf.ipam.optional) if isinstance(conf.ipam, IpamConf) else ((), frozenset())
    return bool(conf.slaac_timeout) or (any(range_set.family == 6 for range_set in sets) and 6 not in optional)


def to_record(site: Site, conf: ChildConf) -> ChildLink:
    """What is recorded of the link."""
    return ChildLink(site.netns, conf.master, conf.link_in_container, conf.node_interface, conf.kind, conf.mode)


def mac(site: Site, conf: ChildConf, seen: Snapshot) -> str:
    """The MAC of the container's interface: the requested one, else a derived one, or the master's."""
    master = seen.link(place(site, conf), conf.master)
    if conf.mac or conf.has_own_mac or master is None:
        return conf.mac or names.container_mac(site.owner)
    return master.mac


def plan_add(site: Site, conf: ChildConf, allocation: Allocation, seen: Snapshot) -> Plan:
    """Operations and result of an ADD; parameters as of ``bridge.plan_add``.

    :raises CniError: IPV6_DISABLED.
    """
    off = families.ipv6_off(site.netns, seen, gateway=False)
    if off and (conf.slaac_timeout or 6 in allocation.families()):  # from another IPAM plugin: ours allocates none then
        raise off
    master = seen.link(place(site, conf), conf.master)
    mtu = conf.mtu or (master.mtu if master else 0)
    netns, ifname, own_mac = site.netns, site.owner.ifname, mac(site, conf, seen)
    routes = tuple(container.route(site, route, allocation.ips) for route in allocation.routes)
    steps = (
        ops.CreateChildLink(
            place(site, conf), conf.master, netns, ifname, names.unnamed_interface(site.owner), conf.kind, conf.mode,
            own_mac if conf.mac or conf.has_own_mac else "", conf.mtu, names.alias(site.owner),
        ),
        *_without_addresses(site, conf, allocation, seen),
        *_inside(site, conf, allocation, seen),
        *([awaits.AwaitRouter(netns, ifname, conf.slaac_timeout)] if conf.slaac_timeout else []),
        *routes,
        *features.container_steps(site, conf, allocation, seen),
        *_announced(site, conf, allocation, own_mac),
        *container.reception(site, allocation),
        *host_access.container_steps(site, conf, allocation.ips, seen),  # the announcement makes the kernel forget them
        *host_access.node_steps(site, conf, to_record(site, conf), allocation.ips, seen),
        *features.arrival_steps(conf, allocation, seen),
    )
    own = Interface(ifname, own_mac, sandbox=netns, mtu=mtu)
    interfaces = (own, *host_access.interface(conf, site.node, master))
    ips = tuple(Address(ip.address, ip.gateway, interface=0) for ip in allocation.ips)
    result = Result(interfaces, ips, allocation.routes, conf.dns or allocation.dns)
    warnings = tuple(host_access.warnings(to_record(site, conf), allocation.ips, seen))
    if conf.slaac_timeout:
        return Plan(steps, result, routes, warnings, slaac.questions(site), partial(slaac.with_addresses, site))
    return Plan(steps, result, routes, warnings)


def _inside(site: Site, conf: ChildConf, allocation: Allocation, seen: Snapshot) -> Iterable[Op]:
    """The interface's settings and addresses. Without neighbours there is nobody to ask, nor to tell."""
    announced = allocation.families() if conf.has_neighbours else frozenset[int]()
    accept_ra = slaac.LISTENS if conf.accept_ra else "0"
    return container.steps(
        site, allocation, seen, announced=announced, dad=conf.has_neighbours, accept_ra=accept_ra
    )


def _announced(site: Site, conf: ChildConf, allocation: Allocation, own_mac: str) -> Iterable[Op]:
    """Wait until the addresses are known to be nobody else's, and announce them.

    An interface whose MAC cannot be set announces its addresses by ``arp_notify`` when it comes up, and by
    ``ndisc_notify`` once duplicate address detection is over (``container.steps``).
    """
    present = allocation.families() if conf.has_neighbours else frozenset[int]()
    if 6 in present:
        yield awaits.AwaitAddresses(site.netns, site.owner.ifname)
    if present and conf.can_change_mac:
        yield ops.Announce(site.netns, site.owner.ifname, own_mac)


def _without_addresses(site: Site, conf: ChildConf, allocation: Allocation, seen: Snapshot) -> Iterable[Op]:
    """Without addresses of an IPAM plugin the kernel takes them from routers only if it is asked to."""
    if conf.slaac_timeout:
        yield from slaac.steps(site, seen)
    elif allocation.ips or conf.accept_ra or families.ipv6_off(site.netns, seen, gateway=False):
        return
    else:
        for name in _NO_AUTOCONF:
            yield ops.SetSysctl(site.netns, f"ipv6/conf/{site.owner.ifname}/{name}", "0", precaution=True)
