"""``cni-v6ctl trace``: what happens to a container's packets, chain by chain, and who drops them.

With ``--to`` it sends a packet from inside the container. It has the kernel tell (``listen``), and says in words what
that means (``plan.journey``). Nothing that it makes outlives it.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.ctl import explain, node_facts, places, screen
from cni_v6.ctl.explained import Explained
from cni_v6.ctl.output import OWNER, Output, choice, flag, listed, object_of, text, texts
from cni_v6.ctl.renumber import Namespaces
from cni_v6.ctl.trace import steps
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel.questions import GetLinks, GetSurroundings
from cni_v6.leases.attachment import Attachment
from cni_v6.net.addresses import is_link_local, version
from cni_v6.plan import journey, reach
from cni_v6.plan.journey import BACK, Outcome, Step
from cni_v6.plan.situation import cut_off

SECONDS = 4.0  # a neighbour that does not answer is given up after three (RFC 4861, section 10)
AFTER_DROP = 0.3  # seconds: a rule that rejects sends an ICMP error, which comes behind what is told of the drop
INTERRUPTED = 128
OUTPUTS = {
    "trace": steps.WATCHED,
    "trace --to": Output(object_of({
        **OWNER, "source": text("address of the probe; empty for none"), "to": text("as it was asked"),
        "arrived": flag("whether the probe did"),
        "outcome": choice("what its sender has seen", *journey.OUTCOMES), "why": text("in words"),
        "error": text("of the outcome; empty for none"),
        "errorFrom": text("who sent it; empty for the container's own kernel"),
        "steps": listed(object_of({
            "direction": choice("of the probe, or of its answer", journey.OUT, journey.BACK), **steps.KEYS,
        }), "chain by chain"),
        "kernelDrops": listed(object_of({
            "reason": text("of the kernel (dropreason-core.h)"), "function": text("of the kernel that has dropped it"),
        }), "drops that no rule has caused"),
        "seenAs": object_of({
            "source": text("as others see it"), "destination": text("where it leads"),
        }, meaning="by conntrack; empty without a flow"),
        "predicted": object_of({
            "may": choice("by explain; empty if it says nothing", "", reach.YES, reach.NO, reach.PERHAPS),
            "why": text("so"),
        }, meaning="what explain says of it"),
        "notes": texts("what one should know"),
    })),
}


@dataclass(frozen=True, slots=True)
class Traced:
    """A probe's way. ``predicted``: (yes, no or perhaps, why) by what ``explain`` says.

    ``seen_as``: (source, destination) as conntrack has translated them, "" where it has no such flow.
    """

    seen: Explained
    target: str
    source: str
    end: journey.End
    outcome: Outcome
    steps: list[tuple[str, Step]]
    drops: list[tuple[str, str]]
    predicted: tuple[str, str]
    seen_as: tuple[str, str]
    notes: tuple[str, ...]


def register(commands: Any) -> None:
    parser = commands.add_parser("trace", help="what happens to a container's packets, rule by rule; who drops them")
    parser.add_argument("container", metavar="CONTAINER", help="the start of a container id, an address, an interface")
    parser.add_argument("--to", metavar="ADDRESS[:PORT]",
                        help="send a ping there from inside, or open a TCP connection ([IPV6]:PORT); else only watch")
    parser.add_argument("--udp", action="store_true", help="send a UDP datagram to the port")
    parser.add_argument("--size", type=int, default=0, metavar="BYTES",
                        help="of the ping, which is not fragmented then")
    parser.add_argument("--source", metavar="ADDRESS", help="send it from this address, even if it is somebody else's")
    parser.add_argument("--rules", action="store_true", help="show every rule that matches, not only the last one")
    parser.add_argument("--drops", action="store_true", help="show only what drops packets")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many packets, or with --drops drops")
    parser.add_argument("--timeout", type=float, default=SECONDS, metavar="SECONDS",
                        help="how long to wait for an answer (%(default)g)")
    parser.add_argument("--data-dir", metavar="DIR", help="ipam.dataDir (default: all since the node was started)")
    parser.add_argument("--json", action="store_true", help="one JSON object; while watching one for each line")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    """
    :returns: 0 if the probe has arrived, 1 if not; while watching 0; 128 and a signal's number where one ends it.
    """
    from cni_v6.ctl.trace.probe import target
    from cni_v6.ctl.waiting import Interrupted, check_seconds, interruptible

    check_seconds("--timeout", chosen.timeout)
    if chosen.count is not None and chosen.count < 1:
        raise CniError(INVALID_CONFIG, f"--count {chosen.count} is no number of packets", "write 1 or more")
    to = target(chosen.to, udp=chosen.udp, size=chosen.size) if chosen.to else None
    with ExitStack() as stack:
        node = make_node()
        stack.callback(node.kernel.close)
        namespaces = stack.enter_context(Namespaces(node))
        try:
            waiting = stack.enter_context(interruptible())
            if to is None:
                from cni_v6.ctl.trace import watch

                return watch.run(_of(chosen, "", node, namespaces)[0], chosen, waiting)
            seen, predicted = _of(chosen, to.address, node, namespaces)
            traced = _traced(seen, predicted, to, chosen, namespaces, waiting)
        except Interrupted as signalled:
            number = int(signalled.args[0])
            print(f"cni-v6ctl: ended by {signal.Signals(number).name}", file=sys.stderr)
            return 0 if to is None and number == signal.SIGINT else INTERRUPTED + number
    if chosen.json:
        OUTPUTS["trace --to"].show(_document(traced))
    else:
        print("\n".join(_lines(traced, chosen)))
    return int(not traced.end.arrived)


# Who it is


def _of(
    chosen: argparse.Namespace, target: str, node: Context, namespaces: Namespaces
) -> tuple[Explained, tuple[str, str]]:
    """The container's attachment that has the family of the target, and what ``explain`` says of that."""
    known = list(places.peek(places.of_networks((), chosen.data_dir, node, leased=True), node))
    seen = node.kernel.observe([GetLinks(), GetSurroundings()])
    held = explain.find(chosen.container, known, seen.links(), seen.surroundings()).held
    if len({record.owner.container_id for _, record in held}) != 1:
        words = f"{chosen.container} is {'no container' if not held else 'not one container alone'}"
        raise CniError(INVALID_CONFIG, words, "cni-v6ctl list shows containers and addresses")
    fitting = [place for place in held if not target or _address(place[1], target)] or list(held)
    if not target and len(fitting) > 1:
        names = ", ".join(record.owner.ifname for _, record in fitting)
        raise CniError(INVALID_CONFIG, f"{chosen.container} has the interfaces {names}",
                       "name one of them: by its address, or by its host interface of cni-v6ctl list")
    other = next((place for place in known if target in place[1].addresses and place[1].host), None)
    wanted = {text for place in (fitting[0], other) if place for text in (*place[1].addresses, *place[1].prefixes)}
    facts = node_facts.read(wanted)
    own = explain.situation_of(fitting[0], seen.links(), facts, namespaces, node)
    its = explain.situation_of(other, seen.links(), facts, namespaces, node) if other else None
    nodes = {text.partition("/")[0] for _, text in seen.surroundings().addresses}
    return own, _predicted(own, its, target, is_node=target in nodes or is_link_local(target))


