"""Remarks about the addresses of a network: reach, size, overlaps with the node and with other networks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from netaddr import AddrFormatError, IPNetwork, IPSet

from cni_v6.allocation import ranges
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.firewall import MODE_OFF
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import IPV6_MIN_MTU, ForeignIpam, MainConf
from cni_v6.errors import CniError
from cni_v6.kernel.facts import Surroundings, Uplink
from cni_v6.net.addresses import version
from cni_v6.plan import overlap
from cni_v6.plan.forwarding import LOOPBACK
from cni_v6.plan.lint.remark import ERROR, WARNING, Remark
from cni_v6.plan.overlap import Place

PRIVATE = IPSet(["fc00::/7", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"])  # RFC 4193, 1918, 6598
DOCUMENTATION = IPSet(["2001:db8::/32", "3fff::/20", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"])


@dataclass(frozen=True, slots=True)
class Node:
    """What the node has: None if it is not to be looked at. ``uplinks``: of its default routes."""

    surroundings: Surroundings
    uplinks: tuple[Uplink, ...] = ()


@dataclass(frozen=True, slots=True)
class Other:
    """Another network: the file, its name, its bridge ("" if it is not ours), its subnets."""

    file: str
    network: str
    bridge: str
    subnets: tuple[str, ...]


def subnets(conf: IpamConf) -> tuple[str, ...]:
    """The subnets of all ranges."""
    return tuple(dict.fromkeys(ranges.subnet(part) for range_set in conf.sets for part in range_set.written))


def network(conf: MainConf, node: Node | None, pods: int) -> Iterator[Remark]:
    """Remarks about a network of ours.

    :param pods: how many containers it must have room for; 0 if nobody says.
    """
    ipam = conf.ipam
    if isinstance(ipam, ForeignIpam) and 0 < conf.mtu < IPV6_MIN_MTU:
        words = f"mtu {conf.mtu} is less than {IPV6_MIN_MTU}, and {ipam.type} may give IPv6 addresses"
        yield Remark("mtu", WARNING, words, "raise it, or leave it out", "mtu")
    if not isinstance(ipam, IpamConf):
        return
    if conf.is_gateway:
        yield from _reach(conf, ipam)
        if isinstance(conf, BridgeConf) and not conf.is_default_gateway and not ipam.routes:
            yield Remark("no-default-route", WARNING, "the node is a gateway, and containers get no route through it",
                         'write "isDefaultGateway": true, or ipam.routes', "isGateway")
    yield from of_ipam(ipam, pods)
    if node and conf.is_gateway:
        yield from _on_node(conf, ipam, node)


def of_ipam(ipam: IpamConf, pods: int) -> Iterator[Remark]:
    """Remarks about the ranges alone."""
    for subnet in subnets(ipam):
        if IPNetwork(subnet) in DOCUMENTATION:
            yield Remark("documentation-prefix", WARNING, f"{subnet} is for documentation only",
                         "write a prefix of your own: cni-v6ctl plan-prefix --ula makes one", "subnet")
    for index, range_set in enumerate(ipam.sets):
        if ranges.size(range_set) < pods:
            words = f"ipam.ranges[{index}] has {ranges.size(range_set):,} addresses, for {pods:,} pods"
            yield Remark("too-small", WARNING, words, "use a larger range, or set maxPods of the kubelet", "ranges")


def _reach(conf: MainConf, ipam: IpamConf) -> Iterator[Remark]:
    """Addresses that end at the site, and nothing translates them."""
    firewall = conf.firewall
    for subnet in subnets(ipam):
        mode = firewall.masquerade6 if ":" in subnet else firewall.masquerade4
        translated = firewall.nptv6 is not None and ":" in subnet
        if IPNetwork(subnet) in PRIVATE and mode == MODE_OFF and not translated:
            kind, family = ("a unique local prefix", "ipv6") if ":" in subnet else ("a private prefix", "ipv4")
            also = ", or nptv6 for prefix translation" if ":" in subnet else ""
            remedy = f'write "masquerade": {{"{family}": "auto"}}{also}; or keep the network inside the site'
            yield Remark("unreachable", WARNING, f"{subnet} is {kind}, and nothing translates it", remedy, "subnet")


def _on_node(conf: MainConf, ipam: IpamConf, node: Node) -> Iterator[Remark]:
    uplinks = {uplink.ifname for uplink in node.uplinks}
    on_link = [(name, address) for name, address in node.surroundings.addresses if name in uplinks]
    answered = set()
    for subnet in subnets(ipam):
        for name, address in on_link:
            inside = version(address) == 6 == version(subnet) and IPNetwork(subnet) in IPNetwork(address).cidr
            if inside and not conf.ndp_proxy and not ipam.follows:
                answered.add(subnet)
                yield Remark("on-link", ERROR if IPNetwork(subnet) == IPNetwork(address).cidr else WARNING,
                             f"{subnet} is in the prefix of {name}, {IPNetwork(address).cidr}, and ndpProxy is not set",
                             f'write "ndpProxy": "{name}", so that the node answers for the containers', "subnet")
    if conf.allow_overlap:
        return
    places = [Place(conf.gateway_interface, ranges.subnet(part), part.gateway)
              for range_set in ipam.sets for part in range_set.written if ranges.subnet(part) not in answered]
    known = {name for name, _ in (*node.surroundings.addresses, *node.surroundings.routes)}
    # Of a routed network each container has an interface, and loopback the gateway. Whose a link is, lint does not ask.
    links = frozenset(name for name in known if name == LOOPBACK or name.startswith("veth"))
    try:
        warnings = overlap.check(conf, places, node.surroundings, frozenset() if conf.is_shared else links, {})
    except CniError as error:
        yield Remark("overlap", ERROR, error.msg, error.details, "subnet")
        return
    for warning in warnings:
        yield Remark("overlap", WARNING, warning, "use another subnet, or ndpProxy", "subnet")


def between(own: Other, others: Iterable[Other]) -> Iterator[Remark]:
    """What is common to a network and others on the same node."""
    for other in others:
        if other.file == own.file:
            continue
        if other.network == own.network and own.network:
            words = f"{other.file} names network {own.network} too"
            yield Remark("same-name", ERROR, words, "give one of them another name", "name")
        for mine, theirs in _common(own.subnets, other.subnets):
            if own.network != other.network:
                words = f"{mine} overlaps with {theirs} of network {other.network} ({other.file})"
                yield Remark("overlap", WARNING, words, "give each network a subnet of its own", "subnet")


def _common(own: Sequence[str], other: Sequence[str]) -> Iterator[tuple[str, str]]:
    for mine in own:
        for theirs in other:
            if version(mine) == version(theirs) and IPSet([mine]) & IPSet([theirs]):
                yield mine, theirs


def foreign_subnets(document: Mapping[str, object]) -> tuple[str, ...]:
    """The subnets that a configuration of others names, wherever they are, as far as they are prefixes."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("subnet", "podCidr", "podCIDR") and isinstance(inner, str):
                    found.append(inner)
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    return tuple(dict.fromkeys(text for text in found if _is_prefix(text)))


def _is_prefix(text: str) -> bool:
    try:
        IPNetwork(text)
    except (ValueError, AddrFormatError):
        return False
    return "/" in text
