"""The node's uplinks: the MTU that they leave containers, and neighbours there who look for a container's address.

A usual virtual server has one /64, which its router takes for on-link: it asks the segment for each address of it. So
that containers can have addresses of that prefix, the node answers for them (``ndpProxy``), and has a route to each.

Pure, like ``plan``, whose part this is.
"""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.config.bridge import AUTO, AUTO_MTU, IPV6_MIN_MTU, BridgeConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, GetProxies, GetRoutes, GetUplinks, Question, Snapshot
from cni_v6.leases.attachment import Attachment, ProxyEntry
from cni_v6.net.addresses import overlap
from cni_v6.plan import bridge_port, forwarding
from cni_v6.protocol.result import Address


def questions(conf: BridgeConf) -> tuple[Question, ...]:
    """What an ADD has to know of the uplinks before there are addresses."""
    asked = forwarding.questions(bridge_port.gateway_interface(conf)) if conf.is_gateway else ()
    return *asked, *([GetUplinks()] if conf.mtu == AUTO_MTU else []), *_named(conf)


def _named(conf: BridgeConf) -> tuple[GetLink, ...]:
    return () if conf.ndp_proxy in ("", AUTO) else (GetLink(HOST, conf.ndp_proxy),)


def check(conf: BridgeConf, seen: Snapshot) -> None:
    """:raises CniError: NODE_CONFLICT when the interface of ``ndpProxy`` is not there."""
    if any(seen.link(HOST, asked.ifname) is None for asked in _named(conf)):
        words = f"ndpProxy: the node has no interface {conf.ndp_proxy}"
        raise CniError(NODE_CONFLICT, words, 'write the name of one that it has, or "auto"')


# MTU


def mtu(conf: BridgeConf, families: frozenset[int], seen: Snapshot) -> int:
    """``mtu`` as a number, 0 for the bridge's own.

    An uplink below IPv6's least carries IPv4 alone. Its MTU is a container's only where that has IPv4 alone too: the
    kernel would take IPv6 off the interface (net/ipv6/addrconf.c, NETDEV_CHANGEMTU), and IPv4 finds the path's own MTU.
    """
    if conf.mtu != AUTO_MTU:
        return conf.mtu
    least = _least_mtu(seen)
    return IPV6_MIN_MTU if 0 < least < IPV6_MIN_MTU and families != {4} else least


def _least_mtu(seen: Snapshot) -> int:
    return min((each.mtu for each in seen.uplinks()), default=0)


# Neighbours


def more_questions(conf: BridgeConf, seen: Snapshot) -> tuple[Question, ...]:
    """What has to be known beside ``questions`` where a gateway has IPv6 addresses."""
    asked = [*forwarding.more_questions(seen, bridge_port.gateway_interface(conf))]
    for name in _answering(conf, seen):
        asked += forwarding.answering_questions(name)
        asked += [GetAddresses(HOST, name), GetRoutes(HOST, name)] if conf.ndp_proxy == AUTO else []
    return tuple(asked)


def _answering(conf: BridgeConf, seen: Snapshot) -> tuple[str, ...]:
    """Where the node may answer. On the network's own segment containers do it themselves."""
    if not conf.ndp_proxy:
        return ()
    found = [each.ifname for each in seen.uplinks() if each.family == 6] if conf.ndp_proxy == AUTO else [conf.ndp_proxy]
    return tuple(name for name in dict.fromkeys(found) if name != bridge_port.gateway_interface(conf))


def proxied(conf: BridgeConf, ips: Iterable[Address], seen: Snapshot) -> tuple[ProxyEntry, ...]:
    """The addresses that the node answers for, and where.

    :param seen: answers to ``questions``, and to ``more_questions`` where there are IPv6 addresses.
    """
    addresses = [ip.ip for ip in ips if ip.family == 6]
    home = bridge_port.gateway_interface(conf)
    return tuple(
        ProxyEntry(name, home, address)
        for name in (_answering(conf, seen) if addresses else ())
        for address in addresses
        if conf.ndp_proxy != AUTO or _is_on_link(address, name, seen)
    )


def _is_on_link(address: str, uplink: str, seen: Snapshot) -> bool:
    """Whether neighbours on the uplink look for the address there."""
    routes = (route.dst for route in seen.routes(HOST, uplink) if route.gateway is None)
    prefixes = (prefix for prefix in (*seen.addresses(HOST, uplink), *routes) if ":" in prefix and prefix != "::/0")
    return any(overlap(f"{address}/128", prefix) for prefix in prefixes)


def readiness(conf: BridgeConf, ips: Iterable[Address], seen: Snapshot) -> Iterable[Op]:
    """What belongs to the node: that it forwards IPv6, and that its uplinks answer for others at all."""
    yield from forwarding.turn_on(seen, bridge_port.gateway_interface(conf))
    for name in dict.fromkeys(each.uplink for each in proxied(conf, ips, seen)):
        yield from forwarding.answer(seen, name)


def arrival(conf: BridgeConf, ips: Iterable[Address], seen: Snapshot) -> Iterable[Op]:
    """What belongs to the container: its routes, which go before the uplink's prefix, and its entries there."""
    for each in proxied(conf, ips, seen):
        yield ops.AddRoute(HOST, each.home, f"{each.address}/128")
        yield ops.AddProxy(each.uplink, each.address)


def removal(record: Attachment) -> tuple[Op, ...]:
    """What takes that away again, by the record alone."""
    steps: list[Op] = []
    for each in record.proxied:
        steps += [ops.RemoveProxy(each.uplink, each.address), ops.RemoveRoute(HOST, each.home, f"{each.address}/128")]
    return tuple(steps)


def remarks(conf: BridgeConf, ips: tuple[Address, ...], seen: Snapshot) -> Iterable[str]:
    """What an ADD should warn of."""
    least = _least_mtu(seen) if conf.mtu == AUTO_MTU else 0
    if 0 < least < IPV6_MIN_MTU:
        given = mtu(conf, frozenset(ip.family for ip in ips), seen)
        yield f"mtu: auto: an uplink has {least}, below the {IPV6_MIN_MTU} that IPv6 needs; containers get {given}"
    if conf.ndp_proxy == AUTO and any(ip.family == 6 for ip in ips) and not proxied(conf, ips, seen):
        names = ", ".join(_answering(conf, seen)) or "any IPv6 uplink (there is none)"
        yield f"ndpProxy: auto: no address lies in an on-link prefix of {names}: the node answers for none"


# CHECK


def audit_questions(record: Attachment | None) -> tuple[Question, ...]:
    """What CHECK has to know."""
    asked: list[Question] = []
    for each in record.proxied if record else ():
        asked += [GetProxies(each.uplink), GetRoutes(HOST, each.home), *forwarding.answering_questions(each.uplink)]
    return tuple(asked)


def differences(record: Attachment | None, seen: Snapshot) -> Iterable[str]:
    """Every difference between the record and the kernel, a phrase each."""
    proxied = record.proxied if record else ()
    for each in proxied:
        if each.address not in seen.proxies(each.uplink):
            yield f"the node does not answer for {each.address} on {each.uplink}"
        if f"{each.address}/128" not in [route.dst for route in seen.routes(HOST, each.home)]:
            yield f"route {each.address}/128 through {each.home} is missing"
    for name in dict.fromkeys(each.uplink for each in proxied):
        if not forwarding.answers(seen, name):
            yield f"the node answers for nobody on {name}: its forwarding or proxy_ndp is off"
