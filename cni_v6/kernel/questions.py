"""The questions about the kernel, as values: a Snapshot (``snapshot``) maps each to its answer."""

from __future__ import annotations

from cni_v6.firewall.sets import Element
from cni_v6.kernel.ops import HOST
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class GetLink:
    """-> Link | None"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetAddresses:
    """-> tuple[str, ...]: every ``ip/prefixlen`` of an interface, both families; () if there is no such interface"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetLifetimes:
    """-> tuple[Lifetime, ...]: every IPv6 address of an interface; () if there is no such interface"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetRoutes:
    """-> tuple[RouteEntry, ...]: every unicast route through an interface, all tables but local"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class HasRoute:
    """-> bool: whether the main table has a unicast route to exactly this prefix through an interface

    ``by``: the next hops of which it has one; () for a route to the link itself.
    """

    netns: str
    ifname: str
    dst: str
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GetSurroundings:
    """-> Surroundings: where the node has addresses, and where its routes lead, interfaces of a VRF left out"""


@dataclass(frozen=True, slots=True)
class GetSysctl:
    """-> str | None: the value of ``net/<key>`` below /proc/sys; None if the kernel has no such key"""

    netns: str
    key: str


@dataclass(frozen=True, slots=True)
class GetIpv6Interfaces:
    """-> tuple[Ipv6Interface, ...]: the node's interfaces with IPv6 settings, except loopback"""


@dataclass(frozen=True, slots=True)
class GetUplinks:
    """-> tuple[Uplink, ...]: the interfaces of a namespace's default routes, IPv4 first; () if it has none"""

    netns: str = HOST


@dataclass(frozen=True, slots=True)
class GetRules:
    """-> tuple[str, ...]: the source prefixes of the rules that lead to a routing table (``ops.AddRule``)"""

    netns: str
    table: int


@dataclass(frozen=True, slots=True)
class RefusesReturn:
    """-> bool: whether all is there that ``ops.RefuseReturn`` makes; of a family without routing rules that is nothing
    """

    ifname: str
    group: int


@dataclass(frozen=True, slots=True)
class HasProxy:
    """-> bool: whether an interface of the node has an NDP proxy entry for an address"""

    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class IsLocal:
    """-> bool: whether packets of the node to an IPv6 address end at itself, by a route of type ``local``

    It has such a route to each of its own addresses. Another one is ``ops.RouteLoopback``.
    """

    address: str


@dataclass(frozen=True, slots=True)
class GetNeighbour:
    """-> str: the MAC of an interface's neighbour that was set for good; "" if there is none"""

    netns: str
    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class GetNeighbours:
    """-> tuple[tuple[str, str], ...]: (address, MAC) of each of an interface's neighbours that was set for good"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetShaping:
    """-> Shaping: the token bucket of an interface of the node, and where what it receives passes"""

    ifname: str


@dataclass(frozen=True, slots=True)
class GetRuleset:
    """-> str: the mark of the loaded firewall rules; "" if a table of ours or its mark is missing, or if others have
    changed the rules (``firewall.shape``)"""


@dataclass(frozen=True, slots=True)
class GetTables:
    """-> tuple[Table, ...]: those of the firewall's tables that exist"""


@dataclass(frozen=True, slots=True)
class GetElements:
    """-> tuple[Element, ...]: those of the elements that the firewall has, with the data that they have there"""

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
class GetAllElements:
    """-> tuple[Element, ...]: all of the firewall's elements; () where our tables are missing"""


@dataclass(frozen=True, slots=True)
class GetPeerAddresses:
    """-> tuple[str, ...]: every ``ip/prefixlen`` of the other end of a veth of the node; () where nobody can tell"""

    ifname: str


@dataclass(frozen=True, slots=True)
class GetMacHolder:
    """-> Link | None: the bridge, or the port of it, that has a MAC, or whose other end has

    The MACs are those that the interfaces have now. None where nobody has it, or there is no such bridge.
    """

    bridge: str
    mac: str


@dataclass(frozen=True, slots=True)
class GetLinks:
    """-> tuple[Link, ...]: all of the node's interfaces"""


@dataclass(frozen=True, slots=True)
class GetAliases:
    """-> tuple[tuple[str, str], ...]: (name, alias) of the node's interfaces whose alias begins so

    ``bridge``: of its ports alone; "" for all interfaces. ``known``: names of which nothing is to be told. ``among``:
    the names that are looked at; None for all.
    """

    start: str
    bridge: str = ""
    known: frozenset[str] = frozenset()
    among: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class GetAlive:
    """-> frozenset: those of the namespaces (see ``Kernel.netns_id``) that are not known to have ended"""

    namespaces: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class GetChildMode:
    """-> (str, str): kind and mode of a macvlan or ipvlan as in ``ip link``, of a vlan its id; "" twice for others"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class GetPortVlans:
    """-> tuple[tuple[int, bool], ...]: (VLAN, whether it is the untagged PVID) of a bridge port, in order"""

    ifname: str


Question = (
    GetLink
    | GetAddresses
    | GetLifetimes
    | GetRoutes
    | HasRoute
    | GetSurroundings
    | GetSysctl
    | GetIpv6Interfaces
    | GetUplinks
    | GetRules
    | RefusesReturn
    | HasProxy
    | IsLocal
    | GetNeighbour
    | GetNeighbours
    | GetShaping
    | GetRuleset
    | GetTables
    | GetElements
    | GetListeners
    | GetNft
    | GetForwardChains
    | GetAllElements
    | GetPeerAddresses
    | GetMacHolder
    | GetLinks
    | GetAliases
    | GetAlive
    | GetChildMode
    | GetPortVlans
)
