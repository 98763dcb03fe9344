"""A fake kernel in memory: it needs no privilege and gives the same answers. For tests and ``cni-v6ctl plan``.

It has no link-local addresses (the kernel adds one at carrier) and no on-link prefix routes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from cni_v6.errors import CniError, Errors
from cni_v6.firewall import shape
from cni_v6.kernel.facts import Ipv6Interface, Shaping, Surroundings, Uplink
from cni_v6.kernel.fake.node import DEVICE, FakeNode
from cni_v6.kernel.fake.ops import EFFECTS
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import (
    GetAddresses,
    GetAliases,
    GetAlive,
    GetAllElements,
    GetElements,
    GetForwardChains,
    GetIpv6Interfaces,
    GetLifetimes,
    GetLink,
    GetLinks,
    GetListeners,
    GetMacHolder,
    GetChildMode,
    GetNeighbour,
    GetNeighbours,
    GetNft,
    GetPeerAddresses,
    GetPortVlans,
    GetRoutes,
    GetRules,
    GetRuleset,
    GetShaping,
    GetSurroundings,
    GetSysctl,
    GetTables,
    GetUplinks,
    HasProxy,
    HasRoute,
    IsLocal,
    Question,
    RefusesReturn,
)
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.kernel.undo import inverse
from cni_v6.kernel.route_place import MAIN_TABLE


class FakeKernel(FakeNode):
    """See ``questions.Kernel``.

    ``applied``: the operations that succeeded. ``fail``: returns the exception that an operation raises, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[Op] = []
        self.fail: Callable[[Op], Exception | None] = lambda _: None

    def netns_id(self, path: str) -> tuple[int, int]:
        return DEVICE, self.space(path).inode

    def close(self) -> None:
        """Nothing is open."""

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        return Snapshot({question: _ANSWERS[type(question)](self, question) for question in questions})

    def apply(self, operations: Iterable[Op]) -> Mapping[Op, Op | None]:
        done: list[Op] = []
        self.otherwise.clear()
        try:
            for operation in operations:
                self._do(operation)
                done.append(operation)
        except Exception as error:
            self._undo(done, error)
            raise
        return dict(self.otherwise)

    def remove(self, operations: Iterable[Op]) -> None:
        errors = Errors()
        for operation in operations:
            errors.run(lambda: self._do(operation))
        errors.check()

    def _undo(self, done: list[Op], error: Exception) -> None:
        try:
            self.remove(undo for undo in map(inverse, reversed(done)) if undo is not None)
        except CniError as second:
            if isinstance(error, CniError):
                error.details += f"; undoing it failed too: {second}"

    def _do(self, operation: Op) -> None:
        failure = self.fail(operation)
        if failure:
            raise failure
        EFFECTS[type(operation)](self, operation)
        self.applied.append(operation)


# Questions


def _ipv6_interfaces(fake: FakeNode) -> tuple[Ipv6Interface, ...]:
    sysctls = fake.spaces[HOST].sysctls
    names = sorted(key.split("/")[2] for key in sysctls if key.startswith("ipv6/conf/") and key.endswith("/accept_ra"))
    return tuple(
        Ipv6Interface(name, sysctls[f"ipv6/conf/{name}/accept_ra"], sysctls[f"ipv6/conf/{name}/disable_ipv6"] != "0")
        for name in names
        if name not in ("all", "default", "lo")
    )


def _surroundings(fake: FakeNode) -> Surroundings:
    node = fake.spaces[HOST]
    return Surroundings(
        tuple((name, address) for name, held in node.addresses.items() for address in held),
        tuple((name, route) for name, held in node.routes.items() for route in held if route.table == MAIN_TABLE),
    )


def _uplinks(fake: FakeNode, netns: str) -> tuple[Uplink, ...]:
    """The interface of each family's default route with the lowest metric. The fake has no multipath routes."""
    node = fake.space(netns)
    found = []
    for family, default in ((4, "0.0.0.0/0"), (6, "::/0")):
        metrics = [
            (route.priority or 0, name) for name, routes in node.routes.items() for route in routes
            if route.dst == default and route.table == MAIN_TABLE
        ]
        found += [Uplink(family, name, node.links[name].mtu) for _, name in sorted(metrics)[:1]]
    return tuple(found)


