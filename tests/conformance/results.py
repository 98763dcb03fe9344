"""What a run of Kubernetes' own tests says: its JUnit file, and what is kept of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
TEST = "[It] "  # the kind of node of the tree of tests (types.NodeType of ginkgo)
UNSELECTED = "skipped"  # a test that skips itself says why behind it (generateJUnitReport of ginkgo)


@dataclass(frozen=True)
class Outcome:
    """Of one test; ``reason``: why it failed or skipped itself. ``alone``: not in the run of all, but once more."""

    name: str
    state: str
    seconds: float
    reason: str = ""
    alone: bool = False


@dataclass(frozen=True)
class Times:
    """Seconds until pods that were made at once were ready."""

    pods: int
    half: float
    last: float


@dataclass(frozen=True)
class Run:
    """One cluster with one kind of network.

    :param left_out: tests that the selection would have, and that cannot be had here.
    """

    outcomes: Sequence[Outcome]
    left_out: Sequence[str] = ()
    minutes: float = 0.0
    times: Sequence[Times] = field(default=())

    def of(self, state: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state == state]

    def document(self) -> dict[str, Any]:
        return asdict(self)


def read_run(document: Mapping[str, Any]) -> Run:
    """What ``Run.document`` made."""
    return Run(
        [Outcome(**entry) for entry in document["outcomes"]], document["left_out"], document["minutes"],
        [Times(**entry) for entry in document["times"]])


def read_junit(text: str, selected: re.Pattern[str], left_out: re.Pattern[str]) -> Run:
    """A run from its JUnit file, in which ginkgo names every test that there is.

    :param selected: tests that are to run.
    :param left_out: those of them that are not.
    """
    outcomes, absent = [], []
    for case in ElementTree.fromstring(text).iter("testcase"):
        name = case.attrib["name"]
        outcome = Outcome(name.removeprefix(TEST), *_state(case))
        chosen = name.startswith(TEST) and selected.search(name)
        if chosen and left_out.search(name):
            absent.append(outcome.name)
        elif outcome.state == FAILED or (chosen and outcome.reason != UNSELECTED):
            outcomes.append(outcome)
    return Run(sorted(outcomes, key=lambda outcome: outcome.name), sorted(absent))


def again(before: Run, now: Run) -> Run:
    """A run, some of whose tests have run once more: what they said before does not count."""
    found = {outcome.name: outcome for outcome in before.outcomes}
    found |= {outcome.name: replace(outcome, alone=True) for outcome in now.outcomes}
    return replace(before, outcomes=[found[name] for name in sorted(found)])


def _state(case: ElementTree.Element) -> tuple[str, float, str]:
    """The state of a test, its seconds, and the reason."""
    seconds = round(float(case.attrib["time"]), 1)
    for tag in ("failure", "error"):
        if (found := case.find(tag)) is not None:
            return FAILED, seconds, _first_line(found.attrib.get("message") or found.text or tag)
    if (found := case.find("skipped")) is not None:
        return SKIPPED, seconds, found.attrib.get("message", "").removeprefix(f"{UNSELECTED} - ")
    return PASSED, seconds, ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
