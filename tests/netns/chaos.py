"""A node on which everything goes wrong: callers that never rest, faults one after the other, and a referee.

The callers behave as a runtime does: an ADD that failed is followed by a DEL, and a DEL that failed by another. The
referee asks ``ip``, ``nft`` and ``ping`` alone. All that is random comes from one seed.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from tests.netns import networks, nft, traffic
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, Pod
from tests.process.test_engine import processes_of, request, talk
from tests.sandbox import Node, Reply, make_call

CALLERS = 8
RESIDENTS = 4  # containers that stay through the faults, and do not call
CALLS = 6  # of each caller in a round
CONFIG = networks.gateway(*DUAL, ingress="published")
NETWORK = Path(networks.STORE) / str(CONFIG["name"])
DAY = 86400
PORT = 9000  # on which each container listens, and nobody outside may reach it


class State(Enum):
    """Of a container, as its runtime sees it."""

    NEW = "not attached"
    ATTACHED = "attached"
    ENDING = "its DEL failed"


@dataclass
class Caller:
    """One container after another, whose calls follow each other as a runtime makes them."""

    node: Node
    number: int
    choices: random.Random
    generation: int = 0
    known: Sequence[Mapping[str, str]] = ()  # all containers', as GC's list has them
    pod: Pod = field(init=False)
    state: State = State.NEW

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Another container."""
        self.generation += 1
        self.state = State.NEW
        self.pod = Pod(self.node, CONFIG, f"c{self.number}-{self.generation}")

    def act(self) -> None:
        """One call that makes sense now."""
        if self.state is State.NEW:
            self.attach()
            return
        chance = self.choices.random()
        if self.state is State.ATTACHED and chance < 0.4:
            self.pod.check()
        elif chance < 0.5:
            self.collect()
        else:
            self.detach()

    def attach(self) -> Reply:
        """ADD; a runtime has a DEL follow one that failed."""
        reply = self.pod.call("ADD")
        if reply.code == 0:
            self.pod.result = reply.stdout
            self.state = State.ATTACHED
        else:
            self.detach()
        return reply

    def detach(self) -> Reply:
        """DEL; a runtime makes another where it fails, and nothing else in between."""
        reply = self.pod.call("DEL")
        self.state = State.NEW if reply.code == 0 else State.ENDING
        return reply

    def collect(self) -> None:
        """GC, with the list of a runtime that knows every container that there may be."""
        self.node.plugin("cni-v6", "GC", {**CONFIG, "cni.dev/valid-attachments": self.known})

    def end(self) -> None:
        """The container is over. With the fault gone, its DEL succeeds."""
        self.detach().ok()
        if self.pod.name in self.node.containers:
            self.node.remove_container(self.pod.name)


