"""Policies from the elements that the firewall has: ``elements`` backwards, for attachments whose record is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cni_v6.firewall.elements import ANY_PROTOCOL, PROTOCOLS, UNSPECIFIED, owner_of
from cni_v6.firewall.policy import (
    GUARD_FULL,
    GUARD_LINK,
    GUARD_MAC,
    GUARD_OFF,
    ISOLATED,
    MASQUERADED,
    OPEN,
    PUBLISHED,
    Allowed,
    Policy,
    Port,
)
from cni_v6.firewall.sets import BRIDGE, Element
from cni_v6.net.addresses import BITS, is_link_local, version
from cni_v6.protocol.names import Owner

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass(slots=True)
class _Found:
    """What the elements with an owner's comment say."""

    home: str = ""
    port: str = ""
    places: list[str] = field(default_factory=list)  # addresses, the link-local one too, and prefixes
    inbound: list[tuple[str, str]] = field(default_factory=list)
    published: dict[tuple[str, int, int], list[str]] = field(default_factory=dict)  # port -> where


def policies(elements: Iterable[Element]) -> dict[Owner, Policy]:
    """The policies of the owners that the elements' comments name.

    ``Policy.stale`` is not in the elements: all translated addresses are taken for such.
    """
    held = tuple(elements)
    found: dict[Owner, _Found] = {}
    for element in held:
        owner = owner_of(element.comment) if element.comment else None
        if owner:
            _note(found.setdefault(owner, _Found()), element)
    sets = _Sets(held)
    return {owner: _policy(each, sets) for owner, each in found.items()}


class _Sets:
    """Elements by their sets, whose names both tables have once, and the first fields of their keys."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._held: dict[tuple[str, str], list[Element]] = {}
        for element in elements:
            self._held.setdefault((element.set, element.key[0]), []).append(element)

    def of(self, name: str, first: str) -> list[Element]:
        return self._held.get((name, first), [])

    def at(self, name: str, place: str, home: str) -> Element | None:
        """The element of an address, or of a prefix, of containers behind ``home``."""
        full = f"{name}_prefixes6" if "/" in place else f"{name}{version(place)}"
        return next((each for each in self.of(full, place) if each.key[1] == home), None)


def _note(found: _Found, element: Element) -> None:
    """Take in an element that names its owner."""
    if element.family == BRIDGE:
        found.port = element.key[0]
    elif element.set in ("home4", "home6", "home_prefixes6"):
        place, found.home = element.key
        found.places.append(place)
    elif element.set == "inbound6":
        found.inbound.append((element.key[0], element.data[0]))
    else:
        *at, protocol, port = element.key
        where = at[0] if at else UNSPECIFIED[version(element.data[0]) == 6]
        key = _PROTOCOL_NAMES[protocol], int(port), int(element.data[1])
        found.published.setdefault(key, []).append(where)


def _policy(found: _Found, sets: _Sets) -> Policy:
    home, macs = found.home, sets.of("macs", found.port)
    own = [place for place in found.places if not is_link_local(place)]
    addresses = tuple(place for place in own if "/" not in place)
    masquerade = tuple(address for address in addresses if sets.at("masquerade", address, home))
    snat = tuple((address, each.data[0]) for address in addresses if (each := sets.at("snat", address, home)))
    hidden = [place for place in own if sets.at("masquerade", place, home) or sets.at("snat", place, home)]
    kept = (each for place in hidden for each in sets.of(f"keep{version(place)}", place))
    is_limited = any(sets.at("limited", place, home) for place in own)
    return Policy(
        home=home,
        port=found.port,
        mac=macs[0].key[1] if macs else "",
        addresses=addresses,
        link_local=next((place for place in found.places if is_link_local(place)), ""),
        guard=_guard(found.port, sets),
        ingress=next((mode for mode in (PUBLISHED, ISOLATED) if any(sets.at(mode, each, home) for each in own)), OPEN),
        masquerade=masquerade,
        snat=snat,
        keep=tuple(dict.fromkeys(_prefix(each.key[1]) for each in kept)),
        inbound=tuple(found.inbound),
        ports=_ports(found.published, {version(address) for address in addresses}),
        stale=(*masquerade, *(address for address, _ in snat)),
        egress=_egress(own, sets) if is_limited else None,
        prefixes=tuple((place, _seen_as(place, home, sets)) for place in own if "/" in place),
    )


def _guard(port: str, sets: _Sets) -> str:
    levels = (("pinned", GUARD_FULL), ("guarded", GUARD_LINK), ("bound", GUARD_MAC))
    return next((level for name, level in levels if sets.of(name, port)), GUARD_OFF)


def _ports(published: Mapping[tuple[str, int, int], list[str]], families: set[int]) -> tuple[Port, ...]:
    """A port of all families that the container has is one of no address in particular."""
    ports: list[Port] = []
    for (protocol, host_port, container_port), places in published.items():
        everywhere = {UNSPECIFIED[family == 6] for family in families}
        if everywhere.issubset(places):
            places = ["", *(place for place in places if place not in everywhere)]
        ports += [Port(protocol, host_port, container_port, place) for place in places]
    return tuple(ports)


def _egress(places: Iterable[str], sets: _Sets) -> tuple[Allowed, ...]:
    allowed: dict[Allowed, None] = {}
    for place in places:
        for element in sets.of(f"allowed{version(place)}", place):
            _, to, protocol, ports = element.key
            first, _, last = ports.partition("-")
            name = "" if protocol == ANY_PROTOCOL else _PROTOCOL_NAMES[protocol]
            allowed[Allowed(_prefix(to), name, (int(first), int(last or first)))] = None
    return tuple(allowed)


def _seen_as(prefix: str, home: str, sets: _Sets) -> str:
    source = sets.at("snat", prefix, home)
    if source:
        return source.data[0]
    return MASQUERADED if sets.at("masquerade", prefix, home) else ""


def _prefix(text: str) -> str:
    """A prefix of one address is spelt as the address."""
    return text if "/" in text else f"{text}/{BITS[version(text)]}"
