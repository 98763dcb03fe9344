"""``cni-v6ctl explain``: who has an address, a prefix or an interface; what reaches it, where its packets leave; why.

It reads the kernel and the leases, and changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.ctl import conf_dir, explained, node_facts, places, screen
from cni_v6.ctl.explained import Explained
from cni_v6.ctl.node_facts import NodeFacts
from cni_v6.ctl.renumber import Namespaces, Search
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.firewall import ruleset
from cni_v6.kernel.facts import Link, Surroundings
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.privilege import may_change_the_network
from cni_v6.kernel.questions import (
    GetAddresses,
    GetAllElements,
    GetForwardChains,
    GetLink,
    GetLinks,
    GetRoutes,
    GetRuleset,
    GetSurroundings,
    GetSysctl,
)
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.net.addresses import overlap
from cni_v6.plan import forwarding, nobody
from cni_v6.plan.bridge_port import FRAMES
from cni_v6.plan.nobody import Reason
from cni_v6.plan.situation import Inside, Situation, concerning
from cni_v6.protocol.names import Owner, owner_of_alias

Held = Sequence[tuple[str, Attachment]]  # data folder, attachment
OUTPUTS = {"explain": explained.OUTPUT}


@dataclass(frozen=True, slots=True)
class Found:
    """Who has what was asked for. ``node``: in words, what the node itself has of it, "" for nothing."""

    held: Held
    node: str = ""


def register(commands: Any) -> None:
    parser = commands.add_parser("explain", help="who has an address, what reaches it, and why; or why nobody has it")
    parser.add_argument("what", metavar="WHAT",
                        help="an address, a prefix, an interface, or the start of a container id")
    parser.add_argument("--conf-dir", type=Path, default=conf_dir.CONF_DIR, metavar="DIR",
                        help="configurations, for what nobody has (%(default)s)")
    parser.add_argument("--data-dir", metavar="DIR", help="ipam.dataDir (default: all since the node was started)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(
    chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context,
    look: Callable[[Iterable[str]], NodeFacts] = node_facts.read,
    search: Callable[[Context], AbstractContextManager[Search]] = lambda node: Namespaces(node),
    privileged: Callable[[], bool] = may_change_the_network,
) -> int:
    """
    :returns: 1 for what nobody has.
    """
    with ExitStack() as stack:
        node = make_node()
        stack.callback(node.kernel.close)
        known = list(places.peek(places.of_networks((), chosen.data_dir, node, leased=True), node))
        seen = node.kernel.observe([GetLinks(), GetSurroundings()])
        found = find(chosen.what, known, seen.links(), seen.surroundings())
        if not privileged():  # the kernel shows nftables to CAP_NET_ADMIN only (net/netfilter/nfnetlink.c)
            words = "not root, so the firewall's tables cannot be read; they are taken for missing"
            print(f"cni-v6ctl: note: {words}", file=sys.stderr)
        reasons = [] if found.held or found.node else _reasons(chosen, known, node)
        several = len({record.owner.container_id for _, record in found.held}) > 1
        details: list[Explained] = []
        if found.held and not found.node and not several:
            namespaces = stack.enter_context(search(node))
            facts = look(target for _, record in found.held for target in (*record.addresses, *record.prefixes))
            details = [situation_of(held, seen.links(), facts, namespaces, node) for held in found.held]
        now = node.now()
    if chosen.json:
        OUTPUTS["explain"].show(_document(chosen.what, found, details, reasons))
    else:
        lines = explained.lines(details, now) if details else _summary(chosen.what, found, reasons)
        print("\n".join(map(screen.plain, lines)))
    return int(not found.held and not found.node)


# Who has it


def find(what: str, known: Held, links: Sequence[Link], surroundings: Surroundings) -> Found:
    prefix = places.prefix_of(what)
    if prefix:
        return _with_prefix(prefix, known, surroundings)
    link = next((link for link in links if link.name == what), None)
    owner = owner_of_alias(link.alias) if link else None
    held = [(data_dir, record) for data_dir, record in known
            if what in (record.host, str(record.owner)) or record.owner == owner]
    if held:
        return Found(held)
    if link:
        return _on_interface(link, known, links, surroundings)
    return Found(_of_container(what, known))


def _with_prefix(prefix: str, known: Held, surroundings: Surroundings) -> Found:
    def within(other: str) -> bool:
        return overlap(_whole(other), prefix)

    held = [(data_dir, record) for data_dir, record in known if any(map(within, _addresses(record)))]
    wide = prefix.rpartition("/")[2] not in ("32", "128")
    own = [f"{text} on {name}{_gateway_of(text, known)}" for name, text in surroundings.addresses
           if within(text.partition("/")[0])]
    routes = [f"a route to {route.dst} through {name}" for name, route in surroundings.routes
              if wide and route.dst == prefix and not held]
    return Found(held, "; ".join((*own, *routes)))


def _addresses(record: Attachment) -> Iterable[str]:
    """All that lead to a container: its addresses and prefixes, and what they are outside (prefix translation)."""
    policy = record.policy
    also = (policy.link_local, *(outside for outside, _ in policy.inbound)) if policy else ()
    return filter(None, (*record.addresses, *record.prefixes, *also))


def _gateway_of(address: str, known: Held) -> str:
    networks = {record.owner.network for _, record in known
                if any(address == anchor.prefix for anchor in record.anchors)}
    return f", the gateway of network {' and '.join(sorted(networks))}" if networks else ""


def _whole(text: str) -> str:
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


def _on_interface(link: Link, known: Held, links: Sequence[Link], surroundings: Surroundings) -> Found:
    """Who is plugged into a bridge of the node; of any other interface, what the node has on it."""
    ports = {port.name for port in links if port.master == link.name}
    held = [(data_dir, record) for data_dir, record in known if record.host in ports]
    own = [text for name, text in surroundings.addresses if name == link.name]
    state = "up" if link.up else "down"
    plugged = f", {screen.counted(len(ports), 'port')}" if link.kind == "bridge" else ""
    words = f"interface {link.name} ({link.kind or 'hardware'}, {state}{plugged})"
    return Found(held, f"{words} with {', '.join(own)}" if own else words)


def _of_container(start: str, known: Held) -> Held:
    ids = {record.owner.container_id for _, record in known}
    matching = {start} if start in ids else {container for container in ids if start and container.startswith(start)}
    if len(matching) > 1:
        shown = ", ".join(sorted(screen.starts(matching).values())[:8])
        more = f" and {len(matching) - 8} more" if len(matching) > 8 else ""
        words = f"{len(matching)} container ids begin with {start}"
        raise CniError(INVALID_CONFIG, words, f"write more of it: {shown}{more}")
    return [(data_dir, record) for data_dir, record in known if record.owner.container_id in matching]


# What the kernel has of an attachment


def situation_of(
    held: tuple[str, Attachment], links: Sequence[Link], facts: NodeFacts, namespaces: Search, node: Context
) -> Explained:
    data_dir, record = held
    owned = (link for link in links if owner_of_alias(link.alias) == record.owner)
    port = record.port if isinstance(record.port, ChildLink) and not record.port.in_container else None
    named = port.master if port else record.host
    link = next((link for link in links if link.name == named), None) or next(owned, None)
    home = record.policy.home if record.policy else next((anchor.home for anchor in record.anchors), "")
    home = home or (link.master if link else "")
    seen = node.kernel.observe((
        GetRuleset(), GetAllElements(), GetForwardChains(), GetSysctl(HOST, forwarding.IP_FORWARD),
        *(GetSysctl(HOST, key) for key in FRAMES.values()),
        *(forwarding.questions(home) if home else ()), *(GetAddresses(HOST, home), GetRoutes(HOST, home)) * bool(home),
    ))
    elements = concerning(record, link.name if link else "", seen.all_elements())
    forwards = {4: seen.sysctl(HOST, forwarding.IP_FORWARD) == "1", 6: bool(home) and forwarding.is_on(seen, home)}
    master = next((other for other in links if link and other.name == link.master), None)
    situation = Situation(
        record, link, master, elements, seen.ruleset() == ruleset.mark(), seen.forward_chains(), forwards,
        facts.ways, facts.uplinks, _inside(record, namespaces, node),
        {family: _pass_rules(family, master, seen.sysctl(HOST, key)) for family, key in FRAMES.items()},
    )
    own, routes = (seen.addresses(HOST, home), seen.routes(HOST, home)) if home else ((), ())
    return Explained(data_dir, situation, home, own, tuple(_of_record(record, routes)), facts)


def _pass_rules(family: int, bridge: Link | None, of_all: str | None) -> bool:
    """Whether a bridge's frames pass the rules. ``of_all``: the sysctl for all bridges; None without br_netfilter."""
    return of_all == "1" or (of_all is not None and bridge is not None and family in bridge.netfilter)


