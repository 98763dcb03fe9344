"""The kernel as the plugins use it: questions give a snapshot; operations are applied, or undone on failure.

``linux.LinuxKernel`` is the real kernel, ``fake.FakeKernel`` a fake in memory; ``tests/contract`` runs the same
assertions on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Protocol

from cni_v6.firewall.sets import Element
from cni_v6.firewall.shape import Table
from cni_v6.kernel.facts import (
    ForwardChain,
    Ipv6Interface,
    Lifetime,
    Link,
    Listener,
    RouteEntry,
    Shaping,
    Surroundings,
    Uplink,
)
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import (
    GetAddresses,
    GetAliases,
    GetAlive,
    GetAllElements,
    GetChildMode,
    GetElements,
    GetForwardChains,
    GetIpv6Interfaces,
    GetLifetimes,
    GetLink,
    GetLinks,
    GetListeners,
    GetMacHolder,
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
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Answers to the questions of one ``observe``. A question that was not asked is a KeyError, which is a bug."""

    answers: Mapping[Question, object]
    # What is asked for again and again, by its words: to make a question each time takes ten times as long.
    _links: dict[tuple[str, str], Link | None] = field(default_factory=dict, compare=False, repr=False)
    _sysctls: dict[tuple[str, str], str | None] = field(default_factory=dict, compare=False, repr=False)

    def with_answers(self, more: Snapshot) -> Snapshot:
        """The answers of this snapshot and of a later one."""
        return Snapshot({**self.answers, **more.answers})

    def link(self, netns: str, ifname: str) -> Link | None:
        if (netns, ifname) not in self._links:
            answer = self.answers[GetLink(netns, ifname)]
            assert answer is None or isinstance(answer, Link)
            self._links[netns, ifname] = answer
        return self._links[netns, ifname]

    def addresses(self, netns: str, ifname: str) -> tuple[str, ...]:
        answer = self.answers[GetAddresses(netns, ifname)]
        assert isinstance(answer, tuple)
        return answer

    def lifetimes(self, netns: str, ifname: str) -> tuple[Lifetime, ...]:
        answer = self.answers[GetLifetimes(netns, ifname)]
        assert isinstance(answer, tuple)
        return answer

    def routes(self, netns: str, ifname: str) -> tuple[RouteEntry, ...]:
        answer = self.answers[GetRoutes(netns, ifname)]
        assert isinstance(answer, tuple)
        return answer

    def has_route(self, netns: str, ifname: str, dst: str, by: tuple[str, ...] = ()) -> bool:
        answer = self.answers[HasRoute(netns, ifname, dst, by)]
        assert isinstance(answer, bool)
        return answer

    def surroundings(self) -> Surroundings:
        answer = self.answers[GetSurroundings()]
        assert isinstance(answer, Surroundings)
        return answer

    def sysctl(self, netns: str, key: str) -> str | None:
        if (netns, key) not in self._sysctls:
            answer = self.answers[GetSysctl(netns, key)]
            assert answer is None or isinstance(answer, str)
            self._sysctls[netns, key] = answer
        return self._sysctls[netns, key]

    def ipv6_interfaces(self) -> tuple[Ipv6Interface, ...]:
        answer = self.answers[GetIpv6Interfaces()]
        assert isinstance(answer, tuple)
        return answer

    def uplinks(self, netns: str = HOST) -> tuple[Uplink, ...]:
        answer = self.answers[GetUplinks(netns)]
        assert isinstance(answer, tuple)
        return answer

    def rules(self, netns: str, table: int) -> tuple[str, ...]:
        answer = self.answers[GetRules(netns, table)]
        assert isinstance(answer, tuple)
        return answer

    def has_proxy(self, ifname: str, address: str) -> bool:
        answer = self.answers[HasProxy(ifname, address)]
        assert isinstance(answer, bool)
        return answer

    def is_local(self, address: str) -> bool:
        answer = self.answers[IsLocal(address)]
        assert isinstance(answer, bool)
        return answer

    def neighbour(self, netns: str, ifname: str, address: str) -> str:
        answer = self.answers[GetNeighbour(netns, ifname, address)]
        assert isinstance(answer, str)
        return answer

    def neighbours(self, netns: str, ifname: str) -> tuple[tuple[str, str], ...]:
        answer = self.answers[GetNeighbours(netns, ifname)]
        assert isinstance(answer, tuple)
        return answer

    def shaping(self, ifname: str) -> Shaping:
        answer = self.answers[GetShaping(ifname)]
        assert isinstance(answer, Shaping)
        return answer

    def ruleset(self) -> str:
        answer = self.answers[GetRuleset()]
        assert isinstance(answer, str)
        return answer

    def tables(self) -> tuple[Table, ...]:
        answer = self.answers[GetTables()]
        assert isinstance(answer, tuple)
        return answer

    def elements(self, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        answer = self.answers[GetElements(elements)]
        assert isinstance(answer, tuple)
        return answer

    def listeners(self, ports: tuple[tuple[str, int], ...]) -> tuple[Listener, ...]:
        answer = self.answers[GetListeners(ports)]
        assert isinstance(answer, tuple)
        return answer

    def nft(self, rehearse: bool) -> str:
        answer = self.answers[GetNft(rehearse)]
        assert isinstance(answer, str)
        return answer

    def forward_chains(self) -> tuple[ForwardChain, ...]:
        answer = self.answers[GetForwardChains()]
        assert isinstance(answer, tuple)
        return answer

    def all_elements(self) -> tuple[Element, ...]:
        answer = self.answers[GetAllElements()]
        assert isinstance(answer, tuple)
        return answer

    def peer_addresses(self, ifname: str) -> tuple[str, ...]:
        answer = self.answers[GetPeerAddresses(ifname)]
        assert isinstance(answer, tuple)
        return answer

    def mac_holder(self, bridge: str, mac: str) -> Link | None:
        answer = self.answers[GetMacHolder(bridge, mac)]
        assert answer is None or isinstance(answer, Link)
        return answer

    def links(self) -> tuple[Link, ...]:
        answer = self.answers[GetLinks()]
        assert isinstance(answer, tuple)
        return answer

    def refuses_return(self, ifname: str, group: int) -> bool:
        answer = self.answers[RefusesReturn(ifname, group)]
        assert isinstance(answer, bool)
        return answer

    def aliases(self, asked: GetAliases) -> tuple[tuple[str, str], ...]:
        answer = self.answers[asked]
        assert isinstance(answer, tuple)
        return answer

    def alive(self, namespaces: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        answer = self.answers[GetAlive(namespaces)]
        assert isinstance(answer, frozenset)
        return answer

    def child_mode(self, netns: str, ifname: str) -> tuple[str, str]:
        answer = self.answers[GetChildMode(netns, ifname)]
        assert isinstance(answer, tuple)
        return answer

    def port_vlans(self, ifname: str) -> tuple[tuple[int, bool], ...]:
        answer = self.answers[GetPortVlans(ifname)]
        assert isinstance(answer, tuple)
        return answer


class Kernel(Protocol):
    """Reads and changes the node's interfaces, addresses, routes and sysctls, in any number of namespaces.

    A namespace is opened at its first use and closed by ``close``. If it does not exist, that is a
    CniError(UNKNOWN_CONTAINER).
    """

    def netns_id(self, path: str) -> tuple[int, int]:
        """(id, inode) of a namespace: the same under every path of it.

        The id is the kernel's and is never reused (Linux 6.18); on older kernels it is the file's device. (0, 0) if the
        file is not a network namespace. ``HOST``: the caller's own namespace.

        :raises CniError: UNKNOWN_CONTAINER if the path does not exist.
        """
        ...

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        """Answer all questions, in few round trips. Changes nothing."""
        ...

    def apply(self, ops: Iterable[Op]) -> Mapping[Op, Op | None]:
        """Apply the operations in order, all or none: on failure, undo the earlier ones (``undo.inverse``).

        :returns: what was done otherwise. An AddRoute whose place another route has: the one that was added beside it
            with another metric, or None if there was no place for it (``kernel.second_route``).
        :raises CniError: naming the operation, its object and the kernel's error.
        """
        ...

    def remove(self, ops: Iterable[Op]) -> None:
        """Apply all operations in order, whatever fails; absent counts as removed. Interfaces of the node are deleted
        last, together.

        :raises CniError: at the end, with all failures.
        """
        ...

    def close(self) -> None:
        """Close the sockets and descriptors of every namespace except the node's own."""
        ...
