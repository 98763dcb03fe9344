"""Who may reach a container, where its packets leave, and why: read off what the kernel has, not off what was wanted.

Pure. ``cni-v6ctl explain`` asks the kernel and prints the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cni_v6.firewall.elements import PROTOCOLS
from cni_v6.firewall.policy import CLOSED_SEGMENT
from cni_v6.kernel.facts import DROPS_ALL, ForwardChain
from cni_v6.net.addresses import version
from cni_v6.plan import child_reach
from cni_v6.plan.outage import FAMILY_NAMES
from cni_v6.plan.situation import Situation, Way, cut_off, child_link

YES, NO, PERHAPS = "yes", "no", "perhaps"
NEIGHBOURS, NODE, NETWORKS, OUTSIDE = "same network", "the node", "other networks", "outside"
DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
GONE = "the firewall's tables are gone or changed, so nothing closes it (cni-v6ctl reload)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something is reached. ``who``: one of the four above; ``address``: of the container, or its prefix."""

    who: str
    address: str
    may: str
    why: str


def reached(seen: Situation) -> Iterator[Verdict]:
    """Who reaches each address and delegated prefix of the container."""
    for address in seen.targets:
        stopped = cut_off(seen) or _missing(seen, address)
        if stopped:
            yield from (Verdict(who, address, NO, stopped) for who in (NEIGHBOURS, NODE, NETWORKS, OUTSIDE))
            continue
        if child_link(seen):
            yield from _on_link(seen, address)
            continue
        yield _from_neighbours(seen, address)
        yield _from_node(seen, address)
        for who in (NETWORKS, OUTSIDE):
            yield _from_beyond(seen, address, who)


def _on_link(seen: Situation, address: str) -> Iterator[Verdict]:
    """Who reaches a child of a master: the hosts of its link; all others by way of a router there."""
    reaches, why = child_reach.from_node(seen, address)
    yield Verdict(NEIGHBOURS, address, YES, child_reach.from_link(seen))
    yield Verdict(NODE, address, YES if reaches else NO, why)
    may, words = _no_answer(seen, version(address))
    for who in (NETWORKS, OUTSIDE):
        yield Verdict(who, address, may or PERHAPS, words or "a router of the link decides, and no rule of the node")


def _missing(seen: Situation, address: str) -> str:
    own = [own_address.partition("/")[0] for own_address in seen.inside.addresses] if seen.inside else [address]
    if "/" not in address and address not in own:
        return f"{seen.record.owner.ifname} in the container does not have this address"
    return ""


def _from_neighbours(seen: Situation, address: str) -> Verdict:
    assert seen.link
    if "/" in address:
        if seen.loaded and seen.has("isolated", address):
            return Verdict(NEIGHBOURS, address, NO, 'ingress "isolated" closes it')
        return Verdict(NEIGHBOURS, address, PERHAPS, "through the node, if their routes to it lead there")
    if seen.is_routed:
        return _from_routed(seen, address)
    if seen.link.isolated:
        closed = seen.has("isolated", address)
        why = f"bridge port {seen.link.name} is isolated" + (", and so is the address (isolated)" if closed else "")
        return Verdict(NEIGHBOURS, address, NO, why)
    if seen.frames_pass_rules.get(version(address)):
        if version(address) == 6 and _unknown(seen, address):
            why = f"br_netfilter hands frames to the rules: {_unknown(seen, address)}"
            return Verdict(NEIGHBOURS, address, NO, why)
        may, why = stopped_by(seen.chains, version(address), seen.link.master)
        if may:
            return Verdict(NEIGHBOURS, address, may, f"{why}, and br_netfilter hands it the bridge's frames too")
    return Verdict(NEIGHBOURS, address, YES, f"bridge {seen.link.master} passes their frames, on every port")


def _from_routed(seen: Situation, address: str) -> Verdict:
    """From containers of its routed network: through the node, which tells them from others."""
    problem = _no_way(seen, address)
    if not problem and not seen.forwards.get(version(address)):
        problem = f"IPv{version(address)} forwarding is off on this node"
    if not problem and seen.loaded and seen.has("isolated", address):
        problem = 'ingress "isolated" closes it'
    assert seen.link
    may, why = (NO, problem) if problem else stopped_by(seen.chains, version(address), seen.link.name)
    return Verdict(NEIGHBOURS, address, may or YES, why or "the node routes to it, on every port")