def _of_record(record: Attachment, routes: Iterable[Any]) -> Iterable[str]:
    """The node's routes to the container: of its prefixes, and the most specific one to each address."""
    for route in routes:
        if any(overlap(_whole(held), route.dst) for held in (*record.addresses, *record.prefixes)):
            yield f"{route.dst}{f' via {route.gateway}' if route.gateway else ''}"


def _inside(record: Attachment, namespaces: Search, node: Context) -> Inside | None:
    path, ifname = namespaces.find(record.netns) if any(record.netns) else None, record.owner.ifname
    if path is None:
        return None
    asked = (GetLink(path, ifname), GetAddresses(path, ifname), GetRoutes(path, ifname))
    try:
        seen: Snapshot = node.kernel.observe(asked)
    except CniError as error:  # it may have more routes or addresses than anybody reads
        print(f"cni-v6ctl: note: what {record.owner} has inside is left out: {error}", file=sys.stderr)
        return None
    return Inside(seen.link(path, ifname), seen.addresses(path, ifname), seen.routes(path, ifname))


# Why nobody has it


def _reasons(chosen: argparse.Namespace, known: Held, node: Context) -> list[Reason]:
    """Why nobody has an address or prefix, network by network; those that are about it come first."""
    address, prefix = places.address_of(chosen.what), places.prefix_of(chosen.what)
    if not prefix:
        return []
    found = []
    for conf in _networks(chosen.conf_dir, node):
        if address:
            past = node.leases(conf.network, conf.data_dir).past(address)
            found.append(nobody.reason(conf, address, past, node.now(), screen.moment))
        else:
            found.append(nobody.of_prefix(conf, prefix))
    about = [reason for reason in found if reason.kind != nobody.OUTSIDE]
    return about or found


