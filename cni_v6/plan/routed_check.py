"""CHECK and STATUS of the routed plugin: what the kernel lacks of a container's link, and of the node.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from cni_v6.config.routed import RoutedConf
from cni_v6.errors import LIMITED
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link, RouteEntry, Surroundings
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import (
    GetAddresses,
    GetForwardChains,
    GetLink,
    GetLinks,
    GetNeighbour,
    GetSurroundings,
    GetSysctl,
    HasRoute,
    Question,
)
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress, RoutedLink
from cni_v6.net.addresses import version
from cni_v6.plan import check, families, features, forwarding, gateways, outage, routed, status
from cni_v6.plan.outage import Fault
from cni_v6.plan.site import Site
from cni_v6.protocol.result import Result

HOSTS = "veth*"  # what nftables calls the host interfaces of all containers
THE_NODE = "this node"  # where forwarding is off


# CHECK


def questions(site: Site, conf: RoutedConf, result: Result, record: Attachment | None) -> tuple[Question, ...]:
    """The questions that CHECK asks the kernel."""
    return (
        GetLink(HOST, conf.host), *check.inside_questions(site, result),
        *link_questions(conf.host, _anchors(site, conf, result, record)),
        GetSysctl(HOST, forwarding.IP_FORWARD), *forwarding.questions(forwarding.marked(conf)),
    )


def _anchors(
    site: Site, conf: RoutedConf, result: Result, record: Attachment | None
) -> tuple[GatewayAddress, ...]:
    """The node's addresses and routes for the container."""
    return record.anchors if record else gateways.anchors(conf, check.addresses(site, result, site.owner.ifname))


def link_questions(host: str, anchors: Iterable[GatewayAddress]) -> tuple[Question, ...]:
    """The questions about the node's end of a container's link, and the node's way to its addresses."""
    prefixes = [anchor.prefix for anchor in anchors if anchor.on_link]
    return (
        GetAddresses(HOST, forwarding.LOOPBACK), GetAddresses(HOST, host),
        *(HasRoute(HOST, host, prefix) for prefix in prefixes),
        *(GetNeighbour(HOST, host, prefix.partition("/")[0]) for prefix in prefixes),
        *forwarding.own_questions(host), *(GetSysctl(HOST, step.key) for step in routed.settings(host, (6, 4))),
    )


def compare(
    site: Site, conf: RoutedConf, result: Result, record: Attachment | None, seen: Snapshot
) -> Iterator[str]:
    """The differences between ``result`` and the kernel, one phrase for each.

    :raises CniError: INVALID_CONFIG when the result names no interface of this container.
    """
    host, ips = seen.link(HOST, conf.host), check.addresses(site, result, site.owner.ifname)
    six = any(version(address) == 6 for address in (record.addresses if record else ()))  # others since renumbering
    yield from check.inside(site, result, seen, up=True)
    yield from check.routes(site, result, seen, partial(routed.hops, conf, six=six))
    if host is None:
        yield f"host interface {conf.host} is missing"
        return
    named = check.find(result, conf.host, "")
    if named:
        yield from check.interface(f"host interface {conf.host}", named, host, up=True)
    if host.master:
        yield f"host interface {conf.host} is in {host.master}"
    present = frozenset(ip.family for ip in ips)
    link, inside = routed.to_record(conf, site.owner, ips, six=six), seen.link(site.netns, site.owner.ifname)
    if inside and inside.mac != link.mac:
        yield (f"interface {site.owner.ifname}: mac is {inside.mac}, and the node sends to {link.mac}; no chained "
               "plugin (tuning) may change it: ask for a MAC by capability mac, args.cni.mac or MAC= in CNI_ARGS")
    anchors = _anchors(site, conf, result, record)
    yield from (words for words, _ in lacking(conf.host, link, anchors, seen))
    if 4 in present:
        yield from check.differs("node", f"net/{forwarding.IP_FORWARD}", "1", seen.sysctl(HOST, forwarding.IP_FORWARD))
    if 6 in present and not forwarding.is_on(seen, forwarding.marked(conf)):
        yield f"IPv6 forwarding is off on {THE_NODE}"


def lacking(
    host: str, link: RoutedLink, anchors: Sequence[GatewayAddress], seen: Snapshot
) -> Iterator[tuple[str, Op]]:
    """What the node's end of a link lacks: in words, and the operation that adds each.

    :param seen: answers to ``link_questions``.
    """
    families_present = dict.fromkeys(version(anchor.prefix) for anchor in anchors)
    for setting in routed.settings(host, families_present):
        if seen.sysctl(HOST, setting.key) != setting.value:
            yield f"net/{setting.key} is {seen.sysctl(HOST, setting.key)}, not {setting.value}", setting
    for step in forwarding.own_lacking(seen, host) if 6 in families_present else ():
        yield f"IPv6 forwarding is off on {host}", step
    present = {anchor.prefix.partition("/")[0]: link.mac for anchor in anchors if anchor.on_link}
    held = {name: seen.addresses(HOST, name) for name in (host, forwarding.LOOPBACK)}
    there = [anchor.prefix for anchor in anchors if anchor.on_link and seen.has_route(HOST, host, anchor.prefix)]
    for step in _missing(host, link, anchors, held, there):
        yield _words(step), step
    for address, mac in present.items():
        if seen.neighbour(HOST, host, address) != mac:
            yield f"neighbour {address} is not set to {mac} on {host}", ops.SetNeighbour(HOST, host, address, mac)