def _from_node(seen: Situation, address: str) -> Verdict:
    problem = _no_way(seen, address) or _unknown(seen, address)
    if problem:
        return Verdict(NODE, address, NO, problem)
    return Verdict(NODE, address, YES, f"through {seen.ways[address].interface}, on every port")


def _no_way(seen: Situation, address: str) -> str:
    way, homes = seen.ways.get(address), _homes(seen)
    if way is None:
        return "the node has no route to it: the network has no gateway on this node"
    if homes and way.interface not in homes:
        return f"the node's route to it leads to {way.interface}, not to {' or '.join(sorted(homes))}"
    return ""


def _homes(seen: Situation) -> set[str]:
    record = seen.record
    homes = {anchor.home for anchor in record.anchors} | ({record.policy.home} if record.policy else set())
    return homes - {""}


def _unknown(seen: Situation, address: str) -> str:
    """Why the node answers for the address that nobody has it (``firewall.absent``); "" if it does not."""
    closed = seen.bridge is not None and seen.bridge.group == CLOSED_SEGMENT
    if seen.loaded and closed and not seen.has("home", address):
        return "it is in no set \"home\", so the node answers \"host unreachable\" (cni-v6ctl reload)"
    return ""


def stopped_by(chains: Iterable[ForwardChain], family: int, interface: str) -> tuple[str, str]:
    """(NO or PERHAPS, why) where a forward chain of others drops what the node forwards; ("", "") if none does."""
    for chain in sorted(chains, key=lambda chain: chain.drops != DROPS_ALL):
        if chain.drops and family in FAMILY_NAMES[chain.family]:
            named = f"chain {chain.name} of table {chain.family} {chain.table}"
            if chain.drops == DROPS_ALL:
                return NO, f"{named}, which is not of cni-v6, drops all that the node forwards"
            if not chain.mentions(interface):
                return PERHAPS, f"{named}, which is not of cni-v6, drops what its rules do not accept"
    return "", ""


def _from_beyond(seen: Situation, address: str, who: str) -> Verdict:
    family = version(address)
    problem = _no_way(seen, address) or _unknown(seen, address)
    if not problem and not seen.forwards.get(family):
        problem = f"IPv{family} forwarding is off on this node"
    if problem:
        return Verdict(who, address, NO, problem)
    may, why = stopped_by(seen.chains, family, seen.ways[address].interface)
    if may == NO:
        return Verdict(who, address, NO, why)
    may, why = (may, why) if may else _no_answer(seen, family)
    if may == NO:
        return Verdict(who, address, NO, why)
    for name in ("isolated", "published"):
        if seen.loaded and seen.has(name, address):
            return Verdict(who, address, NO, f'ingress "{name}" closes it, but for replies, ping and published ports')
    if may:
        return Verdict(who, address, may, why)
    if not seen.loaded and seen.record.policy:
        return Verdict(who, address, YES, GONE)
    open_words = 'nothing of ours closes it (ingress "open")'
    routed = "" if who == NETWORKS else ", where a route leads here"
    return Verdict(who, address, YES, open_words + routed)


def _no_answer(seen: Situation, family: int) -> tuple[str, str]:
    """(NO or PERHAPS, why) where the container lacks a route for its answers; ("", "") if it has a default route."""
    routes = [route for route in seen.inside.routes if version(route.dst) == family] if seen.inside else []
    if seen.inside is None or any(route.dst == DEFAULTS[family] for route in routes):
        return "", ""
    if not any(route.gateway for route in routes):
        return NO, f"the container has no route back: no default route of IPv{family}"
    return PERHAPS, f"the container has no default route of IPv{family}, so answers go to some places only"


# Published ports


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A published port: protocol, the node's address ("" for any) and port; where it leads; why it does not, or ""."""

    protocol: str
    host_ip: str
    host_port: int
    address: str
    container_port: int
    problem: str = ""


