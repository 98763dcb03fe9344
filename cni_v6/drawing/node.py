"""A node as a picture shows it: its uplinks, its networks' bridges and links, the containers on them, what is allowed.

From the records of the attachments and what the kernel has, as ``explain`` and ``list`` see them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cni_v6.attachments import namespaces, stale
from cni_v6.attachments.stale import Here
from cni_v6.firewall.policy import Policy, Port
from cni_v6.kernel.facts import Link, Surroundings
from cni_v6.leases.attachment import Attachment, BridgePort, ChildLink, RoutedLink
from cni_v6.net.addresses import version
from cni_v6.plan.reach import DEFAULTS
from cni_v6.plan.situation import Situation, cut_off
from cni_v6.protocol.names import Owner, owner_of_alias

# What an attachment is; the words are those of a legend.
UP, CUT_OFF, ENDED, ELSEWHERE, LEASED, DAMAGED = "up", "cut off", "ended", "elsewhere", "lease only", "damaged"
STATES = (UP, CUT_OFF, DAMAGED, ENDED, ELSEWHERE, LEASED)
WHY: Mapping[str, str] = {
    UP: "", CUT_OFF: "", ENDED: "it is of an earlier boot", DAMAGED: "its record cannot be read",
    ELSEWHERE: "it is in another network namespace than this command", LEASED: "no interface of the node is on record",
}

BRIDGE, ROUTED, MASTER, LEASES = "bridge", "routed", "master", "leases"
MASQUERADED, TRANSLATED, ROUTED_OUT, PROXIED = "masqueraded", "prefix translated (NPTv6)", "routed", "NDP proxy"


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface by which packets leave the node. ``gateways``: of its default routes, "" for one without."""

    name: str
    up: bool
    mtu: int
    addresses: tuple[str, ...] = ()
    gateways: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """An attachment. ``state``: one of STATES; ``problem``: why it is not UP. ``policies``: in a few words each."""

    owner: Owner
    host: str
    addresses: tuple[str, ...]
    prefixes: tuple[str, ...]
    created: float
    state: str
    problem: str
    ports: tuple[Port, ...]
    policies: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.owner.container_id} {self.owner.ifname}".rstrip()


@dataclass(frozen=True, slots=True)
class Leaving:
    """How a family's packets to the outside leave. ``uplinks``: none if they do not."""

    family: int
    uplinks: tuple[str, ...]
    how: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """What containers are connected by: a bridge, the links of a routed network, or the master of their interfaces.

    ``policies``: with the number of containers that each applies to.
    """

    kind: str
    name: str
    up: bool
    mtu: int
    addresses: tuple[str, ...]
    networks: tuple[str, ...]
    leaving: tuple[Leaving, ...]
    policies: tuple[tuple[str, int], ...]
    containers: tuple[Container, ...]


@dataclass(frozen=True, slots=True)
class NodeMap:
    """``firewall``: whether the tables are there; None if that could not be seen."""

    name: str
    uplinks: tuple[Uplink, ...]
    segments: tuple[Segment, ...]
    firewall: bool | None

    @property
    def containers(self) -> Iterator[Container]:
        for segment in self.segments:
            yield from segment.containers

    def count(self) -> Counter[str]:
        """How many attachments there are of each state."""
        return Counter(container.state for container in self.containers)


def node_map(
    name: str, records: Iterable[Attachment], links: Sequence[Link], around: Surroundings, here: Here,
    firewall: bool | None,
) -> NodeMap:
    """The whole picture, its segments by kind and name."""
    by_name = {link.name: link for link in links}
    owned = {owner: link for link in links if (owner := owner_of_alias(link.alias))}
    grouped: dict[tuple[str, str], list[tuple[Attachment, Link | None]]] = {}
    for record in sorted(records, key=lambda record: record.owner):
        link = by_name.get(record.host) or owned.get(record.owner)
        grouped.setdefault(_place(record, link), []).append((record, link))
    of_family = {family: tuple(dict.fromkeys(name for name, route in around.routes if route.dst == default))
                 for family, default in DEFAULTS.items()}
    segments = tuple(
        _segment(place, grouped[place], by_name, around, of_family, here) for place in sorted(grouped, key=_order)
    )
    bridges = {segment.name for segment in segments if segment.kind == BRIDGE}
    masters = [segment.name for segment in segments if segment.kind == MASTER]
    proxying = [entry.uplink for held in grouped.values() for record, _ in held for entry in record.proxied]
    wanted = dict.fromkeys((*of_family[6], *of_family[4], *proxying, *masters))
    uplinks = tuple(_uplink(uplink, by_name.get(uplink), around) for uplink in wanted if uplink not in bridges)
    return NodeMap(name, uplinks, segments, firewall)


def _order(place: tuple[str, str]) -> tuple[int, str]:
    return (BRIDGE, ROUTED, MASTER, LEASES).index(place[0]), place[1]


def _place(record: Attachment, link: Link | None) -> tuple[str, str]:
    """Kind and name of the segment that an attachment is on."""
    port = record.port
    if isinstance(port, ChildLink):
        return MASTER, port.master
    if isinstance(port, RoutedLink):
        return ROUTED, record.owner.network
    if isinstance(port, BridgePort):
        return BRIDGE, port.bridge
    if link and link.master:
        return BRIDGE, link.master
    return LEASES, record.owner.network


def _uplink(name: str, link: Link | None, around: Surroundings) -> Uplink:
    gateways = [(family, route.gateway or "") for family, default in sorted(DEFAULTS.items(), reverse=True)
                for at, route in around.routes if at == name and route.dst == default]
    return Uplink(name, link is not None and link.up, link.mtu if link else 0, _own(name, around),
                  tuple(dict.fromkeys(gateways)))


