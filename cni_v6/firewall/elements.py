"""The elements of an attachment's policy. No element belongs to two attachments.

So only its owner removes an element, and a reload loads the union of all attachments' elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.firewall.policy import (
    GUARD_BLOCKED,
    GUARD_FULL,
    GUARD_LINK,
    GUARD_OFF,
    ISOLATED,
    MASQUERADED,
    PUBLISHED,
    Allowed,
    Policy,
    Port,
)
from cni_v6.firewall.sets import BRIDGE, INET, Element
from cni_v6.net.addresses import version as version_of
from cni_v6.protocol.names import Owner, link_group

PROTOCOLS = {"tcp": "6", "udp": "17", "sctp": "132"}  # IANA's numbers
ANY_PROTOCOL = "0-255"
COMMENT_BYTES = 127  # nft prints no longer one (NFTNL_UDATA_COMMENT_MAXLEN of libnftnl is 128 with its zero)
UNSPECIFIED = ("0.0.0.0", "::")
LOOPBACK = "::1"


def elements(owner: Owner, policy: Policy) -> tuple[Element, ...]:
    """All elements of an attachment, in the order of the sets."""
    comment = comment_of(owner)
    inside = (*_neighbours(owner, policy), *_bound(policy, comment)) if policy.is_routed else ()
    return (*_inet(policy, comment), *inside, *_bridge(policy, comment))


def _neighbours(owner: Owner, policy: Policy) -> Iterator[Element]:
    """What is inside a routed network: there is no interface that its containers share, only a link group."""
    group = str(link_group(owner.network))
    for address in policy.addresses:
        yield Element(INET, f"neighbours{version_of(address)}", (address, group))
    yield from (Element(INET, "neighbour_prefixes6", (prefix, group)) for prefix, _ in policy.prefixes)


def _bound(policy: Policy, comment: str) -> Iterator[Element]:
    """The guard of a routed container. One that is blocked has no address in ``home``."""
    if policy.guard in (GUARD_FULL, GUARD_BLOCKED):
        yield Element(INET, "bound", (policy.port,), comment=comment)


def comment_of(owner: Owner) -> str:
    """The comment of an attachment's elements, as far as nft prints it."""
    return f"{owner.network} {owner.container_id}/{owner.ifname}".encode()[:COMMENT_BYTES].decode(errors="ignore")


def owner_of(comment: str) -> Owner | None:
    """The owner that a comment names; None where it may be cut, or is not ours."""
    network, space, rest = comment.partition(" ")
    container_id, slash, ifname = rest.rpartition("/")
    is_whole = bool(space and slash) and len(comment.encode()) < COMMENT_BYTES
    return Owner(network, container_id, ifname) if is_whole else None


def _inet(policy: Policy, comment: str) -> Iterator[Element]:
    for address in policy.addresses:
        version, place = version_of(address), (address, policy.home)
        if not (policy.is_routed and policy.guard == GUARD_BLOCKED):
            yield Element(INET, f"home{version}", place, comment=comment)
        yield Element(INET, f"containers{version}", (address,))
        if policy.ingress in (PUBLISHED, ISOLATED):
            yield Element(INET, f"{policy.ingress}{version}", place)
        if policy.egress is not None:
            yield Element(INET, f"limited{version}", place)
            yield from _allowed(address, policy.egress)
    if policy.link_local:
        yield Element(INET, "home6", (policy.link_local, policy.home), comment=comment)
        if policy.egress is not None:
            yield Element(INET, "limited6", (policy.link_local, policy.home))
    for address in policy.masquerade:
        yield Element(INET, f"masquerade{version_of(address)}", (address, policy.home))
    for address, source in policy.snat:
        yield Element(INET, f"snat{version_of(address)}", (address, policy.home), (source,))
    for outside, address in policy.inbound:
        yield Element(INET, "inbound6", (outside,), (address,), comment)
        yield Element(INET, "outside6", (outside,))
    hidden = dict.fromkeys((*policy.masquerade, *(address for address, _ in policy.snat)))
    for address in hidden:
        version = version_of(address)
        kept = (prefix for prefix in policy.keep if version_of(prefix) == version)
        yield from (Element(INET, f"keep{version}", (address, prefix)) for prefix in kept)
    yield from _prefixes(policy, comment)
    yield from published(policy.ports, policy.addresses, comment)
    yield from at_loopback(policy)


