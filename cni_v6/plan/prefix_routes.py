"""The routes of a prefix that is delegated to a container: on the node, in the container, and their removal.

Pure. No interface gets the prefix: the container assigns it as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import HasRoute, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.net import addresses
from cni_v6.plan.site import Allocation, RoutedPrefix, Site
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.result import Address, Result

BEFORE_ON_LINK = 128  # a metric below 256, that of the kernel's route to an interface's prefix (IP6_RT_PRIO_ADDRCONF)


def container_steps(site: Site, conf: MainConf, allocation: Allocation, _: Snapshot) -> Iterator[Op]:
    """Add the routes in the container's namespace.

    An unreachable route covers the parts of the prefix that the container has not assigned (RFC 7084, section 4.3,
    WPD-5). Without it a packet for such an address would loop between the container's default route and the node's
    route to the prefix until its hop limit is used up.
    """
    for routed in allocation.delegated:
        yield ops.AddUnreachable(site.netns, routed.prefix)
        if isinstance(conf.ipam, IpamConf) and conf.ipam.delegation and conf.ipam.delegation.everybody:
            yield from _by_gateway(conf, site, routed.via)


def _by_gateway(conf: MainConf, site: Site, via: Address) -> Iterator[Op]:
    """Route the network's prefix through the gateway. It is on-link for a container, but no neighbour answers for an
    address in a delegated prefix: the node has the route. Isolated containers stay isolated, without this route."""
    if conf.is_isolated or not via.gateway:
        return
    if not addresses.is_link_local(via.gateway):
        # A next hop must be on-link. The route below covers the gateway itself, also for routes that follow.
        yield ops.AddRoute(site.netns, site.owner.ifname, f"{via.gateway}/128")
    subnet = canonical_prefix(via.address, host_bits=False) or via.address
    yield ops.AddRoute(site.netns, site.owner.ifname, subnet, via.gateway, priority=BEFORE_ON_LINK)


def arrival_steps(conf: MainConf, allocation: Allocation, _: Snapshot) -> Iterator[Op]:
    """Add the node's routes to the prefixes."""
    interface = conf.gateway_interface
    yield from (ops.AddRoute(HOST, interface, routed.prefix, routed.via.ip) for routed in allocation.delegated)


def removal(record: Attachment, *_: frozenset[str]) -> tuple[Op, ...]:
    """Remove the node's routes, from the record alone. The container's routes go with its namespace."""
    interfaces = dict.fromkeys(anchor.home for anchor in record.anchors)
    return tuple(ops.RemoveRoute(HOST, interface, prefix) for prefix in record.prefixes for interface in interfaces)


def in_result(prefixes: Iterable[RoutedPrefix]) -> tuple[Address, ...]:
    """The prefixes as entries of the result: last, and of no interface, so that they do not look like addresses."""
    return tuple(Address(routed.prefix) for routed in prefixes)


def without(result: Result, record: Attachment | None) -> Result:
    """The result without the container's prefixes, which are on no interface."""
    prefixes = record.prefixes if record else ()
    return replace(result, ips=tuple(ip for ip in result.ips if ip.interface is not None or ip.address not in prefixes))


def warnings(conf: MainConf, allocation: Allocation, _: Snapshot) -> Iterator[str]:
    """The warnings that an ADD logs."""
    if conf.ndp_proxy:
        for routed in allocation.delegated:
            yield (f"ndpProxy: the node answers for single addresses, which it cannot for all of {routed.prefix}: the "
                   "router has to send that to the node")


# CHECK


def check_questions(conf: MainConf, record: Attachment) -> tuple[Question, ...]:
    """The questions that CHECK asks."""
    return tuple(_question(conf, record, prefix) for prefix in record.prefixes)


def _question(conf: MainConf, record: Attachment, prefix: str) -> HasRoute:
    return HasRoute(HOST, conf.gateway_interface, prefix, by=record.addresses)


def differences(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterator[str]:
    """The differences between the record and the node, one phrase for each."""
    if not record.prefixes:
        return
    interface = conf.gateway_interface
    yield from (f"route {prefix} through {interface} is missing" for prefix in _missing(conf, record, seen))


def mending(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterator[Op]:
    """Add the routes that are missing. The next hop is the container's address that is nearest to the prefix: its own
    of the same set."""
    for prefix in _missing(conf, record, seen) if record.prefixes else ():
        hops = [address for address in record.addresses if addresses.version(address) == 6]
        if hops:
            yield ops.AddRoute(HOST, conf.gateway_interface, prefix, max(hops, key=partial(_common_bits, prefix)))


def _missing(conf: MainConf, record: Attachment, seen: Snapshot) -> list[str]:
    return [prefix for prefix in record.prefixes
            if not seen.has_route(HOST, conf.gateway_interface, prefix, record.addresses)]


def _common_bits(prefix: str, address: str) -> int:
    """How many leading bits an address has in common with an IPv6 prefix."""
    (_, first), (_, second) = (addresses.from_text(text.partition("/")[0]) for text in (prefix, address))
    return addresses.BITS[6] - (first ^ second).bit_length()