def _missing(
    host: str, link: RoutedLink, anchors: Iterable[GatewayAddress], held: Mapping[str, Collection[str]],
    there: Collection[str],
) -> Iterator[Op]:
    """Those of the operations that make the node's end whose address or route is not there.

    :param held: the addresses of each interface.
    :param there: where it has routes to, without a next hop.
    """
    for step in routed.host_end(host, link, anchors):
        if isinstance(step, ops.AddAddress) and step.address not in held.get(step.ifname, ()):
            yield step
        if isinstance(step, ops.AddRoute) and step.dst not in there:
            yield step


def _words(step: Op) -> str:
    if isinstance(step, ops.AddRoute):
        return f"route {step.dst} through {step.ifname} is missing"
    assert isinstance(step, ops.AddAddress)
    return f"gateway address {step.address} is missing on {step.ifname}"


# STATUS


def status_questions(conf: RoutedConf, records: Iterable[Attachment]) -> tuple[Question, ...]:
    """The questions that STATUS asks the kernel: of all links at once, since there may be thousands."""
    needed: list[Question] = [GetLinks(), GetSurroundings(), *_node_questions(conf)]
    for record in records:
        needed += forwarding.own_questions(record.host)
    return tuple(dict.fromkeys(needed))


def _node_questions(conf: RoutedConf) -> Iterator[Question]:
    yield from (GetForwardChains(), GetSysctl(HOST, forwarding.IP_FORWARD), *families.host_questions())
    yield from (*features.questions(conf), *forwarding.questions(forwarding.marked(conf)))


def few_questions(conf: RoutedConf, records: Iterable[Attachment]) -> tuple[Question, ...]:
    """As ``status_questions``, of each link by itself."""
    needed: list[Question] = [*_node_questions(conf), GetAddresses(HOST, forwarding.LOOPBACK)]
    for record in records:
        host = record.host
        needed += [GetLink(HOST, host), GetAddresses(HOST, host), *forwarding.own_questions(host)]
        needed += [HasRoute(HOST, host, anchor.prefix) for anchor in record.anchors if anchor.on_link]
    return tuple(dict.fromkeys(needed))


def of_few(records: Iterable[Attachment], seen: Snapshot) -> Snapshot:
    """The answers to ``few_questions`` as those to ``status_questions``, as if the node had these links alone."""
    links, routes = list[Link](), list[tuple[str, RouteEntry]]()
    for record in records:
        link = seen.link(HOST, record.host)
        links += [link] if link else []
        ways = (anchor.prefix for anchor in record.anchors if anchor.on_link)
        routes += [(record.host, RouteEntry(prefix, None)) for prefix in ways
                   if seen.has_route(HOST, record.host, prefix)]
    addresses = ((name, address) for name in (forwarding.LOOPBACK, *(link.name for link in links))
                 for address in seen.addresses(HOST, name))
    everything = Surroundings(tuple(addresses), tuple(routes))
    return seen.with_answers(Snapshot({GetLinks(): tuple(links), GetSurroundings(): everything}))


def more_status_questions(conf: RoutedConf, seen: Snapshot) -> tuple[Question, ...]:
    """The further questions about IPv6 forwarding."""
    return (*forwarding.more_questions(seen, forwarding.marked(conf)), *forwarding.uplink_questions(seen))


def check_status(
    conf: RoutedConf, records: Sequence[Attachment], seen: Snapshot, *, others: bool = False
) -> list[str]:
    """What STATUS finds in the kernel.

    :param others: whether other containers of the network run.
    :returns: warnings.
    :raises CniError: NOT_AVAILABLE when an ADD would fail, LIMITED when containers that run are cut off.
    """
    features.check(conf, seen)
    _, present = status.check_families(conf, seen)
    present_links = {link.name for link in seen.links()}
    running = [record for record in records if record.host in present_links]
    if running or others:
        status.check_running(LIMITED, _faults(conf, running, present, seen))
    return list(outage.chain_warnings(HOSTS, present, seen))


def _faults(
    conf: RoutedConf, records: Sequence[Attachment], present: frozenset[int], seen: Snapshot
) -> Iterator[Fault]:
    """What containers lack, in the order in which it is to be put right."""
    up = {link.name: link.up for link in seen.links()}
    everything = seen.surroundings()
    held: dict[str, list[str]] = {}
    routes: dict[str, list[str]] = {}
    for name, address in everything.addresses:
        held.setdefault(name, []).append(address)
    for name, dst in ((name, route.dst) for name, route in everything.routes if route.gateway is None):
        routes.setdefault(name, []).append(dst)
    for record in records:
        host, link = record.host, record.port
        if not up[host]:
            yield Fault(f"host interface {host} is down", (outage.command(ops.SetLink(HOST, host, up=True)),))
        if isinstance(link, RoutedLink):
            anchors = [anchor for anchor in record.anchors if version(anchor.prefix) in present]
            steps = list(_missing(host, link, anchors, held, routes.get(host, ())))
            if 6 in map(version, record.addresses):
                steps += forwarding.own_lacking(seen, host)
            if steps:
                again = (*steps, *(step for step in routed.host_end(host, link, anchors)
                                   if isinstance(step, ops.SetNeighbour)))
                yield Fault("; ".join(map(_what, steps)), tuple(map(outage.command, again)))
    yield from outage.forwarding_faults(forwarding.marked(conf), THE_NODE, present, seen)
    yield from outage.dropping_faults(HOSTS, present, seen)


def _what(step: Op) -> str:
    return f"net/{step.key} is not {step.value}" if isinstance(step, ops.SetSysctl) else _words(step)
