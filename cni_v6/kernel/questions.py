"""The kernel as the plugins see it: questions in, a snapshot out; operations in, done or undone.

``linux.LinuxKernel`` is the real one, ``fake.FakeKernel`` the same in dictionaries; ``tests/contract`` holds both to
the same assertions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cni_v6.firewall.sets import Element
from cni_v6.kernel.ops import Op

FOREVER = 0xFFFF_FFFF  # net/addrconf.h, INFINITY_LIFE_TIME: a lifetime in seconds that has no end
BRIDGE_PORTS_MAX = 1023  # net/bridge/br_private.h: BR_MAX_PORTS is 1 << 10, and br_if.c gives out no port number 0


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. ``master`` is the name of its bridge or ""; ``kind`` as in ``IFLA_INFO_KIND``, "" for hardware."""

    name: str
    mac: str
    mtu: int
    kind: str = ""
    up: bool = False
    promisc: bool = False
    master: str = ""
    alias: str = ""
    hairpin: bool = False
    isolated: bool = False
    vlan_filtering: bool = False
    default_vlan: int = 1  # a bridge's IFLA_BR_VLAN_DEFAULT_PVID: what its new ports are in; 0 for none
    group: int = 0
    port_enabled: bool = False  # a bridge port whose IFLA_BRPORT_STATE is not BR_STATE_DISABLED


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """One unicast route as the kernel lists it; ``dst`` is a prefix, ``0.0.0.0/0`` and ``::/0`` for the default."""

    dst: str
    gateway: str | None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int = 254
    scope: int = 0


@dataclass(frozen=True, slots=True)
class Ipv6Interface:
    """What an interface of the node does with IPv6: ``net/ipv6/conf/<name>/accept_ra`` and ``disable_ipv6``."""

    name: str
    accept_ra: str
    disabled: bool


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface that a default route of a family (4 or 6) leads through; one of several hops is one of several."""

    family: int
    ifname: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Lifetime:
    """An IPv6 address, ``ip/prefixlen``; seconds that it stays preferred (0: it is deprecated) and valid, or FOREVER.

    ``temporary``: one of those that change by themselves (RFC 8981).
    """

    address: str
    preferred: int = FOREVER
    valid: int = FOREVER
    temporary: bool = False


DROPS_ALL, DROPS_REST = "all", "rest"  # what reaches a chain; what no rule before has accepted


@dataclass(frozen=True, slots=True)
class ForwardChain:
    """A base chain of nftables at the forward hook, of a table that is not ours, as far as it drops by itself.

    ``family``: of its table: ip, ip6, inet. ``drops``: DROPS_ALL, DROPS_REST, or "" where it drops by conditions only.
    ``interfaces``: those that the rules of the table compare with, a trailing ``*`` for those that begin so.
    """

    family: str
    table: str
    name: str
    drops: str = ""
    interfaces: frozenset[str] = frozenset()

    def mentions(self, ifname: str) -> bool:
        """Whether a rule of the table names an interface."""
        return any(
            ifname.startswith(name.removesuffix("*")) if name.endswith("*") else ifname == name
            for name in self.interfaces
        )


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket of the node that is bound to a port. ``address`` may be unspecified; ``process``: whose it is, or ""."""

    protocol: str
    port: int
    address: str
    process: str = ""


# Questions. Each is a value; a Snapshot maps it to its answer.


@dataclass(frozen=True, slots=True)
class GetLink:
    """-> Link | None"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetAddresses:
    """-> tuple[str, ...]: every ``ip/prefixlen`` of an interface, both families; () when there is no such interface"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetLifetimes:
    """-> tuple[Lifetime, ...]: every IPv6 address of an interface; () when there is no such interface"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetRoutes:
    """-> tuple[RouteEntry, ...]: every unicast route through an interface, all tables but local"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetSysctl:
    """-> str | None: the value of ``net/<key>`` below /proc/sys, None when the kernel has no such key"""

    netns: str
    key: str


@dataclass(frozen=True, slots=True)
class GetIpv6Interfaces:
    """-> tuple[Ipv6Interface, ...]: all of the node's interfaces that have IPv6 settings, loopback left out"""


@dataclass(frozen=True, slots=True)
class GetUplinks:
    """-> tuple[Uplink, ...]: the interfaces of the node's default routes, IPv4's first; () where it has none"""


@dataclass(frozen=True, slots=True)
class GetProxies:
    """-> tuple[str, ...]: the IPv6 addresses that the node answers for on an interface; () where that is not there"""

    ifname: str


@dataclass(frozen=True, slots=True)
class GetRuleset:
    """-> str: the mark of the firewall's rules that are loaded, "" where one of our tables or its mark is missing"""