def _address(record: Attachment, target: str) -> str:
    if is_link_local(target):
        return record.policy.link_local if record.policy else ""
    return next((address for address in record.addresses if version(address) == version(target)), "")


def _predicted(own: Explained, its: Explained | None, target: str, *, is_node: bool) -> tuple[str, str]:
    stopped = cut_off(own.seen)
    if stopped:
        return reach.NO, stopped
    if its:
        same = its.seen.record.owner.network == own.seen.record.owner.network
        who = reach.NEIGHBOURS if same else reach.NETWORKS
        verdicts = (verdict for verdict in reach.reached(its.seen) if verdict.who == who and verdict.address == target)
        return next(((verdict.may, verdict.why) for verdict in verdicts), ("", ""))
    if is_node or not target:
        return "", ""
    found = (leaving for leaving in reach.leaving(own.seen) if version(leaving.address) == version(target))
    return next(((leaving.may, leaving.why) for leaving in found), ("", ""))


# The probe


def _traced(
    seen: Explained, predicted: tuple[str, str], to: Any, chosen: argparse.Namespace, namespaces: Namespaces,
    waiting: Any,
) -> Traced:
    from cni_v6.ctl.trace import listen
    from cni_v6.ctl.trace.probe import Probe
    from cni_v6.kernel.netns.throwaway import Opened

    record = seen.seen.record
    path = namespaces.find(record.netns) if any(record.netns) else None
    if path is None:
        raise CniError(INVALID_CONFIG, f"{record.owner} is not running: its network namespace is not found",
                       "cni-v6ctl gc frees what it had")
    source = places.address_of(chosen.source or "") or _address(record, to.address)
    with ExitStack() as stack:
        place = stack.enter_context(Opened(path))
        own = dict.fromkeys((*record.addresses, *([source] if source else [])))
        sent = record.owner.ifname, to.least_frame
        listener = stack.enter_context(listen.Listener(record.host, tuple(own), to.address, sent=sent))
        probe = Probe(place, to, record.owner.ifname, foreign=bool(chosen.source))
        stack.callback(probe.close)
        probe.bind(source)
        named = listen.names()
        probe.send()
        found, drops, outcome = _heard(listener, probe, named, chosen.timeout, waiting)
        notes = [f"the kernel's own drops are not told: {listener.without_drops}"] * bool(listener.without_drops)
        notes += ["some events were lost: the kernel had no room for them"] * listener.lost
    steps = journey.of_probe(found, probe.headers)
    told = outcome.kind in (journey.ANSWERED, journey.REFUSED) or any(journey.dropped(step) for _, step in steps)
    kernel = [] if told else [
        drop for drop in drops if drop[0] not in listen.OF_RULES
    ]
    why = predicted[1] if predicted[0] == reach.NO else ""
    return Traced(
        seen, str(to), probe.headers.source, journey.end(outcome, steps, kernel, why), outcome, steps, kernel,
        predicted, listen.translated(probe.headers), tuple(notes),
    )


