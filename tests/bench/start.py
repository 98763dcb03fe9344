"""What an executable costs before and beside its work: the courier, the shim, and a call without an engine."""

from __future__ import annotations

import shutil
import sysconfig
from dataclasses import replace
from pathlib import Path

from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Call, Done, Pair, settle
from tests.bench.peers import VERSION, without_engine
from tests.bench.setting import Setting, Side, match, take_turns, times, turns

FRONT_DOORS = "import sys; sys.path.append({!r}); import pyroute2, netaddr, filelock"


def shim(setting: Setting, found: Findings) -> None:
    """VERSION, which the engine answers from memory, against the same interpreter doing nothing."""
    idle = Call((*interpreter(setting.shim.folder / setting.shim.bridge), "-c", "pass"), {}, "", "idle")
    config = {"cniVersion": VERSION, "type": setting.ours.bridge}
    asked = [each.call("VERSION", config, container="", netns="") for each in (setting.shim, setting.ours)]
    calls = (*asked, idle)
    taken: tuple[list[float], ...] = ([], [], [])
    with match(setting, 1) as (ours, _):
        for _, order in turns(setting.sizes.starts, len(calls)):
            for which in order:
                taken[which].extend(times(ours.run([calls[which]]).done))
    values = [median(each) for each in taken]
    against = "python3 -ISE -c pass"
    found.rows.append(Row("start of the shim, p50", "ms", values[0], values[2], Goal(1.4), against=against))
    found.rows.append(Row("start of the courier, p50", "ms", values[1], values[2], against=against))


def python(setting: Setting, found: Findings) -> None:
    """ADD and DEL one at a time, as ``attach.sequential`` has them, through the Python executables."""
    pods = setting.sizes.pods
    adds: tuple[list[Done], list[Done]] = ([], [])
    deletes: tuple[list[Done], list[Done]] = ([], [])
    with match(replace(setting, ours=setting.shim), pods) as sides:
        take_turns(adds, pods, lambda who, number: sides[who].add([number]).done)
        take_turns(deletes, pods, lambda who, number: sides[who].delete([number]).done, afterwards=settle)
    for name, done in (("ADD", adds), ("DEL", deletes)):
        values = [median(times(each)) for each in done]
        found.rows.append(Row(f"{name} through Python, sequential, p50", "ms", values[0], values[1]))


def alone(setting: Setting, found: Findings) -> None:
    """An ADD in a process of its own, against importing the libraries that a plugin in Python usually starts with."""
    interpreted = interpreter(setting.shim.folder / setting.shim.bridge)
    imports = Call((*interpreted, "-c", FRONT_DOORS.format(sysconfig.get_path("purelib"))), {}, "", "imports")
    taken: tuple[list[float], list[float]] = ([], [])
    count = max(3, setting.sizes.starts // 6)
    with Pair(count) as pair:
        side = Side(without_engine(setting.shim), pair.ours)
        side.add([0])
        for number in range(1, count):
            taken[0].extend(times(side.add([number]).done))
            taken[1].extend(times(side.run([imports]).done))
    values = [median(each) for each in taken]
    figure = "ADD without an engine, p50"
    found.rows.append(Row(figure, "ms", values[0], values[1], Goal(0.5), against="import pyroute2, netaddr, filelock"))


def interpreter(executable: Path) -> tuple[str, ...]:
    """The words of an executable's "#!" line; ``env -S`` resolved, which costs an exec of its own."""
    words = executable.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#!").split()
    if words[0].endswith("/env"):
        words = [shutil.which(words[2]) or words[2], *words[3:]]
    return tuple(words)