def ports(seen: Situation) -> Iterator[PublishedPort]:
    """The published ports by the firewall's maps, and those of the record that are missing there."""
    stopped = cut_off(seen)
    found = set()
    for element in seen.elements if seen.loaded else ():
        if element.set.rstrip("46") not in ("ports", "ports_at"):
            continue
        *at, protocol, port = element.key
        address, inner = element.data
        off = "" if seen.forwards.get(version(address)) else f"IPv{version(address)} forwarding is off on this node"
        why = stopped or off or stopped_by(seen.chains, version(address), _home(seen))[1]
        name = _PROTOCOL_NAMES.get(protocol, protocol)
        found.add((name, int(port), version(address)))
        yield PublishedPort(name, at[0] if at else "", int(port), address, int(inner), why)
    policy = seen.record.policy
    why = GONE if not seen.loaded else "it is not in the firewall's maps (cni-v6ctl reload)"
    firsts = {version(address): address for address in reversed(seen.record.addresses)}  # of each family
    for published in policy.ports if policy else ():
        families = {version(published.host_ip)} if published.host_ip else {*firsts}
        yield from (PublishedPort(published.protocol, published.host_ip, published.host_port, address,
                                  published.container_port, why)
                    for family, address in sorted(firsts.items())
                    if family in families and (published.protocol, published.host_port, family) not in found)


def _home(seen: Situation) -> str:
    return next(iter(sorted(_homes(seen))), seen.link.master if seen.link else "")


# Where packets leave


@dataclass(frozen=True, slots=True)
class Leaving:
    """Where packets of a family to the outside leave, and with which source; ``may`` NO: they do not, ``why``."""

    address: str
    may: str
    interface: str = ""
    source: str = ""
    why: str = ""


def leaving(seen: Situation) -> Iterator[Leaving]:
    """For each address and delegated prefix of the container, its way to the outside."""
    stopped = cut_off(seen)
    for address in seen.targets:
        hops = list(child_reach.exits(seen, version(address))) if child_link(seen) and not stopped else []
        if hops:
            yield Leaving(address, YES, f"{seen.record.owner.ifname} by way of {' and '.join(hops)}", address,
                          "its own address, past the node's rules")
            continue
        problem = stopped or _no_exit(seen, address)
        if problem:
            yield Leaving(address, NO, why=problem)
            continue
        may, why = stopped_by(seen.chains, version(address), _home(seen))
        limited = seen.loaded and seen.has("limited", address)
        if limited and not seen.has("allowed", address):
            yield Leaving(address, NO, why="its egress list allows nothing of this family")
            continue
        way = seen.uplinks[version(address)]
        source, how = _source(seen, address, way)
        if limited and not may:
            may, why = PERHAPS, "only to what its egress list allows"
        yield Leaving(address, may or YES, way.interface, source, "; ".join(filter(None, (how, why))))


def _no_exit(seen: Situation, address: str) -> str:
    family = version(address)
    if seen.inside and not any(route.dst == DEFAULTS[family] for route in seen.inside.routes):
        return f"the container has no default route of IPv{family}"
    problem = _missing(seen, address) or _no_way(seen, address)
    if problem:
        return problem
    if family == 6 and _unknown(seen, address):  # the rules see neighbour discovery, and no ARP
        return f"the node does not answer its neighbour solicitations: {_unknown(seen, address)}"
    if not seen.forwards.get(family):
        return f"IPv{family} forwarding is off on this node"
    if family not in seen.uplinks:
        return f"the node has no default route of IPv{family}"
    may, why = stopped_by(seen.chains, family, _home(seen))
    return why if may == NO else ""


def _source(seen: Situation, address: str, way: Way) -> tuple[str, str]:
    """The source that the outside sees, and what makes it."""
    if seen.loaded:
        fixed = seen.element("snat", address)
        if fixed:
            return fixed.data[0], "translated (snat)"
        if seen.has("masquerade", address):
            return way.source or f"the address of {way.interface}", "masqueraded"
    return address, "its own address" if "/" not in address else "its own addresses"


def kept(seen: Situation, address: str) -> list[str]:
    """Destinations to which a translated address keeps its own source."""
    name = f"keep{version(address)}"
    return [element.key[1] for element in seen.elements if element.set == name and element.key[0] == address]
