"""What the agent asks of the kernel and tells it, as values, and the protocol of a kernel that carries them out.

``linux`` is the real one, ``fake`` the one for tests; tests/contract/test_cluster_kernel.py holds for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cni_v6.cluster.wireguard_values import Address, Encrypted, Peer
from cni_v6.errors import CniError
from cni_v6.log import counted
from cni_v6.protocol import names

TUNNEL = "cni-v6-vxlan"
SRV6, SRV6_IN = "cni-v6-srv6", names.SRV6_IN


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

    ``local``: the address of the node that its packets have; ``underlay``: the interface that they leave by, and those
    of other nodes come in by. With it goes a table of nftables, which drops those that come in by another one, or are
    of no other node.
    """

    underlay: str
    local: str
    mac: str
    address: str
    mtu: int

    @property
    def ifname(self) -> str:
        return TUNNEL

    @property
    def interface(self) -> Tunnel:
        """All of it but what its table alone has."""
        return self

    def __str__(self) -> str:
        return f"interface {TUNNEL} from {self.local} on {self.underlay} (mtu {self.mtu})"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of a veth, SRV6 and SRV6_IN: up, with this MTU, without addresses or ARP.

    SRV6_IN takes IPv4 from any source, the node's own too.

    ``srv6`` says what for. With it goes a table of nftables: no connection is tracked at SRV6_IN, as it is at SRV6, and
    ``source`` is that of what is encapsulated.
    """

    mtu: int
    source: str

    @property
    def ifname(self) -> str:
        return SRV6

    @property
    def interface(self) -> Pair:
        """All of it but what its table alone has."""
        return replace(self, source="")

    def __str__(self) -> str:
        return f"interfaces {SRV6} and {SRV6_IN} from {self.source} (mtu {self.mtu})"


Device = Tunnel | Pair | Encrypted


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


@dataclass(frozen=True, slots=True)
class SegmentRoute:
    """A route of the table for SRv6: it encapsulates to a ``segment``, or is a SID with a ``behaviour``, or leads to
    SIDs of another node by its ``gateway``, or to SRV6_IN what was decapsulated."""

    dst: str
    ifname: str
    segment: str | None = None
    behaviour: str | None = None
    gateway: str | None = None

    def __str__(self) -> str:
        found = (("encapsulated for", self.segment), ("that is", self.behaviour), ("via", self.gateway))
        ways = "".join(f" {words} {value}" for words, value in found if value is not None)
        return f"route {self.dst}{ways} dev {self.ifname} of the table for SRv6"


@dataclass(frozen=True, slots=True)
class Rule:
    """What comes in by an interface, for a prefix or for anywhere (None), looks into the table for SRv6 first."""

    family: int
    ifname: str
    dst: str | None = None

    def __str__(self) -> str:
        return f"rule of IPv{self.family} for {self.dst or 'all'} that comes in by {self.ifname}"


Entry = Route | Neighbour | Endpoint | SegmentRoute | Rule | Peer | Address
# Each needs those before it.
ORDER: tuple[type[Entry], ...] = (Endpoint, Neighbour, SegmentRoute, Rule, Peer, Address, Route)


@dataclass(frozen=True, slots=True)
class Add:
    """An entry must not be there: another program's route to the prefix with the same metric is an error."""

    what: Entry | Device

    def __str__(self) -> str:
        return f"add {self.what}"


@dataclass(frozen=True, slots=True)
class Remove:
    """It may be gone already. Another program's route to the prefix stays."""

    what: Entry

    def __str__(self) -> str:
        return f"remove {self.what}"


@dataclass(frozen=True, slots=True)
class RemoveDevice:
    """It may be gone already. With it goes all that it was told, and its routes, but not rules with its name."""

    ifname: str

    def __str__(self) -> str:
        return f"remove interface {self.ifname}"


@dataclass(frozen=True, slots=True)
class Forward:
    """Forward IPv6 that comes in by an interface, on a node that forwards by ``force_forwarding``."""

    ifname: str

    def __str__(self) -> str:
        return f"forward what comes in by {self.ifname}"


@dataclass(frozen=True, slots=True)
class Passage:
    """What the node forwards from a prefix of another cluster to a pool of this one: it goes on, or is dropped."""

    source: str
    target: str
    is_open: bool

    def __str__(self) -> str:
        return f"{'accept' if self.is_open else 'drop'} {self.source} to {self.target}"


@dataclass(frozen=True, slots=True)
class SetGate:
    """Have these passages, the first that fits counts, and no other ones. Answers pass, and what is published."""

    passages: tuple[Passage, ...]

    def __str__(self) -> str:
        return "set what other clusters may reach: " + ("; ".join(map(str, self.passages)) or "all")


@dataclass(frozen=True, slots=True)
class SetNodes:
    """Tell the carrier's table the IPv6 addresses of the other nodes. Without a table nothing is done."""

    addresses: frozenset[str]

    def __str__(self) -> str:
        return f"tell nftables of {counted(len(self.addresses), 'other node')}"


@dataclass(frozen=True, slots=True)
class SetTable:
    """Make the table of nftables of a device anew, whose interfaces stay; it knows these nodes.

    All at once: no packet is dropped, and nothing else passes.
    """

    device: Device
    nodes: frozenset[str]

    def __str__(self) -> str:
        return f"set the table of nftables of {self.device}"


@dataclass(frozen=True, slots=True)
class Vacate:
    """Remove the node's own addresses of a prefix, a network's gateways: with them the prefix would be on-link here."""

    prefix: str

    def __str__(self) -> str:
        return f"remove the node's own addresses of {self.prefix}"


Op = Add | Remove | RemoveDevice | Forward | SetGate | SetNodes | SetTable | Vacate


@dataclass(frozen=True, slots=True)
class Facts:
    """``underlay``: None if there is no such interface.

    ``devices``: those of the names of devices that an interface has; None for one that is not as it must be.
    ``entries``: routes and rules with our protocol number; what the carrier's interface was told. ``closed``: those of
    the interfaces that packets of other nodes come in by on which ``Forward`` would change something. ``drops``: the
    reverse path filter (RFC 3704) drops IPv4 packets whose source is reached by another interface. ``gate``: the
    passages, in words. ``nodes``: the other nodes that the carrier's table knows; None if there is none.
    ``interfaces``: those of devices that are as they must be, whatever their tables are. ``public_key``: of the node's
    WireGuard interface, in base64; "" while there is none with the node's private key.
    """

    underlay: Underlay | None
    devices: Mapping[str, Device | None] = field(default_factory=dict)
    entries: frozenset[Entry] = frozenset()
    closed: frozenset[str] = frozenset()
    drops: bool = False
    gate: tuple[str, ...] = ()
    nodes: frozenset[str] | None = None
    interfaces: frozenset[Device] = frozenset()
    public_key: str = ""


class NodeKernel(Protocol):
    """The kernel of the node that the agent runs on."""

    def observe(self) -> Facts: ...

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        """Carry out each of them; those that the kernel refuses do not hinder the others, and are returned."""
        ...
