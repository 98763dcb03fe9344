"""Reads the cluster that ``map`` draws, as ``nodes`` does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from cni_v6.cluster import report
from cni_v6.cluster.open_store import open_store
from cni_v6.cluster.records import Cluster, NodeRecord
from cni_v6.cluster.report import Answer, Report
from cni_v6.ctl.nodes import answers_of, blocks_of, nodes_of, read
from cni_v6.drawing.cluster import PARTLY, REACHED, REMOVED, UNKNOWN, UNREACHED, Block, Member


def members(text: str) -> list[Member]:
    """The nodes that a store has. What of it cannot be read is said, as ``nodes`` does.

    :param text: of ``--cluster``.
    :raises CniError: the store cannot be read.
    """
    with closing(open_store(text)) as store:
        cluster, reports = read(store)
    said = report.said(reports)
    return [_member(node, cluster, reports.get(node.name), [answer for _, answer in said.get(node.name, ())])
            for node in nodes_of(cluster)]


def _member(node: NodeRecord, cluster: Cluster, own: Report | None, said: Sequence[Answer]) -> Member:
    used = own.used if own else {}
    blocks = (Block(prefix, used.get(prefix), report.room(prefix)) for prefix in blocks_of(cluster.of_node(node)))
    return Member(node.name, _state(node, said), node.carrier, node.addresses, tuple(blocks),
                  () if node.removed else tuple(answers_of(said)))


def _state(node: NodeRecord, said: Sequence[Answer]) -> str:
    if node.removed:
        return REMOVED
    if not said:
        return UNKNOWN
    count = sum(answer.answers for answer in said)
    return REACHED if count == len(said) else PARTLY if count else UNREACHED
