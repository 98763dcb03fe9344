"""The way of a packet, as the kernel has told it, in words: through which chains, what became of it, and why. Pure.

``cni-v6ctl trace`` asks the kernel (``kernel.netfilter.trace``, ``kernel.drops``), and prints what this module says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cni_v6.firewall.dropped import CHAINS as DROP_CHAINS
from cni_v6.firewall.sets import TABLE
from cni_v6.kernel.netfilter.trace import RULE, Event
from cni_v6.net.packets import ICMP, ICMPV6, UDP, Headers

Chain = tuple[str, str, str]  # family, table, chain
OUT, BACK, OTHER = "out", "back", "other"
DROP = "drop"
OURS = ("inet", "bridge")

# What a drop in a chain of ours means: in the words of ``reach`` where that says it too.
MEANING = {
    "published": 'ingress "{ingress}" closes it, but for replies, ping and published ports',
    "allowed": "its egress list does not allow it",
    "allowed_here": "its egress list does not allow it",
    "spoofed_source": "its source is a container's address, and it comes from elsewhere",
    "bound_source": "its source is no address of the container",
    "unknown_address": 'nobody has this address: it is in no set "home", so the node answers "host unreachable"',
    "to_segment": "its source is an address of the segment that it is going to",
    "prerouting_filter": "it is for 127.0.0.0/8, and does not come from loopback",
    "forward_ingress": "its source is a delegated prefix of another container",
    "input_local": "its source is a delegated prefix of another container",
    "bridge_reports": "it is for multicast routers only",
    "guard_source": "its source is not the container's MAC",
    "guard_link": "it has a second VLAN tag, or one of VLAN 0, or it is spanning tree",
    "guard_ipv": "only routers say this",
    "guard_udp": "only routers and DHCP servers say this",
    "guard_fragments": "it hides in fragments what it says",
    "guard_address": "its source is no address of the container",
    "guard_arp": "its ARP is about an address or a MAC that is not the container's",
    "guard_discovery": "its neighbour discovery is about an address or a MAC that is not the container's",
}
# Names of include/net/dropreason-core.h; and what they mean here.
REASONS = {
    "NO_SOCKET": "nobody listens there",
    "NETFILTER_DROP": "a rule drops it",
    "IP_RPFILTER": "the node would not answer through the interface that it comes from (rp_filter)",
    "IP_INNOROUTES": "there is no route for it, or forwarding is off",
    "IP_OUTNOROUTES": "there is no route for it",
    "IPV6DISABLED": "IPv6 is off on the interface that it comes from",
    "NEIGH_FAILED": "the next hop does not answer ARP or neighbour discovery",
    "NEIGH_CREATEFAIL": "the table of neighbours is full",
    "NEIGH_QUEUEFULL": "the next hop does not answer ARP or neighbour discovery",
    "NEIGH_DEAD": "the next hop does not answer ARP or neighbour discovery",
    "PKT_TOO_BIG": "it is larger than the MTU of the next link",
    "IP_INADDRERRORS": "the node has no way to its destination, or does not forward it",
    "IPV6_NDISC_FRAG": "neighbour discovery must not come in fragments",
    "OTHERHOST": "it is for the MAC of somebody else",
    "DEV_READY": "the interface that it leaves through is down",
    "QDISC_DROP": "the queue of the interface that it leaves through drops it",
    "TC_INGRESS": "a filter of tc drops it",
    "TC_EGRESS": "a filter of tc drops it",
    "XDP": "an XDP program drops it",
    "BRIDGE_INGRESS_STP_STATE": "the bridge port does not forward",
    "LOCAL_MAC": "it has the MAC of the bridge itself",
}
# Functions that drop without a reason, as of Linux 6.18.
FUNCTIONS = {
    "neigh_invalidate": "the next hop does not answer ARP or neighbour discovery",
    "ip6_forward": "the node does not forward it",
    "ip6_pkt_drop": "there is no route for it",
}


@dataclass(frozen=True, slots=True)
class Names:
    """``rules``: the text of rules by (family, table, handle). ``hooks``: of base chains. ``interfaces`` by index."""

    rules: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    hooks: Mapping[Chain, str] = field(default_factory=dict)
    interfaces: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A base chain that a packet has been through. ``number``: of the packet. ``last``: the chain that decided.

    ``rule``: the text of the rule that decided, "" for the policy. ``verdict``: DROP, ``accept`` or another of nft's.
    """

    number: int
    base: Chain
    hook: str
    headers: Headers
    iif: str
    oif: str
    last: str
    rule: str = ""
    verdict: str = "accept"
    way: tuple[str, ...] = ()  # the texts of the rules that matched before

    @property
    def place(self) -> str:
        return f"{self.base[0]} {self.base[1]} {self.last}"