def _networks(folder: Path, node: Context) -> list[IpamConf]:
    found = []
    with suppress(CniError):  # no such folder
        for _, config in conf_dir.ours(folder):
            with suppress(CniError):  # an ADD would say what is wrong with it
                conf = conf_dir.ipam(config, node)
                found += [conf] if conf else []
    return found


# Output


def _summary(what: str, found: Found, reasons: Sequence[Reason]) -> Iterable[str]:
    """What the node has, who else has some of it; or why nobody has it."""
    if not found.held and not found.node:
        yield f"nobody has {what}"
        if not reasons and places.prefix_of(what):
            yield from screen.wrapped("  why", "no configuration of ours was found that could say so (--conf-dir)", 12)
        elif not reasons:
            words = "no container id begins so, and no interface of the node has this name (cni-v6ctl list --wide)"
            yield from screen.wrapped("  why", words, 12)
        for reason in reasons:
            yield ""
            yield from screen.listed((("network", reason.network), ("why", reason.why), ("gives it", reason.gives)))
        return
    if found.node:
        yield from screen.wrapped("node", found.node, 6)
    short = screen.starts([record.owner.container_id for _, record in found.held])
    rows = [(record.owner.network, short[record.owner.container_id], record.owner.ifname,
             " ".join((*record.addresses, *record.prefixes)) or "-") for _, record in found.held]
    yield from screen.fitting(("NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES"), rows)


def _document(
    what: str, found: Found, details: Sequence[Explained], reasons: Sequence[Reason]
) -> Mapping[str, object]:
    return {
        "what": what,
        "node": found.node,
        "attachments": ([explained.document(detail) for detail in details]
                        or [_short(record) for _, record in found.held]),
        "nobody": [{"network": reason.network, "kind": reason.kind, "why": reason.why, "givenBy": reason.gives}
                   for reason in reasons],
    }


def _short(record: Attachment) -> Mapping[str, object]:
    owner: Owner = record.owner
    return {"network": owner.network, "containerID": owner.container_id, "ifname": owner.ifname,
            "addresses": list(record.addresses), "prefixes": list(record.prefixes)}
