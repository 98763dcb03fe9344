"""Where a container is attached, what it was given, and the plan that follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from cni_v6.kernel.ops import Op
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Dns, Result, Route


@dataclass(frozen=True, slots=True)
class RoutedPrefix:
    """A prefix, and the container's address of the same set, by which it is routed."""

    prefix: str
    via: Address


@dataclass(frozen=True, slots=True)
class Site:
    """Where a container is attached: whose attachment, in which namespace, on which node."""

    owner: Owner
    netns: str
    node: str  # the node's machine id: tells bridges of several nodes on one layer 2 apart

    @property
    def host(self) -> str:
        return names.host_interface(self.owner)


@dataclass(frozen=True, slots=True)
class Allocation:
    """What IPAM, ours or another, gave: addresses, routes and name service; ours may give prefixes too."""

    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    delegated: tuple[RoutedPrefix, ...] = ()

    def families(self) -> frozenset[int]:
        return frozenset(ip.family for ip in self.ips)


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations, and the result they lead to."""

    ops: tuple[Op, ...]
    result: Result