def steps(events: Iterable[Event], names: Names, own: str) -> list[Step]:
    """The events as steps, in their order, without those of our own tables of tracing, called ``own``."""
    found: list[Step] = []
    open_at: dict[int, int] = {}  # packet -> place in ``found``
    for event in events:
        if event.headers is not None:
            base = event.family, event.table, event.chain
            open_at[event.number] = len(found)
            found.append(Step(
                event.number, base, names.hooks.get(base, ""), event.headers, names.interfaces.get(event.iif, ""),
                names.interfaces.get(event.oif, ""), event.chain,
            ))
        if event.number in open_at:
            at = open_at[event.number]
            found[at] = _after(found[at], event, names)
    return [step for step in found if step.base[1] != own]


def _after(step: Step, event: Event, names: Names) -> Step:
    text = names.rules.get((event.family, event.table, event.handle), "") if event.kind == RULE else ""
    if event.table == TABLE and event.chain in DROP_CHAINS:  # the rule that leads there has decided
        decided = replace(step, way=step.way[:-1], rule="".join(step.way[-1:]), verdict=DROP)
        return decided if event.verdict == DROP else step
    if event.verdict in (DROP, "accept", "queue", "stolen"):
        return replace(step, last=event.chain, rule=text, verdict=event.verdict)
    return replace(step, last=event.chain, way=(*step.way, *filter(None, [text])))


def direction(probe: Headers, headers: Headers) -> str:
    """Whether a packet is the probe, its answer (or an ICMP error to its sender), or another one."""
    if probe.protocol == headers.protocol and probe.source == headers.source and _same(probe, headers, 0):
        return OUT
    if probe.source == headers.target and probe.protocol == headers.protocol and _same(probe, headers, 1):
        return BACK
    errors = {ICMP: (3, 11, 12), ICMPV6: (1, 2, 3, 4)}
    is_error = headers.kind in errors.get(headers.protocol, ())
    return BACK if is_error and probe.source == headers.target else OTHER


def _same(probe: Headers, headers: Headers, end: int) -> bool:
    if probe.ports:
        return bool(headers.ports) and probe.ports[0] == headers.ports[end]
    return probe.number == headers.number


def of_probe(found: Sequence[Step], probe: Headers) -> list[tuple[str, Step]]:
    """The steps of the first packet of each direction. What is repeated comes to a chain where that has been.

    A packet's number says nothing here: it changes as the packet is handed from a bridge's port to the bridge.
    """
    been: set[tuple[str, Chain]] = set()
    chosen = []
    for step in found:
        way = direction(probe, step.headers)
        if way != OTHER and (way, step.base) not in been:
            been.add((way, step.base))
            chosen.append((way, step))
    return chosen


def dropped(step: Step) -> str:
    """Why a step has dropped its packet, in words; "" if it has not."""
    if step.verdict != DROP:
        return ""
    family, table, _ = step.base
    named = f"chain {step.last} of table {family} {table}"
    if table != TABLE or family not in OURS:
        how = f": {step.rule}" if step.rule else ", whose policy is drop"
        return f"{named}, which is not of cni-v6, drops it{how}"
    return f"{_meaning(step)} ({named})"


def _meaning(step: Step) -> str:
    words = MEANING.get(step.last) or MEANING.get(step.last.rstrip("46"), "a rule of cni-v6 drops it")
    ingress = "isolated" if any("@isolated" in text for text in step.way) else "published"
    return words.format(ingress=ingress)


