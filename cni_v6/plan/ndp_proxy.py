"""NDP proxy (``ndpProxy``): the node answers neighbour solicitations on an uplink for containers' addresses.

A usual virtual server has one /64 that its router treats as on-link: the router sends a solicitation for each address.
For containers to have addresses of that prefix, the node answers for them and has a route to each.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.config.main import AUTO, MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, GetRoutes, HasProxy, HasRoute, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, ProxyEntry
from cni_v6.net.addresses import overlap
from cni_v6.plan import forwarding
from cni_v6.plan.site import Allocation
from cni_v6.protocol.result import Address


def questions(conf: MainConf) -> tuple[Question, ...]:
    """The questions about the uplink that an ADD asks before it allocates addresses."""
    return _named(conf)


def _named(conf: MainConf) -> tuple[GetLink, ...]:
    return () if conf.ndp_proxy in ("", AUTO) else (GetLink(HOST, conf.ndp_proxy),)


def check(conf: MainConf, seen: Snapshot) -> None:
    """:raises CniError: NODE_CONFLICT when the interface of ``ndpProxy`` is not there."""
    if any(seen.link(HOST, question.ifname) is None for question in _named(conf)):
        words = f"ndpProxy: the node has no interface {conf.ndp_proxy}"
        raise CniError(NODE_CONFLICT, words, 'write the name of one that it has, or "auto"')


def more_questions(conf: MainConf, seen: Snapshot) -> tuple[Question, ...]:
    """The further questions for a gateway with IPv6 addresses."""
    needed: list[Question] = []
    for name in _answering(conf, seen):
        needed += forwarding.answering_questions(name)
        needed += [GetAddresses(HOST, name), GetRoutes(HOST, name)] if conf.ndp_proxy == AUTO else []
    return tuple(needed)


def _answering(conf: MainConf, seen: Snapshot) -> tuple[str, ...]:
    """The uplinks on which the node may answer. On the network's own segment the containers answer."""
    if not conf.ndp_proxy:
        return ()
    found = [conf.ndp_proxy]
    if conf.ndp_proxy == AUTO:
        found = [uplink.ifname for uplink in seen.uplinks() if uplink.family == 6]
    return tuple(name for name in dict.fromkeys(found) if name != conf.gateway_interface)


def proxied(conf: MainConf, ips: Iterable[Address], seen: Snapshot) -> tuple[ProxyEntry, ...]:
    """The addresses that the node answers for, each with its uplink.

    :param seen: answers to ``questions``, and to ``more_questions`` where there are IPv6 addresses.
    """
    addresses = [ip.ip for ip in ips if ip.family == 6]
    gateway_interface = conf.gateway_interface
    return tuple(
        ProxyEntry(name, gateway_interface, address)
        for name in (_answering(conf, seen) if addresses else ())
        for address in addresses
        if conf.ndp_proxy != AUTO or _is_on_link(address, name, seen)
    )


def _is_on_link(address: str, uplink: str, seen: Snapshot) -> bool:
    """Whether neighbours on the uplink treat the address as on-link."""
    routes = (route.dst for route in seen.routes(HOST, uplink) if route.gateway is None)
    prefixes = (prefix for prefix in (*seen.addresses(HOST, uplink), *routes) if ":" in prefix and prefix != "::/0")
    return any(overlap(f"{address}/128", prefix) for prefix in prefixes)


def node_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[Op]:
    """Make the uplinks answer for others (sysctls of the node)."""
    for name in dict.fromkeys(entry.uplink for entry in proxied(conf, allocation.ips, seen)):
        yield from forwarding.answer(seen, name)


def arrival_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[Op]:
    """Add the container's routes, more specific than the uplink's prefix, and its proxy entries."""
    for entry in proxied(conf, allocation.ips, seen):
        yield ops.AddRoute(HOST, entry.home, f"{entry.address}/128")
        yield ops.AddProxy(entry.uplink, entry.address)


def removal(record: Attachment, *_: frozenset[str]) -> tuple[Op, ...]:
    """Remove them, from the record alone."""
    steps: list[Op] = []
    for entry in record.proxied:
        steps.append(ops.RemoveProxy(entry.uplink, entry.address))
        steps.append(ops.RemoveRoute(HOST, entry.home, f"{entry.address}/128"))
    return tuple(steps)


def warnings(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[str]:
    """The warnings that an ADD logs."""
    if conf.ndp_proxy == AUTO and 6 in allocation.families() and not proxied(conf, allocation.ips, seen):
        names = ", ".join(_answering(conf, seen)) or "any IPv6 uplink (there is none)"
        yield f"ndpProxy: auto: no address lies in an on-link prefix of {names}: the node answers for none"


# CHECK


def check_questions(_: MainConf, record: Attachment) -> tuple[Question, ...]:
    """The questions that CHECK asks."""
    needed: list[Question] = []
    for entry in record.proxied:
        needed += [GetLink(HOST, entry.uplink), HasProxy(entry.uplink, entry.address)]
        needed.append(HasRoute(HOST, entry.home, f"{entry.address}/128"))
        needed += forwarding.answering_questions(entry.uplink)
    return tuple(needed)


def differences(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterable[str]:
    """The differences between the record and the kernel, one phrase for each."""
    return (words for words, _ in _missing(conf, record, seen))


def mending(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterable[Op]:
    """The operations after which the node answers for the container's addresses again."""
    return (op for _, step in _missing(conf, record, seen) for op in step)


def _missing(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterator[tuple[str, tuple[Op, ...]]]:
    """What the node lacks of what the record says, in words, and the operations that give it back.

    Nothing on a bridge that the network had (``former_bridge``), once it is gone.
    """
    proxied = [entry for entry in record.proxied if conf.ndp_proxy or seen.link(HOST, entry.uplink)]
    for name in dict.fromkeys(entry.uplink for entry in proxied):
        if not forwarding.answers(seen, name):
            words = f"the node answers for nobody on {name}: its forwarding or proxy_ndp is off"
            yield words, tuple(forwarding.answer(seen, name))
    for entry in proxied:
        prefix = f"{entry.address}/128"
        if not seen.has_route(HOST, entry.home, prefix):
            yield f"route {prefix} through {entry.home} is missing", (ops.AddRoute(HOST, entry.home, prefix),)
        if not seen.has_proxy(entry.uplink, entry.address):
            words = f"the node does not answer for {entry.address} on {entry.uplink}"
            yield words, (ops.AddProxy(entry.uplink, entry.address),)