@dataclass(frozen=True, slots=True)
class GetElements:
    """-> tuple[Element, ...]: those of the firewall's elements that are there, each with the data that it has there"""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class GetListeners:
    """-> tuple[Listener, ...]: the node's own sockets on these ports, (protocol, number) each"""

    ports: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class GetNft:
    """-> str: why ``nft`` cannot load the firewall's rules; "" where it can.

    ``rehearse``: it is executed, up to where the kernel would keep the rules; else its program is looked for.
    """

    rehearse: bool


@dataclass(frozen=True, slots=True)
class GetForwardChains:
    """-> tuple[ForwardChain, ...]: those of others that drop what nothing accepts"""


@dataclass(frozen=True, slots=True)
class GetPorts:
    """-> tuple[Link, ...]: the ports of a bridge on the node"""

    bridge: str


@dataclass(frozen=True, slots=True)
class GetLinks:
    """-> tuple[Link, ...]: all of the node's interfaces"""


@dataclass(frozen=True, slots=True)
class GetAlive:
    """-> frozenset of those of the namespaces (as ``Kernel.netns_id`` tells them) that are not known to have ended"""

    namespaces: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class GetPortVlans:
    """-> tuple[tuple[int, bool], ...]: (VLAN, is the untagged PVID) of a bridge port, in order"""

    ifname: str


Question = (
    GetLink
    | GetAddresses
    | GetLifetimes
    | GetRoutes
    | GetSysctl
    | GetIpv6Interfaces
    | GetUplinks
    | GetProxies
    | GetRuleset
    | GetElements
    | GetListeners
    | GetNft
    | GetForwardChains
    | GetPorts
    | GetLinks
    | GetAlive
    | GetPortVlans
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Answers to the questions of one ``observe``; asking for one that was not put is a KeyError, hence a bug."""

    answers: Mapping[Question, object]

    def with_answers(self, more: Snapshot) -> Snapshot:
        """This and a later snapshot as one."""
        return Snapshot({**self.answers, **more.answers})

    def link(self, netns: str, ifname: str) -> Link | None:
        answer = self.answers[GetLink(netns, ifname)]
        assert answer is None or isinstance(answer, Link)
        return answer

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

    def sysctl(self, netns: str, key: str) -> str | None:
        answer = self.answers[GetSysctl(netns, key)]
        assert answer is None or isinstance(answer, str)
        return answer

    def ipv6_interfaces(self) -> tuple[Ipv6Interface, ...]:
        answer = self.answers[GetIpv6Interfaces()]
        assert isinstance(answer, tuple)
        return answer

    def uplinks(self) -> tuple[Uplink, ...]:
        answer = self.answers[GetUplinks()]
        assert isinstance(answer, tuple)
        return answer

    def proxies(self, ifname: str) -> tuple[str, ...]:
        answer = self.answers[GetProxies(ifname)]
        assert isinstance(answer, tuple)
        return answer

    def ruleset(self) -> str:
        answer = self.answers[GetRuleset()]
        assert isinstance(answer, str)
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

    def ports(self, bridge: str) -> tuple[Link, ...]:
        answer = self.answers[GetPorts(bridge)]
        assert isinstance(answer, tuple)
        return answer

    def links(self) -> tuple[Link, ...]:
        answer = self.answers[GetLinks()]
        assert isinstance(answer, tuple)
        return answer

    def alive(self, namespaces: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        answer = self.answers[GetAlive(namespaces)]
        assert isinstance(answer, frozenset)
        return answer

    def port_vlans(self, ifname: str) -> tuple[tuple[int, bool], ...]:
        answer = self.answers[GetPortVlans(ifname)]
        assert isinstance(answer, tuple)
        return answer


class Kernel(Protocol):
    """Reads and changes the node's interfaces, addresses, routes and sysctls, in any number of namespaces.

    A namespace is opened at its first use and closed by ``close`` (or when the invocation's kernel is left as a
    context). A namespace that is not there raises CniError(UNKNOWN_CONTAINER).
    """

    def netns_id(self, path: str) -> tuple[int, int]:
        """(id, inode) of the namespace: what makes it the same namespace under another path.

        The id is the kernel's, and no other namespace's ever (Linux 6.18); before, it is the file's device. Zeros for a
        file that is something else. For ``HOST`` the caller's own. Raises CniError(UNKNOWN_CONTAINER) where there is
        none.
        """
        ...

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        """Answer all questions, in as few round trips as the kernel allows. Changes nothing."""
        ...

    def apply(self, ops: Iterable[Op]) -> None:
        """Do them in order, all or none: on failure undo what was done (``ops.inverse``) and raise CniError.

        The message names the operation's object and what the kernel said.
        """
        ...

    def remove(self, ops: Iterable[Op]) -> None:
        """Do them all in order, whatever fails; absent counts as done. Raises the collected failures at the end.

        Interfaces of the node are deleted last, and together.
        """
        ...

    def close(self) -> None:
        """Close the sockets and descriptors of every namespace but the node's own."""
        ...
