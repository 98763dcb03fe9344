"""What the sets say of an attachment whose record cannot be read: the inverse of ``elements``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from cni_v6.firewall.elements import ANY_PROTOCOL, COMMENT_BYTES, PROTOCOLS, UNSPECIFIED, comment_of
from cni_v6.firewall.policy import (
    GUARD_BLOCKED,
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
from cni_v6.firewall.sets import BRIDGE, INET, Element
from cni_v6.net.addresses import version as version_of
from cni_v6.protocol.names import Owner

NAMES = {number: name for name, number in PROTOCOLS.items()}


def policy_of(
    owner: Owner, port: str, home: str, addresses: Collection[str], present: Iterable[Element]
) -> Policy | None:
    """The policy whose elements are in the sets; None if there are none.

    :param port: the attachment's bridge port. ``home``: as in ``Policy``, if no element tells it.
    :param addresses: the leased ones. Elements tell others, of another IPAM plugin, by their comment.
    :param present: all elements that the firewall has.
    """
    return _Sets(owner, port, home, addresses, present).policy()


class _Sets:
    """The sets, asked about one attachment."""

    def __init__(
        self, owner: Owner, port: str, home: str, addresses: Collection[str], present: Iterable[Element]
    ) -> None:
        self._port = port
        self._comment = comment_of(owner)
        self._held: dict[tuple[str, str], list[Element]] = {}
        for element in present:
            self._held.setdefault((element.family, element.set), []).append(element)
        homes = [element for element in self._both("home") if self._is_ours(element, addresses)]
        self._link_local = next((each.key[0] for each in homes if each.key[0].startswith("fe80:")), "")
        known = [element.key[0] for element in homes if element.key[0] != self._link_local]
        self._own = (*(each for each in addresses if each in known), *(each for each in known if each not in addresses))
        prefixes = [each for each in self._get(INET, "home_prefixes6") if self._is_ours(each, ())]
        self._prefixes = tuple(each.key[0] for each in prefixes)
        self._home = next((each.key[1] for each in (*homes, *prefixes)), home)

    def policy(self) -> Policy | None:
        guard = self._guard()
        if not (guard or self._own or self._prefixes):
            return None
        snat = tuple(self._leads("snat"))
        masquerade = tuple(each for each in self._own if self._lists("masquerade", each))
        return Policy(
            home=self._home,
            port=self._port,
            mac=next((each.key[1] for each in self._get(BRIDGE, "macs") if each.key[0] == self._port), ""),
            addresses=self._own,
            link_local=self._link_local,
            guard=guard,
            ingress=self._ingress(),
            masquerade=masquerade,
            snat=snat,
            keep=tuple(dict.fromkeys(each.key[1] for each in self._both("keep") if self._is_source(each))),
            inbound=tuple((each.key[0], each.data[0]) for each in self._get(INET, "inbound6")
                          if each.data[0] in self._own),
            ports=tuple(self._ports()),
            stale=(*(address for address, _ in snat), *masquerade),
            egress=self._egress(),
            prefixes=tuple((prefix, self._seen_as(prefix)) for prefix in self._prefixes),
        )

    def _get(self, family: str, name: str) -> list[Element]:
        return self._held.get((family, name), [])

    def _both(self, name: str) -> list[Element]:
        return [*self._get(INET, f"{name}6"), *self._get(INET, f"{name}4")]

    def _is_ours(self, element: Element, addresses: Collection[str]) -> bool:
        """By its comment. One that had to be cut may be another attachment's: then the lease decides."""
        whole = len(self._comment.encode()) < COMMENT_BYTES
        return element.comment == self._comment and (whole or element.key[0] in addresses)

    def _is_source(self, element: Element) -> bool:
        return element.key[0] in self._own or element.key[0] in self._prefixes

    def _lists(self, name: str, address: str) -> bool:
        place = address, self._home
        return any(element.key == place for element in self._get(INET, f"{name}{version_of(address)}"))

    def _leads(self, name: str) -> Iterator[tuple[str, str]]:
        for element in self._both(name):
            if element.key[0] in self._own and element.key[1] == self._home:
                yield element.key[0], element.data[0]

    def _guard(self) -> str:
        def has(name: str) -> bool:
            return any(element.key[0] == self._port for element in self._get(BRIDGE, name))

        if has("pinned"):
            return GUARD_FULL
        if has("guarded"):
            return GUARD_LINK
        if has("macs"):
            return GUARD_MAC
        return GUARD_BLOCKED if has("bound") else GUARD_OFF

    def _ingress(self) -> str:
        for ingress in (ISOLATED, PUBLISHED):
            prefixes = {element.key for element in self._get(INET, f"{ingress}_prefixes6")}
            if any(self._lists(ingress, address) for address in self._own) or (
                any((prefix, self._home) in prefixes for prefix in self._prefixes)
            ):
                return ingress
        return OPEN

    def _egress(self) -> tuple[Allowed, ...] | None:
        limited = {element.key for element in (*self._both("limited"), *self._get(INET, "limited_prefixes6"))}
        if not any((source, self._home) in limited for source in (*self._own, *self._prefixes)):
            return None
        return tuple(dict.fromkeys(
            _allowed(element) for element in self._both("allowed") if self._is_source(element)
        ))

    def _seen_as(self, prefix: str) -> str:
        place = prefix, self._home
        if any(element.key == place for element in self._get(INET, "masquerade_prefixes6")):
            return MASQUERADED
        return next((each.data[0] for each in self._get(INET, "snat_prefixes6") if each.key == place), "")

    def _ports(self) -> Iterator[Port]:
        families = {version_of(address) for address in self._own}
        for element in (*self._both("ports_at"), *self._both("ports")):
            if element.data[0] not in self._own:
                continue
            *at, protocol, number = element.key
            place, inside = (NAMES[protocol], int(number)), int(element.data[1])
            version = version_of(element.data[0])
            same = (each for each in self._both("ports") if each.key == element.key and each.data[1] == element.data[1])
            others = [each for each in same if each.data[0] in self._own]
            if at:
                yield Port(*place, inside, at[0])
            elif {version_of(each.data[0]) for each in others} != families:
                yield Port(*place, inside, UNSPECIFIED[version == 6])
            elif version == max(families):  # once for both families
                yield Port(*place, inside)


def _allowed(element: Element) -> Allowed:
    _, to, protocol, ports = element.key
    first, _, last = ports.partition("-")
    return Allowed(to, "" if protocol == ANY_PROTOCOL else NAMES[protocol], (int(first), int(last or first)))
