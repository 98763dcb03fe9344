"""Whether a network's prefix is in the way of something that the node has already, or the other way round. Pure.

The kernel takes the same prefix on two interfaces without a word, and one of both is dead at once. What is within a
larger prefix of another interface works, since the longest prefix wins: a part of the uplink's /64, for which the node
answers (``ndpProxy``), or a part of a prefix that is routed to the node. It must not have an address of the node's or
of its routers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import AUTO, MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel.facts import Surroundings
from cni_v6.net.addresses import host_prefix, is_link_local, overlap, version
from cni_v6.protocol import names

DEFAULT = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix that the containers have on the interface ``home``, and their gateway, which the node is to be."""

    home: str
    prefix: str
    gateway: str


def check(
    conf: MainConf, places: Iterable[Place], seen: Surroundings, earlier: frozenset[str], networks: Mapping[str, str]
) -> list[str]:
    """Warnings about prefixes that are part of another interface's.

    :param earlier: interfaces that this network had earlier; its containers there may still have the prefix.
    :param networks: interface -> network, of other networks.
    :raises CniError: NODE_CONFLICT with the interface or network that a prefix overlaps with.
    """
    follows = conf.ipam.follows if isinstance(conf.ipam, IpamConf) else ()
    followed = frozenset(follow.interface for follow in follows)
    warnings: dict[str, None] = {}

    def name(interface: str) -> str:
        return f"network {networks[interface]} ({interface})" if interface in networks else f"interface {interface}"

    for place in places:
        for words in _router(place, seen):
            raise _refused(place, words)
        others = _Others(place, seen, {place.home, *earlier, *_answering(conf, place, seen)})
        for interface, words in others.conflicts(followed):
            raise _refused(place, words.format(name(interface)))
        for interface, prefix in others.within():
            if not (conf.ndp_proxy and version(prefix) == 6) and interface not in followed:
                warnings[f"{place.prefix} is a part of {prefix} of {name(interface)}: the node and its containers "
                         "reach no neighbour there that has an address of that part"] = None
    return list(warnings)


def _answering(conf: MainConf, place: Place, seen: Surroundings) -> Iterator[str]:
    """Uplinks whose whole prefix the network may have: the node answers there for the containers, and has a route to
    each. With a link-local gateway the bridge gets no address, so the uplink's route to the prefix stays preferred.
    """
    if conf.ndp_proxy and is_link_local(place.gateway):
        for interface, address in seen.addresses:
            is_same = _length(address) == _length(place.prefix) and _contains(place.prefix, address.partition("/")[0])
            if is_same and conf.ndp_proxy in (AUTO, interface):
                yield interface


def _refused(place: Place, words: str) -> CniError:
    remedy = 'use another subnet, or remove what has this one; or write "overlap": "allow"'
    return CniError(NODE_CONFLICT, f"subnet {place.prefix} (gateway {place.gateway}) overlaps: {words}", remedy)


def _router(place: Place, seen: Surroundings) -> Iterator[str]:
    """The node's own router has the address that the node is to have as the containers' gateway."""
    for interface, route in seen.routes:
        is_here = interface == place.home or not is_link_local(place.gateway)
        if route.gateway == place.gateway and is_here:
            yield f"that gateway is the node's own router, of its route {route.dst} through {interface}"


@dataclass(frozen=True, slots=True)
class _Others:
    """A place, and the node's other interfaces: all but ``own``."""

    place: Place
    seen: Surroundings
    own: set[str]

    def conflicts(self, followed: frozenset[str]) -> Iterator[tuple[str, str]]:
        """Interface, and what it has that is in the way, with a place for the interface's name.

        :param followed: interfaces whose addresses the allocation leaves out.
        """
        prefix = self.place.prefix
        for interface, address in self._addresses():
            inside = _contains(prefix, address.partition("/")[0]) and interface not in followed
            if inside or _length(address) >= _length(prefix):
                yield interface, f"{{}} has address {address}"
        for interface, route in self.seen.routes:
            if interface in self.own or self._is_agents(interface, route.dst) or version(route.dst) != version(prefix):
                continue
            if route.gateway and _contains(prefix, route.gateway):
                yield interface, f"the next hop {route.gateway} of the node's route {route.dst} is behind {{}}"
            elif route.dst not in DEFAULT and _length(route.dst) >= _length(prefix) and overlap(route.dst, prefix):
                yield interface, f"the node has a route {route.dst} through {{}}"

    def within(self) -> Iterator[tuple[str, str]]:
        """Interface and its larger prefix, of those that the place is a part of."""
        yield from self._addresses()

    def _addresses(self) -> Iterator[tuple[str, str]]:
        for interface, address in self.seen.addresses:
            if interface not in self.own and overlap(address, self.place.prefix):
                if not self._is_agents(interface, address):
                    yield interface, address

    def _is_agents(self, interface: str, prefix: str) -> bool:
        """Whether it is the address that the node agent's WireGuard has of the place: its first, which is nobody's."""
        return interface == names.WIREGUARD and prefix == host_prefix(self.place.prefix)


def _contains(prefix: str, ip: str) -> bool:
    return overlap(prefix, host_prefix(ip))


def _length(prefix: str) -> int:
    return int(prefix.partition("/")[2])
