"""Finds the IPv6 prefix that an interface of the node has now, and chooses one if it has several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cni_v6.config.interface_prefix import InterfaceRange, Prefix
from cni_v6.errors import NODE_CONFLICT, TRY_AGAIN, CniError
from cni_v6.kernel.facts import Lifetime
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLifetimes, GetLink, GetRoutes, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.net.addresses import BITS, from_text, overlap

_UNIQUE_LOCAL = "fc00::/7"
_OF_NO_USE = ("fe80::/10", "ff00::/8", "::/80")  # link-local, multicast; loopback and what embeds IPv4


def questions(follows: Iterable[InterfaceRange]) -> tuple[Question, ...]:
    """The questions about the node's interfaces."""
    needed: list[Question] = []
    for name in dict.fromkeys(follow.interface for follow in follows):
        needed += [GetLink(HOST, name), GetLifetimes(HOST, name), GetRoutes(HOST, name)]
    return tuple(needed)


def prefixes(follows: Iterable[InterfaceRange], seen: Snapshot) -> dict[str, Prefix]:
    """The present prefix of each interface.

    :param seen: answers to ``questions``.
    :raises CniError: NODE_CONFLICT for an interface that is not there, TRY_AGAIN for one that has no prefix now.
    """
    return {follow.interface: _prefix(follow, seen) for follow in follows}


def still_there(address: str, interface: str, seen: Snapshot) -> bool:
    """Whether the interface has an address, deprecated or not, or an on-link route whose prefix contains an address."""
    prefixes_present = [lifetime.address for lifetime in seen.lifetimes(HOST, interface)]
    destinations = (route.dst for route in seen.routes(HOST, interface))
    prefixes_present += [prefix for prefix in destinations if ":" in prefix and _is_on_link_prefix(prefix)]
    return any(overlap(f"{address}/128", prefix) for prefix in prefixes_present)


def _prefix(follow: InterfaceRange, seen: Snapshot) -> Prefix:
    """The prefix of the address that stays preferred for the longest time.

    Unique local addresses (RFC 4193) count only if there is no other. Deprecated, temporary (RFC 8981) and link-local
    addresses do not count. Between equals the lowest address wins, so that the choice does not change between calls.
    """
    name = follow.interface
    if seen.link(HOST, name) is None:
        words = f"{follow.path}.from: the node has no interface {name}"
        raise CniError(NODE_CONFLICT, words, "write the name of one that it has")
    lifetimes = seen.lifetimes(HOST, name)
    found = [
        (lifetime, prefix) for lifetime in lifetimes
        if _is_global(lifetime) and (prefix := _on_link(lifetime.address, name, seen))
    ]
    if not found:
        words = f"{follow.path}.from: {name} has no global IPv6 prefix now"
        raise CniError(TRY_AGAIN, words, f"wait for its router's, or give it one: see ip -6 address show dev {name}")
    _, prefix = max(found, key=lambda pair: _rank(pair[0]))
    network, length = prefix
    bare = Prefix(network, length)
    addresses = (lifetime.address.partition("/")[0] for lifetime in lifetimes)
    return replace(bare, own=tuple(address for address in addresses if overlap(f"{address}/128", str(bare))))


def _is_global(lifetime: Lifetime) -> bool:
    is_excluded = any(overlap(lifetime.address, prefix) for prefix in _OF_NO_USE)
    return lifetime.preferred > 0 and not lifetime.temporary and not is_excluded


def _rank(lifetime: Lifetime) -> tuple[bool, int, int, int]:
    ip = lifetime.address.partition("/")[0]
    return not overlap(f"{ip}/128", _UNIQUE_LOCAL), lifetime.preferred, lifetime.valid, -from_text(ip)[1]


def _on_link(address: str, interface: str, seen: Snapshot) -> tuple[int, int] | None:
    """First address and length of the on-link prefix of an address; None without one.

    A /128, as DHCPv6 assigns it (RFC 8415), has no prefix of its own: the longest on-link route to it counts.
    """
    ip, _, length = address.partition("/")
    lengths = [int(length)] if length != "128" else [
        int(route.dst.partition("/")[2]) for route in seen.routes(HOST, interface)
        if route.gateway is None and ":" in route.dst and _is_on_link_prefix(route.dst)
        and overlap(f"{ip}/128", route.dst)
    ]
    if not lengths:
        return None
    host_bits = BITS[6] - max(lengths)
    return from_text(ip)[1] >> host_bits << host_bits, max(lengths)


def _is_on_link_prefix(dst: str) -> bool:
    return not dst.endswith(("/0", "/128"))
