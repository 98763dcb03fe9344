"""A cluster's nodes on one etcd: how joining, hearing of each other and a mass restart grow with their number.

The agents are the real ones, with their kernels and disks in memory, in four processes; one more agent is watched in a
process of its own. All of it and etcd share this machine's processors: the numbers of messages and what one agent costs
carry over to a cluster, the seconds do not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.bench.figures import Findings, Row
from tests.bench.node import Refused
from tests.bench.setting import Setting
from tests.cluster_load import Process, asked
from tests.etcd import etcd, own_address

PROCESSES = 4
BLOCKS = 2  # of a node


class _Counted:
    """What etcd was asked for since then, and the seconds."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before, self._begin = asked(url), time.monotonic()

    def take(self) -> dict[str, float]:
        seconds, now = time.monotonic() - self._begin, asked(self._url)
        return {"seconds": seconds, **{name: now[name] - before for name, before in self._before.items()}}


def cluster(setting: Setting, found: Findings) -> None:
    for count in setting.sizes.cluster:
        with etcd(own_address()) as server, _processes(f"{server.url}/test", count - 1) as (observer, processes):
            _measure(count, server.url, observer, processes, found)


@contextmanager
def _processes(target: str, count: int) -> Iterator[tuple[Process, list[Process]]]:
    """One of a single node, the last one; those of the others."""
    each_has = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
    with ExitStack() as opened:
        made = [Process(target, sum(each_has[:number]), share) for number, share in enumerate([*each_has, 1])]
        for process in made:
            opened.callback(process.close)
            process.answer()
        yield made[-1], made[:-1]


def _all(processes: Sequence[Process], act: str, *arguments: Any) -> list[Any]:
    for process in processes:
        process.tell(act, *arguments)
    return [process.answer() for process in processes]


def _measure(
    count: int, url: str, observer: Process, processes: Sequence[Process], found: Findings
) -> None:
    """
    :raises Refused: a block was given twice.
    """
    entries = BLOCKS * count

    def add(figure: str, unit: str, value: float, remark: str = "") -> None:
        found.rows.append(Row(f"{count:,} nodes: {figure}", unit, value, remark=remark))

    counted = _Counted(url)
    observer.tell("observe", entries)
    blocks = [block for answer in _all(processes, "join") for block in answer]
    joined = counted.take()
    one = observer.answer()
    if len(blocks) != BLOCKS * (count - 1) or len(set(blocks)) != len(blocks):
        raise Refused(f"{len(blocks)} blocks of {count - 1} nodes, {len(set(blocks))} of them different")
    add("all have joined", "s", joined["seconds"], f"{joined['commits']:,.0f} commits, {joined['reads']:,.0f} reads, "
        f"{joined['messages']:,.0f} messages of watches; no block twice")
    add("CPU time of one agent meanwhile", "s", one["cpu"], f"{one['steps']} steps")
    add("memory of one agent", "MiB", one["kib"] / 1024)
    _all(processes, "settle", entries)
    _all(processes, "listen")
    counted = _Counted(url)
    processes[0].tell("move")
    address = processes[0].answer()
    _all(processes, "hear", "node-0", address)
    moved = counted.take()
    add("all have heard of one change", "ms", 1000 * moved["seconds"], f"{moved['reads']:,.0f} reads, "
        f"{moved['messages']:,.0f} messages, {moved['bytes'] / 1024:,.0f} KiB")
    counted = _Counted(url)
    _all(processes, "restart")
    _all(processes, "join")
    _all(processes, "settle", entries)
    again = counted.take()
    add("all are back after a restart of all but one", "s", again["seconds"], f"{again['commits']:,.0f} commits, "
        f"{again['reads']:,.0f} reads, {again['bytes'] / (1 << 20):,.1f} MiB")
