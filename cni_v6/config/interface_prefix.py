"""Ranges that follow a prefix: written as an interface of the node and a subnet's number, whatever prefix that has now.

Pure. The configuration names the interface (``ipam.ranges[][].from``); before addresses are allocated its prefix is
looked up, and the range is read as if its subnet had been written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cni_v6.config.exclusions import Exclusion
from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, NODE_CONFLICT, TRY_AGAIN, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLifetimes, GetLink, GetRoutes, Lifetime, Question, Snapshot
from cni_v6.net.addresses import BITS, from_text, is_link_local, overlap, to_text

_UNIQUE_LOCAL = "fc00::/7"
_OF_NO_USE = ("fe80::/10", "ff00::/8", "::/80")  # link-local, multicast; loopback and what embeds IPv4
_KEYS = ("subnetId", "length")  # which go with ``from``
_FIXED = ("subnet", "rangeStart", "rangeEnd")  # which do not: they would say a prefix


@dataclass(frozen=True, slots=True)
class InterfaceRange:
    """A range as it is written: subnet ``subnet_id``, a number, of ``length`` bits, of the prefix of ``interface``.

    ``subnet``: what that is now, "" where it is not known yet.
    """

    path: str
    interface: str
    subnet_id: int
    length: int
    subnet: str = ""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What an interface has now: the prefix's first address, its length, and the node's own addresses there."""

    network: int
    length: int
    own: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{to_text(6, self.network)}/{self.length}"


InterfacePrefixes = Mapping[str, Prefix]  # by interface


def read(section: Section) -> InterfaceRange | None:
    """A range's keys; None for a range that says its subnet.

    :raises CniError: INVALID_CONFIG for keys that do not go together.
    """
    if "from" not in section.values:  # the older form of a single range, which is known by its subnet
        return None
    interface = section.text("from")
    if not interface:
        stray = next((name for name in _KEYS if name in section.given), "")
        if stray:
            raise wrong(section.at(stray), section.values[stray], "has no effect: there is no from beside it",
                        "name the interface whose prefix the range follows, or remove it")
        if not section.text("subnet"):
            words = 'write one, such as "fd42:1:2:3::/64", or follow an interface\'s prefix with from and length'
            raise CniError(INVALID_CONFIG, f"{section.at('subnet')} is missing", words)
        return None
    for name in _FIXED:
        if section.text(name):
            raise wrong(section.at(name), section.text(name), f"contradicts from: the prefix is what {interface} has",
                        "remove one of them")
    gateway = section.text("gateway")
    if gateway and not is_link_local(gateway):
        raise wrong(section.at("gateway"), gateway, "would change with the prefix", 'write "link-local", or remove it')
    length = section.number("length")
    if length is None:
        raise CniError(INVALID_CONFIG, f"{section.at('length')} is missing", "write the subnet's, such as 72")
    return InterfaceRange(section.path, interface, int(section.text("subnetId") or "0", 16), length)


def subnet(follow: InterfaceRange, prefixes: InterfacePrefixes) -> str:
    """The range's subnet.

    :raises CniError: INVALID_CONFIG where the prefix has no room for it.
    """
    prefix = prefixes[follow.interface]
    bits = follow.length - prefix.length
    held = f"{follow.interface} has {prefix} now"
    if bits < 0:
        raise wrong(f"{follow.path}.length", follow.length, f"is less than the prefix has: {held}",
                    f"write {prefix.length} or more")
    if follow.subnet_id >> bits:
        raise wrong(f"{follow.path}.subnetId", f"{follow.subnet_id:x}", f"does not fit into {bits} bits: {held}, and "
                    f"length is {follow.length}", "write a lower one, or a greater length")
    return f"{to_text(6, prefix.network | follow.subnet_id << BITS[6] - follow.length)}/{follow.length}"


def own_addresses(follows: Iterable[InterfaceRange], prefixes: InterfacePrefixes) -> tuple[Exclusion, ...]:
    """The node's own addresses in these prefixes, which no container can have."""
    found = {address: follow.path for follow in follows for address in prefixes[follow.interface].own}
    return tuple(
        Exclusion(f"{path}.from", address, 6, value, value)
        for address, path in found.items() for value in (from_text(address)[1],)
    )


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
