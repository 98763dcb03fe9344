"""The density of a node: thousands of routed containers, whether each is reached, and what grows with their number; and
what does with that of the containers of a bridge."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench import peers
from tests.bench.collect import GC_VERSION
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Call, Node, Refused, cpu_ms, settle, size
from tests.bench.paths import GUARDED
from tests.bench.peers import DATA, NETWORK
from tests.bench.setting import STAGES, Setting, Side

SWEEP = Path(__file__).parents[1] / "netns" / "sweep.py"
FLAT = Goal(1.2)
CHECK_FIRST, CHECK_LAST = "CHECK, the first", "CHECK, the last"
MEANT_FLAT = CHECK_FIRST, CHECK_LAST, "GC", "STATUS"
BRIDGED = 1_000  # containers of a bridge, which takes 1,023 ports
STEP = 1_000  # pods between two looks at whether all are reached
SPARE = 0.2  # of the machine's memory, which is left to others
KIB, GIB = 1 << 10, 1 << 30


@dataclass(frozen=True, slots=True)
class Look:
    """``calls``: the engine's CPU time for each beside the containers that are there, in milliseconds. ``descriptors``:
    of the engine."""

    calls: Mapping[str, float]
    descriptors: int


def density(setting: Setting, found: Findings) -> None:
    """The goal's number of containers beside the first, then on until something breaks."""
    sizes, ours = setting.sizes, replace(setting.ours, keys=GUARDED)
    node = Node(sizes.dense)
    try:
        side = Side(peers.routed(ours, "cni-v6-routed"), node)
        node.command(["ip", "-n", "pod0", "link", "set", "lo", "up"])  # it is to reach itself too
        _grown(side, sizes.dense, sizes.few, "routed", found)
        _everyone(node, sizes.dense)
        remark = "each, from the node and from another pod, by IPv6 and IPv4"
        figure = "pods of a node that answer"
        found.rows.append(Row(figure, "", sizes.dense, sizes.dense, against="pods", remark=remark))
        pods, what = _until_it_breaks(side, sizes.dense, sizes.densest)
        found.rows.append(Row("pods of a node until something breaks", "", pods, remark=what))
    finally:
        node.close()
    count = min(sizes.dense, BRIDGED)
    node = Node(count)
    try:
        _grown(Side(ours, node), count, sizes.few, "bridged", found)
    finally:
        node.close()


def _grown(side: Side, pods: int, looks: int, kind: str, found: Findings) -> None:
    """Attach containers: what a call takes beside the others, by what it takes beside none."""
    results = {0: _added(side, 0)}
    first = _look(side, results, looks)
    outcome = side.add(range(1, pods - 1), STAGES[0])
    results[pods - 1] = _added(side, pods - 1)
    settle()
    last = _look(side, results, looks)
    for command, taken in last.calls.items():
        before = first.calls[CHECK_FIRST if command == CHECK_LAST else command]
        figure = f"CPU time of the engine, {command}, {kind}, beside {pods - 1:,} containers"
        against = "own, beside none"
        found.rows.append(Row(figure, "ms", taken, before, FLAT if command in MEANT_FLAT else None, against))
    figure = f"descriptors of the engine, {pods:,} {kind} containers"
    found.rows.append(Row(figure, "", last.descriptors, first.descriptors, against="own, one container"))
    figure = f"ADD, {kind}, of {pods:,} pods, {STAGES[0]} at a time"
    found.rows.append(Row(figure, "/s", outcome.per_second))


def _look(side: Side, results: Mapping[int, Any], count: int) -> Look:
    """
    :param results: of the ADDs of the first container, and of the last if that is there.
    """
    node, plugins = side.node, side.plugins
    *_, newest = results
    valid = [{"containerID": f"c{number}", "ifname": "eth0"} for number in range(newest + 1)]
    calls = {name: plugins.call(name, plugins.config(), container="more", netns="/run/netns/more")
             for name in ("ADD", "DEL")}
    calls |= {
        "STATUS": _node_call(side, "STATUS"), "GC": _node_call(side, "GC", **{"cni.dev/valid-attachments": valid}),
        CHECK_FIRST: _check(side, 0, results),
    }
    if newest:
        calls[CHECK_LAST] = _check(side, newest, results)
    spent: dict[str, list[float]] = {name: [] for name in calls}
    node.command(["ip", "netns", "add", "more"])
    engine = node.engine()
    if engine is None:
        raise Refused("no engine was left behind")
    for _ in range(count):
        for name, call in calls.items():
            before = cpu_ms(engine)
            side.run([call])
            settle()
            spent[name].append(cpu_ms(engine) - before)
    node.command(["ip", "netns", "delete", "more"])
    return Look({name: median(values) for name, values in spent.items()}, size(engine).descriptors)


def _check(side: Side, number: int, results: Mapping[int, Any]) -> Call:
    config = side.plugins.config(prevResult=results[number])
    return side.plugins.call("CHECK", config, container=f"c{number}", netns=side.node.pod(number))


def _node_call(side: Side, command: str, **keys: Any) -> Call:
    config = {**side.plugins.config(), "cniVersion": GC_VERSION, **keys}
    return side.plugins.call(command, config, container="", netns="")


def _added(side: Side, number: int) -> Any:
    """Attach a container, and return the result."""
    call = side.plugins.add(side.node, number)
    variables = [f"{key}={value}" for key, value in call.env.items()]
    return json.loads(side.node.command(["env", "-i", *variables, *call.argv], call.stdin))


def _until_it_breaks(side: Side, pods: int, most: int) -> tuple[int, str]:
    """How many containers the node has when something breaks, and what: or when it is not to have more."""
    while pods < most:
        if _available() < SPARE * _memory():
            return pods, f"nothing broke: a fifth is left of the machine's {_memory() / GIB:.0f} GiB of memory"
        more = min(pods + STEP, most)
        try:
            side.node.grow(more)
            side.add(range(pods, more), STAGES[0])
            _everyone(side.node, more)
        except Refused as refused:
            return pods, f"at {more:,}: {refused}"
        pods = more
    return pods, "nothing broke: it has no more"


def _everyone(node: Node, pods: int) -> None:
    """Each container is reached, at an address of each family: from the node, and from the first container.

    :raises Refused: if one is not.
    """
    addresses = [name for name in node.command(["ls", f"{DATA}/{NETWORK}"]).split() if name[0].isdigit() or ":" in name]
    if len(addresses) != 2 * pods:
        raise Refused(f"{pods:,} containers have {len(addresses):,} addresses")
    for netns in ("", node.pod(0)):
        asked = json.dumps({"netns": netns, "addresses": addresses})
        answer = json.loads(node.command([sys.executable, "-ISE", str(SWEEP)], asked + "\n"))
        if answer["silent"]:
            raise Refused(f"{len(answer['silent']):,} addresses do not answer {netns or 'the node'}, the first is "
                          f"{answer['silent'][0]}")


def _available() -> int:
    """Bytes of memory that the machine has left."""
    return _meminfo()["MemAvailable"]


def _memory() -> int:
    return _meminfo()["MemTotal"]


def _meminfo() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return {key: int(value.split()[0]) * KIB for key, _, value in (line.partition(":") for line in lines)}
