"""What the agent asks of the kernel and tells it, as values, and the protocol of a kernel that carries them out.

``linux`` is the real one, ``fake`` the one for tests; tests/contract/test_cluster_kernel.py holds for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cni_v6.errors import CniError

TUNNEL = "cni-v6-vxlan"


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface to the other nodes. ``addresses``: its own that last, without prefix length, in any order."""

    ifname: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The VXLAN interface, TUNNEL: up, without learning, with ``address`` (fe80::/64) and no other one.

    ``local``: the address of the node that its packets have; ``underlay``: the interface that they leave by.
    """

    underlay: str
    local: str
    mac: str
    address: str
    mtu: int

    def __str__(self) -> str:
        return f"interface {TUNNEL} from {self.local} on {self.underlay} (mtu {self.mtu})"


@dataclass(frozen=True, slots=True)
class Route:
    """A route of ours in the main table. ``ifname``: "" for an unreachable one, which has no next hop either.

    ``gateway``: of IPv6 for an IPv4 prefix too (RFC 5549).
    """

    dst: str
    ifname: str = ""
    gateway: str | None = None

    def __str__(self) -> str:
        way = f"{self.dst} via {self.gateway} dev {self.ifname}" if self.ifname else f"unreachable {self.dst}"
        return f"route {way}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The MAC of another node's tunnel, by its address there, set for good."""

    address: str
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.address} with MAC {self.mac} on {TUNNEL}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The node to which the tunnel sends what is for a MAC: an entry of its forwarding database."""

    mac: str
    node: str

    def __str__(self) -> str:
        return f"node {self.node} for MAC {self.mac} of {TUNNEL}"


Entry = Route | Neighbour | Endpoint
ORDER: tuple[type[Entry], ...] = (Endpoint, Neighbour, Route)  # each needs those before it


@dataclass(frozen=True, slots=True)
class Add:
    """An entry must not be there: another program's route to the prefix with the same metric is an error."""

    what: Entry | Tunnel

    def __str__(self) -> str:
        return f"add {self.what}"


@dataclass(frozen=True, slots=True)
class Remove:
    """It may be gone already. Another program's route to the prefix stays. With the tunnel goes what it has."""

    what: Entry | Tunnel

    def __str__(self) -> str:
        return f"remove {self.what}"


@dataclass(frozen=True, slots=True)
class Forward:
    """Forward IPv6 that comes in by an interface, on a node that forwards by ``force_forwarding``."""

    ifname: str

    def __str__(self) -> str:
        return f"forward what comes in by {self.ifname}"


Op = Add | Remove | Forward


@dataclass(frozen=True, slots=True)
class Facts:
    """``underlay``: None if there is no such interface. ``tunnel``: None if there is none, or not as one must be.

    ``has_tunnel``: an interface has that name. ``entries``: routes with our protocol number; what the tunnel was told.
    ``closed``: those of the two interfaces on which ``Forward`` would change something.
    """

    underlay: Underlay | None
    tunnel: Tunnel | None = None
    has_tunnel: bool = False
    entries: frozenset[Entry] = frozenset()
    closed: frozenset[str] = frozenset()


class NodeKernel(Protocol):
    """The kernel of the node that the agent runs on."""

    def observe(self) -> Facts: ...

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        """Carry out each of them; those that the kernel refuses do not hinder the others, and are returned."""
        ...