def _has_route(fake: FakeNode, asked: HasRoute) -> bool:
    hops: Container[str | None] = asked.by or (None,)
    return any(
        route.dst == asked.dst and route.table == MAIN_TABLE and route.gateway in hops
        for route in fake.space(asked.netns).routes.get(asked.ifname, ())
    )


def _aliases(fake: FakeNode, asked: GetAliases) -> tuple[tuple[str, str], ...]:
    links = (link for link in fake.spaces[HOST].links.values()
             if link.name not in asked.known and (asked.among is None or link.name in asked.among))
    return tuple((link.name, link.alias) for link in links
                 if link.alias.startswith(asked.start) and asked.bridge in ("", link.master))


_ANSWERS: dict[type[Any], Callable[[FakeNode, Any], object]] = {
    GetLink: lambda fake, asked: fake.space(asked.netns).links.get(asked.ifname),
    GetAddresses: lambda fake, asked: tuple(fake.space(asked.netns).addresses.get(asked.ifname, ())),
    GetLifetimes: lambda fake, asked: fake.lifetimes(asked.netns, asked.ifname),
    GetSurroundings: lambda fake, _: _surroundings(fake),
    GetRoutes: lambda fake, asked: tuple(fake.space(asked.netns).routes.get(asked.ifname, ())),
    GetSysctl: lambda fake, asked: fake.space(asked.netns).sysctls.get(asked.key),
    GetIpv6Interfaces: lambda fake, _: _ipv6_interfaces(fake),
    GetUplinks: lambda fake, asked: _uplinks(fake, asked.netns),
    RefusesReturn: lambda fake, asked: (asked.ifname, asked.group) in fake.refused,
    GetRules: lambda fake, asked: tuple(
        source for source, table in fake.space(asked.netns).rules if table == asked.table
    ),
    HasRoute: lambda fake, asked: _has_route(fake, asked),
    HasProxy: lambda fake, asked: asked.address in fake.spaces[HOST].proxies.get(asked.ifname, ()),
    IsLocal: lambda fake, asked: fake.is_local(asked.address),
    GetNeighbour: lambda fake, asked: fake.space(asked.netns).neighbours.get(asked.ifname, {}).get(asked.address, ""),
    GetNeighbours: lambda fake, asked: tuple(fake.space(asked.netns).neighbours.get(asked.ifname, {}).items()),
    GetShaping: lambda fake, asked: fake.shaping.get(asked.ifname, Shaping()),
    GetRuleset: lambda fake, _: "" if shape.differences(fake.firewall.tables) else fake.firewall.mark,
    GetTables: lambda fake, _: fake.firewall.tables,
    GetElements: lambda fake, asked: fake.firewall.there(asked.elements),
    GetListeners: lambda fake, asked: tuple(
        listener for listener in fake.listeners if (listener.protocol, listener.port) in asked.ports
    ),
    GetNft: lambda fake, _: fake.firewall.nft,
    GetForwardChains: lambda fake, _: fake.firewall.others,
    GetAllElements: lambda fake, _: fake.firewall.elements(),
    GetPeerAddresses: lambda fake, asked: fake.peer_addresses(asked.ifname),
    GetMacHolder: lambda fake, asked: fake.mac_holder(asked.bridge, asked.mac),
    GetChildMode: lambda fake, asked: fake.children.get((asked.netns, asked.ifname), ("",) * 4)[2:],
    GetLinks: lambda fake, _: tuple(fake.spaces[HOST].links.values()),
    GetAliases: lambda fake, asked: _aliases(fake, asked),
    GetAlive: lambda fake, asked: fake.alive(asked.namespaces),
    GetPortVlans: lambda fake, asked: tuple(sorted(fake.vlans.get(asked.ifname, {}).items())),
}
