"""Findings as lines of 80 columns, as ``doctor`` and ``connectivity`` print them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cni_v6.ctl import screen
from cni_v6.ctl.output import Output, choice, listed, object_of, text
from cni_v6.plan.health.finding import FIXES, GREEN, LEVELS, Finding

INDENT = 7  # the longest level and two blanks
OUTPUT = Output(listed(object_of({
    "level": choice("the exit status is the place of the worst, from 0", *LEVELS), "check": text("what was looked at"),
    "message": text("what was seen"), "why": text("it matters; empty where all is well"),
    "remedy": text("what to do; empty where all is well"),
    "fix": choice("the command that doctor --fix runs for it", "", *FIXES),
}), "what was seen, from top to bottom"))


def lines(found: Finding) -> Iterator[str]:
    """One finding: what was seen; where it is not green, why it matters and what to do."""
    yield from screen.wrapped(found.level, f"{found.check}: {found.message}", INDENT)
    if found.level != GREEN:
        yield from screen.wrapped(" " * INDENT + "why:", found.why, INDENT + 5)
        yield from screen.wrapped(" " * INDENT + "do:", found.remedy, INDENT + 5)


def total(found: Sequence[Finding]) -> str:
    """How many there are of each level."""
    counts = {level: sum(finding.level == level for finding in found) for level in reversed(LEVELS)}
    return ", ".join(f"{count} {level}" for level, count in counts.items() if count) or "all is green"
