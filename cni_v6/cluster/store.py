"""The protocol of a cluster's store, and the store in memory for tests.

tests/contract/test_cluster_store.py holds for every store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from cni_v6.cluster.records import Change, Objects


@dataclass(frozen=True, slots=True)
class Registered:
    """A node as the store's engine knows it. ``blocks``: those that it gives the node, in canonical form.

    None for an engine that knows no nodes: then a node's name and id are what its agent says.
    """

    id: str
    blocks: tuple[str, ...] | None = None


class ClusterStore(Protocol):
    """Objects that all nodes of a cluster see. Each failure is a CniError: the agent goes on with what it knows."""

    def registered(self, name: str, own: str) -> Registered | None:
        """A node; None if the engine knows nodes, and has none of this name.

        :param own: the id that the node gave itself.
        """
        ...

    def read(self) -> Objects:
        """All objects, as they were at one moment."""
        ...

    def commit(self, changes: Sequence[Change]) -> bool:
        """Make all changes, or none; False if an object is not as a change says that it was.

        An engine without transactions makes them in this order, and takes them back if one is refused. Each of them
        must be harmless without those after it, as an agent may end half way.
        """
        ...

    def unheard(self) -> str | None:
        """Why changes of other nodes are not heard; None if they are, or nobody listens."""
        ...


class ReportStore(Protocol):
    """Reports of nodes, beside the objects: nobody is told of a change. Each failure is a CniError."""

    def report(self, name: str, text: str | None) -> None:
        """Replace the report of a node; None: it has none any more."""
        ...

    def reports(self, name: str = "") -> Mapping[str, str]:
        """All reports by the names of the nodes, or the one of a node."""
        ...


class OtherClusterStore(Protocol):
    """The objects of another cluster: nothing that would write is asked for."""

    def read(self) -> Objects | None:
        """As they were at last; None before they were read for the first time.

        :raises CniError: they cannot be read now.
        """
        ...


class Watched(ClusterStore, ReportStore, Protocol):
    """A store that tells of changes."""

    def fileno(self) -> int:
        """A descriptor that can be read when another node may have changed something."""
        ...

    def drain(self) -> bool:
        """Take what can be read; whether something may have changed."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """A store in this process.

    :param nodes: those that its engine knows, by name; None for an engine that knows no nodes.
    """

    def __init__(
        self, objects: Mapping[str, str] | None = None, nodes: Mapping[str, Registered] | None = None
    ) -> None:
        self.objects = dict(objects or {})
        self.nodes = None if nodes is None else dict(nodes)
        self.told: dict[str, str] = {}
        self._lock = Lock()

    def report(self, name: str, text: str | None) -> None:
        self.told = {key: value for key, value in self.told.items() if key != name} | ({name: text} if text else {})

    def reports(self, name: str = "") -> Mapping[str, str]:
        return {key: value for key, value in self.told.items() if name in ("", key)}

    def registered(self, name: str, own: str) -> Registered | None:
        return Registered(own) if self.nodes is None else self.nodes.get(name)

    def unheard(self) -> str | None:
        return None

    def read(self) -> Objects:
        with self._lock:
            return dict(self.objects)

    def commit(self, changes: Sequence[Change]) -> bool:
        with self._lock:
            later = applied(self.objects, changes)
            if later is not None:
                self.objects = later
            return later is not None


def applied(objects: Objects, changes: Sequence[Change]) -> dict[str, str] | None:
    """The objects after all changes; None if one is not as a change says that it was."""
    if any(objects.get(change.key) != change.was for change in changes):
        return None
    keys = {change.key for change in changes}
    later = {key: value for key, value in objects.items() if key not in keys}
    return later | {change.key: change.now for change in changes if change.now is not None}
