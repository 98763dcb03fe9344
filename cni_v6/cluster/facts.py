"""What the agent asks of the kernel and tells it, as values, and the protocol of a kernel that carries them out.

``linux`` is the real one, ``fake`` the one for tests; tests/contract/test_cluster_kernel.py holds for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cni_v6.errors import CniError


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface to the other nodes. ``addresses``: its own that last, without prefix length, in any order."""

    ifname: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A route of ours in the main table. ``ifname``: "" for an unreachable one, which has no next hop either.

    ``gateway``: of IPv6 for an IPv4 prefix too (RFC 5549).
    """

    dst: str
    ifname: str = ""
    gateway: str | None = None

    def __str__(self) -> str:
        return f"{self.dst} via {self.gateway} dev {self.ifname}" if self.ifname else f"unreachable {self.dst}"


@dataclass(frozen=True, slots=True)
class AddRoute:
    """The route must not be there: another program's route to the prefix with the same metric is an error."""

    route: Route

    def __str__(self) -> str:
        return f"add route {self.route}"


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """The route may be gone already. Another program's route to the prefix stays."""

    route: Route

    def __str__(self) -> str:
        return f"remove route {self.route}"


Op = AddRoute | RemoveRoute


@dataclass(frozen=True, slots=True)
class Facts:
    """``underlay``: None if there is no such interface. ``routes``: those with our protocol number."""

    underlay: Underlay | None
    routes: frozenset[Route]


class NodeKernel(Protocol):
    """The kernel of the node that the agent runs on."""

    def observe(self) -> Facts: ...

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        """Carry out each of them; those that the kernel refuses do not hinder the others, and are returned."""
        ...
