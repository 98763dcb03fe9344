"""``cni-v6ctl check``: what differs between the records of the attachments and the node; with ``--repair`` mends it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cni_v6.attachments import firewall_reload, recall, repair
from cni_v6.attachments.context import Context
from cni_v6.ctl.gc import places
from cni_v6.ctl.output import OWNER, Output, listed, object_of, text, texts
from cni_v6.ctl.screen import wrapped
from cni_v6.engine.handle import real_context
from cni_v6.errors import CniError
from cni_v6.kernel.describe import describe
from cni_v6.log import counted
from cni_v6.plan.repair import Findings
from cni_v6.protocol.names import Owner

INDENT = 4  # of what is behind a name
_DIFFERENCE = object_of({"differs": text("what, in words")}, {key: OWNER[key] for key in ("containerID", "ifname")})
OUTPUTS = {"check": Output(listed(object_of({
    "network": OWNER["network"],
    "dataDir": text("of its leases; empty for containers without a record"),
    "differences": listed(_DIFFERENCE, "what was found; without a container, of the network"),
    "plan": texts("what a repair has done, in order"),
    "errors": texts("what it could not do, and why"),
    "left": listed(_DIFFERENCE, "what differs still; the exit status is 0 if this is empty everywhere"),
}, {"firewall": text("what was done to the firewall's tables as a whole")}), "one for each network"))}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found for a network. ``left``: what differs still, after a repair. ``errors``: why.

    ``data_dir``: "" for containers that no data folder has a record of.
    """

    network: str
    data_dir: str
    found: Findings
    left: Findings
    errors: tuple[str, ...] = ()


def register(commands: Any) -> None:
    parser = commands.add_parser(
        "check", help="compare ports, gateways, firewall and routes of the node with the records of its attachments"
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="only these")
    parser.add_argument("--repair", action="store_true", help="mend what differs, and say how")
    parser.add_argument("--json", action="store_true", help="a list of objects, one for each network")
    parser.add_argument("--data-dir", metavar="DIR", help="ipam.dataDir (default: all since the node was started)")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    """
    :returns: 0 if nothing differs, or nothing any more.
    """
    node = make_node()
    try:
        lost: dict[str, list[Owner]] = {}
        for owner in recall.lost(node):
            lost.setdefault(owner.network, []).append(owner)
        looked_at = places(chosen, node, [network for network in lost if network in chosen.networks])
        words = _load_firewall(looked_at, node) if chosen.repair else ""
        reports = [_look(data_dir, network, node, mending=chosen.repair) for data_dir, network in looked_at]
        reports += [_report_lost(network, owners) for network, owners in lost.items()
                    if network in (chosen.networks or lost)]
    finally:
        node.kernel.close()
    if chosen.json:
        OUTPUTS["check"].show([_document(report, words) for report in reports])
    else:
        _print(reports, words)
    return int(any(report.left.differences for report in reports))


def _load_firewall(looked_at: list[tuple[str, str]], node: Context) -> str:
    """Load the firewall's tables if a network needs them and they are gone, or a record is damaged.

    Before any lock, as it takes all of them.

    :returns: what was done; "" for nothing.
    """
    if not any(
        firewall_reload.missing(network, data_dir, node) or node.leases(network, data_dir).damaged()
        for data_dir, network in looked_at
    ):
        return ""
    damage: list[str] = []
    try:
        count = firewall_reload.reload(node, damage.append)
        return "; ".join((f"loaded the firewall's tables, with {counted(count, 'attachment')}", *damage))
    except CniError as error:
        return f"the firewall's tables cannot be loaded: {error}"


def _look(data_dir: str, network: str, node: Context, *, mending: bool) -> Report:
    with node.leases(network, data_dir).transaction() as leases:
        found = repair.look(leases, node)
        if not mending or not found.steps:
            return Report(network, data_dir, found, found)
        errors = repair.mend(found, node)
        return Report(network, data_dir, found, repair.look(leases, node), tuple(map(str, errors)))


def _report_lost(network: str, owners: Iterable[Owner]) -> Report:
    """A repair would need the network's configuration, which calls bring."""
    found = Findings()
    for owner in owners:
        found.add(owner, "the store has no record of it (STATUS or the next ADD of the network makes it anew)")
    return Report(network, "", found, found)


def _print(reports: list[Report], words: str) -> None:
    if words:
        print(words)
    for report in reports:
        print(*_lines(report), sep="\n", end="\n" * bool(report.found.differences))
    count = sum(len(report.left.differences) for report in reports)
    networks = len({report.network for report in reports})
    print(f"{counted(count, 'difference') if count else 'nothing differs'} on {counted(networks, 'network')}")


def _lines(report: Report) -> Iterator[str]:
    for owner, difference in report.found.differences:
        yield from wrapped(f"{_name(report, owner)}:", difference, INDENT)
    if report.left is report.found:
        return
    for number, step in enumerate(_plan(report), 1):
        yield from wrapped(f"{number:3}.", step, 5)
    for error in report.errors:
        yield from wrapped(f"{report.network}:", f"not done: {error}", INDENT)
    for owner, difference in report.left.differences:
        yield from wrapped(f"{_name(report, owner)}:", f"still: {difference}", INDENT)


def _name(report: Report, owner: Owner | None) -> str:
    return str(owner) if owner else report.network


def _plan(report: Report) -> list[str]:
    return [describe(operation) for step in report.found.steps for operation in step]


def _document(report: Report, words: str) -> dict[str, object]:
    repaired = report.left is not report.found
    return {
        "network": report.network,
        "dataDir": report.data_dir,
        "differences": [_difference(*found) for found in report.found.differences],
        "plan": _plan(report) if repaired else [],
        "errors": list(report.errors),
        "left": [_difference(*left) for left in report.left.differences],
        **({"firewall": words} if words else {}),
    }


def _difference(owner: Owner | None, words: str) -> dict[str, str]:
    whose = {"containerID": owner.container_id, "ifname": owner.ifname} if owner else {}
    return {**whose, "differs": words}
