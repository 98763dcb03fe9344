"""The firewall's price: beside the reference plugins with theirs, beside ourselves without, and with many others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Call, Done, settle
from tests.bench.peers import NETAVARK, Netavark, portmap
from tests.bench.setting import STAGES, Setting, Side, match, take_turns, times, turns

# What is on by default, and masquerade; ours otherwise plays without, since the reference has neither.
EVERYTHING: dict[str, Any] = {"ingress": "published", "guard": True, "ipMasq": True}
# Neighbours can be wrong about an IPv4 address from which its MAC does not follow (cni_v6/plan/mac.py).
ANNOUNCED: dict[str, Any] = {"runtimeConfig": {"mac": "02:00:5e:00:53:01"}}
MORE_MS = 1.5  # that everything on may cost
PORTS = 32


def masquerade(setting: Setting, found: Findings) -> None:
    """With ``ipMasq`` on both sides; on ours closed and guarded too."""
    count = setting.sizes.few * 2
    adds: tuple[list[Done], list[Done]] = ([], [])
    deletes: tuple[list[Done], list[Done]] = ([], [])
    with match(setting, count) as sides:
        for side in sides:
            _once(side, 0)

        def call(command: str) -> Callable[[int, int], Sequence[Done]]:
            return lambda who, number: sides[who].run([_call(sides[who], command, number)]).done

        take_turns(adds, count, call("ADD"))
        take_turns(deletes, count, call("DEL"), afterwards=settle)
    for name, done, limit in (("ADD", adds, 0.12), ("DEL", deletes, 0.03)):
        values = [median(times(each)) for each in done]
        remark = "ours closed and guarded too"
        found.rows.append(Row(f"{name} with ipMasq, p50", "ms", values[0], values[1], Goal(limit), remark=remark))


def netavark(setting: Setting, found: Findings) -> None:
    """Podman's network stack as a second peer: on an internal network, without a firewall, and with its own."""
    if not NETAVARK.exists():
        found.rows.append(Row("ADD against netavark", "ms", None, remark=f"there is no {NETAVARK}"))
        return
    _beside_netavark(setting, found, Netavark(), {}, "without firewall")
    _beside_netavark(setting, found, Netavark(internal=False), EVERYTHING, "with firewall")


def _beside_netavark(
    setting: Setting, found: Findings, peer: Netavark, keys: Mapping[str, Any], words: str
) -> None:
    adds: tuple[list[Done], list[Done]] = ([], [])
    deletes: tuple[list[Done], list[Done]] = ([], [])
    with match(setting, setting.sizes.few) as (ours, theirs):
        makes = {
            "ADD": (partial(ours.plugins.add, ours.node, **keys), partial(peer.add, theirs.node)),
            "DEL": (partial(ours.plugins.delete, ours.node, **keys), partial(peer.delete, theirs.node)),
        }

        def call(command: str) -> Callable[[int, int], Sequence[Done]]:
            return lambda who, number: (ours, theirs)[who].run([makes[command][who](number)]).done

        for command in ("ADD", "DEL"):  # the first loads tables and kernel modules
            for who in (0, 1):
                call(command)(who, 0)
        settle()
        take_turns(adds, setting.sizes.few, call("ADD"))
        take_turns(deletes, setting.sizes.few, call("DEL"), afterwards=settle)
    for name, done in (("ADD against setup", adds), ("DEL against teardown", deletes)):
        values = [median(times(each)) for each in done]
        remark = f"both {words}; netavark has no IPAM"
        found.rows.append(Row(f"{name}, {words}, p50", "ms", values[0], values[1], against="netavark", remark=remark))


def bursts(setting: Setting, found: Findings) -> None:
    """The same, ten at a time."""
    pods, stage = range(setting.sizes.pods), STAGES[0]
    speeds: dict[str, tuple[list[float], list[float]]] = {"ADD": ([], []), "DEL": ([], [])}
    with match(setting, len(pods)) as sides:
        for side in sides:
            _once(side, 0)
        for _, order in turns(2):
            for command, results in speeds.items():
                for who in order:
                    calls = [_call(sides[who], command, number) for number in pods]
                    results[who].append(sides[who].run(calls, stage).per_second)
                    settle()
    for command, results in speeds.items():
        values = [median(each) for each in results]
        figure = f"{command} with ipMasq, {len(pods)} pods, {stage} at a time"
        goal = Goal({"ADD": 10, "DEL": 35}[command], at_least=True)
        found.rows.append(Row(figure, "/s", values[0], values[1], goal))


