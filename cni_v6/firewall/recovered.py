"""Rebuild the policy of an attachment from the firewall's sets, where its record cannot be read.

It is the inverse of ``elements``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

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
from cni_v6.net.addresses import BITS, version as version_of
from cni_v6.protocol.names import Owner

NAMES = {number: name for name, number in PROTOCOLS.items()}


Place = tuple[str, str, str]  # family of the table, set, and what is looked up there


class Present:
    """All elements that the firewall has. Looking up those of one attachment takes no look at the others'."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._by_key: dict[Place, list[Element]] = {}
        self._by_target: dict[Place, list[Element]] = {}
        self._by_comment: dict[Place, list[Element]] = {}
        for element in elements:
            place = element.family, element.set
            self._by_key.setdefault((*place, element.key[0]), []).append(element)
            self._by_comment.setdefault((*place, element.comment), []).append(element)
            if element.data:
                self._by_target.setdefault((*place, element.data[0]), []).append(element)

    def of_key(self, family: str, name: str, *fields: str) -> list[Element]:
        """The elements of a set whose key begins with one of these fields."""
        return _found(self._by_key, family, name, fields)

    def of_target(self, family: str, name: str, *fields: str) -> list[Element]:
        """The elements of a map whose data begins with one of these fields."""
        return _found(self._by_target, family, name, fields)

    def of_comment(self, family: str, name: str, comment: str) -> list[Element]:
        """The elements of a set with this comment."""
        return _found(self._by_comment, family, name, (comment,))


def _found(index: Mapping[Place, list[Element]], family: str, name: str, fields: Iterable[str]) -> list[Element]:
    return [element for field in fields for element in index.get((family, name, field), ())]


def policy_of(owner: Owner, port: str, home: str, addresses: Collection[str], present: Present) -> Policy | None:
    """The policy whose elements are in the sets; None if there are none.

    :param port: the attachment's bridge port. ``home``: as in ``Policy``, if no element tells it.
    :param addresses: the leased ones. Elements tell others, of another IPAM plugin, by their comment.
    """
    return _Sets(owner, port, home, addresses, present).policy()


