"""ADD and DEL of the bridge plugins: one by one, many at a time, mixed; and on a cold node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Findings, Goal, Row, distribution, median, percentile
from tests.bench.node import Call, Done, Pair, Refused, cpu_ms, settle, size
from tests.bench.setting import STAGES, Setting, Side, Sides, match, take_turns, times, turns

MEMORY = str(Path(__file__).with_name("memory.py"))
LATENCY, THROUGHPUT = "latency", "throughput"


def sequential(setting: Setting, found: Findings) -> None:
    """One call at a time, by turns: latency, and CPU time with the engine's."""
    pods, rounds = setting.sizes.pods, setting.sizes.rounds
    adds: tuple[list[Done], list[Done]] = ([], [])
    deletes: tuple[list[Done], list[Done]] = ([], [])
    with match(setting, pods) as sides:
        before = _engine_cpu(sides[0])
        for _ in range(rounds):
            take_turns(adds, pods, lambda who, number: sides[who].add([number]).done)
            take_turns(deletes, pods, lambda who, number: sides[who].delete([number]).done, afterwards=settle)
        engine = (_engine_cpu(sides[0]) - before) / (pods * rounds)
    goals = {("ADD", 0.5): 0.30, ("ADD", 0.95): 0.12, ("DEL", 0.5): 0.12}
    for name, done in (("ADD", adds), ("DEL", deletes)):
        for share in (0.5, 0.95):
            limit = goals.get((name, share))
            values = [percentile(times(each), share) for each in done]
            figure = f"{name}, sequential, p{share * 100:.0f}"
            found.rows.append(Row(figure, "ms", values[0], values[1], Goal(limit) if limit else None))
        for player, each in zip(("cni-v6", "reference"), done):
            found.curve(LATENCY, f"{player} {name}", distribution(times(each)))
    cpu = [_mean_cpu(adds[who]) + _mean_cpu(deletes[who]) for who in (0, 1)]
    remark = f"{engine:.3g} ms of it in the engine"
    found.rows.append(Row("CPU time, ADD + DEL", "ms", cpu[0] + engine, cpu[1], Goal(0.4), remark=remark))


def bursts(setting: Setting, found: Findings) -> None:
    """All containers of a node at once, so many calls at a time; and what memory that takes."""
    pods = range(setting.sizes.pods)
    with match(setting, len(pods)) as sides:
        for stage in (1, *STAGES):
            adds: tuple[list[float], list[float]] = ([], [])
            deletes: tuple[list[float], list[float]] = ([], [])
            for _, order in turns(1 if stage == 1 else setting.sizes.bursts):
                for who in order:
                    adds[who].append(sides[who].add(pods, stage).per_second)
                    settle()
                for who in order:
                    deletes[who].append(sides[who].delete(pods, stage).per_second)
                    settle()
            _burst_rows(found, stage, len(pods), {"ADD": adds, "DEL": deletes})
        _memory(sides, found)


def mixed(setting: Setting, found: Findings) -> None:
    """ADDs and DELs mixed, ten at a time, of containers chosen at random: the same for both."""
    pods = setting.sizes.pods
    attached: set[int] = set()
    chance = setting.random()
    chosen = [chance.randrange(pods) for _ in range(setting.sizes.mixed)]
    commands = []
    for number in chosen:
        commands.append("DEL" if number in attached else "ADD")
        attached ^= {number}
    speeds: tuple[list[float], list[float]] = ([], [])
    with match(setting, pods) as sides:
        for _, order in turns(2):
            for who in order:
                calls = [_call(sides[who], command, number) for command, number in zip(commands, chosen)]
                speeds[who].append(sides[who].run(calls, STAGES[0]).per_second)
                settle()
                sides[who].delete(sorted(attached), STAGES[0])
                settle()
    figure = f"mixed ADD and DEL, {STAGES[0]} at a time"
    found.rows.append(Row(figure, "/s", median(speeds[0]), median(speeds[1])))


def cold(setting: Setting, found: Findings) -> None:
    """The first ADD on an empty node: ours pays for the imports, and for the bridge as the peer does."""
    first: tuple[list[float], list[float]] = ([], [])
    for _, order in turns(setting.sizes.few // 3):
        with Pair(1) as pair:
            sides = Side(setting.ours, pair.ours), Side(setting.peer, pair.peer)
            for who in order:
                first[who].extend(times(sides[who].add([0]).done))
    remark = "it starts the engine"
    found.rows.append(Row("the very first ADD of a node, p50", "ms", median(first[0]), median(first[1]), remark=remark))


def _call(side: Side, command: str, number: int) -> Call:
    make = side.plugins.add if command == "ADD" else side.plugins.delete
    return make(side.node, number)


def _engine_cpu(side: Side) -> float:
    engine = side.node.engine()
    return cpu_ms(engine) if engine else 0.0


def _mean_cpu(done: Sequence[Done]) -> float:
    return sum(each.cpu_ms for each in done) / len(done)


def _burst_rows(
    found: Findings, stage: int, pods: int, results: dict[str, tuple[list[float], list[float]]]
) -> None:
    goals = {("ADD", 10): Goal(3.5, at_least=True), ("DEL", 50): Goal(5, at_least=True)}
    for name, speeds in results.items():
        values = [median(each) for each in speeds]
        if stage > 1:
            figure = f"{name}, {pods} pods, {stage} at a time"
            found.rows.append(Row(figure, "/s", values[0], values[1], goals.get((name, stage))))
        for player, value in zip(("cni-v6", "reference"), values):
            points = found.curves.get(THROUGHPUT, {}).get(f"{player} {name}", [])
            found.curve(THROUGHPUT, f"{player} {name}", [*points, (stage, value)])


def _memory(sides: Sides, found: Findings) -> None:
    """The engine at its peak, after the bursts; and one call's largest process on either side."""
    peaks = []
    for side in sides:
        call = _call(side, "ADD", 0)
        text = json.dumps({"argv": call.argv, "env": dict(call.env), "stdin": call.stdin})
        peak, code = side.node.command(["python3", "-ISE", MEMORY], text).split()
        if code != "0":
            raise Refused(f"{side.plugins.name}: exit {code} under {MEMORY}")
        side.delete([0])
        peaks.append(int(peak) / 1024)
    settle()
    found.rows.append(Row("peak memory of a call, its largest process", "MiB", peaks[0], peaks[1], Goal(0.2)))
    engine = sides[0].node.engine()
    if engine:
        peak_mib = size(engine).peak_kib / 1024
        found.rows.append(Row("peak memory of the engine, once a node", "MiB", peak_mib, remark="the peer has none"))