def ports(setting: Setting, found: Findings) -> None:
    """An ADD that publishes ports: the peer needs its ``portmap`` plugin beside the bridge."""
    count = setting.sizes.few // 2
    mappings = [{"hostPort": 20_000 + number, "containerPort": 80, "protocol": "tcp"} for number in range(PORTS)]
    adds: tuple[list[float], list[float]] = ([], [])
    with match(setting, 1) as (ours, theirs):
        given = {**EVERYTHING, "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": mappings}}
        for _, order in turns(count):
            for who in order:
                side = (ours, theirs)[who]
                if side is ours:
                    add, delete = [_call(ours, "ADD", 0, **given)], [_call(ours, "DEL", 0)]
                else:
                    add = [_call(theirs, "ADD", 0), portmap(theirs.plugins, theirs.node, "ADD", mappings)]
                    delete = [portmap(theirs.plugins, theirs.node, "DEL", mappings), _call(theirs, "DEL", 0)]
                adds[who].append(sum(times([done for each in add for done in side.run([each]).done])))
                for each in delete:
                    side.run([each])
                settle()
    figure, remark = f"ADD with {PORTS} published ports, p50", "the peer's bridge and portmap"
    found.rows.append(Row(figure, "ms", median(adds[0]), median(adds[1]), Goal(0.2), remark=remark))


def price(setting: Setting, found: Findings) -> None:
    """Everything on against everything off, both ours, on one node."""
    with match(setting, 1) as (ours, _):
        _once(ours, 0)
        on, off = _by_turns(ours, setting.sizes.few * 2, EVERYTHING, {})
    for name, with_it, without in zip(("ADD", "DEL"), on, off):
        remark = f"{with_it:.3g} ms against {without:.3g}"
        figure = f"{name}, closed, guarded, masqueraded: how much more than without"
        found.rows.append(Row(figure, "ms", with_it - without, MORE_MS, Goal(1), against="allowed", remark=remark))


def many(setting: Setting, found: Findings) -> None:
    """The last of many containers against the first, without a firewall, and with an announcement; and the peer's."""
    count, few = setting.sizes.many, setting.sizes.few
    with match(setting, count) as (ours, theirs):
        _once(ours, 0)
        first_on, first_off = map(sum, _by_turns(ours, few, EVERYTHING, {}))
        ours.run([_call(ours, "ADD", number) for number in range(1, count)], STAGES[0])
        settle()
        last_on, last_off, announced = map(sum, _by_turns(ours, few, EVERYTHING, {}, EVERYTHING | ANNOUNCED))
        theirs.add(range(1, count), STAGES[0])
        settle()
        [their_last] = map(sum, _by_turns(theirs, few, {}))
    where = f"beside {count - 1:,} containers"
    remark = f"without a firewall {last_off:.3g} ms against {first_off:.3g}"
    found.rows.append(Row(f"ADD + DEL {where}, without a firewall", "ms", last_off, their_last))
    figure = f"ADD + DEL {where}, everything on"
    found.rows.append(Row(figure, "ms", last_on, first_on, Goal(1.2), against="own, beside none", remark=remark))
    found.rows.append(Row(f"the same {where}", "ms", last_on, last_off, Goal(1.2), against="own, everything off"))
    remark = "a MAC was asked for, so the bridge carries an announcement to each"
    figure = f"the same {where}, IPv4 address announced"
    found.rows.append(Row(figure, "ms", announced, last_on, against="own, without", remark=remark))


def _by_turns(side: Side, count: int, *ways: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Medians (ADD, DEL) with the keys of each way, in turns."""
    spent: list[tuple[list[float], list[float]]] = [([], []) for _ in ways]
    for _, order in turns(count, len(ways)):
        for who in order:
            for make, done in zip((side.plugins.add, side.plugins.delete), spent[who]):
                done += times(side.run([make(side.node, 0, **ways[who])]).done)
            settle()
    return [(median(adds), median(deletes)) for adds, deletes in spent]


def _call(side: Side, command: str, number: int, **keys: Any) -> Call:
    make = side.plugins.add if command == "ADD" else side.plugins.delete
    if keys:
        return make(side.node, number, **keys)
    return make(side.node, number, **(EVERYTHING if side.plugins.keys else {"ipMasq": True}))


def _once(side: Side, number: int) -> None:
    """What the first of all loads, tables and kernel modules, is not what is measured."""
    for command in ("ADD", "DEL"):
        side.run([_call(side, command, number)])
    settle()
