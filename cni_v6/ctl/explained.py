"""What is known of one attachment, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cni_v6.ctl import screen
from cni_v6.ctl.node_facts import NodeFacts
from cni_v6.ctl.output import (
    HELD,
    OWNER,
    Output,
    choice,
    listed,
    mapped,
    number,
    object_of,
    or_null,
    text,
    texts,
    whole,
)
from cni_v6.firewall.sets import Element
from cni_v6.leases.attachment import BridgePort
from cni_v6.net.addresses import is_link_local
from cni_v6.plan import firewall_words, reach
from cni_v6.plan.reach import Leaving, PublishedPort, Verdict
from cni_v6.plan.situation import Situation, cut_off, child_link

ALL = (reach.NEIGHBOURS, reach.NODE, reach.NETWORKS, reach.OUTSIDE)
MAY = choice("whether its packets pass", reach.YES, reach.NO, reach.PERHAPS)
_ADDRESS = text("of the container, or its prefix")
OUTPUT = Output(object_of({
    "what": text("as it was asked"), "node": text("what the node itself has of it; empty for nothing"),
    "attachments": listed(object_of({**OWNER, **HELD}, {
        "dataDir": text("of its leases"), "mac": text("of the container; empty if it is not known"),
        "created": number("seconds since the epoch; 0 if it is not known"),
        "hostInterface": text("the node's end of the link"), "bridge": text("empty for none"),
        "gateways": texts("the node's addresses on its segment"), "routes": texts("of the node to the container"),
        "neighbours": listed(object_of({
            "address": _ADDRESS, "mac": text("as the node knows it"), "state": text("of ip-neighbour(8)"),
            "interface": text("of the node"),
        }), "of the node"),
        "cutOff": text("why nothing reaches it; empty if something does"),
        "reachedFrom": listed(object_of({
            "from": choice("who", *ALL), "address": _ADDRESS, "may": MAY, "why": text("so"),
        }), "who may reach it"),
        "publishedPorts": listed(object_of({
            "protocol": text("tcp, udp or sctp"), "hostIP": text("empty for every address of the node"),
            "hostPort": whole("of the node"), "address": _ADDRESS, "containerPort": whole("of the container"),
            "problem": text("why it does not work; empty if it does"),
        }), "of the container"),
        "leaves": listed(object_of({
            "address": _ADDRESS, "may": MAY, "interface": text("of the node"), "source": text("that others see"),
            "why": text("so"), "except": texts("destinations to which it is not translated"),
        }), "where its packets to the outside leave"),
        "firewall": listed(object_of({
            "family": text("of the table"), "set": text("its name"), "key": texts("its parts"),
            "data": texts("what it leads to"), "packets": or_null(whole("counted; null if it does not count")),
            "means": text("in words"),
        }), "its elements"),
        "dropped": mapped(whole("packets of all containers"), "by chain"),
    }), "the optional keys only if it is one container"),
    "nobody": listed(object_of({
        "network": OWNER["network"], "kind": text("of the reason, in a word or two"), "why": text("nobody has it"),
        "givenBy": text("what would give it"),
    }), "why nobody has it, network by network"),
}))


@dataclass(frozen=True, slots=True)
class Explained:
    """An attachment with what the kernel has of it.

    ``home``: the node's interface on its segment, with the addresses ``own``. ``routes``: the node's to the container.
    """

    data_dir: str
    seen: Situation
    home: str
    own: tuple[str, ...]
    routes: tuple[str, ...]
    facts: NodeFacts

    @property
    def mac(self) -> str:
        inside, policy = self.seen.inside, self.seen.record.policy
        return inside.link.mac if inside and inside.link else policy.mac if policy else ""


def lines(details: Sequence[Explained], now: float) -> Iterator[str]:
    """A screen for each attachment."""
    for place, detail in enumerate(details):
        if place:
            yield ""
        yield from screen.listed(_who(detail, now), margin=0)
        yield ""
        yield "who may reach it"
        yield from screen.listed(_reached(detail.seen))
        yield ""
        yield "where its packets to the outside leave"
        yield from screen.listed(_leaving(detail.seen))
        yield ""
        yield "what the firewall has of it"
        yield from screen.listed(_firewall(detail))


def _who(detail: Explained, now: float) -> Iterator[tuple[str, str]]:
    record, link, owner = detail.seen.record, detail.seen.link, detail.seen.record.owner
    yield "network", f"{owner.network}, leases in {detail.data_dir}"
    yield "container", owner.container_id
    yield "interface", f"{owner.ifname or '(not recorded)'}{f', MAC {detail.mac}' if detail.mac else ''}"
    for address in record.addresses:
        yield "address", address
    for prefix in record.prefixes:
        yield "prefix", f"{prefix} (delegated)"
    if record.created:
        yield "since", f"{screen.moment(record.created)}, {screen.age(now - record.created)} ago"
    port = child_link(detail.seen)
    if port:
        where = "in the container" if port.in_container else f"{'up' if link and link.up else 'down'}"
        yield "master", f"{port.master}, {where}{f', MTU {link.mtu}' if link else ''}"
    elif link:
        apart = "the container's own link" if detail.seen.is_routed else "in no bridge"
        place = f"in bridge {link.master}" if link.master else apart
        yield "host", f"{link.name}, {place}, {'up' if link.up else 'down'}, MTU {link.mtu}"
    elif record.host:
        yield "host", f"{record.host}, which is not on the node"
    for address in detail.own:
        if is_link_local(address) and not (isinstance(record.port, BridgePort) and record.port.link_local == address):
            continue  # the kernel's own
        yield "gateway", f"{address} on {detail.home}"
    for route in detail.routes:
        yield "route", f"{route} dev {detail.home}"
    for found in detail.facts.neighbours:
        if found.address in record.addresses:
            wrong = f", which is not its MAC {detail.mac}" if found.mac and detail.mac not in ("", found.mac) else ""
            yield "neighbour", f"{found.address} is {found.mac or 'nobody'} on {found.interface} ({found.state}){wrong}"


def _reached(seen: Situation) -> Iterator[tuple[str, str]]:
    found = list(reach.reached(seen))
    if not found:
        stopped = cut_off(seen)
        yield "", stopped or "it has no address, so only its neighbours reach it, by their own means"
    for who in ALL:
        yield from ((who, words) for words in _merged([verdict for verdict in found if verdict.who == who]))
    for port in reach.ports(seen):
        yield "published port", _port(port)


def _merged(found: Sequence[Verdict]) -> list[str]:
    """One line for all addresses of which the same holds."""
    words: dict[str, list[str]] = {}
    for verdict in found:
        words.setdefault(f"{verdict.may}: {verdict.why}", []).append(verdict.address)
    return list(words) if len(words) == 1 else [f"{' '.join(of)} {text}" for text, of in words.items()]


def _port(port: PublishedPort) -> str:
    at = f" at {port.host_ip}" if port.host_ip else ""
    inner = f"[{port.address}]" if ":" in port.address else port.address
    leads = f"{port.protocol} {port.host_port}{at} leads to {inner}:{port.container_port}"
    return f"{leads}; but {port.problem}" if port.problem else leads


def _leaving(seen: Situation) -> Iterator[tuple[str, str]]:
    for verdict in reach.leaving(seen):
        kept = reach.kept(seen, verdict.address)
        yield verdict.address, _way(verdict) + (f"; to {', '.join(kept)} as {verdict.address}" if kept else "")
    if not seen.targets:
        yield "", "it has no address"


def _way(verdict: Leaving) -> str:
    if verdict.may == reach.NO:
        return f"nowhere: {verdict.why}"
    return f"through {verdict.interface} as {verdict.source}: {verdict.why}"


def _firewall(detail: Explained) -> Iterator[tuple[str, str]]:
    """A line for each kind of set, with the entries of those that say more than that the container is in it."""
    seen = detail.seen
    if not seen.loaded:
        yield "", "the firewall's tables are gone, changed, or of another version" if seen.record.policy else "nothing"
        return
    kinds: dict[tuple[str, str], list[Element]] = {}
    for element in seen.elements:
        kinds.setdefault((element.family, element.set.rstrip("46")), []).append(element)
    for (family, name), elements in kinds.items():
        entries = "; ".join(_entry(element, detail.facts) for element in elements if _says_more(element))
        meaning = firewall_words.meaning(elements[0])
        yield f"{family} {name}", f"{meaning}: {entries}" if entries else meaning
    dropped = firewall_words.drops(seen.elements, detail.facts.rules)
    for chain, packets in dropped.items():
        if packets:
            yield f"chain {chain}", f"{screen.counted(packets, 'packet')} of all containers dropped"
    if dropped and not any(dropped.values()):
        yield "dropped", "no packet of any container, by the chains that use these sets"
    elif not kinds:
        yield "", "nothing"


def _says_more(element: Element) -> bool:
    return bool(element.data) or element.set.rstrip("46") in ("allowed", "keep", "macs")


def _entry(element: Element, facts: NodeFacts) -> str:
    leads = f" -> {' . '.join(element.data)}" if element.data else ""
    counted = f" [{screen.counted(count, 'packet')}]" if (count := facts.packets.get(element)) is not None else ""
    return f"{' . '.join(element.key)}{leads}{counted}"


def document(detail: Explained) -> Mapping[str, object]:
    """All of it as JSON."""
    seen, record, link = detail.seen, detail.seen.record, detail.seen.link
    return {
        "network": record.owner.network,
        "dataDir": detail.data_dir,
        "containerID": record.owner.container_id,
        "ifname": record.owner.ifname,
        "mac": detail.mac,
        "addresses": list(record.addresses),
        "prefixes": list(record.prefixes),
        "created": record.created,
        "hostInterface": link.name if link else record.host,
        "bridge": link.master if link else "",
        "gateways": list(detail.own),
        "routes": list(detail.routes),
        "neighbours": [{"address": found.address, "mac": found.mac, "state": found.state, "interface": found.interface}
                       for found in detail.facts.neighbours if found.address in record.addresses],
        "cutOff": cut_off(seen),
        "reachedFrom": [{"from": found.who, "address": found.address, "may": found.may, "why": found.why}
                        for found in reach.reached(seen)],
        "publishedPorts": [
            {"protocol": port.protocol, "hostIP": port.host_ip, "hostPort": port.host_port, "address": port.address,
             "containerPort": port.container_port, "problem": port.problem} for port in reach.ports(seen)
        ],
        "leaves": [
            {"address": found.address, "may": found.may, "interface": found.interface, "source": found.source,
             "why": found.why, "except": reach.kept(seen, found.address)} for found in reach.leaving(seen)
        ],
        "firewall": [
            {"family": element.family, "set": element.set, "key": list(element.key), "data": list(element.data),
             "packets": detail.facts.packets.get(element), "means": firewall_words.meaning(element)}
            for element in (seen.elements if seen.loaded else ())
        ],
        "dropped": dict(firewall_words.drops(seen.elements, detail.facts.rules)),
    }
