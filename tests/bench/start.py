"""What an executable costs before and beside its work: the shim, and a call without an engine."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Call, Pair
from tests.bench.peers import VERSION, without_engine
from tests.bench.setting import Setting, Side, match, times

FRONT_DOORS = "import sys; sys.path.append({!r}); import pyroute2, netaddr, filelock"


def shim(setting: Setting, found: Findings) -> None:
    """VERSION, which the engine answers from memory, against the same interpreter doing nothing."""
    python = interpreter(setting.ours.folder / setting.ours.bridge)
    idle = Call((*python, "-c", "pass"), {}, "", "idle")
    taken: tuple[list[float], list[float]] = ([], [])
    with match(setting, 1) as (ours, _):
        config = {"cniVersion": VERSION, "type": ours.plugins.bridge}
        version = ours.plugins.call("VERSION", config, container="", netns="")
        for number in range(setting.sizes.starts):
            for who in (0, 1) if number % 2 == 0 else (1, 0):
                taken[who].extend(times(ours.run([(version, idle)[who]]).done))
    values = [median(each) for each in taken]
    against = "python3 -ISE -c pass"
    found.rows.append(Row("start of the shim, p50", "ms", values[0], values[1], Goal(1.4), against=against))


def alone(setting: Setting, found: Findings) -> None:
    """An ADD in a process of its own, against importing the libraries that a plugin in Python usually starts with."""
    python = interpreter(setting.ours.folder / setting.ours.bridge)
    imports = Call((*python, "-c", FRONT_DOORS.format(sysconfig.get_path("purelib"))), {}, "", "imports")
    taken: tuple[list[float], list[float]] = ([], [])
    count = max(3, setting.sizes.starts // 6)
    with Pair(count) as pair:
        side = Side(without_engine(setting.ours), pair.ours)
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
