"""What the kernel has for an attachment, as a value: for ``reach``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cni_v6.firewall.elements import at_loopback
from cni_v6.firewall.policy import GUARD_BLOCKED
from cni_v6.firewall.sets import BRIDGE, Element
from cni_v6.kernel.facts import ForwardChain, Link, RouteEntry
from cni_v6.leases.attachment import Attachment, ChildLink, RoutedLink
from cni_v6.net.addresses import version


@dataclass(frozen=True, slots=True)
class Way:
    """How the node sends to an address: the interface, and the source that it would use itself, "" for none."""

    interface: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the container's namespace has: the interface, None if it is not there; its addresses and routes."""

    link: Link | None
    addresses: tuple[str, ...]
    routes: tuple[RouteEntry, ...]


@dataclass(frozen=True, slots=True)
class Situation:
    """What the kernel has for an attachment.

    ``link``: its host interface, of a child of a master that master; ``bridge``: the one it is plugged into; None if
    there is none. ``elements``: of it (``concerning``). ``loaded``: the firewall's tables are as they were loaded.
    ``forwards``: whether the node forwards from and to the container, by family. ``ways``: the node's way to each of
    ``targets``. ``uplinks``: its way to the outside by family. ``inside``: None if the namespace is not found.
    ``frames_pass_rules``: whether bridged frames pass the forward hook too, by family (br_netfilter).
    """

    record: Attachment
    link: Link | None
    bridge: Link | None
    elements: tuple[Element, ...]
    loaded: bool
    chains: tuple[ForwardChain, ...]
    forwards: Mapping[int, bool]
    ways: Mapping[str, Way]
    uplinks: Mapping[int, Way]
    inside: Inside | None = None
    frames_pass_rules: Mapping[int, bool] = field(default_factory=dict)

    @property
    def is_routed(self) -> bool:
        """Whether the container has a link of its own, without a bridge."""
        return isinstance(self.record.port, RoutedLink)

    @property
    def targets(self) -> tuple[str, ...]:
        """The addresses and the delegated prefixes."""
        return *self.record.addresses, *self.record.prefixes

    def has(self, name: str, target: str) -> bool:
        """Whether a set has an address or prefix of the attachment; see ``element``."""
        return self.element(name, target) is not None

    def element(self, name: str, target: str) -> Element | None:
        """The element of an address or prefix. ``name``: of the set, without the family and ``_prefixes``."""
        of_prefix = "/" in target and name != "allowed"
        wanted = f"{name}_prefixes6" if of_prefix else f"{name}{version(target)}"
        return next((element for element in self.elements if element.set == wanted and element.key[0] == target), None)


def concerning(record: Attachment, host: str, elements: Iterable[Element]) -> tuple[Element, ...]:
    """Those of the firewall's elements that are about an attachment.

    :param host: the present name of its host interface.
    """
    policy = record.policy
    own = {*record.addresses, *record.prefixes}
    own_ports = frozenset(at_loopback(policy)) if policy else frozenset()  # their keys have no address
    if policy:
        own |= {*policy.addresses, policy.link_local, *(prefix for prefix, _ in policy.prefixes)} - {""}

    def is_ours(element: Element) -> bool:
        if element.family == BRIDGE:
            return element.key[0] in (host, record.host)
        return element in own_ports or bool(own.intersection((element.key[0], *element.data[:1])))

    return tuple(filter(is_ours, elements))


def child_link(seen: Situation) -> ChildLink | None:
    """The recorded link of a child of a master; None for another attachment."""
    port = seen.record.port
    return port if isinstance(port, ChildLink) else None


def cut_off(seen: Situation) -> str:
    """Why nothing reaches the container at all; "" if nothing stands in the way."""
    record, link = seen.record, seen.link
    if port := child_link(seen):
        return _cut_off_link(seen, port)
    if link is None:
        return f"its host interface {record.host or '(not recorded)'} is not on the node"
    if record.policy and record.policy.guard == GUARD_BLOCKED:
        return "it is blocked, since its record was damaged: run DEL and ADD for it"
    if not link.up:
        return f"host interface {link.name} is down"
    if not link.master and not seen.is_routed:
        return f"{link.name} is in no bridge (cni-v6ctl check {record.owner.network} --repair)"
    if not seen.is_routed and (seen.bridge is None or not seen.bridge.up):
        return f"bridge {link.master} is down (cni-v6ctl check {record.owner.network} --repair)"
    if seen.inside and seen.inside.link is None:
        return f"{record.owner.ifname} is not in the container's namespace"
    if not (link.running if seen.is_routed else link.port_enabled):
        return f"{record.owner.ifname} in the container is down"
    return ""


def _cut_off_link(seen: Situation, port: ChildLink) -> str:
    """As ``cut_off``, of a child of a master, which may be in the container."""
    if not port.in_container and seen.link is None:
        return f"master {port.master} is missing, and the container's interface with it"
    if seen.link and not seen.link.up:
        return f"master {port.master} is down"
    if seen.inside and seen.inside.link is None:
        return f"{seen.record.owner.ifname} is not in the container's namespace"
    if seen.inside and seen.inside.link and not seen.inside.link.up:
        return f"{seen.record.owner.ifname} in the container is down"
    return ""
