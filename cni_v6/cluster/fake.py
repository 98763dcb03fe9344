"""A kernel in this process for tests of the agent: as strict as the real one."""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.cluster.facts import TUNNEL, Add, Entry, Facts, Forward, Op, Remove, Route, Tunnel, Underlay
from cni_v6.errors import KERNEL_REFUSED, CniError


class FakeNode:
    """``written``: all operations that changed something, in order.

    ``closed``: interfaces that do not forward; a tunnel begins so on a node on which any does.
    """

    def __init__(self, underlay: Underlay | None, closed: Iterable[str] = ()) -> None:
        self.underlay = underlay
        self.closed = set(closed)
        self.tunnel: Tunnel | None = None
        self.entries: set[Entry] = set()
        self.written: list[Op] = []
        self._forced = bool(self.closed)

    def observe(self) -> Facts:
        has_tunnel = self.tunnel is not None
        return Facts(self.underlay, self.tunnel, has_tunnel, frozenset(self.entries), frozenset(self.closed))

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        return [error for operation in operations if (error := self._apply(operation))]

    def _apply(self, operation: Op) -> CniError | None:
        before = (set(self.entries), self.tunnel, set(self.closed))
        if isinstance(operation, Forward):
            self.closed.discard(operation.ifname)
            refusal = ""
        elif isinstance(operation.what, Tunnel):
            refusal = self._set_tunnel(operation.what if isinstance(operation, Add) else None)
        else:
            refusal = self._set_entry(operation, operation.what)
        if refusal:
            return CniError(KERNEL_REFUSED, f"cannot {operation}", refusal)
        if before != (self.entries, self.tunnel, self.closed):
            self.written.append(operation)
        return None

    def _set_tunnel(self, tunnel: Tunnel | None) -> str:
        if tunnel and self.tunnel:
            return "File exists"
        self.tunnel = tunnel
        self.entries = {entry for entry in self.entries if isinstance(entry, Route) and entry.ifname != TUNNEL}
        self.closed -= {TUNNEL}
        if tunnel and self._forced:
            self.closed |= {TUNNEL}
        return ""

    def _set_entry(self, operation: Add | Remove, entry: Entry) -> str:
        same = {known for known in self.entries if _place(known) == _place(entry)}
        if isinstance(operation, Add):
            refusal = self._missing(entry) or ("File exists" if same and isinstance(entry, Route) else "")
            if refusal:
                return refusal
            self.entries.add(entry)
        self.entries -= same if isinstance(operation, Remove) else same - {entry}
        return ""

    def _missing(self, entry: Entry) -> str:
        name = entry.ifname if isinstance(entry, Route) else TUNNEL
        if not name:
            return ""
        if name == TUNNEL:
            return "" if self.tunnel else "No such device"
        if self.underlay is None or name != self.underlay.ifname:
            return "No such device"
        return "" if self.underlay.up else "Network is down"


def _place(entry: Entry) -> tuple[str, ...]:
    """What the kernel tells entries apart by; a route by its prefix and its metric."""
    if isinstance(entry, Route):
        return "route", entry.dst, "last" if not entry.ifname else ""
    return type(entry).__name__, entry.mac if hasattr(entry, "node") else entry.address
