"""Which prefixes a node's first network can have: what the node has tells, and what is on it already is left out. Pure.

- routed: the prefix is routed to the node. Nothing in the kernel says so but a route that discards the rest of it,
  as DHCPv6 clients make one for a delegated prefix (RFC 7084, section 4.2, WPD-5). Or the operator says it.
- on-link: the uplink has a prefix, in which its router looks for each address by a neighbour solicitation.
- unique local: neither; the addresses end at the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from netaddr import AddrFormatError, IPNetwork, IPSet

from cni_v6.config.interface_prefix import Prefix
from cni_v6.config.reader import wrong
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel.facts import FOREVER, Lifetime, Surroundings, Uplink
from cni_v6.net.addresses import overlap, version
from cni_v6.plan.lint.addresses import PRIVATE, Other
from cni_v6.plan.overlap import DEFAULT

ROUTED, ON_LINK, UNIQUE_LOCAL = "routed", "on-link", "unique-local"
GLOBAL = IPNetwork("2000::/3")  # RFC 4291, section 2.4: what is global unicast so far
NETWORK = 64  # the length of a network in a larger prefix (RFC 7421, section 4)
LONGEST = {4: 29, 6: 112}  # of a prefix that is worth it
SHORTEST = {4: 8, 6: 16}
PART = 80  # of an on-link prefix: the containers' part. Its number is the 16 bits after a /64.
FIRST_PART = 0xC  # hosts count from 0, and addresses of SLAAC are anywhere
TRIED = 4096
# As in the samples. 10.88.0.0/16 and above are podman's, and 172.17.0.0/16 to 172.20.0.0/16 Docker's first.
IPV4 = (
    "10.86.0.0/16", "10.87.0.0/16", *(f"10.{number}.0.0/16" for number in range(85, 1, -1)),
    *(f"172.{number}.0.0/16" for number in range(31, 20, -1)),
    *(f"192.168.{number}.0/24" for number in range(254, 1, -1)),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the node has. ``lifetimes``: of the addresses of the uplink of IPv6; ``prefix``: its on-link prefix.

    ``discarded``: prefixes with a route that discards. ``others``: networks that are configured. ``ipv6_off``: in the
    kernel, or on the whole node.
    """

    surroundings: Surroundings
    uplinks: tuple[Uplink, ...] = ()
    links: frozenset[str] = frozenset()
    lifetimes: tuple[Lifetime, ...] = ()
    prefix: Prefix | None = None
    discarded: tuple[str, ...] = ()
    others: tuple[Other, ...] = ()
    ipv6_off: bool = False

    def uplink(self, family: int) -> str:
        """The interface of a family's default route, or ""."""
        return next((uplink.ifname for uplink in self.uplinks if uplink.family == family), "")


@dataclass(frozen=True, slots=True)
class Choice:
    """The prefix of a family. ``range``: as it is written in ``ipam.ranges``; ``subnet``: what that is now.

    ``why``: a sentence. ``ndp_proxy``: the interface where the node must answer for the containers, or "".
    """

    situation: str
    range: Mapping[str, object]
    subnet: str
    why: str
    ndp_proxy: str = ""

    @property
    def is_private(self) -> bool:
        """Whether no router beyond the site has a route to it."""
        return IPNetwork(self.subnet) in PRIVATE


def ipv6(facts: Facts, ula: str, wanted: str = "") -> Choice:
    """The IPv6 prefix of the network.

    :param ula: a unique local /48, for a node that has nothing else.
    :param wanted: a prefix that is routed to the node, as the operator says; "" to look for one.
    :raises CniError: NODE_CONFLICT for a wanted prefix of which nothing is free.
    """
    if wanted:
        found = _part_of(wanted, facts)
        if not found:
            raise _taken("--prefix", wanted)
        return Choice(ROUTED, {"subnet": found}, found, f"of {wanted}, which is routed to this node, as you say")
    for prefix in facts.discarded:
        network = IPNetwork(prefix)
        if network.version == 6 and network in GLOBAL and (found := _part_of(prefix, facts)):
            words = f"of {prefix}, which is routed to this node: it has a route that discards the rest of it"
            return Choice(ROUTED, {"subnet": found}, found, words)
    return _on_link(facts) or _unique_local(facts, ula)


def ipv4(facts: Facts, wanted: str = "") -> Choice | None:
    """The IPv4 prefix beside it; None if there is none that overlaps with nothing.

    :raises CniError: NODE_CONFLICT for a wanted prefix that is not free.
    """
    taken = IPSet(text for text in (*_places(facts), *_of_others(facts)) if version(text) == 4)
    if wanted and IPSet([wanted]) & taken:
        raise _taken("--ipv4", wanted)
    candidates = [wanted] if wanted else [text for text in IPV4 if not IPSet([text]) & taken]
    if not candidates:
        return None
    words = "as you say" if wanted else "private; it overlaps with nothing on this node"
    return Choice(UNIQUE_LOCAL, {"subnet": candidates[0]}, candidates[0], words)


