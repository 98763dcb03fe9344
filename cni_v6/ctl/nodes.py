"""``cni-v6ctl nodes``: the nodes of a cluster and their blocks, as the cluster's store has them; --remove."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from cni_v6.cluster import membership, records
from cni_v6.cluster.open_store import HELP, open_store
from cni_v6.cluster.records import Claim, Cluster, NodeRecord
from cni_v6.cluster.store import ClusterStore
from cni_v6.ctl import screen
from cni_v6.ctl.output import Output, flag, object_of, text, texts
from cni_v6.errors import TRY_AGAIN, CniError

COLUMNS = ("NODE", "BLOCK", "CARRIER", "REACHED AT")
REMOVED, UNKNOWN = "removed", "unknown"
TRIES = 50
OUTPUTS = {
    "nodes": Output(object_of({
        "node": text("its name"), "id": text("of its agent"), "blocks": texts("prefixes, IPv6 first"),
        "carrier": text("how it is reached"), "addresses": texts("at which it is reached"),
        "removed": flag("whether it was removed"),
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
        objects = store.read()
        cluster = records.read(objects)
    for words in cluster.complaints:
        print(f"cni-v6ctl: {words}", file=sys.stderr)
    if not objects:
        print("cni-v6ctl: note: nobody has written to this store yet: is it the agents'? (--cluster)", file=sys.stderr)
    if chosen.json:
        for node in _nodes(cluster):
            OUTPUTS["nodes"].show(_document(node, cluster))
    else:
        rows = [row for node in _nodes(cluster) for row in _rows(node, cluster.of_node(node))]
        print("\n".join(screen.table([COLUMNS, *rows])))
    return 1 if cluster.complaints else 0


def _remove(store: ClusterStore, chosen: argparse.Namespace) -> int:
    name = chosen.remove
    for _ in range(TRIES):
        objects = store.read()
        found = membership.removal(name, objects, records.read(objects))
        if store.commit(found):
            freed = [change.key.removeprefix(records.BLOCKS) for change in found[1:]]
            if chosen.json:
                OUTPUTS["nodes --remove"].show({"node": name, "freed": freed})
            else:
                print(f"node {name} is removed; its blocks are free: {', '.join(freed) or 'it had none'}")
            return 0
    raise CniError(TRY_AGAIN, f"cannot remove node {name}: the cluster's store changes all the time", "try again")


def _nodes(cluster: Cluster) -> Sequence[NodeRecord]:
    """All nodes by name, and those that only a block names."""
    known = set(cluster.nodes.values())
    others = {NodeRecord(claim.node, claim.id, carrier=UNKNOWN) for claim in cluster.claims
              if not any((node.name, node.id) == (claim.node, claim.id) for node in known)}
    return sorted(known | others, key=lambda node: (node.name, node.id))


def _rows(node: NodeRecord, claims: Sequence[Claim]) -> list[tuple[str, ...]]:
    """A line for each block; name, carrier and addresses stand on the first one."""
    carrier = REMOVED if node.removed else node.carrier
    first, *others = _blocks(claims) or ["-"]
    return [(node.name, first, carrier, ", ".join(node.addresses) or "-"), *(("", block, "", "") for block in others)]


def _document(node: NodeRecord, cluster: Cluster) -> dict[str, object]:
    return {
        "node": node.name, "id": node.id, "blocks": _blocks(cluster.of_node(node)),
        "carrier": node.carrier, "addresses": list(node.addresses), "removed": node.removed,
    }


def _blocks(claims: Sequence[Claim]) -> list[str]:
    """IPv6 first."""
    return sorted((claim.prefix for claim in claims), key=lambda prefix: (":" not in prefix, prefix))
