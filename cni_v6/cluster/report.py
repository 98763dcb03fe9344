"""What a node's agent measures, for people and not for other agents: how full its blocks are, which nodes answer it.

It is beside the objects of the cluster, so that no agent wakes up for it. Each agent tests a few other nodes, whatever
the size of the cluster: those that follow it in an order that the names decide. So each node is tested by as many.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cni_v6.cluster import config
from cni_v6.cluster.membership import Member
from cni_v6.cluster.records import Cluster, NodeRecord, to_text
from cni_v6.errors import CniError
from cni_v6.net.addresses import version
from cni_v6.protocol.json_reader import Fields, canonical_prefix, decode

PEERS = 5  # that an agent tests
MOST_NUMBER = 253_402_300_799  # the end of the year 9999, in seconds since the epoch


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether another node answers at its address of a family, and since when: seconds since the epoch."""

    node: str
    family: int
    answers: bool
    since: int


@dataclass(frozen=True, slots=True)
class Report:
    """``id``: of the node. ``used``: leases in each of its blocks. ``at``: when it was written."""

    id: str
    used: Mapping[str, int] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
    at: int = 0


def peers(member: Member, cluster: Cluster) -> tuple[NodeRecord, ...]:
    """The nodes that a node tests."""
    ring = sorted((_place(node.name), node.name) for node in cluster.nodes.values()
                  if not node.removed and node.name != member.name)
    first = bisect_right(ring, (_place(member.name), member.name))
    return tuple(cluster.nodes[name] for _, name in (ring[first:] + ring[:first])[:PEERS])


def share(member: Member) -> float:
    """Which part of a period an agent waits at first, so that agents that start at once do not measure at once."""
    return int.from_bytes(_place(member.name)[:4], "big") / (1 << 32)


def _place(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def targets(nodes: Iterable[NodeRecord]) -> Iterator[tuple[str, int, str]]:
    """(node, family, address) of what is tested."""
    for node in nodes:
        yield from ((node.name, version(address), address) for address in node.addresses)


def answers(
    tested: Iterable[tuple[str, int, str]], answered: Mapping[str, bool], before: Iterable[Answer], now: int
) -> tuple[Answer, ...]:
    """What is known of the nodes now. What stays as it was has the time of before.

    :param answered: by address; an address that could not be tested is missing.
    """
    known = {(answer.node, answer.family): answer for answer in before}
    found = []
    for node, family, address in tested:
        if address in answered:
            old = known.get((node, family))
            same = old is not None and old.answers == answered[address]
            found.append(old if same and old else Answer(node, family, answered[address], now))
    return tuple(found)


def room(block: str) -> int:
    """The containers that a block has room for."""
    return config.room(version(block), int(block.partition("/")[2]))


def encode(report: Report) -> str:
    reached: dict[str, dict[str, Any]] = {}
    for answer in report.answers:
        reached.setdefault(answer.node, {})[f"ipv{answer.family}"] = {"answers": answer.answers, "since": answer.since}
    return to_text({"id": report.id, "used": dict(report.used), "reached": reached, "at": report.at})


def read(text: str) -> Report | None:
    """None for what cannot be read."""
    try:
        fields = Fields(decode(text.encode(), "a report"))
        return Report(fields.required("id"), _used(fields), tuple(_answers(fields)), _number(fields, "at"))
    except CniError:
        return None


def _used(fields: Fields) -> dict[str, int]:
    child = fields.child("used") or Fields({})
    return {prefix: _number(child, prefix) for prefix in child.raw
            if canonical_prefix(prefix, host_bits=False) == prefix}


def _answers(fields: Fields) -> Iterator[Answer]:
    reached = fields.child("reached") or Fields({})
    for node in reached.raw:
        of_node = reached.child(node) or Fields({})
        for family in (6, 4):
            one_family = of_node.child(f"ipv{family}")
            if one_family:
                yield Answer(node, family, one_family.raw.get("answers") is True, _number(one_family, "since"))


def _number(fields: Fields, key: str) -> int:
    return fields.number(key, most=MOST_NUMBER) or 0


def of_nodes(reports: Mapping[str, str], nodes: Sequence[NodeRecord]) -> dict[str, Report]:
    """The reports of the nodes that are there, not those of others with their names.

    The agent of a node that was removed may write one more while it ends: what it said of others would stay for good.
    """
    there = [node for node in nodes if not node.removed]
    found = {node.name: read(reports[node.name]) for node in there if node.name in reports}
    ids = {node.name: node.id for node in nodes}
    return {name: report for name, report in found.items() if report and report.id == ids[name]}


def said(reports: Mapping[str, Report]) -> Mapping[str, Sequence[tuple[str, Answer]]]:
    """What others say of each node: (who, what). A node that answers nobody may be gone: nothing good is taken from it.
    """
    found: dict[str, list[tuple[str, Answer]]] = {}
    for by, report in sorted(reports.items()):
        for answer in report.answers:
            found.setdefault(answer.node, []).append((by, answer))
    silent = {node for node, answers in found.items() if not any(answer.answers for _, answer in answers)}
    return {node: [(by, answer) for by, answer in answers if not (answer.answers and by in silent)]
            for node, answers in found.items()}