def reason(name: str, function: str) -> str:
    """Why the kernel has dropped a packet, in words."""
    told = f"reason {name}" if name else "no reason told"
    at = f", in {function}" if function else ""
    words = REASONS.get(name) or FUNCTIONS.get(function, "")
    return f"{words} (the kernel: {told}{at})" if words else f"the kernel drops it ({told}{at})"


def translations(found: Sequence[tuple[str, Step]]) -> dict[int, str]:
    """Where the destination has been translated: the place of the first step that sees it, and what it is then."""
    places: dict[int, str] = {}
    for number, ((before, earlier), (way, step)) in enumerate(zip(found, found[1:]), 1):
        if way == before and step.headers.target != earlier.headers.target:
            places[number] = f"translated: {step.headers}"
    return places


# How it ends

ANSWERED, REFUSED, ERROR, TOO_BIG, SILENT, UNSENT = "answered", "refused", "error", "too big", "silent", "unsent"
OUTCOMES = (ANSWERED, REFUSED, ERROR, TOO_BIG, SILENT, UNSENT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the sender of the probe has seen. ``words``: of the error. ``by``: who sent it, "" for its own kernel."""

    kind: str
    words: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """Whether the probe arrived, and in words what happened."""

    arrived: bool
    words: str


def end(
    outcome: Outcome, found: Sequence[tuple[str, Step]], drops: Sequence[tuple[str, str]], predicted: str,
) -> End:
    """The last line of a trace.

    :param found: see ``of_probe``.
    :param drops: (reason, function) of the kernel's drops of what was sent, the rules' own left out.
    :param predicted: why ``explain`` says that it does not get there; "" if it says nothing.
    """
    if outcome.kind == ANSWERED:
        return End(True, "it is answered")
    if outcome.kind == REFUSED:
        return End(True, "it arrives, and is refused: nobody listens on that port")
    stopped = next(((way, words) for way, step in found if (words := dropped(step))), None)
    if stopped:
        way, words = stopped
        return End(way == BACK, f"{'its answer' if way == BACK else 'it'} is dropped: {words}")
    out = [step for way, step in found if way == OUT]
    if outcome.kind == SILENT and not drops and out and out[-1].hook == "input" and out[-1].headers.protocol == UDP:
        return End(True, "it gets to the node itself, which does not answer; a datagram need not be answered")
    return End(False, " ".join(_unanswered(outcome, out, drops, predicted)))


def _unanswered(
    outcome: Outcome, out: Sequence[Step], drops: Sequence[tuple[str, str]], predicted: str
) -> Iterator[str]:
    if outcome.kind == UNSENT:
        yield f"the container cannot send it: {outcome.words}"
    elif outcome.kind in (ERROR, TOO_BIG):
        yield _of_error(outcome, out)
    elif drops:
        yield f"it is dropped: {reason(*drops[0])}"
    elif not out:
        yield "it does not get to the node"
    else:
        yield _last_seen(out[-1])
    if predicted and outcome.kind != TOO_BIG:
        yield f"- {predicted}"
    elif outcome.kind in (ERROR, TOO_BIG) and drops:
        yield f"- {reason(*drops[0])}"


def _of_error(outcome: Outcome, out: Sequence[Step]) -> str:
    """An error that the container's own kernel has told has not come from outside."""
    if outcome.by:
        return f"it comes back: {outcome.words}, says {outcome.by}"
    if outcome.kind == TOO_BIG:
        return f"the container cannot send it: {outcome.words}"
    if out:
        return f"it is refused: {outcome.words}"
    return f"it does not leave the container: {outcome.words}; nobody there answers for its next hop"


def _last_seen(step: Step) -> str:
    if step.hook == "input":
        return f"it gets to the node itself through {step.iif}, and is not answered"
    if step.oif:
        return (f"it leaves the node through {step.oif}, and no answer comes back: whoever is there does not answer, "
                "does not get it, or has no route back")
    return f"it gets to the node through {step.iif}, and no further"
