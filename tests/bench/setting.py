"""What every scenario is given: who plays, how much of everything, and chance that is the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cni_v6.allocation.policy import RANDOM, SEQUENTIAL
from tests.bench.node import Call, Done, Node, Outcome, Pair, settle
from tests.bench.peers import Plugins

SEED = 6


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. The goals are for ``FULL``."""

    pods: int  # containers of one round of ADDs, then DELs
    rounds: int  # of those, one after another
    bursts: int  # rounds of all containers at each concurrency
    mixed: int  # calls
    few: int  # samples of what is slow on the peer's side: ipMasq, netavark, a cold node
    starts: int  # of an interpreter
    lease_steps: tuple[int, ...]
    lease_rounds: tuple[int, ...]  # the peer's, a step each; ours are always measured in the most of them
    stale: int
    own: int  # ADDs inside the engine
    soak: int  # ADDs, each with its DEL
    many: int  # containers at once on a bridge
    library_steps: tuple[int, ...]  # leases
    library_rounds: int
    library_patience: float  # seconds for the samples of one call beside one number of leases
    collect_steps: tuple[int, int]  # leases
    collect_stale: int
    beside: int  # ADDs, each with its DEL, of an engine beside the most leases
    churn: int  # ADDs, each with its DEL, through the library
    chaos: float  # minutes of faults
    nodes: tuple[int, ...]  # pods of a node that come and go together
    beside_bridges: int  # containers on each of five bridges
    trips: int  # requests with their responses, in a turn of a way of packets
    turns: int  # of those
    mib: int  # of a stream
    streams: int  # turns of those
    cluster: tuple[int, ...]  # nodes
    idle: float  # seconds in which an agent has nothing to do
    cuts: int  # of a link
    dense: int  # routed containers of a node
    densest: int  # where that ends if nothing breaks


FULL = Sizes(
    pods=100, rounds=2, bursts=3, mixed=200, few=20, starts=60, lease_steps=(0, 1_000, 10_000, 100_000),
    lease_rounds=(25, 25, 8, 3), stale=1_000, own=60, soak=3_000, many=1_000, library_steps=(0, 10_000, 1_000_000),
    library_rounds=200, library_patience=10.0, collect_steps=(2_000, 200_000), collect_stale=100, beside=1_000,
    churn=25_000, chaos=1, nodes=(250, 1_000), beside_bridges=1_001,
    trips=5_000, turns=9, mib=256, streams=9, dense=2_000, densest=3_000,
    cluster=(10, 100, 1_000), idle=120, cuts=10,
)
QUICK = Sizes(
    pods=30, rounds=1, bursts=1, mixed=60, few=3, starts=15, lease_steps=(0, 1_000, 10_000),
    lease_rounds=(6, 6, 3), stale=60, own=15, soak=200, many=100, library_steps=(0, 1_000, 10_000),
    library_rounds=20, library_patience=1.0, collect_steps=(200, 2_000), collect_stale=20, beside=100, churn=1_000,
    chaos=0.1, nodes=(50,), beside_bridges=21, trips=1_000, turns=1, mib=32, streams=1, dense=100,
    densest=200, cluster=(10,), idle=5, cuts=1,
)
STAGES = (10, 50)  # calls at a time
ORDERS = (SEQUENTIAL, RANDOM)


@dataclass(frozen=True, slots=True)
class Setting:
    """
    :param shim: ``ours`` through the Python executables.
    :param newest: the reference plugins' newest release; None if it is not there.
    :param library: the folder that has the package ``cni_v6`` behind ``ours``.
    :param orders: of the addresses of the churn through the library.
    """

    ours: Plugins
    shim: Plugins
    peer: Plugins
    library: Path
    sizes: Sizes
    orders: tuple[str, ...] = ORDERS
    newest: Plugins | None = None

    def random(self) -> random.Random:
        return random.Random(SEED)


@dataclass(frozen=True, slots=True)
class Side:
    """One player on its node."""

    plugins: Plugins
    node: Node

    def add(self, numbers: Sequence[int], at_once: int = 1) -> Outcome:
        """Attach these containers; raises Refused where one fails."""
        return self.run([self.plugins.add(self.node, number) for number in numbers], at_once)

    def delete(self, numbers: Sequence[int], at_once: int = 1) -> Outcome:
        return self.run([self.plugins.delete(self.node, number) for number in numbers], at_once)

    def run(self, calls: Sequence[Call], at_once: int = 1) -> Outcome:
        return self.node.run(calls, at_once).checked()


Sides = tuple[Side, Side]  # ours, the peer's


@contextmanager
def match(setting: Setting, pods: int) -> Iterator[Sides]:
    """Two empty nodes, and a first call on each: ours has its engine then, and both their bridge."""
    with Pair(pods) as pair:
        sides = Side(setting.ours, pair.ours), Side(setting.peer, pair.peer)
        for side in sides:
            side.add([0])
            side.delete([0])
        settle()
        yield sides


def turns(count: int, players: int = 2) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(number, who goes in which order: 0 is ours): by turns, and by turns who begins."""
    for number in range(count):
        yield number, tuple((number + place) % players for place in range(players))


def take_turns(
    done: tuple[list[Done], list[Done]], count: int, call: Callable[[int, int], Sequence[Done]],
    afterwards: Callable[[], None] = lambda: None,
) -> None:
    """So many calls of each side, by turns; ``call`` is given who (0 is ours) and the number."""
    for number, order in turns(count):
        for who in order:
            done[who].extend(call(who, number))
            afterwards()


def times(done: Sequence[Done]) -> list[float]:
    return [each.ms for each in done]
