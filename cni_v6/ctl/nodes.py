"""``cni-v6ctl nodes``: the nodes of a cluster and their blocks, as the cluster's store has them; --remove."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from typing import Any

from cni_v6.cluster import membership, records, report
from cni_v6.cluster.config import LARGE
from cni_v6.cluster.open_store import HELP, open_store
from cni_v6.cluster.records import Claim, Cluster, NodeRecord
from cni_v6.cluster.report import Answer, Report
from cni_v6.cluster.store import Watched
from cni_v6.ctl import screen
from cni_v6.ctl.output import Output, flag, listed, mapped, object_of, or_null, text, texts, whole
from cni_v6.errors import TRY_AGAIN, CniError

COLUMNS = ("NODE", "BLOCK", "LEASED", "CARRIER", "REACHED AT", "ANSWERS")
REMOVED, UNKNOWN = "removed", "unknown"
TRIES = 50
OUTPUTS = {
    "nodes": Output(object_of({
        "node": text("its name"), "id": text("of its agent"), "blocks": texts("prefixes, IPv6 first"),
        "carrier": text("how it is reached"), "addresses": texts("at which it is reached"),
        "removed": flag("whether it was removed"),
        "leased": mapped(object_of({
            "leases": whole("that containers have"), "room": whole("of the block, for containers"),
        }), "by block, as the node's agent counted them"),
        "measured": or_null(whole("when its agent has written that, in seconds since the epoch; null if it never has")),
        "answers": listed(object_of({
            "to": text("the node whose agent asked"), "family": text("ipv6 or ipv4"),
            "answers": flag("whether it did"), "since": whole("when, in seconds since the epoch"),
        }), "what other nodes say of it"),
    }), lines=True),
    "nodes --remove": Output(object_of({"node": text("its name"), "freed": texts("its blocks")})),
}


def register(commands: Any) -> None:
    parser = commands.add_parser("nodes", help="the nodes of a cluster: their blocks, how they are reached")
    parser.add_argument("--cluster", required=True, metavar="STORE", help=HELP)
    parser.add_argument("--remove", metavar="NAME", help="remove a node that is gone: its blocks become free")
    parser.add_argument("--json", action="store_true", help="one JSON object a node and line")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """
    :returns: 1 if something in the store cannot be read.
    """
    with closing(open_store(chosen.cluster)) as store:
        if chosen.remove:
            return _remove(store, chosen)
        cluster, reports = read(store)
    said = report.said(reports)
    if chosen.json:
        for node in nodes_of(cluster):
            OUTPUTS["nodes"].show(_document(node, cluster, reports.get(node.name), said.get(node.name, ())))
    else:
        rows = [row for node in nodes_of(cluster)
                for row in _rows(node, cluster.of_node(node), reports.get(node.name), said.get(node.name, ()))]
        print("\n".join(screen.table([COLUMNS, *rows])))
    return 1 if cluster.complaints else 0


def read(store: Watched) -> tuple[Cluster, Mapping[str, Report]]:
    """What a store has, and what the nodes' agents have measured. What of it cannot be read is said.

    :raises CniError: the store cannot be read.
    """
    objects = store.read()
    cluster = records.read(objects)
    for words in cluster.complaints:
        print(f"cni-v6ctl: {screen.plain(words)}", file=sys.stderr)
    if not objects:
        print("cni-v6ctl: note: nobody has written to this store yet: is it the agents'? (--cluster)", file=sys.stderr)
    return cluster, report.of_nodes(store.reports(), [*cluster.nodes.values()])


def _remove(store: Watched, chosen: argparse.Namespace) -> int:
    name = chosen.remove
    for _ in range(TRIES):
        objects = store.read()
        found = membership.removal(name, objects, records.read(objects))
        if store.commit(found):
            store.report(name, None)
            freed = [change.key.removeprefix(records.BLOCKS) for change in found[1:]]
            if chosen.json:
                OUTPUTS["nodes --remove"].show({"node": name, "freed": freed})
            else:
                print(f"node {name} is removed; its blocks are free: {', '.join(freed) or 'it had none'}")
            return 0
    raise CniError(TRY_AGAIN, f"cannot remove node {name}: the cluster's store changes all the time", "try again")


def nodes_of(cluster: Cluster) -> Sequence[NodeRecord]:
    """All nodes by name, and those that only a block names."""
    known = {(node.name, node.id) for node in cluster.nodes.values()}
    others = [NodeRecord(*owner, carrier=UNKNOWN) for owner in cluster.of_owner if owner not in known]
    return sorted([*cluster.nodes.values(), *others], key=lambda node: (node.name, node.id))


def _rows(
    node: NodeRecord, claims: Sequence[Claim], own: Report | None, found: Sequence[tuple[str, Answer]]
) -> list[tuple[str, ...]]:
    """A line for each block and each family that answers; name, carrier and addresses stand on the first one."""
    blocks = [(block, _fullness(block, own)) for block in blocks_of(claims)] or [("-", "-")]
    said = [] if node.removed else answers_of([answer for _, answer in found])
    rows = list[tuple[str, ...]]()
    for number, (block, answers) in enumerate(zip_longest(blocks, said or ["-"])):
        first = ((node.name, REMOVED if node.removed else node.carrier, ", ".join(node.addresses) or "-") if number == 0
                 else ("", "", ""))
        prefix, leased = block or ("", "")
        rows.append((screen.plain(first[0]), prefix, leased, screen.plain(first[1]), first[2], answers or ""))
    return rows


def _fullness(block: str, own: Report | None) -> str:
    if own is None or block not in own.used:
        return "-"
    leases, room = own.used[block], report.room(block)
    return f"{leases}" if room > LARGE else f"{leases} of {room}"


def answers_of(found: Sequence[Answer]) -> list[str]:
    """A line a family: whether it answers those who ask it, and since when all of them are of one mind."""
    lines = []
    for family in (6, 4):
        answers = [answer for answer in found if answer.family == family]
        count = sum(answer.answers for answer in answers)
        if answers and count in (0, len(answers)):
            since = max(answer.since for answer in answers)
            lines.append(f"IPv{family} {'' if count else 'not '}since {screen.moment(since)}")
        elif answers:
            lines.append(f"IPv{family} to {count} of {len(answers)}")
    return lines


def _document(
    node: NodeRecord, cluster: Cluster, own: Report | None, found: Sequence[tuple[str, Answer]]
) -> dict[str, object]:
    blocks = blocks_of(cluster.of_node(node))
    return {
        "node": node.name, "id": node.id, "blocks": blocks,
        "carrier": node.carrier, "addresses": list(node.addresses), "removed": node.removed,
        "leased": {block: {"leases": own.used[block], "room": report.room(block)} for block in blocks
                   if own and block in own.used},
        "measured": own.at if own else None,
        "answers": [
            {"to": by, "family": f"ipv{answer.family}", "answers": answer.answers, "since": answer.since}
            for by, answer in found
        ],
    }


def blocks_of(claims: Sequence[Claim]) -> list[str]:
    """IPv6 first."""
    return sorted((claim.prefix for claim in claims), key=lambda prefix: (":" not in prefix, prefix))
