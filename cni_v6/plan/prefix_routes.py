"""A prefix that is a container's: the node's route to it, what the container needs for it, what takes it away again.

Pure, like ``plan``, whose part this is. The prefix is on no interface: the container does with it what it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetRoutes, Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.net import addresses
from cni_v6.plan.site import Allocation, RoutedPrefix, Site
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.result import Address, Result

BEFORE_ON_LINK = 128  # a metric: the kernel's route to an interface's own prefix has 256 (IP6_RT_PRIO_ADDRCONF)


def container_steps(site: Site, conf: MainConf, allocation: Allocation) -> Iterator[Op]:
    """What the container's namespace needs.

    Of what the container has assigned to nobody it says that it is unreachable (RFC 7084, section 4.3, WPD-5): else a
    packet for that would go to and fro between the container's default route and the node's to the prefix, until its
    hop limit ends it.
    """
    for each in allocation.delegated:
        yield ops.AddUnreachable(site.netns, each.prefix)
        if isinstance(conf.ipam, IpamConf) and conf.ipam.delegation and conf.ipam.delegation.everybody:
            yield from _by_gateway(conf, site, each.via)


def _by_gateway(conf: MainConf, site: Site, via: Address) -> Iterator[Op]:
    """The network's prefix is on-link for a container, yet nobody there answers for what lies in a neighbour's prefix:
    the node knows the way. Where containers are closed to each other on the segment they stay so."""
    if conf.is_isolated or not via.gateway:
        return
    if not addresses.is_link_local(via.gateway):
        yield ops.AddRoute(
            site.netns, site.owner.ifname, f"{via.gateway}/128"
        )  # a next hop must be on-link, also for whoever is next
    subnet = canonical_prefix(via.address, host_bits=False) or via.address
    yield ops.AddRoute(site.netns, site.owner.ifname, subnet, via.gateway, priority=BEFORE_ON_LINK)


def arrival_steps(conf: MainConf, allocation: Allocation, _: Snapshot) -> Iterator[Op]:
    """The node's route."""
    home = conf.gateway_interface
    yield from (ops.AddRoute(HOST, home, each.prefix, each.via.ip) for each in allocation.delegated)


def removal(record: Attachment, *_: frozenset[str]) -> tuple[Op, ...]:
    """What takes it away, by the record alone. The container's own routes went with its namespace, or are its own."""
    homes = dict.fromkeys(anchor.home for anchor in record.anchors)
    return tuple(ops.RemoveRoute(HOST, home, prefix) for prefix in record.prefixes for home in homes)


def in_result(given: Iterable[RoutedPrefix]) -> tuple[Address, ...]:
    """How the result names it: last, and of no interface, so that nobody takes it for the container's address."""
    return tuple(Address(each.prefix) for each in given)


def without(result: Result, record: Attachment | None) -> Result:
    """A result less the container's prefixes, which are on no interface."""
    prefixes = record.prefixes if record else ()
    return replace(result, ips=tuple(ip for ip in result.ips if ip.interface is not None or ip.address not in prefixes))


def warnings(conf: MainConf, allocation: Allocation, _: Snapshot) -> Iterator[str]:
    """What an ADD should warn of."""
    if conf.ndp_proxy:
        for each in allocation.delegated:
            yield (f"ndpProxy: the node answers for single addresses, which it cannot for all of {each.prefix}: the "
                   "router has to send that to the node")


# CHECK


def check_questions(conf: MainConf, record: Attachment) -> tuple[Question, ...]:
    """What CHECK has to know."""
    return (GetRoutes(HOST, conf.gateway_interface),) if record.prefixes else ()


def differences(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterator[str]:
    """Every difference between the record and the node, a phrase each."""
    if not record.prefixes:
        return
    home = conf.gateway_interface
    present = {route.dst for route in seen.routes(HOST, home) if route.gateway in record.addresses}
    for prefix in record.prefixes:
        if prefix not in present:
            yield f"route {prefix} through {home} is missing"