def _own(name: str, around: Surroundings) -> tuple[str, ...]:
    """The node's addresses on an interface: IPv6 first, the one that the kernel makes of the MAC last."""
    own = [address for at, address in around.addresses if at == name]
    return tuple(sorted(own, key=lambda address: (address.startswith("fe80:"), version(address) == 4)))


def _segment(
    place: tuple[str, str], held: Sequence[tuple[Attachment, Link | None]], by_name: Mapping[str, Link],
    around: Surroundings, of_family: Mapping[int, tuple[str, ...]], here: Here,
) -> Segment:
    kind, name = place
    link = by_name.get(name) if kind in (BRIDGE, MASTER) else None
    containers = tuple(_container(record, own, by_name, here) for record, own in held)
    counted = Counter(words for container in containers for words in container.policies)
    records = [record for record, _ in held]
    homes = [name] if link else []
    homes += [anchor.home for record in records for anchor in record.anchors if kind == BRIDGE]
    return Segment(
        kind, name, link.up if link else any(container.state == UP for container in containers),
        link.mtu if link else 0,
        tuple(dict.fromkeys(address for home in dict.fromkeys(homes) for address in _own(home, around))),
        tuple(dict.fromkeys(record.owner.network for record in records)),
        tuple(_leaving(kind, name, records, of_family)), tuple(counted.items()), containers,
    )


def _container(record: Attachment, link: Link | None, by_name: Mapping[str, Link], here: Here) -> Container:
    policy = record.policy
    state, problem = _state(record, link, by_name, here)
    return Container(
        record.owner, link.name if link else record.host, record.addresses, record.prefixes, record.created, state,
        problem, policy.ports if policy else (), tuple(_policies(record)),
    )


def _state(
    record: Attachment, link: Link | None, by_name: Mapping[str, Link], here: Here
) -> tuple[str, str]:
    if record.damaged:
        return DAMAGED, WHY[DAMAGED]
    if stale.is_of_earlier_boot(record, here.boot):
        return ENDED, WHY[ENDED]
    if isinstance(record.port, ChildLink):
        link = None if record.port.in_container else by_name.get(record.port.master)
    elif not record.host:
        return LEASED, WHY[LEASED]
    if record.home not in (namespaces.UNKNOWN, here.home):
        return ELSEWHERE, WHY[ELSEWHERE]
    bridge = by_name.get(link.master) if link else None
    stopped = cut_off(Situation(record, link, bridge, (), True, (), {}, {}, {}))
    return (CUT_OFF, stopped) if stopped else (UP, "")


# Policies


def _policies(record: Attachment) -> Iterator[str]:
    policy, port = record.policy, record.port
    if policy:
        yield f"ingress {policy.ingress}"
        if policy.guard:
            yield f"guard {policy.guard}"
        if policy.egress is not None:
            yield f"egress list of {len(policy.egress)}"
        yield from filter(None, dict.fromkeys(_translation(policy, address) for address in policy.addresses))
    for uplink in dict.fromkeys(entry.uplink for entry in record.proxied):
        yield f"NDP proxy on {uplink}"
    if isinstance(port, BridgePort):
        if port.vlan:
            yield f"VLAN {port.vlan}"
        if port.isolated:
            yield "port isolated"
    if isinstance(port, ChildLink):
        yield f"VLAN {port.mode}" if port.kind == "vlan" else f"{port.kind} {port.mode}".rstrip()
    if record.bandwidth:
        yield "bandwidth limited"


def _translation(policy: Policy, address: str) -> str:
    """What becomes of the source of an address's packets; "" if it stays."""
    if address in policy.masquerade:
        return f"IPv{version(address)} {MASQUERADED}"
    if any(address == inner for _, inner in policy.inbound):
        return TRANSLATED
    source = dict(policy.snat).get(address)
    return f"source {source}" if source else ""


def _leaving(
    kind: str, name: str, records: Sequence[Attachment], of_family: Mapping[int, tuple[str, ...]]
) -> Iterator[Leaving]:
    for family in (6, 4):
        having = [record for record in records
                  if any(version(held) == family for held in (*record.addresses, *record.prefixes))]
        if not having or kind == LEASES:
            continue
        if kind == MASTER:
            how = dict.fromkeys(_beyond(record.port) for record in having if isinstance(record.port, ChildLink))
            yield Leaving(family, (name,), tuple(how))
        elif kind == ROUTED or any(_has_gateway(record, family) for record in having):
            how = dict.fromkeys(words for record in having for words in _ways(record, family))
            yield Leaving(family, of_family[family], tuple(how))
        else:
            yield Leaving(family, (), ("no gateway on this node",))


def _beyond(port: ChildLink) -> str:
    """How a container's packets go on from its master."""
    if port.kind == "vlan":
        return f"in VLAN {port.mode}"
    return "by the node's routes" if port.mode.startswith("l3") else "on the link"  # l3, l3s: of ipvlan


def _has_gateway(record: Attachment, family: int) -> bool:
    own = isinstance(record.port, BridgePort) and record.port.link_local and family == 6
    return bool(own) or any(version(anchor.prefix) == family for anchor in record.anchors)


def _ways(record: Attachment, family: int) -> Iterator[str]:
    translated = [_translation(record.policy, address) if record.policy else ""
                  for address in record.addresses if version(address) == family]
    for words in translated:
        yield words.removeprefix(f"IPv{family} ") or ROUTED_OUT
    if family == 6 and record.proxied:
        yield PROXIED
