"""``trace`` without a probe: shows the packets of a container as they come and go, until Ctrl-C."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cni_v6.ctl import screen
from cni_v6.ctl.explained import Explained
from cni_v6.ctl.trace import listen, steps as written
from cni_v6.ctl.waiting import Waiting
from cni_v6.kernel.netfilter.trace import Event
from cni_v6.plan import journey
from cni_v6.plan.journey import Step

RECENT = 1000  # packets whose headers are remembered


@dataclass
class _Shown:
    """What has been shown. ``recent``: the packets of late, by number; ``count``, ``drops``: how many there were."""

    recent: dict[int, str] = field(default_factory=dict)
    count: int = 0
    drops: int = 0
    events: list[Event] = field(default_factory=list)

    def is_new(self, step: Step) -> bool:
        """Whether a packet has not been shown as it is now; it is noted."""
        words = str(step.headers)
        known = self.recent.get(step.number)
        if known is None:
            self.count += 1
            if len(self.recent) >= RECENT:
                self.recent.clear()
        self.recent[step.number] = words
        return known != words


def run(seen: Explained, chosen: argparse.Namespace, waiting: Waiting) -> int:
    """
    :returns: 0.
    :raises Interrupted: a signal has come.
    """
    record = seen.seen.record
    shown = _Shown()
    with listen.Listener(record.host, record.addresses, watched=(record.host,)) as listener:
        named = listen.names()
        for note in (f"the kernel's own drops are not told: {listener.without_drops}",) * bool(listener.without_drops):
            print("\n".join(screen.wrapped("note", note, 6)), flush=True)
        while chosen.count is None or (shown.drops if chosen.drops else shown.count) < chosen.count:
            waiting.ready_files((listener.heard.fileno(), *listener.drop_files()), None)
            steps = journey.steps(_whole(shown, listener.events()), named, listener.own)
            for line in (*_of_steps(steps, shown, chosen), *_of_kernel(listener.drops(), shown, chosen)):
                print(line, flush=True)
    return 0


def _whole(shown: _Shown, events: Iterable[Event]) -> list[Event]:
    """The events up to the last whole chain: a packet's chain is told at once, so the rest comes at once too."""
    shown.events += events
    ended = [number for number, event in enumerate(shown.events) if _ends(event)]
    whole = shown.events[:ended[-1] + 1] if ended else []
    del shown.events[:len(whole)]
    return whole


def _ends(event: Event) -> bool:
    return event.verdict in ("drop", "accept", "queue", "stolen")


def _of_steps(steps: Iterable[Step], shown: _Shown, chosen: argparse.Namespace) -> Iterator[str]:
    for step in steps:
        stopped = journey.dropped(step)
        if chosen.drops and not stopped:
            continue
        shown.drops += bool(stopped)
        if chosen.json:
            shown.is_new(step)
            yield written.WATCHED.encode({"number": step.number, **written.document(step)})
            continue
        if shown.is_new(step):
            yield str(step.headers)
        yield from written.lines(step, every=chosen.rules)
        if stopped:
            yield from screen.wrapped("  so", f"it is dropped: {stopped}", 6)


def _of_kernel(drops: Iterable[tuple[str, str]], shown: _Shown, chosen: argparse.Namespace) -> Iterator[str]:
    for reason, function in drops:
        if reason in listen.OF_RULES:
            continue
        shown.drops += 1
        told: Mapping[str, object] = {"kernelDrop": reason, "function": function,
                                      "why": journey.reason(reason, function)}
        yield written.WATCHED.encode(told) if chosen.json else f"dropped: {journey.reason(reason, function)}"
