"""Counts the calls of an engine. A call costs some additions; the text is made when somebody asks for it. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from threading import Lock

from cni_v6.engine.exposition import Sample
from cni_v6.protocol.invocation import COMMANDS, Report, Request

# Upper bounds in seconds: an ADD takes some milliseconds, one that waits for a lock or another plugin up to a minute.
CALLS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STEPS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
NETWORKS = 64  # that are counted by name: names come with calls, and each one costs memory for the engine's life
OTHER = "(other)"  # the networks after them; no network can have this name


class Histogram:
    """How many values were at most each of some bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, name: str, labels: tuple[str, ...]) -> Iterator[Sample]:
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts):
            total += count
            yield Sample(name, total, labels, "_bucket", bound)
        yield Sample(name, self._sum, labels, "_sum")
        yield Sample(name, total, labels, "_count")


class Counters:
    """What an engine has counted since its start. For any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._networks: set[str] = set()
        self._calls: dict[tuple[str, str, str, str], int] = {}
        self._durations: dict[str, Histogram] = {}
        self._steps: dict[tuple[str, str], Histogram] = {}
        self._reclaimed: dict[str, int] = {}
        self._events = 0
        self._lost = 0
        self.busy = 0  # calls that are being handled

    def begin(self) -> None:
        """A call is handled from now on."""
        with self._lock:
            self.busy += 1

    def end(self) -> None:
        """A call that had begun is answered."""
        with self._lock:
            self.busy -= 1

    def event(self) -> None:
        """The engine has said something by itself."""
        with self._lock:
            self._events += 1

    def lose(self) -> None:
        """A line of the log could not be written."""
        with self._lock:
            self._lost += 1

    def call(self, report: Report, request: Request) -> None:
        """Count a call that has ended."""
        call = report.call
        given = call.command if call else request.env.get("CNI_COMMAND", "")
        command = given if given in COMMANDS else ""
        code = str(report.error.code) if report.error else "0"
        with self._lock:
            network = self._known(call.network) if call else ""
            key = request.plugin if call else "", command, network, code
            self._calls[key] = self._calls.get(key, 0) + 1
            durations = self._durations.get(command) or self._durations.setdefault(command, Histogram(CALLS))
            durations.add(sum(report.steps.seconds.values()))
            for step, seconds in report.steps.seconds.items():
                of_step = (command, step)
                (self._steps.get(of_step) or self._steps.setdefault(of_step, Histogram(STEPS))).add(seconds)
            if call and call.log.reclaimed:
                self._reclaimed[network] = self._reclaimed.get(network, 0) + call.log.reclaimed

    def samples(self) -> list[Sample]:
        with self._lock:
            return list(self._samples())

    def _samples(self) -> Iterator[Sample]:
        for labels, count in sorted(self._calls.items()):
            yield Sample("cni_v6_calls_total", count, labels)
        for command, durations in sorted(self._durations.items()):
            yield from durations.samples("cni_v6_call_duration_seconds", (command,))
        for of_step, durations in sorted(self._steps.items()):
            yield from durations.samples("cni_v6_step_duration_seconds", of_step)
        for network, count in sorted(self._reclaimed.items()):
            yield Sample("cni_v6_reclaimed_total", count, (network,))
        yield Sample("cni_v6_events_total", self._events)
        yield Sample("cni_v6_log_lost_total", self._lost)

    def _known(self, network: str) -> str:
        if network in self._networks or len(self._networks) < NETWORKS:
            self._networks.add(network)
            return network
        return OTHER