@dataclass
class World:
    """A node, its callers, and who has begun how many calls in this round."""

    node: Node
    choices: random.Random
    outside: str
    callers: Sequence[Caller] = field(init=False)
    begun: threading.Semaphore = field(init=False)
    hurt: set[str] = field(default_factory=set)  # containers that a fault was aimed at
    generation: int = 0  # of the newcomer after a round

    def __post_init__(self) -> None:
        self.callers = [
            Caller(self.node, number, random.Random(self.choices.random())) for number in range(CALLERS + RESIDENTS)
        ]

    def round(self, fault: Callable[[World], None]) -> None:
        """Every caller makes its calls while the fault happens. Then all is quiet."""
        known = [{"containerID": caller.pod.name, "ifname": caller.pod.ifname} for caller in self.callers]
        for caller in self.callers:
            caller.known = known
        self.begun = threading.Semaphore(0)
        with ThreadPoolExecutor(CALLERS) as pool:
            lives = [pool.submit(self._live, caller) for caller in self.callers[:CALLERS]]
            for _ in range(self.choices.randrange(1, CALLERS * CALLS // 2)):
                self.begun.acquire()
            fault(self)
            for life in lives:
                life.result()

    def _live(self, caller: Caller) -> None:
        for _ in range(CALLS):
            self.begun.release()
            caller.act()

    def settle(self) -> None:
        """What a node sees next: a container more, those that were hurt begin anew, and every container is attached."""
        for caller in self.callers:
            if caller.state is State.ENDING or caller.pod.name in self.hurt:
                caller.end()
                caller.renew()
        self.hurt.clear()
        newcomer = Caller(self.node, len(self.callers), self.choices, self.generation)
        self.generation = newcomer.generation
        newcomer.attach().ok()
        newcomer.end()
        nft.ctl(self.node, "check", "--repair", check=False)  # a port that was taken out of its bridge
        for caller in self.callers:
            if caller.state is State.NEW:
                caller.attach().ok()

    def referee(self) -> None:
        """By ``ip``, ``nft`` and ``ping``: who should talk does, nobody else gets in, no address is held twice."""
        attached = [caller.pod for caller in self.callers]
        held: dict[str, str] = {}
        for pod in attached:
            for address in _addresses(self.node, pod.netns):
                assert address not in held, f"{address} is held by {held[address]} and by {pod.name}"
                held[address] = pod.name
            assert {pod.address(4), pod.address(6)} <= {name for name, owner in held.items() if owner == pod.name}
        assert networks.veths(self.node) == {pod.host for pod in attached}
        assert not self._strangers(attached), f"elements of what is over: {self._strangers(attached)}"
        self._pings(attached)

    def _strangers(self, attached: Sequence[Pod]) -> set[str]:
        """The comments of the firewall's elements that name no attached container."""
        names = {f"{CONFIG['name']} {pod.name}/{pod.ifname}" for pod in attached}
        return set(re.findall(r'"comment": "([^"]*)"', " ".join(sum(nft.held(self.node).values(), [])))) - names

    def _pings(self, attached: Sequence[Pod]) -> None:
        talking = [(pod.netns, gateway) for pod in attached for gateway in (GATEWAY4, GATEWAY6)]
        pairs = list(zip(attached, attached[1:]))
        talking += [(pod.netns, neighbour.address(family)) for pod, neighbour in pairs for family in (4, 6)]
        closed = [(pod.address(family), PORT) for pod in attached for family in (4, 6)]
        with ExitStack() as stack, ThreadPoolExecutor(CALLERS) as pool:
            for pod in attached:
                stack.enter_context(traffic.serving(pod.netns, PORT))
            stack.enter_context(traffic.unanswered(self.outside, *closed))
            answers = pool.map(lambda way: networks.ping(self.node, way[1], way[0]), talking)
            silent = [way for way, answered in zip(talking, answers) if not answered]
            assert not silent, f"no answer: {silent}"

    def end(self) -> None:
        """Every container ends; then nothing of them is left, on the node, in the firewall or in the store."""
        for caller in self.callers:
            caller.end()
        assert networks.veths(self.node) == set()
        assert nft.held(self.node) == {}, nft.held(self.node)
        assert networks.leases(self.node) == set()
        assert [path.name for path in self.node.file(str(NETWORK / "attachments")).glob("c*")] == []


def _addresses(node: Node, netns: str) -> Iterator[str]:
    for link in node.ip_json("address", "show", netns=netns):
        yield from (entry["local"] for entry in link["addr_info"] if entry["scope"] == "global")


def _engine(world: World) -> int | None:
    """An engine, not a caller: the one that has ended its start's session (setsid) and has no standard input."""
    for pid in processes_of(world.node):
        with suppress(OSError):
            if os.getsid(pid) == pid:
                return pid
    return None


def engine_killed(world: World) -> None:
    if pid := _engine(world):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def engine_stopped(world: World) -> None:
    """Stopped until as many callers as can wait for it do."""
    if not (pid := _engine(world)):
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    for _ in range(CALLERS // 2):
        if not world.begun.acquire(timeout=1):
            break  # all of them wait already
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def engine_ended(world: World) -> None:
    """It is told to stop, and serves whom it has accepted; the next call starts another."""
    nft.ctl(world.node, "engine", "--stop", check=False)


def engine_upgraded(world: World) -> None:
    """A caller of another version comes, as after an upgrade: so the engine ends once it has served the others."""
    status = make_call("cni-v6", "STATUS", CONFIG)
    with suppress(OSError):  # there is no engine
        talk(world.node, request(world.node, status, version="0.0.1"))


def tables_flushed(world: World) -> None:
    world.node.run("nft", "flush", "ruleset")


def rule_added(world: World) -> None:
    """Somebody lets everything in, in a chain of ours."""
    world.node.run("nft", "insert", "rule", "inet", "cni_v6", "forward_ingress", "accept", check=False)


def set_flushed(world: World) -> None:
    world.node.run("nft", "flush", "set", "inet", "cni_v6", "published6", check=False)


def bridge_down(world: World) -> None:
    """The kernel takes its IPv6 addresses away, and the routes."""
    world.node.run("ip", "link", "set", str(CONFIG["bridge"]), "down", check=False)


def gateway_removed(world: World) -> None:
    world.node.run("ip", "address", "flush", "dev", str(CONFIG["bridge"]), check=False)


def bridge_deleted(world: World) -> None:
    world.node.run("ip", "link", "delete", str(CONFIG["bridge"]), check=False)


def port_detached(world: World) -> None:
    ports = sorted(networks.veths(world.node))
    if ports:
        world.node.run("ip", "link", "set", world.choices.choice(ports), "nomaster", check=False)


def record_damaged(world: World) -> None:
    """Zeros in an attachment's record, as a power failure leaves them."""
    record = _some_record(world)
    with suppress(FileNotFoundError):
        record.write_bytes(bytes(record.stat().st_size))


def record_lost(world: World) -> None:
    _some_record(world).unlink(missing_ok=True)


def _some_record(world: World) -> Path:
    """The record of a container that will be another one after the round; a file that is not there if there is none."""
    folder = world.node.file(str(NETWORK / "attachments"))
    record = world.choices.choice(sorted(folder.glob("c*")) or [folder / "c"])
    world.hurt.add(record.name.partition(":")[0])
    return record


def disk_full(world: World) -> None:
    """Every byte of the store's file system is taken, until the round's callers have met that."""
    filler = world.node.file("/var/lib/cni/filler")
    world.node.run("mount", "-o", "remount,size=1m", "/var/lib/cni")
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for _ in range(CALLERS):
        world.begun.acquire(timeout=1)
    filler.unlink()


def clock_set(world: World) -> None:
    """A day forward or back: all that the store has is of yesterday or tomorrow, files and what is written in them."""
    days = world.choices.choice((-DAY, DAY))
    with _locked(world) as store:
        for path in (store / "attachments").glob("c*"):
            with suppress(ValueError):  # of a record that was damaged
                record = json.loads(path.read_text())
                path.write_text(json.dumps({**record, "created": record["created"] + days}))
        for path in store.rglob("*"):
            with suppress(FileNotFoundError):
                then = path.lstat().st_mtime + days
                os.utime(path, (then, then), follow_symlinks=False)


@contextmanager
def _locked(world: World) -> Iterator[Path]:
    """The network's store, while no call is in it (flock(2), as the plugins and the reference plugin take it)."""
    store = world.node.file(str(NETWORK))
    with (store / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield store


def namespace_gone(world: World) -> None:
    """A container's namespace vanishes under its calls."""
    caller = world.choices.choice(list(world.callers))
    if caller.pod.name in world.node.containers:
        world.node.remove_container(caller.pod.name)
        world.hurt.add(caller.pod.name)


FAULTS: tuple[Callable[[World], None], ...] = (
    engine_killed, engine_stopped, engine_ended, engine_upgraded, tables_flushed, rule_added, set_flushed,
    bridge_deleted, bridge_down, gateway_removed, port_detached, record_damaged, record_lost, disk_full, clock_set,
    namespace_gone,
)


@contextmanager
def world(node: Node, seed: str) -> Iterator[World]:
    outside = networks.outside(node)
    networks.set_up(node, CONFIG)
    with node.unchanged(ignore=r"address cni0 fe80:"):  # of a bridge without ports it comes with the next one
        made = World(node, random.Random(seed), outside)
        yield made
        made.end()


def run(
    node: Node, seed: str, more: Callable[[int], bool], done: Callable[[int, str], Any] = lambda number, name: None
) -> None:
    """Rounds, each with a fault; after each the referee.

    :param more: whether there is another round after so many.
    :param done: told of every round that was won.
    """
    with world(node, seed) as made:
        made.settle()
        order = list(FAULTS)
        for number in takewhile(more, count()):
            if number % len(order) == 0:
                made.choices.shuffle(order)
            fault = order[number % len(order)]
            try:
                made.round(fault)
                made.settle()
                made.referee()
            except BaseException:
                print(f"round {number}, {fault.__name__}, seed {seed}")
                raise
            done(number, fault.__name__)