def at_loopback(policy: Policy) -> Iterator[Element]:
    """The published ports that answer at ::1. A port is in one of both maps once, and so is its element here."""
    for port in published(policy.ports, policy.addresses):
        if port.set == "ports6":
            yield Element(INET, "loopback6", port.key)
        elif port.set == "ports_at6" and port.key[0] == LOOPBACK:
            yield Element(INET, "loopback_at6", port.key[1:])


def without_others(elements: Iterable[Element], others: Iterable[Element]) -> list[Element]:
    """Elements without those of a port that is another attachment's: they have no data to tell whose they are.

    :param others: entries of maps that others have.
    """
    ports = {(element.set, element.key) for element in others}
    return [element for element in elements if _port_of(element) not in ports]


def _port_of(element: Element) -> tuple[str, tuple[str, ...]]:
    """The map and the key of the port that answers at ::1 by an element."""
    if element.set == "loopback_at6":
        return "ports_at6", (LOOPBACK, *element.key)
    return element.set.replace("loopback", "ports"), element.key


def _prefixes(policy: Policy, comment: str) -> Iterator[Element]:
    """The elements of delegated prefixes: the same policy as for addresses, in sets of their own."""
    for prefix, seen_as in policy.prefixes:
        place = (prefix, policy.home)
        yield Element(INET, "home_prefixes6", place, comment=comment)
        yield Element(INET, "container_prefixes6", (prefix, ANY_PROTOCOL))
        if policy.ingress in (PUBLISHED, ISOLATED):
            yield Element(INET, f"{policy.ingress}_prefixes6", place)
        if policy.egress is not None:
            yield Element(INET, "limited_prefixes6", place)
            yield from _allowed(prefix, policy.egress)
        if seen_as == MASQUERADED:
            yield Element(INET, "masquerade_prefixes6", place)
        elif seen_as:
            yield Element(INET, "snat_prefixes6", place, (seen_as,))
        if seen_as:
            yield from (Element(INET, "keep6", (prefix, kept)) for kept in policy.keep if version_of(kept) == 6)


def published(ports: Iterable[Port], addresses: Iterable[str], comment: str = "") -> Iterator[Element]:
    """One element for each published port and family. It leads to the container's first address of the family."""
    first: dict[int, str] = {}
    for address in addresses:
        first.setdefault(version_of(address), address)
    for port in ports:
        key, family = (PROTOCOLS[port.protocol], str(port.host_port)), version_of(port.host_ip) if port.host_ip else 0
        for version, address in first.items():
            if family not in (0, version):
                continue
            data = (address, str(port.container_port))
            if port.host_ip and port.host_ip not in UNSPECIFIED:
                yield Element(INET, f"ports_at{version}", (port.host_ip, *key), data, comment)
            else:
                yield Element(INET, f"ports{version}", key, data, comment)


def _allowed(address: str, egress: Iterable[Allowed]) -> Iterator[Element]:
    version = version_of(address)
    for allowed in egress:
        if version_of(allowed.to) == version:
            protocol = PROTOCOLS[allowed.protocol] if allowed.protocol else ANY_PROTOCOL
            first, last = allowed.ports
            ports = f"{first}-{last}" if first != last else str(first)
            yield Element(INET, f"allowed{version}", (address, allowed.to, protocol, ports))


def _bridge(policy: Policy, comment: str) -> Iterator[Element]:
    port = policy.port
    if policy.guard == GUARD_OFF or (policy.is_routed and policy.guard != GUARD_BLOCKED):
        return
    yield Element(BRIDGE, "bound", (port,), comment=comment)
    if policy.guard == GUARD_BLOCKED:  # no MAC is allowed
        return
    yield Element(BRIDGE, "macs", (port, policy.mac))
    if policy.guard in (GUARD_LINK, GUARD_FULL):
        yield Element(BRIDGE, "guarded", (port,))
    if policy.guard != GUARD_FULL:
        return
    yield Element(BRIDGE, "pinned", (port,))
    yield Element(BRIDGE, "options6", (port, policy.mac))
    for address in (*policy.addresses, *((policy.link_local,) if policy.link_local else ())):
        version = version_of(address)
        yield Element(BRIDGE, f"sources{version}", (port, policy.mac, address))
        if version == 6:
            yield Element(BRIDGE, "targets6", (port, address))
    yield from (Element(BRIDGE, "source_prefixes6", (port, prefix)) for prefix, _ in policy.prefixes)