def _heard(
    listener: Any, probe: Any, named: journey.Names, seconds: float, waiting: Any
) -> tuple[list[Step], list[tuple[str, str]], Outcome]:
    """Listen until the probe has an outcome, or a rule has dropped it, or the time is over."""
    import time

    events: list[Any] = []
    drops: list[tuple[str, str]] = []
    outcome: Outcome | None = probe.unsent
    deadline = time.monotonic() + seconds
    stopped = False
    while outcome is None and (left := deadline - time.monotonic()) > 0:
        told = (listener.heard.fileno(), *listener.drop_files())
        connecting = (probe.socket.fileno(),) if probe.connects else ()
        waiting.ready_files((*told, *(() if connecting else (probe.socket.fileno(),))), left, connecting)
        new = list(listener.events())
        events += new
        drops += listener.drops()
        outcome = probe.outcome()
        found = journey.of_probe(journey.steps(new, named, listener.own), probe.headers)
        if not stopped and any(journey.dropped(step) for _, step in found):
            stopped, deadline = True, min(deadline, time.monotonic() + AFTER_DROP)
    events += listener.events()
    drops += listener.drops()
    return journey.steps(events, named, listener.own), drops, outcome or Outcome(journey.SILENT)


# Output


def _lines(traced: Traced, chosen: argparse.Namespace) -> Iterator[str]:
    owner = traced.seen.seen.record.owner
    yield from screen.listed((("from", f"{owner}, {traced.source or 'no address'}"), ("to", traced.target)), margin=0)
    yield ""
    changes = journey.translations(traced.steps)
    before = ""
    for number, (way, step) in enumerate(traced.steps):
        if chosen.drops and not journey.dropped(step):
            continue
        if way != before:
            yield f"{'its answer' if way == BACK else 'the packet'}: {step.headers}"
        elif number in changes:
            yield f"  {changes[number]}"
        before = way
        yield from steps.lines(step, every=chosen.rules)
    source, destination = traced.seen_as
    if source not in ("", traced.source) or (destination and traced.steps and not chosen.drops
                                             and destination != traced.steps[0][1].headers.target):
        yield f"translated by conntrack: {destination} sees {source}"
    if before:
        yield ""
    yield from screen.wrapped("so", traced.end.words, 4)
    for note in traced.notes:
        yield from screen.wrapped("note", note, 6)


def _document(traced: Traced) -> Mapping[str, object]:
    """All of it as JSON."""
    owner = traced.seen.seen.record.owner
    return {
        "network": owner.network, "containerID": owner.container_id, "ifname": owner.ifname, "source": traced.source,
        "to": traced.target, "arrived": traced.end.arrived, "outcome": traced.outcome.kind, "why": traced.end.words,
        "error": traced.outcome.words, "errorFrom": traced.outcome.by,
        "steps": [{"direction": way, **steps.document(step)} for way, step in traced.steps],
        "kernelDrops": [{"reason": name, "function": function} for name, function in traced.drops],
        "seenAs": {"source": traced.seen_as[0], "destination": traced.seen_as[1]},
        "predicted": {"may": traced.predicted[0], "why": traced.predicted[1]}, "notes": list(traced.notes),
    }
