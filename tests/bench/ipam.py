"""IPAM alone, with ever more leases in the store: ``cni-v6-ipam`` against ``host-local``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import islice

from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Call, Node, Pair
from tests.bench.peers import DATA, VERSION, Plugins, ipam
from tests.bench.setting import Setting, Side, Sides

SUBNETS = ("10.0.0.0/8", "fd00:88::/64")
LEASES = "leases"

Samples = dict[tuple[int, int, str], list[float]]  # (side, leases, command) -> ms


def leases(setting: Setting, found: Findings) -> None:
    """A network for each number of leases, all at once on the node, and calls by turns: what drifts hits all alike."""
    steps = setting.sizes.lease_steps
    with Pair(1) as pair:
        sides = Side(setting.ours, pair.ours), Side(setting.peer, pair.peer)
        for side in sides:
            for count in steps:
                populate(side.node, _network(count), count)
        imports = {count: _add_and_delete(sides[0], count, "first")[0] for count in steps}
        samples = _measure(setting, sides)
    _rows(found, samples, steps)
    last = steps[-1]
    remark = "once after a move from host-local"
    found.rows.append(Row(f"IPAM, first call on {last:,} leases of host-local", "ms", imports[last], remark=remark))


def populate(node: Node, network: str, count: int) -> None:
    """So many leases, half of each family, written as host-local does: a file an address, and the last one of a set."""
    folder = node.file(f"{DATA}/{network}")
    folder.mkdir(parents=True)
    for index, subnet in enumerate(SUBNETS):
        last = ""
        for number, address in enumerate(addresses(subnet, count // 2)):
            (folder / address).write_bytes(f"stays{number}\r\neth0".encode())
            last = address
        if last:
            (folder / f"last_reserved_ip.{index}").write_text(last, encoding="ascii")


def addresses(subnet: str, count: int) -> Iterator[str]:
    """A set's first addresses behind the gateway."""
    network = ipaddress.ip_network(subnet)
    return map(str, (network[offset] for offset in islice(range(2, network.num_addresses), count)))


def _measure(setting: Setting, sides: Sides) -> Samples:
    sizes = setting.sizes
    samples: Samples = {}
    for number in range(max(sizes.lease_rounds)):
        for count, rounds in zip(sizes.lease_steps, sizes.lease_rounds):
            for who in (0, 1) if number % 2 == 0 else (1, 0):
                if who == 0 or number < rounds:
                    taken = _add_and_delete(sides[who], count, f"c{number}")
                    for command, ms in zip(("ADD", "DEL"), taken):
                        samples.setdefault((who, count, command), []).append(ms)
    return samples


def _add_and_delete(side: Side, count: int, container: str) -> tuple[float, float]:
    add, delete = (side.run([_call(side.plugins, side.node, command, count, container)]) for command in ("ADD", "DEL"))
    return add.done[0].ms, delete.done[0].ms


def _call(plugins: Plugins, node: Node, command: str, count: int, container: str) -> Call:
    config = {
        "cniVersion": VERSION, "name": _network(count), "type": plugins.ipam, "ipam": ipam(plugins.ipam, *SUBNETS)
    }
    return plugins.call(command, config, container=container, netns=node.pod(0))


def _network(count: int) -> str:
    return f"leases{count}"


def _rows(found: Findings, samples: Samples, steps: tuple[int, ...]) -> None:
    for count in steps:
        for command in ("ADD", "DEL"):
            goal = {(0, "ADD"): Goal(0.9), (100_000, "ADD"): Goal(0.015), (100_000, "DEL"): Goal(0.015)}.get(
                (count, command)
            )
            values = [median(samples[who, count, command]) for who in (0, 1)]
            found.rows.append(Row(f"IPAM alone at {count:,} leases, {command}, p50", "ms", values[0], values[1], goal))
    for who, player in enumerate(("cni-v6", "reference")):
        for command in ("ADD", "DEL"):
            points = [(float(count), median(samples[who, count, command])) for count in steps]
            found.curve(LEASES, f"{player} {command}", points)
    first, last = (sum(median(samples[0, count, command]) for command in ("ADD", "DEL")) for count in
                   (steps[0], steps[-1]))
    figure = f"IPAM alone, {steps[-1]:,} leases against {steps[0]}, ADD + DEL"
    found.rows.append(Row(figure, "ms", last, first, Goal(1.2), against=f"own, at {steps[0]}"))
