"""Many pods: a node that boots, 250 and 1,000 at a time on one node, and a node that has 5,000 attachments already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.bench.figures import Findings, Goal, Row, median, percentile
from tests.bench.node import Call, Done, Node, Outcome, Pair, Refused, cpu_ms, settle
from tests.bench.peers import DATA, NETWORK, VERSION, ipam
from tests.bench.setting import STAGES, Setting, Side, match, take_turns, times, turns

BRIDGES = 5


def boot(setting: Setting, found: Findings) -> None:
    """All pods of a node at once, before anything runs: ours has to start its engine first, and all are served."""
    pods = setting.sizes.pods
    speeds: tuple[list[float], list[float]] = ([], [])
    for _, order in turns(setting.sizes.bursts):
        with Pair(pods) as pair:
            sides = Side(setting.ours, pair.ours), Side(setting.peer, pair.peer)
            for who in order:
                speeds[who].append(sides[who].add(range(pods), pods).per_second)
                _each_has_its_own(sides[who].node, pods)
    figure, goal = f"boot: {pods} pods at once, before an engine runs", Goal(3, at_least=True)
    found.rows.append(Row(figure, "/s", median(speeds[0]), median(speeds[1]), goal))


def starts(setting: Setting, found: Findings) -> None:
    """So many pods created on one node and deleted again: what each waits, and what the CPU does for all."""
    stage = STAGES[-1]
    for pods in setting.sizes.nodes:
        with match(setting, pods) as sides:
            spent = [_created_and_deleted(side, pods, stage) for side in sides]
        for place, command in enumerate(("ADD", "DEL")):
            done = [outcomes[place].done for outcomes, _ in spent]
            for share in (0.5, 0.99):
                values = [percentile(times(each), share) for each in done]
                figure = f"{command}, {pods:,} pods, {stage} at a time, p{share * 100:.0f}"
                found.rows.append(Row(figure, "ms", values[0], values[1]))
            speeds = [outcomes[place].per_second for outcomes, _ in spent]
            found.rows.append(Row(f"{command}, {pods:,} pods, {stage} at a time", "/s", speeds[0], speeds[1]))
        cpu = [seconds * 1000 / pods for _, seconds in spent]
        found.rows.append(Row(f"CPU time for 1,000 pods that start and end, of {pods:,}", "s", cpu[0], cpu[1]))


def bridges(setting: Setting, found: Findings) -> None:
    """A node beside thousands of attachments over five bridges: the time that one more takes."""
    pods, few = setting.sizes.beside_bridges, setting.sizes.few
    node = Node(pods)
    try:
        side = Side(setting.ours, node)
        first = _one_more(side, pods, few)
        for bridge in range(BRIDGES):
            side.run([_call(side, "ADD", bridge, number) for number in range(pods - 1)], STAGES[0])
            settle()
        last = _one_more(side, pods, few)
    finally:
        node.close()
    figure = f"ADD + DEL beside {(pods - 1) * BRIDGES:,} attachments over {BRIDGES} bridges"
    found.rows.append(Row(figure, "ms", last, first, Goal(1.2), against="own, beside none"))


def newest(setting: Setting, found: Findings) -> None:
    """The reference plugins' newest release, where ``tools/reference`` has built it."""
    if setting.newest is None:
        words = "tools/reference has not built it"
        found.rows.append(Row("ADD against the newest reference", "ms", None, remark=words))
        return
    adds: tuple[list[Done], list[Done]] = ([], [])
    deletes: tuple[list[Done], list[Done]] = ([], [])
    pods = setting.sizes.pods
    with match(replace(setting, peer=setting.newest), pods) as sides:
        take_turns(adds, pods, lambda who, number: sides[who].add([number]).done)
        take_turns(deletes, pods, lambda who, number: sides[who].delete([number]).done, afterwards=settle)
    for command, done in (("ADD", adds), ("DEL", deletes)):
        values = [median(times(each)) for each in done]
        figure = f"{command}, sequential, p50, against the newest reference"
        found.rows.append(Row(figure, "ms", values[0], values[1], against=setting.newest.name))


def _each_has_its_own(node: Node, pods: int) -> None:
    """Each pod has an address of each family that no other has: a file of the store is one address."""
    leases = [name for name in node.command(["ls", f"{DATA}/{NETWORK}"]).split() if name[0].isdigit() or ":" in name]
    if len(leases) != 2 * pods or node.ports() != pods:
        raise Refused(f"{pods} pods have {len(leases)} addresses and {node.ports()} interfaces")


def _created_and_deleted(side: Side, pods: int, stage: int) -> tuple[tuple[Outcome, Outcome], float]:
    """The ADDs and DELs of all pods, and the CPU seconds of both, the engine's included."""
    engine = side.node.engine()
    before = cpu_ms(engine) if engine else 0.0
    outcomes = side.add(range(pods), stage), side.delete(range(pods), stage)
    settle()
    own = sum(done.cpu_ms for outcome in outcomes for done in outcome.done)
    return outcomes, (own + (cpu_ms(engine) if engine else 0.0) - before) / 1e3


def _one_more(side: Side, pods: int, count: int) -> float:
    """Milliseconds of an ADD and its DEL, on the first bridge."""
    spent: dict[str, list[float]] = {"ADD": [], "DEL": []}
    for _ in range(count + 1):
        for command, done in spent.items():
            done += times(side.run([_call(side, command, 0, pods - 1)]).done)
        settle()
    return sum(median(done[1:]) for done in spent.values())  # the first made the bridge


def _call(side: Side, command: str, bridge: int, number: int) -> Call:
    config: dict[str, Any] = {
        "cniVersion": VERSION, "name": f"{NETWORK}{bridge}", "type": side.plugins.bridge, "bridge": f"bench{bridge}",
        "isGateway": True, "ipam": ipam(side.plugins.ipam, *_subnets(bridge)), **side.plugins.keys,
    }
    return side.plugins.call(
        command, config, container=f"c{number}", netns=side.node.pod(number), ifname=f"eth{bridge}"
    )


def _subnets(bridge: int) -> Sequence[str]:
    return f"10.{100 + bridge}.0.0/16", f"fd00:{bridge}::/64"
