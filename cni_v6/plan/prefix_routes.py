"""A prefix that is a container's: the node's route to it, what the container needs for it, what takes it away again.

Pure, like ``plan``, whose part this is. The prefix is on no interface: the container does with it what it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cni_v6.config.bridge import BridgeConf, IpamConf
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetRoutes, Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.net import addresses
from cni_v6.plan import bridge_port
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.result import Address, Result

BEFORE_ON_LINK = 128  # a metric: the kernel's route to an interface's own prefix has 256 (IP6_RT_PRIO_ADDRCONF)


@dataclass(frozen=True, slots=True)
class RoutedPrefix:
    """A prefix, and the container's address of the same set, by which it is routed."""

    prefix: str
    via: Address


def inside(conf: BridgeConf, netns: str, ifname: str, given: Iterable[RoutedPrefix]) -> Iterator[Op]:
    """What the container's namespace needs.

    Of what the container has assigned to nobody it says that it is unreachable (RFC 7084, section 4.3, WPD-5): else a
    packet for that would go to and fro between the container's default route and the node's to the prefix, until its
    hop limit ends it.
    """
    for each in given:
        yield ops.AddUnreachable(netns, each.prefix)
        if isinstance(conf.ipam, IpamConf) and conf.ipam.delegation and conf.ipam.delegation.everybody:
            yield from _by_gateway(conf, netns, ifname, each.via)


def _by_gateway(conf: BridgeConf, netns: str, ifname: str, via: Address) -> Iterator[Op]:
    """The network's prefix is on-link for a container, yet nobody there answers for what lies in a neighbour's prefix:
    the node knows the way. Where containers are closed to each other on the segment they stay so."""
    _, isolated = bridge_port.port_flags(conf)
    if isolated or not via.gateway:
        return
    if not addresses.is_link_local(via.gateway):
        yield ops.AddRoute(netns, ifname, f"{via.gateway}/128")  # a next hop must be on-link, also for whoever is next
    subnet = canonical_prefix(via.address, host_bits=False) or via.address
    yield ops.AddRoute(netns, ifname, subnet, via.gateway, priority=BEFORE_ON_LINK)


def arrival(conf: BridgeConf, given: Iterable[RoutedPrefix]) -> Iterator[Op]:
    """The node's route."""
    home = bridge_port.gateway_interface(conf)
    yield from (ops.AddRoute(HOST, home, each.prefix, each.via.ip) for each in given)


def removal(record: Attachment) -> tuple[Op, ...]:
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


def remarks(conf: BridgeConf, given: Iterable[RoutedPrefix]) -> Iterator[str]:
    """What an ADD should warn of."""
    if conf.ndp_proxy:
        for each in given:
            yield (f"ndpProxy: the node answers for single addresses, which it cannot for all of {each.prefix}: the "
                   "router has to send that to the node")


# CHECK


def audit_questions(conf: BridgeConf, record: Attachment | None) -> tuple[Question, ...]:
    """What CHECK has to know."""
    return (GetRoutes(HOST, bridge_port.gateway_interface(conf)),) if record and record.prefixes else ()


def differences(conf: BridgeConf, record: Attachment | None, seen: Snapshot) -> Iterator[str]:
    """Every difference between the record and the node, a phrase each."""
    if record is None or not record.prefixes:
        return
    home = bridge_port.gateway_interface(conf)
    present = {route.dst for route in seen.routes(HOST, home) if route.gateway in record.addresses}
    for prefix in record.prefixes:
        if prefix not in present:
            yield f"route {prefix} through {home} is missing"
