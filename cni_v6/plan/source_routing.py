"""Plans routing by source address: what a container sends from its addresses of a network leaves through that network.

A container has one default route, mostly that of its first network. An answer to who came in through another network
would leave by it, and the first network's guard drops it, because the source is not an address of that network. So each
address gets a rule, which leads to a table with the routes of its own network (what the reference plugin ``sbr`` does).

Pure. Imported only for containers that may need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cni_v6.config.main import MainConf
from cni_v6.kernel import ops
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import GetRoutes, GetRules, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, SourceRules
from cni_v6.net.addresses import is_link_local, overlap
from cni_v6.plan import container, gateways, prefix_routes
from cni_v6.plan.site import Allocation, Site
from cni_v6.protocol import names
from cni_v6.protocol.result import Address


def _families(site: Site, conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterator[int]:
    """The families that need it: all where it is asked for, else those without a default route of this network."""
    elsewhere = {uplink.family for uplink in seen.uplinks(site.netns)}
    own = {route.family for route in allocation.routes
           if route.table is None and route.dst == container.DEFAULT_ROUTE[route.family]}
    for family in sorted(allocation.families()):
        if conf.source_routing or family in elsewhere or family not in own:
            yield family


def container_steps(site: Site, conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterator[Op]:
    """The table's routes, then the rules that lead to it.

    :param allocation: with the routes of the result, and the next hops that the kernel uses.
    :param seen: answers to ``container.questions``.
    """
    table, families = names.source_table(site.owner), set(_families(site, conf, allocation, seen))
    for family in sorted(families):
        yield from _routes(site, allocation, family, table)
    if 6 in families:
        further = prefix_routes.container_steps(site, conf, allocation, seen)
        yield from (replace(step, table=table) for step in further if isinstance(step, ops.AddRoute))
    sources = [gateways.host_prefix(ip) for ip in allocation.ips if ip.family in families]
    sources += [routed.prefix for routed in allocation.delegated if 6 in families]
    yield from (ops.AddRule(site.netns, source, table) for source in sources)


def _routes(site: Site, allocation: Allocation, family: int, table: int) -> Iterator[Op]:
    """One family's routes: to the subnets and gateways on the link, the network's own, and a default route."""
    ips = [ip for ip in allocation.ips if ip.family == family]
    routes = [route for route in allocation.routes if route.family == family and route.table is None]
    present = {route.dst for route in routes}
    for prefix in dict.fromkeys(prefix for ip in ips for prefix in _on_link(ip)):
        if prefix not in present:
            yield ops.AddRoute(site.netns, site.owner.ifname, prefix, table=table)
    for wanted in routes:
        yield container.route(site, replace(wanted, table=table), ips)
    default, gateway = container.DEFAULT_ROUTE[family], next((ip.gateway for ip in ips if ip.gateway), None)
    if gateway and default not in present:
        yield ops.AddRoute(site.netns, site.owner.ifname, default, gateway, table=table)


def _on_link(ip: Address) -> Iterator[str]:
    """The prefixes on the link of an address: its subnet, unless it is alone there, and a gateway outside of that."""
    subnet = gateways.subnet(ip)
    if subnet != gateways.host_prefix(ip):
        yield subnet
    if ip.gateway and (":" in ip.gateway) == (ip.family == 6) and not is_link_local(ip.gateway):
        hop = gateways.host_prefix(Address(ip.gateway))
        if not overlap(hop, subnet):
            yield hop


def to_record(site: Site, steps: Iterable[Op]) -> SourceRules | None:
    """What is recorded of the rules among the operations of an ADD; None if there is none."""
    table, done = names.source_table(site.owner), tuple(steps)
    sources = tuple(step.source for step in done if isinstance(step, ops.AddRule))
    routes = dict.fromkeys(step.dst for step in done if isinstance(step, ops.AddRoute) and step.table == table)
    return SourceRules(site.netns, table, sources, tuple(routes)) if sources else None


def removal(record: Attachment, *_: frozenset[str]) -> tuple[Op, ...]:
    """Remove the rules, from the record alone. The table's routes go with the interface."""
    rules = record.rules
    return tuple(ops.RemoveRule(rules.netns, source, rules.table) for source in rules.sources) if rules else ()


# CHECK


def inside_questions(site: Site, _: MainConf, record: Attachment | None) -> tuple[Question, ...]:
    """The questions that CHECK asks of the container's namespace."""
    rules = record.rules if record else None
    return (GetRules(site.netns, rules.table), GetRoutes(site.netns, site.owner.ifname)) if rules else ()


def inside_differences(site: Site, _: MainConf, record: Attachment | None, seen: Snapshot) -> Iterator[str]:
    """The differences between the record and the namespace, one phrase for each."""
    rules = record.rules if record else None
    if not rules:
        return
    present = seen.rules(site.netns, rules.table)
    yield from (f"rule from {source} to table {rules.table} is missing" for source in rules.sources
                if source not in present)
    found = {route.dst for route in seen.routes(site.netns, site.owner.ifname) if route.table == rules.table}
    yield from (f"route {dst} of table {rules.table} is missing" for dst in rules.destinations if dst not in found)


# Renumbering


def extended(rules: SourceRules, ips: Iterable[Address]) -> SourceRules:
    """The rules with those for further addresses, of the families that have some.

    :param ips: as ``renumber_steps`` takes them.
    """
    new = tuple(ip for ip in ips if any((":" in source) == (ip.family == 6) for source in rules.sources))
    sources = (*rules.sources, *map(gateways.host_prefix, new))
    destinations = (*rules.destinations, *(prefix for ip in new for prefix in _on_link(ip)))
    return replace(rules, sources=tuple(dict.fromkeys(sources)), destinations=tuple(dict.fromkeys(destinations)))


def renumber_steps(rules: SourceRules, netns: str, ifname: str, ips: Iterable[Address]) -> Iterator[Op]:
    """The operations for further addresses, which ``rules`` has already.

    :param ips: as the container has them.
    """
    for ip in ips:
        if gateways.host_prefix(ip) in rules.sources:
            yield from (ops.AddRoute(netns, ifname, prefix, table=rules.table) for prefix in _on_link(ip))
            yield ops.AddRule(netns, gateways.host_prefix(ip), rules.table)


def reduced(rules: SourceRules, ips: Iterable[Address]) -> SourceRules:
    """The rules without those for addresses that the container has no more."""
    over = tuple(ips)
    sources = {gateways.host_prefix(ip) for ip in over}
    left = tuple(source for source in rules.sources if source not in sources)
    unused = {prefix for ip in over for prefix in _on_link(ip) if not any(
        overlap(prefix, source) for source in left)}
    kept = tuple(prefix for prefix in rules.destinations if prefix not in unused)
    return replace(rules, sources=left, destinations=kept)


def reduction(before: SourceRules, after: SourceRules, netns: str, ifname: str) -> Iterator[Op]:
    """The operations that lead from rules to ``reduced`` ones."""
    for source in before.sources:
        if source not in after.sources:
            yield ops.RemoveRule(netns, source, before.table)
    for prefix in before.destinations:
        if prefix not in after.destinations:
            yield ops.RemoveRoute(netns, ifname, prefix, before.table)
