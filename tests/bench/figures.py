"""Figures of the benchmark: percentiles, ratios against their goals, and the table of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEAD = ("figure", "cni-v6", "peer", "ratio", "goal", "met", "remark")


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which this share (0 to 1) of the samples lies, interpolated between the two nearest.

    :raises ValueError: where there are no samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(samples: Sequence[float]) -> float:
    return percentile(samples, 0.5)


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for a ratio: at most, or at least."""

    limit: float
    at_least: bool = False

    def met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ours and of its peer.

    :param ours: None where ours cannot do it; ``remark`` says why.
    :param against: who the peer is, where it is not the reference plugin.
    """

    figure: str
    unit: str
    ours: float | None
    peer: float | None = None
    goal: Goal | None = None
    against: str = ""
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's."""
        return self.ours / self.peer if self.ours is not None and self.peer else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none, or nothing to judge."""
        return self.goal.met(self.ratio) if self.goal and self.ratio is not None else None

    def cells(self) -> tuple[str, ...]:
        """The row of the table, as ``HEAD``."""
        peer = self._amount(self.peer) + (f" ({self.against})" if self.against and self.peer is not None else "")
        ratio = "" if self.ratio is None else _three_digits(self.ratio)
        met = {None: "", True: "yes", False: "NO"}[self.met]
        return self.figure, self._amount(self.ours), peer, ratio, str(self.goal or ""), met, self.remark

    def to_json(self) -> dict[str, Any]:
        goal = str(self.goal) if self.goal else None
        rounded = {"ours": _rounded(self.ours), "peer": _rounded(self.peer), "ratio": _rounded(self.ratio)}
        return {"figure": self.figure, "unit": self.unit, **rounded, "goal": goal, "met": self.met,
                "against": self.against, "remark": self.remark}

    def _amount(self, value: float | None) -> str:
        return "-" if value is None else f"{_three_digits(value)} {self.unit}".rstrip()


@dataclass(slots=True)
class Findings:
    """What the scenarios found out.

    :param curves: for the plots: plot -> line -> points (x, y).
    :param ways: of packets: what was measured -> kind of attachment -> which way -> the figure.
    """

    rows: list[Row] = field(default_factory=list)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    ways: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def curve(self, plot: str, line: str, points: Sequence[tuple[float, float]]) -> None:
        self.curves.setdefault(plot, {})[line] = [(_digits(x), _digits(y)) for x, y in points]


def distribution(samples: Sequence[float]) -> list[tuple[float, float]]:
    """Points (value, percent of the samples up to it) of a cumulative distribution, at most 101 of them."""
    return [(percentile(samples, share / 100), float(share)) for share in range(101)]


def as_text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEAD))]
    right = {1, 2, 3, 4}  # numbers
    lines = [
        "  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in table
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def as_markdown(rows: Sequence[Row]) -> str:
    """The table for the documentation."""
    lines = [HEAD, ("---", "---:", "---:", "---:", "---:", "---", "---"), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def matrix(title: str, figures: Mapping[str, Mapping[str, float]]) -> str:
    """A table for the documentation: a line for each kind. What a kind does not have is ``-``."""
    columns = list(dict.fromkeys(name for own in figures.values() for name in own))
    lines = [
        (title, *columns), ("---", *("---:" for _ in columns)),
        *((kind, *(_three_digits(own[name]) if name in own else "-" for name in columns))
          for kind, own in figures.items()),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _digits(value: float) -> float:
    return round(value, 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else _digits(value)
