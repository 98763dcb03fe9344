"""A kernel in this process for tests of the agent: as strict as the real one about routes."""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.cluster.facts import AddRoute, Facts, Op, Route, Underlay
from cni_v6.errors import KERNEL_REFUSED, CniError


class FakeNode:
    """``written``: all operations that changed something, in order."""

    def __init__(self, underlay: Underlay | None) -> None:
        self.underlay = underlay
        self.routes: set[Route] = set()
        self.written: list[Op] = []

    def observe(self) -> Facts:
        return Facts(self.underlay, frozenset(self.routes))

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        return [error for operation in operations if (error := self._apply(operation))]

    def _apply(self, operation: Op) -> CniError | None:
        same = {route for route in self.routes if _place(route) == _place(operation.route)}
        if isinstance(operation, AddRoute):
            if refusal := self._refusal(operation.route) or ("File exists" if same else ""):
                return CniError(KERNEL_REFUSED, f"cannot {operation}", refusal)
            self.routes.add(operation.route)
        elif same:
            self.routes -= same
        else:
            return None
        self.written.append(operation)
        return None

    def _refusal(self, route: Route) -> str:
        if not route.ifname:
            return ""
        if self.underlay is None or route.ifname != self.underlay.ifname:
            return "No such device"
        return "" if self.underlay.up else "Network is down"


def _place(route: Route) -> tuple[str, bool]:
    """What the kernel tells routes apart by: the prefix and the metric."""
    return route.dst, not route.ifname
