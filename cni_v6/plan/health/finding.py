"""A finding: how bad it is, what was seen, why it matters, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cni_v6.errors import CniError

GREEN, AMBER, RED = "green", "amber", "red"
# What harms nobody: it gives running containers what their records say, or frees what has provably ended. In order.
RELOAD, REPAIR, GC = "reload", "check --repair", "gc"
FIXES = (RELOAD, REPAIR, GC)
LEVELS = (GREEN, AMBER, RED)  # the exit status of doctor is the place of the worst


@dataclass(frozen=True, slots=True)
class Finding:
    """``check``: what was looked at. ``message``: what was seen. ``why`` and ``remedy`` are empty where all is well.

    ``fix``: the command that doctor may run by itself, one of FIXES; "" for none.
    """

    level: str
    check: str
    message: str
    why: str = ""
    remedy: str = ""
    fix: str = ""


def worst(findings: Iterable[Finding]) -> int:
    """The exit status: 0 if all are green, 1 with amber, 2 with red ones."""
    return max((LEVELS.index(finding.level) for finding in findings), default=0)


def of_error(level: str, check: str, error: CniError, why: str, fix: str = "") -> Finding:
    """A finding of an error, whose details say what to do."""
    return Finding(level, check, error.msg, why, error.details or "see the message", fix)


def share(part: float, whole: float) -> int:
    """A part in percent, rounded down."""
    return int(100 * part / whole) if whole else 100
