"""What differs between the record of a routed container and the node, and the operations that mend it. Pure.

A host interface that goes down loses its IPv6 addresses, its routes and its neighbours, and does not get them back.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni_v6.config.firewall import FirewallConf
from cni_v6.config.main import ForeignIpam
from cni_v6.config.routed import RoutedConf
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetNeighbours, GetRoutes, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress, RoutedLink
from cni_v6.net.addresses import version
from cni_v6.plan import bridge_port, features, forwarding, routed_check
from cni_v6.protocol.names import Owner, container_mac, link_group


def conf_of(record: Attachment, link: RoutedLink, host: str) -> RoutedConf:
    """The configuration as far as the plan of a link reads it."""
    return RoutedConf(
        network=record.owner.network, is_gateway=True, mtu=0, ndp_proxy="", mac=link.mac, dns=None,
        ipam=ForeignIpam(""), firewall=FirewallConf(ports=record.policy.ports if record.policy else ()),
        bandwidth=None, tuning=None, source_routing=None,
        allow_overlap=True,  # it was looked at when the network's first container came
        host=host, ipv4_gateway=link.ipv4_gateway,
    )


def recall_questions(host: str) -> tuple[Question, ...]:
    """The questions about a link whose record is lost."""
    return GetNeighbours(HOST, host), GetAddresses(HOST, host), GetRoutes(HOST, host)


def recalled(host: str, owner: Owner, seen: Snapshot) -> tuple[RoutedLink, tuple[GatewayAddress, ...]]:
    """The link, and the node's routes to the container's addresses, of what the node has.

    The node was told the container's MAC, and has at most one IPv4 address on the link.
    """
    macs = [mac for _, mac in seen.neighbours(HOST, host)]
    own = (address.partition("/")[0] for address in seen.addresses(HOST, host) if ":" not in address)
    routes = (route.dst for route in seen.routes(HOST, host) if route.gateway is None)
    anchors = (GatewayAddress(host, dst, on_link=True) for dst in routes if dst.endswith(("/32", "/128")))
    return RoutedLink(macs[0] if macs else container_mac(owner), next(own, "")), tuple(anchors)


def questions(conf: RoutedConf, record: Attachment) -> tuple[Question, ...]:
    """The questions about a container's link, and about the node."""
    return (
        *routed_check.link_questions(conf.host, record.anchors), GetSysctl(HOST, forwarding.IP_FORWARD),
        *(GetSysctl(HOST, step.key) for step in bridge_port.loopback_ports(conf)),
        *forwarding.questions(forwarding.marked(conf)), *features.check_questions(conf, record),
    )


def differences(
    conf: RoutedConf, record: Attachment, link: Link, seen: Snapshot
) -> Iterator[tuple[str, tuple[Op, ...]]]:
    """What differs, in words, and the operations that mend it.

    :param seen: answers to ``questions``, to ``forwarding.more_questions`` and ``forwarding.uplink_questions``.
    """
    host, group = conf.host, link_group(conf.network)
    if link.master:
        yield f"host interface {host} is in {link.master}: ip link set {host} nomaster", ()
    if not link.up or link.group != group:
        state = f"in link group {link.group}, not {group}" if link.up else "down"
        yield f"host interface {host} is {state}", (ops.SetLink(HOST, host, up=True, group=group),)
    assert isinstance(record.port, RoutedLink)
    found = list(routed_check.lacking(host, record.port, record.anchors, seen))
    if found:  # in one go: a route by a next hop needs the route to that
        yield "; ".join(words for words, _ in found), tuple(step for _, step in found)
    families = frozenset(map(version, record.addresses))
    yield from forwarding.missing(families, forwarding.marked(conf), routed_check.THE_NODE, seen)
    for step in bridge_port.loopback_ports(conf) if 4 in families else ():  # else nothing answers at 127.0.0.1
        if seen.sysctl(HOST, step.key) != step.value:
            yield f"net/{step.key} is not {step.value}", (step,)
