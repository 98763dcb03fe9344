"""A cluster's nodes on one etcd: how joining, hearing of each other and a mass restart grow with their number.

One agent is the program itself, on a node of its own: it is what is measured. The others are the same agents with their
kernels and disks in memory, in four processes. All of it and etcd share this machine's processors: the numbers of
messages and what one agent costs carry over to a cluster, the seconds do not.
"""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.figures import Findings, Row
from tests.bench.node import Refused, cpu_ms, size
from tests.bench.setting import Setting
from tests.cluster_load import POOLS, Process, asked
from tests.etcd import etcd
from tests.netns import cluster as lab, networks, wire
from tests.netns.cluster import UNDERLAY, Member
from tests.sandbox import PLUGIN_PATH

PROCESSES = 4
BLOCKS = 2  # of a node
REAL4 = "172.31.255.254/12"  # of the real node, on the link of the others
PATIENCE = 600.0
GATHER = 0.3  # seconds in which the kernel's news are left alone: whoever looks takes time of the agent
TIMES = 10  # a change, and a container
HOUR = 3600


@dataclass(frozen=True, slots=True)
class Scene:
    """``url``: of etcd. ``lan``: the network namespace that it and the simulated nodes are in."""

    url: str
    lan: str
    real: Member
    processes: list[Process]

    def asked(self) -> dict[str, int]:
        return wire.inside(f"/run/netns/{self.lan}", lambda: asked(self.url))

    def all(self, act: str, *arguments: Any) -> list[Any]:
        """Let the simulated nodes do something, all processes at the same time."""
        for process in self.processes:
            process.tell(act, *arguments)
        return [process.answer() for process in self.processes]

    def move(self) -> str:
        """The first of them gets another address: it."""
        self.processes[0].tell("move")
        return str(self.processes[0].answer())

    @property
    def agent(self) -> int:
        assert self.real.agent
        return self.real.agent.pid

    def status(self) -> dict[str, Any]:
        """What the real agent tells ``doctor``."""
        [file] = Path(self.real.node.environment["CNI_V6_RUN_DIR"]).glob("agent-*.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


class Counted:
    """What etcd was asked for since then, the seconds, and what the real agent has taken: CPU seconds, steps."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._before = self._now()

    def take(self) -> dict[str, float]:
        now = self._now()
        return {name: now[name] - before for name, before in self._before.items()}

    def _now(self) -> dict[str, float]:
        scene = self._scene
        return {**scene.asked(), "seconds": time.monotonic(), "cpu": cpu_ms(scene.agent) / 1000,
                "steps": scene.status()["steps"]}


def cluster(setting: Setting, found: Findings) -> None:
    for count in setting.sizes.cluster:
        with _scene(count) as scene:
            for figure, unit, value, remark in measure(scene, count, setting.sizes.idle):
                found.rows.append(Row(f"{count:,} nodes: {figure}", unit, value, remark=remark))


@contextmanager
def _scene(count: int) -> Iterator[Scene]:
    with ExitStack() as opened:
        made = opened.enter_context(lab.cluster("real", pools=POOLS))
        enter = ("nsenter", f"--net=/run/netns/{made.lan}", "--")
        server = opened.enter_context(etcd(lab.HOST, enter))
        made.store = f"etcd:{server.url}/test"
        [real] = made.members
        real.node.run("ip", "address", "add", REAL4, "dev", UNDERLAY)
        others = count - 1
        shares = [others // PROCESSES + (number < others % PROCESSES) for number in range(PROCESSES)]
        processes = [Process(f"{server.url}/test", sum(shares[:number]), share, enter)
                     for number, share in enumerate(shares)]
        for process in processes:
            opened.callback(process.close)
            process.answer()
        yield Scene(server.url, made.lan, real, processes)


Figure = tuple[str, str, float, str]  # what, unit, value, remark


def measure(scene: Scene, count: int, idle: float) -> Iterator[Figure]:
    """
    :raises Refused: a block was given twice.
    """
    yield from _join(scene, count)
    yield from _change(scene)
    yield from _containers(scene)
    yield from _restart_all(scene, count)
    yield from _operator(scene, count)
    yield from _reboot(scene, count)
    yield from _idle(scene, idle)


def _join(scene: Scene, count: int) -> Iterator[Figure]:
    scene.real.start()
    counted = Counted(scene)
    blocks = [block for answer in scene.all("join") for block in answer] + scene.real.blocks()
    if len(blocks) != BLOCKS * count or len(set(blocks)) != len(blocks):
        raise Refused(f"{len(blocks)} blocks of {count} nodes, {len(set(blocks))} of them different")
    _await_routes(scene.real, BLOCKS * count)
    joined = counted.take()
    yield ("all have joined", "s", joined["seconds"],
           f"{joined['commits']:,.0f} commits, {joined['reads']:,.0f} reads, {joined['messages']:,.0f} messages of "
           "watches; no block twice")
    yield "CPU time of one agent meanwhile", "s", joined["cpu"], f"{joined['steps']:.0f} steps"
    taken = size(scene.agent)
    yield "memory of one agent", "MiB", taken.rss_kib / 1024, f"{taken.peak_kib / 1024:.1f} at most"
    scene.all("settle", BLOCKS * count)
    scene.all("listen")


def _change(scene: Scene) -> Iterator[Figure]:
    counted = Counted(scene)
    scene.all("hear", "node-0", scene.move())
    moved = counted.take()
    yield ("all have heard of one change", "ms", 1000 * moved["seconds"], f"{moved['reads']:,.0f} reads, "
           f"{moved['messages']:,.0f} messages, {moved['bytes'] / 1024:,.0f} KiB")
    counted = Counted(scene)
    for _ in range(TIMES):
        address = scene.move()
        wire.await_state(scene.real.node.path, lambda: _has_way(scene.real, address), f"a route via {address}")
        _pass(GATHER)
    changed = counted.take()
    yield ("CPU time of one agent for a change of another node", "ms", 1000 * changed["cpu"] / TIMES,
           f"{changed['steps'] / TIMES:.1f} steps")


def _containers(scene: Scene) -> Iterator[Figure]:
    """What is none of the agent's business, but makes news in its namespace."""
    real = scene.real
    first = networks.Pod(real.node, real.config(), "first")
    first.add()
    _pass(GATHER)
    counted = Counted(scene)
    for number in range(TIMES):
        pod = networks.Pod(real.node, real.config(), f"pod{number}")
        pod.add()
        _pass(GATHER)
        pod.delete()
        _pass(GATHER)
    taken = counted.take()
    yield ("CPU time of one agent for a container that comes and goes", "ms", 1000 * taken["cpu"] / TIMES,
           f"{taken['steps'] / TIMES:.1f} steps")


def _restart_all(scene: Scene, count: int) -> Iterator[Figure]:
    counted = Counted(scene)
    scene.all("restart")
    scene.all("join")
    scene.all("settle", BLOCKS * count)
    again = counted.take()
    yield ("all are back after a restart of all but one", "s", again["seconds"],
           f"{again['commits']:,.0f} commits, {again['reads']:,.0f} reads, {again['bytes'] / (1 << 20):,.1f} MiB; "
           f"the one took {again['steps']:.0f} steps")


def _operator(scene: Scene, count: int) -> Iterator[Figure]:
    """All have reported what they measured, and somebody looks at it."""
    scene.all("report")
    begin = time.monotonic()
    said = scene.real.node.run(f"{PLUGIN_PATH[0]}/cni-v6ctl", "nodes", "--cluster", scene.real.cluster.store).stdout
    seconds = time.monotonic() - begin
    if len(said.splitlines()) != BLOCKS * count + 1:
        raise Refused(f"cni-v6ctl nodes has {len(said.splitlines())} lines")
    yield "cni-v6ctl nodes", "s", seconds, ""


def _reboot(scene: Scene, count: int) -> Iterator[Figure]:
    """The real one starts anew, and its kernel has no routes."""
    real = scene.real
    real.stop()
    for family in ("-6", "-4"):
        real.node.run("ip", family, "route", "flush", "proto", "166")
    before, begin = scene.asked(), time.monotonic()
    real.start()
    seconds = time.monotonic() - begin
    _await_routes(real, BLOCKS * count)
    _pass(GATHER)
    now = {name: value - before[name] for name, value in scene.asked().items()}
    yield ("one agent is ready after a reboot of its node", "s", seconds, f"{cpu_ms(scene.agent) / 1000:.2f} s of CPU "
           f"time; {now['commits']:.0f} commits, {now['reads']:.0f} reads, {now['bytes'] / (1 << 10):,.0f} KiB")


def _idle(scene: Scene, seconds: float) -> Iterator[Figure]:
    """Nothing changes. The agent has written its first report before."""
    deadline = time.monotonic() + PATIENCE
    while not json.loads(scene.status()["measured"])["at"]:
        if time.monotonic() > deadline:
            raise Refused("the agent has measured nothing")
        _pass(1)
    _pass(GATHER)
    counted = Counted(scene)
    _pass(seconds)
    idle = counted.take()
    hours, remark = idle["seconds"] / HOUR, f"{idle['seconds']:.0f} s measured"
    yield ("CPU time of one idle agent, an hour", "s", idle["cpu"] / hours, f"{remark}; {idle['steps']:.0f} steps")
    yield ("requests of all idle agents to etcd, an hour", "", (idle["reads"] + idle["commits"]) / hours,
           f"{remark}; {idle['messages']:.0f} messages")


def _pass(seconds: float) -> None:
    """Let time pass: an idle agent's is what is measured, and each change shall have a step of its own."""
    select.select([], [], [], seconds)


def _has_way(real: Member, address: str) -> bool:
    return bool(real.node.run("ip", "-6", "route", "show", "proto", "166", "via", address).stdout)


def _await_routes(real: Member, count: int) -> None:
    """Until the real node has so many routes of the agent."""
    deadline = time.monotonic() + PATIENCE
    with wire.events(real.node.path) as heard:
        heard.setblocking(False)
        while len(real.routes()) != count:
            if not select.select([heard], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Refused(f"{len(real.routes())} routes of {count}")
            _pass(GATHER)
            _drain(heard)


def _drain(heard: Any) -> None:
    while True:
        try:
            heard.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:  # more news than there is room for
            continue
