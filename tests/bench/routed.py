"""Routed containers: their ADD and DEL beside the reference's ``ptp``, and beside ours on a bridge."""

from __future__ import annotations

from dataclasses import replace

from tests.bench import peers
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Done, settle
from tests.bench.paths import GUARDED
from tests.bench.peers import Plugins
from tests.bench.setting import Setting, match, take_turns, times


def sequential(setting: Setting, found: Findings) -> None:
    """One call at a time, by turns, open; then ours with all that is on by default, against ours on a bridge."""
    pods = setting.sizes.pods
    for ours, peer, against, goal in (
        (peers.routed(setting.ours, "cni-v6-routed"), peers.routed(setting.peer, "ptp"), "ptp", Goal(0.6)),
        (peers.routed(_guarded(setting.ours), "cni-v6-routed"), _guarded(setting.ours), "cni-v6", None),
    ):
        adds: tuple[list[Done], list[Done]] = ([], [])
        deletes: tuple[list[Done], list[Done]] = ([], [])
        with match(replace(setting, ours=ours, peer=peer), pods) as sides:
            take_turns(adds, pods, lambda who, number: sides[who].add([number]).done)
            take_turns(deletes, pods, lambda who, number: sides[who].delete([number]).done, afterwards=settle)
        what = "routed" if goal else "routed, closed and guarded"
        for name, done in (("ADD", adds), ("DEL", deletes)):
            values = [median(times(each)) for each in done]
            found.rows.append(Row(f"{name}, {what}, p50", "ms", values[0], values[1], goal, against))


def _guarded(plugins: Plugins) -> Plugins:
    return replace(plugins, keys=GUARDED)
