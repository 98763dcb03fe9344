"""A site's IPv6 prefix, split over its nodes and their networks: what fits, and for how many years.

The split is at nibble boundaries: an address then shows its node and network in whole hexadecimal digits, and each can
be delegated in ip6.arpa (RFC 3596, section 2.5). A network is a /64 where the prefix is large enough, which SLAAC and
much else take for granted (RFC 7421, section 4).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from netaddr import IPNetwork

from cni_v6.allocation.ranges import LARGE
from cni_v6.config.reader import wrong
from cni_v6.config.text import SPANS, FormatError, link_local, network, unusable
from cni_v6.errors import CniError

BITS = 128
NIBBLE = 4
STANDARD = 64
UNUSED = 2  # of a network: the subnet routers' anycast address (RFC 4291, section 2.6.1) and the gateway's
MOST = 2**32  # of anything that is counted: such a plan still fits a prefix
YEAR = 365 * 86400  # seconds; by this year, and not by a Julian one, a /64 lasts 58,494 at ten million a second
UNIQUE_LOCAL = IPNetwork("fc00::/7")  # RFC 4193
NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970 (RFC 5905, figure 4)

_SPANS = (("years", YEAR), ("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
_REMEDY = "write the site's as network/length, such as 2001:db8::/48"


class Prefix(IPNetwork):
    """An IPv6 prefix, ``Prefix("2001:db8::/48")`` or ``Prefix((value, length), version=6)``."""

    @property
    def length(self) -> int:
        return self.prefixlen

    @property
    def is_ula(self) -> bool:
        return self in UNIQUE_LOCAL

    def part(self, length: int, number: int) -> Prefix:
        """The ``number``-th (from 0) of its parts of that length."""
        part = Prefix(f"{self.network}/{length}")
        part += number
        return part


@dataclass(frozen=True, slots=True)
class Wanted:
    """``networks``: of a node. ``pods``: of a node at once, all of which may be in one network. ``rate``: ADDs per
    second on a node."""

    nodes: int
    networks: int
    pods: int
    rate: Fraction


@dataclass(frozen=True, slots=True)
class PrefixPlan:
    """The split: lengths of a node's prefix and of a network's. Nodes and networks are numbered from 1."""

    site: Prefix
    wanted: Wanted
    node_length: int
    network_length: int

    @property
    def nodes_fit(self) -> int:
        return 1 << self.node_length - self.site.length

    @property
    def networks_fit(self) -> int:
        """In one node's prefix."""
        return 1 << self.network_length - self.node_length

    @property
    def years(self) -> Fraction:
        """How long a network lasts that takes all of its node's churn, if no address is given twice."""
        return Fraction(1 << BITS - self.network_length) / self.wanted.rate / YEAR

    @property
    def reused(self) -> bool:
        """Whether a network is so small that its addresses are given again."""
        return (1 << BITS - self.network_length) - UNUSED < LARGE

    def node(self, number: int) -> Prefix:
        return self.site.part(self.node_length, number - 1)

    def network(self, node: int, number: int) -> Prefix:
        return self.node(node).part(self.network_length, number - 1)

    def notes(self) -> tuple[str, ...]:
        """What the operator should know about it, a sentence each."""
        found = []
        if self.network_length > STANDARD:
            site = _needed(self.site.length, self.wanted, STANDARD)
            found.append(
                f"networks smaller than a /{STANDARD} have no SLAAC (RFC 7421); "
                f"a site of a /{site} has room for a /{STANDARD} each"
            )
        if self.reused:
            found.append("networks of fewer than 2^32 addresses give them again, each after all the others")
        return tuple(found)


def parse_site(text: str) -> Prefix:
    """The prefix to split.

    :raises CniError: INVALID_CONFIG.
    """
    try:
        family, value, length = network(text)
    except FormatError as unfit:
        raise wrong("PREFIX", text, str(unfit), unfit.remedy or _REMEDY) from None
    if family == 4:
        raise wrong("PREFIX", text, "is an IPv4 prefix", _REMEDY)
    what = unusable(family, value, length) or link_local(family, value, length)
    if what:
        raise wrong("PREFIX", text, f"overlaps addresses no site has ({what})", _REMEDY)
    return Prefix((value, length), version=6)


def parse_count(argument: str, text: str) -> int:
    """A number of things.

    :raises CniError: INVALID_CONFIG, naming the argument.
    """
    if not re.fullmatch("[0-9]{1,10}", text) or not 1 <= int(text) <= MOST:
        raise wrong(argument, text, "is not a number of them", f"write one from 1 to {MOST}")
    return int(text)


def parse_rate(argument: str, text: str) -> Fraction:
    """ADDs per second, of ``100/s``, ``20/min``, ``5000/h``, ``0.5/d``.

    :raises CniError: INVALID_CONFIG, naming the argument.
    """
    found = re.fullmatch(rf"([0-9]{{1,12}}(?:\.[0-9]{{1,9}})?)/({'|'.join(SPANS)})", text)
    if not found or not Fraction(found[1]):
        raise wrong(argument, text, "is not a rate", "write ADDs on a node by time, such as 100/s, 20/min, 5000/h, 1/d")
    return Fraction(found[1]) / SPANS[found[2]]


