"""Whether anything grows: calls of the library, GC and the engine's memory beside a million leases; a long churn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cni_v6.allocation.policy import RANDOM, SEQUENTIAL
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.filled import SUBNETS
from tests.bench.library import COLLECTIONS
from tests.bench.inside import CLIENTS, FLAT, program
from tests.bench.node import Node, Pair, Refused
from tests.bench.peers import DATA, NETWORK, ipam
from tests.bench.setting import Setting, Side

CHURN = "churn"
V4, V6 = SUBNETS
GROWTH = Goal(1.2)
BYTES = 5_000  # of memory that a lease takes on tmpfs: half a record and half a file of two names, a page each
ROOM = "MemAvailable"  # /proc/meminfo


def library(setting: Setting, found: Findings) -> None:
    """Each call of the store beside ever more leases, against itself beside none; GC likewise."""
    sizes = setting.sizes
    if lacking := _lacking(sum(sizes.library_steps)):
        found.rows.append(Row(f"library beside {sizes.library_steps[-1]:,} leases", "ms", None, remark=lacking))
        return
    asked = {
        "folder": DATA, "networks": [(f"leases{count}", count) for count in sizes.library_steps],
        "rounds": sizes.library_rounds, "patience": sizes.library_patience, "collect": sizes.collect_steps,
        "stale": sizes.collect_stale,
    }
    with Pair(0) as pair:
        answer = program(setting, pair.ours, "library.py", asked)
    first, *more = sizes.library_steps
    for name, times in answer["samples"].items():
        own = median(times[0])
        for count, each in zip(more, times[1:]):
            found.rows.append(Row(f"library, {name}, beside {count:,} leases", "ms", median(each), own, GROWTH,
                                  against=f"own, beside {first}", remark=_few(len(each))))
    few, many = sizes.collect_steps
    for plugin, (own, taken) in answer["collected"].items():
        figure = f"library, GC of {sizes.collect_stale} stale attachments among {many // 2:,} by {plugin}"
        found.rows.append(Row(figure, "ms", taken, own, Goal(3), against=f"own, among {few // 2:,}",
                              remark=f"{COLLECTIONS} measured"))
    own, taken = answer["listed"]
    found.rows.append(Row(f"library, {many // 2:,} names as the folder and the runtime list them, as two sets", "ms",
                          taken, own, against=f"own, of {few // 2:,}", remark=f"{COLLECTIONS} measured"))


def memory(setting: Setting, found: Findings) -> None:
    """The engine's size after the same ADDs and DELs, on a node with a million leases and on one with none."""
    leases = setting.sizes.library_steps[-1]
    figure = f"memory of the engine beside {leases:,} leases"
    if lacking := _lacking(leases):
        found.rows.append(Row(figure, "MiB", None, remark=lacking))
        return
    config = setting.ours.config(ipam=ipam(setting.ours.ipam, *SUBNETS))
    resident = []
    with Pair(CLIENTS) as pair:
        for node, count in ((pair.ours, 0), (pair.peer, leases)):
            asked = {"folder": DATA, "networks": [(NETWORK, count)], "rounds": 0, "patience": 0, "collect": [],
                     "stale": 0}
            program(setting, node, "library.py", asked)
            resident.append(_resident(setting, node, config) / 1024)
    remark = f"after {setting.sizes.beside:,} ADD and DEL"
    found.rows.append(Row(figure, "MiB", resident[1], resident[0], Goal(FLAT), against="own, beside 0", remark=remark))


def churn(setting: Setting, found: Findings) -> None:
    """Containers that come and go on one set: no address twice, and the last tenth costs what the first does."""
    count = setting.sizes.churn
    with Pair(0) as pair:
        for subnet, order in ((V6, SEQUENTIAL), (V6, RANDOM), (V4, SEQUENTIAL)):
            if order not in setting.orders:
                continue
            what = f"/{subnet.partition('/')[2]}, {order}"
            network = f"{order}{len(subnet)}"
            asked = {"folder": DATA, "network": network, "subnet": subnet, "order": order, "count": count}
            answer = program(setting, pair.ours, "turnover.py", asked)
            if answer["repeated"]:
                raise Refused(f"{what}: {answer['repeated']} addresses of {count:,} came twice")
            figure = f"library, {count:,} ADD and DEL on a {what}: the last tenth, p50"
            remark = f"no address twice; {count / answer['seconds']:,.0f} ADD and DEL a second"
            found.rows.append(Row(figure, "us", answer["last"], answer["first"], GROWTH, against="own, the first tenth",
                                  remark=remark))
            found.curve(CHURN, what, answer["curve"])


def _resident(setting: Setting, node: Node, config: dict[str, Any]) -> int:
    """KiB of a node's engine when it has served a while."""
    side = Side(setting.ours, node)
    for command in ("ADD", "DEL"):
        side.run([setting.ours.call(command, config, container="c0", netns=node.pod(0))])
    engine = node.engine()
    if engine is None:
        raise Refused("no engine was left behind")
    pods = [node.pod(number) for number in range(CLIENTS)]
    asked = {"config": config, "pods": pods, "engine": engine, "count": setting.sizes.beside}
    return int(program(setting, node, "soak.py", asked)["sizes"][-1]["rss_kib"])


def _lacking(leases: int) -> str:
    """What keeps so many leases from being made in memory; "" for nothing."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    free = next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(ROOM))
    return "" if leases * BYTES < free else f"takes {leases * BYTES >> 20} MiB, {free >> 20} are free"


def _few(samples: int) -> str:
    return f"{samples} measured" if samples < 10 else ""
