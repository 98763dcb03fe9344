"""What the agent tells other programs of its node: how its last look went, what it has measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cni_v6.cluster import report
from cni_v6.cluster.records import to_text
from cni_v6.cluster.report import Report
from cni_v6.errors import CniError
from cni_v6.protocol.json_reader import Fields, decode


@dataclass(frozen=True, slots=True)
class Status:
    """``target``: the configuration list. ``ready``: it is there. Times are seconds since the epoch, 0 for never:
    ``stepped``: of the last look; ``synced``: of the last one for which the store could be read. ``steps``: how many
    looks since the start. ``nodes``: in the cluster. ``complaints``: what was in the way."""

    node: str
    target: str
    ready: bool = False
    stepped: int = 0
    synced: int = 0
    steps: int = 0
    nodes: int = 0
    complaints: tuple[str, ...] = ()
    measured: Report = field(default_factory=lambda: Report(""))


def encode(status: Status) -> bytes:
    return to_text({
        "node": status.node, "target": status.target, "ready": status.ready, "stepped": status.stepped,
        "synced": status.synced, "steps": status.steps, "nodes": status.nodes, "complaints": list(status.complaints),
        "measured": report.encode(status.measured),
    }).encode()


def read(content: bytes) -> Status | None:
    """None for what cannot be read, as of another version."""
    try:
        fields = Fields(decode(content, "the agent's status"))
        numbers: Mapping[str, int] = {key: fields.number(key, most=report.MOST_NUMBER) or 0
                                      for key in ("stepped", "synced", "steps", "nodes")}
        return Status(
            fields.required("node"), fields.required("target"), fields.raw.get("ready") is True, **numbers,
            complaints=fields.texts("complaints"), measured=report.read(fields.text("measured")) or Report(""),
        )
    except CniError:
        return None