def of_clusters(prefix: Prefix, clusters: int) -> int:
    """Length of a cluster's prefix: the largest nibble-aligned one of which a prefix has enough; its own for one.

    :raises CniError: INVALID_CONFIG, if they do not fit.
    """
    length = _aligned(prefix.length + _bits(clusters)) if clusters > 1 else prefix.length
    if length > BITS - NIBBLE:
        raise wrong("--clusters", clusters, f"do not fit in {prefix}", "take a larger prefix, or fewer of them")
    return length


def split(site: Prefix, wanted: Wanted) -> PrefixPlan:
    """Each node the largest nibble-aligned prefix of which the site has enough; of that, networks of a /64, else the
    largest of which it has enough.

    :raises CniError: INVALID_CONFIG, naming what does not fit, and what would.
    """
    node, part = _lengths(site.length, wanted)
    longest = _longest(wanted)
    if part <= longest:
        return PrefixPlan(site, wanted, node, part)
    remedy = f"take a /{_needed(site.length, wanted, longest)} or larger"
    least = f"with --pods {wanted.pods} a network is at least a /{longest}"
    if _aligned(site.length) > longest:
        raise wrong("--pods", wanted.pods, f"do not fit in {site}: they need at least a /{longest}", remedy)
    if node > longest:
        fit = 1 << longest - site.length
        raise _misfit("--nodes", wanted.nodes, f"in {site}: {least}, of which it has {fit:,}", f"{remedy}, or {fit}")
    fit = 1 << longest - node
    where = f"in a node's /{node} of {site}: {least}, of which that has {fit:,}"
    raise _misfit("--networks", wanted.networks, where, f"{remedy}, or {fit}")


def _misfit(argument: str, value: int, where: str, remedy: str) -> CniError:
    return wrong(argument, value, f"do not fit {where}", f"{remedy} {argument.strip('-')} at most")


def _lengths(site: int, wanted: Wanted) -> tuple[int, int]:
    """(prefix length of a node, prefix length of a network), whether or not they fit the site."""
    node = _aligned(site + _bits(wanted.nodes))
    return node, max(STANDARD, _aligned(node + _bits(wanted.networks)))


def _longest(wanted: Wanted) -> int:
    """Length of the smallest network for so many pods; every count that can be given leaves it above /64."""
    return (BITS - _bits(wanted.pods + UNUSED)) // NIBBLE * NIBBLE


def _needed(site: int, wanted: Wanted, longest: int) -> int:
    """Length of a site, nibble-aligned and no smaller than this one, whose networks are no longer than ``longest``."""
    lengths = range(site // NIBBLE * NIBBLE, -1, -NIBBLE)  # /0 has room for MOST nodes of MOST networks, a /64 each
    return next(length for length in lengths if _lengths(length, wanted)[1] <= longest)


def _bits(count: int) -> int:
    return (count - 1).bit_length()


def _aligned(length: int) -> int:
    return -(-length // NIBBLE) * NIBBLE


def duration(years: Fraction) -> str:
    """For people: in the largest unit of which it has at least one, rounded down."""
    seconds = years * YEAR
    unit, length = next((span for span in _SPANS if seconds >= span[1]), _SPANS[-1])
    tenths = int(seconds * 10 / length)
    return f"{tenths // 10:,} {unit}" if tenths >= 100 else f"{tenths // 10}.{tenths % 10} {unit}"


def sample(plan: PrefixPlan, node: int, number: int) -> Mapping[str, Any]:
    """A network configuration list for that network of that node.

    Unique local addresses end at the site, so they are masqueraded beyond it and, like all others, not within.
    """
    masquerade = {"masquerade": {"ipv6": "auto"}, "nonMasquerade": [str(plan.site)]} if plan.site.is_ula else {}
    plugin = {
        "type": "cni-v6",
        "bridge": f"cni{number - 1}",
        "isDefaultGateway": True,
        **masquerade,
        "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": str(plan.network(node, number))}]]},
    }
    return {"cniVersion": "1.0.0", "name": "pods" if number == 1 else f"pods{number}", "plugins": [plugin]}


def ntp_time(nanoseconds: int) -> int:
    """A time since 1970 as a 64-bit NTP timestamp: seconds since 1900, and their 2^-32th (RFC 5905, section 6)."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return (seconds + NTP_EPOCH) % 2**32 << 32 | (rest << 32) // 10**9


def ula(timestamp: int, identifier: bytes) -> Prefix:
    """A site's own /48 (RFC 4193, section 3.2.2).

    :param timestamp: 64 bits, in NTP's format.
    :param identifier: an EUI-64, or what else no other machine has.
    """
    digest = hashlib.sha1(timestamp.to_bytes(8, "big") + identifier, usedforsecurity=False).digest()
    return Prefix((int.from_bytes(b"\xfd" + digest[-5:], "big") << 80, 48), version=6)
