"""What is measured inside the engine, or without executables: its own time, and whether it grows."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from tests import sandbox
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Node, Pair, Refused
from tests.bench.setting import Setting, match
from tests.bench.start import interpreter
from tests.netns import chaos as faults

CLIENTS = 4
FLAT = 1.05


def own(setting: Setting, found: Findings) -> None:
    """The engine's time for an ADD against the same changes sent as ready-made bytes."""
    pods = 3 + 2 * setting.sizes.own
    with Pair(pods) as pair:
        asked = {"config": setting.ours.config(), "pods": [pair.ours.pod(number) for number in range(pods)]}
        answer = program(setting, pair.ours, "raw.py", asked)
    remark = f"{answer['requests']} requests, {answer['steps']} round trips and sysctls"
    values = median(answer["own"]), median(answer["raw"])
    figure = "ADD inside the engine, p50"
    found.rows.append(Row(figure, "ms", *values, Goal(2.5), against="the same on raw sockets", remark=remark))


def parts(setting: Setting, found: Findings) -> None:
    """Where the engine's time for an ADD goes."""
    with Pair(3 * setting.sizes.own) as pair:
        asked = {"config": setting.ours.config(),
                 "pods": [pair.ours.pod(number) for number in range(3 * setting.sizes.own)]}
        answer: dict[str, float] = program(setting, pair.ours, "parts.py", asked)
    for part, taken in sorted(answer.items(), key=lambda item: -item[1]):
        found.rows.append(Row(f"ADD inside the engine, CPU time: {part}", "ms", taken))
    found.rows.append(Row("ADD inside the engine, CPU time of all parts", "ms", sum(answer.values())))


def soak(setting: Setting, found: Findings) -> None:
    """Size of the engine after the first tenth, and at the end."""
    with match(setting, CLIENTS) as (ours, _):
        engine = ours.node.engine()
        if engine is None:
            raise Refused("no engine was left behind")
        asked = {
            "config": setting.ours.config(), "pods": [ours.node.pod(number) for number in range(CLIENTS)],
            "engine": engine, "count": setting.sizes.soak,
        }
        answer = program(setting, ours.node, "soak.py", asked)
        if ours.node.engine() != engine:
            raise Refused("the engine ended")
    first, last = answer["sizes"][0], answer["sizes"][-1]
    where = f"after {answer['count']:,} ADD and DEL"
    against = "own, after a tenth"
    for key, name, unit, scale, limit in (
        ("rss_kib", "memory of the engine", "MiB", 1024, FLAT), ("descriptors", "its descriptors", "", 1, 1.0),
        ("threads", "its threads", "", 1, 1.0),
    ):
        values = last[key] / scale, first[key] / scale
        found.rows.append(Row(f"{name} {where}", unit, *values, Goal(limit), against=against))


def chaos(setting: Setting, found: Findings) -> None:
    """Rounds of calls, each with a fault of the node, after each of which all is as it should be."""
    seed = os.environ.get("CHAOS_SEED") or secrets.token_hex(4)
    print(f"seed {seed} (CHAOS_SEED repeats it, here and in tests/netns/test_chaos.py) ... ", end="", flush=True)
    rounds: list[str] = []
    end = time.monotonic() + 60 * setting.sizes.chaos
    node = sandbox.Node(engine=True, plugins=str(setting.ours.folder))
    try:
        faults.run(node, seed, lambda _: time.monotonic() < end, lambda _, fault: rounds.append(fault))
    finally:
        node.close()
    remark = f"{len(set(rounds))} kinds, in {setting.sizes.chaos:g} minutes; a referee of ip, nft and ping after each"
    found.rows.append(Row("faults of the node that were survived", "", len(rounds), remark=remark))


def program(setting: Setting, node: Node, name: str, asked: dict[str, Any]) -> Any:
    """Run one of the programs beside this one on a node, with our interpreter and library. Returns its answer."""
    path = str(Path(__file__).with_name(name))
    python = interpreter(setting.shim.folder / setting.shim.bridge)
    return json.loads(node.command([*python, path, str(setting.library)], json.dumps(asked)))