def parse(argument: str, text: str, family: int) -> str:
    """A prefix that an operator wrote, in canonical form.

    :raises CniError: INVALID_CONFIG, naming the argument.
    """
    example = "10.86.0.0/16" if family == 4 else "2001:db8:5::/56"
    remedy = f"write network/length, such as {example}"
    try:
        network = IPNetwork(text)
    except (AddrFormatError, ValueError):
        raise wrong(argument, text, "is not a prefix", remedy) from None
    if network.version != family or "/" not in text:
        raise wrong(argument, text, f"is not an IPv{family} prefix", remedy)
    if network.ip != network.network:
        raise wrong(argument, text, "has host bits set", f"write {network.cidr}")
    if not SHORTEST[family] <= network.prefixlen <= LONGEST[family]:
        least, most = SHORTEST[family], LONGEST[family]
        raise wrong(argument, text, f"is not from /{least} to /{most}", "write another prefix")
    return str(network)


# The three situations


def _part_of(prefix: str, facts: Facts) -> str:
    """The first network of a prefix that is free; "" if none is."""
    whole = IPNetwork(prefix)
    if whole.prefixlen > LONGEST[6]:
        return ""
    parts = _parts(whole, max(whole.prefixlen, NETWORK), 0)
    return next((part for part in parts if _is_free(part, facts)), "")


def _on_link(facts: Facts) -> Choice | None:
    """A part of the uplink's prefix; None if it has none, or nothing of it is free."""
    uplink, prefix = facts.uplink(6), facts.prefix
    if not uplink or prefix is None or IPNetwork(str(prefix)) not in GLOBAL:
        return None
    if prefix.length > LONGEST[6]:
        return None
    length = max(PART, prefix.length + 8)
    number, subnet = next(
        ((number, part) for number, part in enumerate(_parts(IPNetwork(str(prefix)), length, FIRST_PART), FIRST_PART)
         if _is_free(part, facts)), (0, ""),
    )
    if not subnet:
        return None
    words = f"a part of {prefix}, the on-link prefix of {uplink}, in which this node and its routers have no address"
    if _is_permanent(prefix, facts):
        return Choice(ON_LINK, {"subnet": subnet}, subnet, words, uplink)
    follows = {"from": uplink, "subnetId": f"{number:x}", "length": length}
    return Choice(ON_LINK, follows, subnet, f"{words}; it follows {uplink}, whose prefix is not permanent", uplink)


def _unique_local(facts: Facts, ula: str) -> Choice:
    subnet = next(part for part in _parts(IPNetwork(ula), NETWORK, 1) if _is_free(part, facts))
    has = "no IPv6 prefix for containers" if facts.uplink(6) else "no IPv6 default route"
    words = f"of {ula}, unique local and random (RFC 4193): this node has {has}"
    return Choice(UNIQUE_LOCAL, {"subnet": subnet}, subnet, words)


def _is_permanent(prefix: Prefix, facts: Facts) -> bool:
    """Whether an address of the prefix stays as long as nobody removes it."""
    whole = IPNetwork(str(prefix))
    return any(
        lifetime.valid == FOREVER and IPNetwork(lifetime.address).ip in whole for lifetime in facts.lifetimes
    )


# What is free


def _parts(whole: IPNetwork, length: int, first: int) -> Iterator[str]:
    """The parts of a prefix with a length, from number ``first`` on."""
    most = min(1 << length - whole.prefixlen, TRIED)
    size = 1 << 128 - length
    yield from (str(IPNetwork((whole.first + number * size, length), version=6)) for number in range(first, most))


def _is_free(subnet: str, facts: Facts) -> bool:
    """Whether nothing on the node is in an IPv6 subnet, and no other network has a part of it.

    It may be a part of a larger prefix, since the longest prefix wins (see ``overlap``).
    """
    network = IPNetwork(subnet)
    inside = any(version(text) == 6 and IPNetwork(text).ip in network for text in _places(facts))
    return not inside and not any(version(text) == 6 and overlap(text, subnet) for text in _of_others(facts))


def _places(facts: Facts) -> Iterator[str]:
    """Addresses, routes and next hops of the node, as prefixes."""
    yield from (address for _, address in facts.surroundings.addresses)
    for _, route in facts.surroundings.routes:
        if route.dst not in DEFAULT:
            yield route.dst
        if route.gateway:
            yield f"{route.gateway}/{32 if version(route.gateway) == 4 else 128}"


def _of_others(facts: Facts) -> Iterable[str]:
    return (subnet for other in facts.others for subnet in other.subnets)


def _taken(argument: str, prefix: str) -> CniError:
    words = f"{argument} {prefix}: this node, one of its routes or another network has it"
    return CniError(NODE_CONFLICT, words, "name another prefix; ip address, ip route and --conf-dir show who has it")
