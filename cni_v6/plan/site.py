"""What a plan is made from and what it is: ``Site``, ``Allocation``, ``Plan``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from cni_v6.kernel.ops import AddRoute, Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.log import Log
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Dns, Result, Route
from cni_v6.values import dataclass


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
    """The operations of an ADD, and its result. ``routes``: the operations of the result's routes, in their order.

    ``warnings``: for the log. ``found``: questions once the operations are done, and what ``complete`` makes of the
    result with their answers.
    """

    ops: tuple[Op, ...]
    result: Result
    routes: tuple[Op, ...] = ()
    warnings: tuple[str, ...] = ()
    found: tuple[Question, ...] = ()
    complete: Callable[[Result, Snapshot], Result] | None = None

    def answer(self, otherwise: Mapping[Op, Op | None], log: Log) -> Result:
        """The result, with the routes that the container has.

        :param otherwise: what ``Kernel.apply`` returned.
        :param log: for what is not as it was planned.
        """
        for warning in self.warnings:
            log.warning(warning)
        if not otherwise:
            return self.result
        kept = []
        for route, wanted in zip(self.result.routes, self.routes):
            added = otherwise.get(wanted, wanted)
            if isinstance(added, AddRoute):
                kept.append(route if added is wanted else replace(route, priority=added.priority))
            if added is not wanted:
                what = f"has metric {added.priority}" if isinstance(added, AddRoute) else "is left out"
                via = f" via {route.gw}" if route.gw else ""
                log.warning(f"route {route.dst}{via} {what}: the container has another one, of another network perhaps")
        return replace(self.result, routes=tuple(kept))
