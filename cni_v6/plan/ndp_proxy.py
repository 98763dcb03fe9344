"""Neighbours on an uplink who look for a container's address: the node answers for it (``ndpProxy``).

A usual virtual server has one /64, which its router takes for on-link: it asks the segment for each address of it. So
that containers can have addresses of that prefix, the node answers for them (``ndpProxy``), and has a route to each.

Pure, like ``plan``, whose part this is.
"""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.config.main import AUTO, MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, GetProxies, GetRoutes, Question, Snapshot
from cni_v6.leases.attachment import Attachment, ProxyEntry
from cni_v6.net.addresses import overlap
from cni_v6.plan import forwarding
from cni_v6.plan.site import Allocation
from cni_v6.protocol.result import Address


def questions(conf: MainConf) -> tuple[Question, ...]:
    """What an ADD has to know of the uplinks before there are addresses."""
    return _named(conf)


def _named(conf: MainConf) -> tuple[GetLink, ...]:
    return () if conf.ndp_proxy in ("", AUTO) else (GetLink(HOST, conf.ndp_proxy),)


def check(conf: MainConf, seen: Snapshot) -> None:
    """:raises CniError: NODE_CONFLICT when the interface of ``ndpProxy`` is not there."""
    if any(seen.link(HOST, asked.ifname) is None for asked in _named(conf)):
        words = f"ndpProxy: the node has no interface {conf.ndp_proxy}"
        raise CniError(NODE_CONFLICT, words, 'write the name of one that it has, or "auto"')


def more_questions(conf: MainConf, seen: Snapshot) -> tuple[Question, ...]:
    """What has to be known beside ``questions`` where a gateway has IPv6 addresses."""
    asked: list[Question] = []
    for name in _answering(conf, seen):
        asked += forwarding.answering_questions(name)
        asked += [GetAddresses(HOST, name), GetRoutes(HOST, name)] if conf.ndp_proxy == AUTO else []
    return tuple(asked)


def _answering(conf: MainConf, seen: Snapshot) -> tuple[str, ...]:
    """Where the node may answer. On the network's own segment containers do it themselves."""
    if not conf.ndp_proxy:
        return ()
    found = [each.ifname for each in seen.uplinks() if each.family == 6] if conf.ndp_proxy == AUTO else [conf.ndp_proxy]
    return tuple(name for name in dict.fromkeys(found) if name != conf.gateway_interface)


def proxied(conf: MainConf, ips: Iterable[Address], seen: Snapshot) -> tuple[ProxyEntry, ...]:
    """The addresses that the node answers for, and where.

    :param seen: answers to ``questions``, and to ``more_questions`` where there are IPv6 addresses.
    """
    addresses = [ip.ip for ip in ips if ip.family == 6]
    home = conf.gateway_interface
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


def node_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[Op]:
    """What belongs to the node: that its uplinks answer for others at all."""
    for name in dict.fromkeys(entry.uplink for entry in proxied(conf, allocation.ips, seen)):
        yield from forwarding.answer(seen, name)


def arrival_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[Op]:
    """What belongs to the container: its routes, which go before the uplink's prefix, and its entries there."""
    for each in proxied(conf, allocation.ips, seen):
        yield ops.AddRoute(HOST, each.home, f"{each.address}/128")
        yield ops.AddProxy(each.uplink, each.address)


def removal(record: Attachment, *_: frozenset[str]) -> tuple[Op, ...]:
    """What takes that away again, by the record alone."""
    steps: list[Op] = []
    for each in record.proxied:
        steps += [ops.RemoveProxy(each.uplink, each.address), ops.RemoveRoute(HOST, each.home, f"{each.address}/128")]
    return tuple(steps)


def warnings(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[str]:
    """What an ADD should warn of."""
    if conf.ndp_proxy == AUTO and 6 in allocation.families() and not proxied(conf, allocation.ips, seen):
        names = ", ".join(_answering(conf, seen)) or "any IPv6 uplink (there is none)"
        yield f"ndpProxy: auto: no address lies in an on-link prefix of {names}: the node answers for none"


# CHECK


def check_questions(_: MainConf, record: Attachment) -> tuple[Question, ...]:
    """What CHECK has to know."""
    asked: list[Question] = []
    for each in record.proxied:
        asked += [GetProxies(each.uplink), GetRoutes(HOST, each.home), *forwarding.answering_questions(each.uplink)]
    return tuple(asked)


def differences(_: MainConf, record: Attachment, seen: Snapshot) -> Iterable[str]:
    """Every difference between the record and the kernel, a phrase each."""
    for each in record.proxied:
        if each.address not in seen.proxies(each.uplink):
            yield f"the node does not answer for {each.address} on {each.uplink}"
        if f"{each.address}/128" not in [route.dst for route in seen.routes(HOST, each.home)]:
            yield f"route {each.address}/128 through {each.home} is missing"
    for name in dict.fromkeys(entry.uplink for entry in record.proxied):
        if not forwarding.answers(seen, name):
            yield f"the node answers for nobody on {name}: its forwarding or proxy_ndp is off"
