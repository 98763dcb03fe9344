"""The prefix that an interface of the node has now: what is asked of the kernel, and which of several counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cni_v6.config.interface_prefix import InterfaceRange, Prefix
from cni_v6.errors import NODE_CONFLICT, TRY_AGAIN, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLifetimes, GetLink, GetRoutes, Lifetime, Question, Snapshot
from cni_v6.net.addresses import BITS, from_text, overlap

_UNIQUE_LOCAL = "fc00::/7"
_OF_NO_USE = ("fe80::/10", "ff00::/8", "::/80")  # link-local, multicast; loopback and what embeds IPv4


def questions(follows: Iterable[InterfaceRange]) -> tuple[Question, ...]:
    """What has to be known of the node."""
    asked: list[Question] = []
    for name in dict.fromkeys(follow.interface for follow in follows):
        asked += [GetLink(HOST, name), GetLifetimes(HOST, name), GetRoutes(HOST, name)]
    return tuple(asked)


def prefixes(follows: Iterable[InterfaceRange], seen: Snapshot) -> dict[str, Prefix]:
    """What each interface has now.

    :param seen: answers to ``questions``.
    :raises CniError: NODE_CONFLICT for an interface that is not there, TRY_AGAIN for one that has no prefix now.
    """
    return {follow.interface: _prefix(follow, seen) for follow in follows}


def still_there(address: str, interface: str, seen: Snapshot) -> bool:
    """Whether the interface has an address or an on-link route whose prefix holds an address, be it deprecated."""
    held = [each.address for each in seen.lifetimes(HOST, interface)]
    held += [route.dst for route in seen.routes(HOST, interface) if ":" in route.dst and _is_on_link_prefix(route.dst)]
    return any(overlap(f"{address}/128", each) for each in held)


def _prefix(follow: InterfaceRange, seen: Snapshot) -> Prefix:
    """That of the address that will be good for longest.

    Unique local ones count where there is no other (RFC 4193); deprecated, temporary (RFC 8981) and link-local ones do
    not. Between equals the lowest, so that the answer is the same for as long as the interface is.
    """
    name = follow.interface
    if seen.link(HOST, name) is None:
        words = f"{follow.path}.from: the node has no interface {name}"
        raise CniError(NODE_CONFLICT, words, "write the name of one that it has")
    held = seen.lifetimes(HOST, name)
    found = [(each, prefix) for each in held if _is_global(each) and (prefix := _on_link(each.address, name, seen))]
    if not found:
        words = f"{follow.path}.from: {name} has no global IPv6 prefix now"
        raise CniError(TRY_AGAIN, words, f"wait for its router's, or give it one: see ip -6 address show dev {name}")
    _, prefix = max(found, key=lambda pair: _rank(pair[0]))
    network, length = prefix
    bare = Prefix(network, length)
    own = (each.address.partition("/")[0] for each in held)
    return replace(bare, own=tuple(each for each in own if overlap(f"{each}/128", str(bare))))


def _is_global(each: Lifetime) -> bool:
    return each.preferred > 0 and not each.temporary and not any(overlap(each.address, other) for other in _OF_NO_USE)


def _rank(each: Lifetime) -> tuple[bool, int, int, int]:
    ip = each.address.partition("/")[0]
    return not overlap(f"{ip}/128", _UNIQUE_LOCAL), each.preferred, each.valid, -from_text(ip)[1]


def _on_link(address: str, interface: str, seen: Snapshot) -> tuple[int, int] | None:
    """First address and length of an address's prefix.

    One of 128 bits, as by DHCPv6 (RFC 8415), has none of its own: the longest route without a next hop that holds it.
    """
    ip, _, length = address.partition("/")
    found = [int(length)] if length != "128" else [
        int(route.dst.partition("/")[2]) for route in seen.routes(HOST, interface)
        if route.gateway is None and ":" in route.dst and _is_on_link_prefix(route.dst)
        and overlap(f"{ip}/128", route.dst)
    ]
    if not found:
        return None
    host = BITS[6] - max(found)
    return from_text(ip)[1] >> host << host, max(found)


def _is_on_link_prefix(dst: str) -> bool:
    return not dst.endswith(("/0", "/128"))
