"""What a plan is made from and what it is: ``Site``, ``Allocation``, ``Plan``."""

from __future__ import annotations

from dataclasses import dataclass

from cni_v6.kernel.ops import Op
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Dns, Result, Route


@dataclass(frozen=True, slots=True)
class RoutedPrefix:
    """A delegated prefix, and the container's address of the same set: the next hop of the node's route to it."""

    prefix: str
    via: Address


@dataclass(frozen=True, slots=True)
class Site:
    """Where a container is attached: the owner, the namespace, the node."""

    owner: Owner
    netns: str
    node: str  # the node's machine id: bridges of several nodes on one layer 2 get different MACs

    @property
    def host(self) -> str:
        return names.host_interface(self.owner)


@dataclass(frozen=True, slots=True)
class Allocation:
    """What IPAM returned: addresses, routes, DNS. Our own IPAM may also delegate prefixes."""

    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    delegated: tuple[RoutedPrefix, ...] = ()

    def families(self) -> frozenset[int]:
        return frozenset(ip.family for ip in self.ips)


@dataclass(frozen=True, slots=True)
class Plan:
    """The operations of an ADD, and its result."""

    ops: tuple[Op, ...]
    result: Result