class _Sets:
    """The elements of all sets, searched for one attachment."""

    def __init__(self, owner: Owner, port: str, home: str, addresses: Collection[str], present: Present) -> None:
        self._port = port
        self._comment = comment_of(owner)
        self._present = present
        homes = [element for version in (6, 4)
                 for element in present.of_comment(INET, f"home{version}", self._comment)
                 if self._is_ours(element, addresses)]
        self._link_local = next((element.key[0] for element in homes if element.key[0].startswith("fe80:")), "")
        known = [element.key[0] for element in homes if element.key[0] != self._link_local]
        leased = [address for address in addresses if address in known]
        self._own = (*leased, *(address for address in known if address not in addresses))
        prefixes = [element for element in present.of_comment(INET, "home_prefixes6", self._comment)
                    if self._is_ours(element, ())]
        self._prefixes = tuple(element.key[0] for element in prefixes)
        self._home = next((element.key[1] for element in (*homes, *prefixes)), home)

    def policy(self) -> Policy | None:
        guard = self._guard()
        if not (guard or self._own or self._prefixes):
            return None
        snat = tuple((element.key[0], element.data[0]) for element in self._of_sources("snat")
                     if element.key[1] == self._home)
        masquerade = tuple(address for address in self._own if self._lists(f"masquerade{version_of(address)}", address))
        return Policy(
            home=self._home,
            port=self._port,
            mac=next((element.key[1] for element in self._present.of_key(BRIDGE, "macs", self._port)), ""),
            addresses=self._own,
            link_local=self._link_local,
            guard=guard,
            ingress=self._ingress(),
            masquerade=masquerade,
            snat=snat,
            keep=tuple(dict.fromkeys(_prefix(element.key[1]) for element in self._of_sources("keep"))),
            inbound=tuple((element.key[0], element.data[0])
                          for element in self._present.of_target(INET, "inbound6", *self._own)),
            ports=tuple(self._ports()),
            stale=(*(address for address, _ in snat), *masquerade),
            egress=self._egress(),
            prefixes=tuple((prefix, self._seen_as(prefix)) for prefix in self._prefixes),
        )

    def _of_sources(self, name: str) -> list[Element]:
        """The elements of the sets of both families for the container's addresses and prefixes."""
        sources = *self._own, *self._prefixes
        return [*self._present.of_key(INET, f"{name}6", *sources), *self._present.of_key(INET, f"{name}4", *sources)]

    def _is_ours(self, element: Element, addresses: Collection[str]) -> bool:
        """Whether an element with its comment is its own. A comment that was cut is ambiguous: the lease decides."""
        return len(self._comment.encode()) < COMMENT_BYTES or element.key[0] in addresses

    def _lists(self, name: str, source: str) -> bool:
        return any(element.key[1] == self._home for element in self._present.of_key(INET, name, source))

    def _guard(self) -> str:
        def has(name: str) -> bool:
            return bool(self._present.of_key(BRIDGE, name, self._port))

        if has("pinned"):
            return GUARD_FULL
        if has("guarded"):
            return GUARD_LINK
        if has("macs"):
            return GUARD_MAC
        if not has("bound") and self._present.of_key(INET, "bound", self._port) and (self._own or self._prefixes):
            return GUARD_FULL
        return GUARD_BLOCKED if has("bound") else GUARD_OFF

    def _ingress(self) -> str:
        for ingress in (ISOLATED, PUBLISHED):
            if any(self._lists(f"{ingress}{version_of(address)}", address) for address in self._own) or (
                any(self._lists(f"{ingress}_prefixes6", prefix) for prefix in self._prefixes)
            ):
                return ingress
        return OPEN

    def _egress(self) -> tuple[Allowed, ...] | None:
        if not any(self._lists(f"limited{version_of(address)}", address) for address in self._own) and (
            not any(self._lists("limited_prefixes6", prefix) for prefix in self._prefixes)
        ):
            return None
        return tuple(dict.fromkeys(_allowed(element) for element in self._of_sources("allowed")))

    def _seen_as(self, prefix: str) -> str:
        if self._lists("masquerade_prefixes6", prefix):
            return MASQUERADED
        translated = self._present.of_key(INET, "snat_prefixes6", prefix)
        return next((element.data[0] for element in translated if element.key[1] == self._home), "")

    def _ports(self) -> Iterator[Port]:
        families = {version_of(address) for address in self._own}
        published = [element for version in (6, 4)
                     for element in self._present.of_target(INET, f"ports{version}", *self._own)]
        at_address = [element for version in (6, 4)
                      for element in self._present.of_target(INET, f"ports_at{version}", *self._own)]
        for element in (*at_address, *published):
            *at, protocol, number = element.key
            place, inside = (NAMES[protocol], int(number)), int(element.data[1])
            version = version_of(element.data[0])
            targets = [other.data[0] for other in published
                       if other.key == element.key and other.data[1] == element.data[1]]
            if at:
                yield Port(*place, inside, at[0])
            elif {version_of(target) for target in targets} != families:
                yield Port(*place, inside, UNSPECIFIED[version == 6])
            elif version == max(families):  # one Port stands for both families
                yield Port(*place, inside)


def _prefix(text: str) -> str:
    """The kernel lists a prefix of one address as the address; a record has it as a prefix."""
    return text if "/" in text else f"{text}/{BITS[version_of(text)]}"


def _allowed(element: Element) -> Allowed:
    _, to, protocol, ports = element.key
    first, _, last = ports.partition("-")
    return Allowed(_prefix(to), "" if protocol == ANY_PROTOCOL else NAMES[protocol], (int(first), int(last or first)))
