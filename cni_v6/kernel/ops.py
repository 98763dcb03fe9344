"""The operations on the kernel, as values. An operation changes nothing by itself: ``linux`` or ``fake`` applies it.

``netns`` is the path of a network namespace as the runtime gave it; ``HOST`` (the empty string) is the node's own.
"""

from __future__ import annotations

from dataclasses import field

from cni_v6.firewall.sets import Element
from cni_v6.kernel.awaits import Await
from cni_v6.kernel.facts import TokenBucket
from cni_v6.values import dataclass

HOST = ""
LLDP = 1 << 0xE  # in a bridge's group_fwd_mask: 01:80:c2:00:00:0e (IEEE 802.1AB)


@dataclass(frozen=True, slots=True)
class EnsureBridge:
    """Create a bridge, down, which forwards LLDP. It may exist already; then nothing of it changes."""

    name: str
    mac: str
    mtu: int
    multicast_snooping: bool
    vlan_filtering: bool


@dataclass(frozen=True, slots=True)
class SetBridge:
    """Change an existing bridge: VLAN filtering; the families of which its frames pass the node's rules for packets
    (br_netfilter). None leaves it.
    """

    name: str
    vlan_filtering: bool | None = None
    netfilter: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class PinMac:
    """Set the MAC of a bridge that has none of its own; one that was set stays.

    Until somebody sets it, a bridge takes the lowest MAC of its ports, so each new one may change it
    (br_stp_recalculate_bridge_id, net/bridge/br_stp_if.c). It is set once, as the kernel then forgets the neighbours.
    """

    bridge: str
    mac: str


@dataclass(frozen=True, slots=True)
class CreateVeth:
    """Create a veth pair in one request: the host end on its bridge and up, the peer in its namespace and down.

    Both names must be free. Undo deletes ``host``; the kernel deletes the peer with it. ``bridge``: "" for none.
    ``shared``: the pair belongs to the network; it may exist already, and is not undone. ``group``: the link group of
    the host end.
    """

    host: str
    host_mac: str
    bridge: str
    netns: str
    ifname: str
    mac: str
    mtu: int
    shared: bool = False
    group: int = 0


@dataclass(frozen=True, slots=True)
class CreateChildLink:
    """Create a macvlan, ipvlan or vlan in a namespace, down, with an ``ifalias``. ``place``: that of its ``master``.

    The kernel makes it in its namespace at once, but compares the name with those of the node too. So it gets its name
    last, and has ``temporary`` before, which nobody else has. ``mtu`` 0: the master's. ``kind``, ``mode`` as in ``ip
    link``; the mode of a vlan is its id. ``mac`` "": the master's. Undo deletes it, also under another name.
    ``shared``: it belongs to the network and has its name at once; it may exist already, and is not undone.
    """

    place: str
    master: str
    netns: str
    ifname: str
    temporary: str
    kind: str
    mode: str
    mac: str
    mtu: int
    alias: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class SetAlias:
    """Set an interface's ``ifalias``, which names its owner."""

    netns: str
    ifname: str
    alias: str


@dataclass(frozen=True, slots=True)
class ClaimMac:
    """Claim a MAC on a bridge for whoever is behind a port, as an alternative name of the port.

    The kernel keeps the names of a namespace unique and ends them with their interface. So of two calls for one MAC one
    is refused, with a firewall or without, and there is nothing to clean up.

    CniError(ADDRESS_UNAVAILABLE) names the owner of another port that has claimed it.
    """

    ifname: str
    bridge: str
    mac: str

    @property
    def name(self) -> str:
        """The alternative name; linux/if.h: ALTIFNAMSIZ allows 127 characters."""
        return f"{self.bridge}.{self.mac.replace(':', '-')}"


@dataclass(frozen=True, slots=True)
class SetPort:
    """Set a bridge port's flags (``IFLA_BRPORT_MODE``, ``IFLA_BRPORT_ISOLATED``)."""

    ifname: str
    hairpin: bool
    isolated: bool


@dataclass(frozen=True, slots=True)
class PlugIn:
    """Make an interface of the node a port of a bridge, with the flags and the VLAN that any new port there has."""

    ifname: str
    bridge: str


@dataclass(frozen=True, slots=True)
class AddPortVlans:
    """Add VLANs to a bridge port: ``pvid`` untagged (0: none), the inclusive ranges in ``trunk`` tagged."""

    ifname: str
    pvid: int
    trunk: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class RemovePortVlan:
    """Remove a VLAN from a bridge port. It may be absent already."""

    ifname: str
    vlan: int


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write ``net/<key>`` below /proc/sys in a namespace. Undo writes ``was`` back; None: it leaves the value.

    ``precaution``: containers work without it. If it cannot be written, that is a warning and not an error.
    """

    netns: str
    key: str
    value: str
    was: str | None = None
    precaution: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Add an address, ``ip/prefixlen``. It may exist already. ``dad``: with duplicate address detection.

    ``scope``: as in rtnetlink. The kernel takes no IPv4 address of scope 254 (host) for the source of a packet that
    leaves the node (inet_select_addr, net/ipv4/devinet.c).
    """

    netns: str
    ifname: str
    address: str
    dad: bool = False
    scope: int = 0


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Remove an address, ``ip/prefixlen``, from an interface. It may be absent already."""

    netns: str
    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class SetLink:
    """Set an interface up or down, promiscuous or not, and its link group (None: leave it)."""

    netns: str
    ifname: str
    up: bool
    promisc: bool | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class TuneLink:
    """Set whether an interface takes frames for others, and all multicast, the length of its queue in packets, and
    whether it resolves neighbours (ARP, RFC 4861); None leaves it. It goes with the interface.
    """

    netns: str
    ifname: str
    promisc: bool | None = None
    allmulti: bool | None = None
    tx_queue: int | None = None
    arp: bool | None = None


@dataclass(frozen=True, slots=True)
class AddProxy:
    """Add an NDP proxy entry: the node answers neighbour solicitations for an address. It may exist already."""

    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class RemoveProxy:
    """Remove an NDP proxy entry. It may be absent already."""

    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class SetNeighbour:
    """Set the MAC of a neighbour for good: the kernel neither asks for it nor takes another one from an advertisement.

    It ends with the interface, or when that goes down. The kernel counts it not against ``gc_thresh3``, the number of
    neighbours that all network namespaces of the machine may have together (neigh_alloc, net/core/neighbour.c).
    """

    netns: str
    ifname: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce the interface's addresses on the segment: gratuitous ARP, unsolicited neighbour advertisement.

    The kernel sends them when the MAC is set, also to its present value (NETDEV_CHANGEADDR in net/ipv4/devinet.c and
    net/ipv6/ndisc.c), if ``arp_notify`` and ``ndisc_notify`` are 1. A packet socket could send them too, but closing
    one waits for an RCU grace period (packet_release, net/packet/af_packet.c): 14 ms, longer than the rest of an ADD.
    """

    netns: str
    ifname: str
    mac: str


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Delete an interface. It may be absent already. The kernel deletes a veth's peer with it."""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a unicast route through an interface. The same route may exist already; another one stays (``Kernel.apply``).

    ``dst``: a prefix. ``gateway``: an address, of IPv6 for an IPv4 prefix too (RFC 5549); None for an on-link route.
    ``scope``: as in rtnetlink (0 global, 253 link). ``source``: of the node's own packets. Any other attribute that is
    None is left to the kernel.
    """

    netns: str
    ifname: str
    dst: str
    gateway: str | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class AddUnreachable:
    """Add an unreachable route for an IPv6 prefix with the highest metric, so that every other route wins.

    It may exist already.
    """

    netns: str
    dst: str


@dataclass(frozen=True, slots=True)
class RemoveUnreachable:
    """Remove such a route. It may be absent already."""

    netns: str
    dst: str


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Remove a prefix's route through an interface from a table, with any next hop. It may be absent already.

    ``table`` None: the main one.
    """

    netns: str
    ifname: str
    dst: str
    table: int | None = None


@dataclass(frozen=True, slots=True)
class AddRule:
    """Add a rule: what is sent from the prefix ``source`` is routed by ``table`` first (ip-rule(8)). It may exist
    already.

    A rule stays when the interface with its source goes.
    """

    netns: str
    source: str
    table: int


@dataclass(frozen=True, slots=True)
class RemoveRule:
    """Remove such a rule. It may be absent already."""

    netns: str
    source: str
    table: int


@dataclass(frozen=True, slots=True)
class RefuseReturn:
    """Have the node answer that a destination is unreachable where what came in by an interface would leave by one of a
    link group. It may be so already. A kernel without routing rules (CONFIG_IP_MULTIPLE_TABLES) goes on as before.
    """

    ifname: str
    group: int


@dataclass(frozen=True, slots=True)
class AllowReturn:
    """Undo ``RefuseReturn``. It may be undone already."""

    ifname: str
    group: int


@dataclass(frozen=True, slots=True)
class SetPreferred:
    """Make an IPv6 address, ``ip/prefixlen``, preferred or deprecated (RFC 4862, section 5.5.4).

    The kernel adds the address if it is absent (inet6_rtm_newaddr, net/ipv6/addrconf.c).
    """

    netns: str
    ifname: str
    address: str
    preferred: bool


@dataclass(frozen=True, slots=True)
class CreateIfb:
    """Create an intermediate functional block device: what is sent there comes in again where it came from, after its
    queue. It may exist already.
    """

    ifname: str


@dataclass(frozen=True, slots=True)
class SetBucket:
    """Have an interface of the node send no faster than a token bucket allows, in place of the queue that it has."""

    ifname: str
    bucket: TokenBucket


@dataclass(frozen=True, slots=True)
class HookIngress:
    """Let an interface of the node have filters for what it receives (tc, ``ingress``). It may have them already."""

    ifname: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send all that an interface of the node receives through the queue of the device ``ifb`` (tc-mirred(8))."""

    ifname: str
    ifb: str


@dataclass(frozen=True, slots=True)
class AddElements:
    """Add elements to the sets of our tables, all or none. The same element may exist already.

    CniError: PORT_TAKEN if another attachment has published the port, FIREWALL_MISSING if the tables do not exist.
    """

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class RemoveElements:
    """Remove elements. They may be absent already. A map's entry with other data is another attachment's: it stays."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class LoadRuleset:
    """Replace both tables, with these elements in their sets, in one transaction; and do ``RouteLoopback``."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class RouteLoopback:
    """Have the node take packets for the address that stands for ::1 in our rules. It may do so already."""


@dataclass(frozen=True, slots=True)
class UnloadRuleset:
    """Delete both tables, and that route. They may be absent already."""


@dataclass(frozen=True, slots=True)
class FlushFlows:
    """Delete the conntrack entries of UDP flows of containers' addresses and of published ports (IP version, port).

    Conntrack decides a flow's translation at its first packet and keeps it while packets arrive. A flow from before an
    ADD or DEL would continue to an address that nobody has. TCP connections end by themselves.
    """

    addresses: tuple[str, ...]
    ports: tuple[tuple[int, int], ...] = ()


Op = (
    EnsureBridge
    | SetBridge
    | PinMac
    | CreateVeth
    | CreateChildLink
    | SetAlias
    | ClaimMac
    | SetPort
    | PlugIn
    | AddPortVlans
    | RemovePortVlan
    | SetSysctl
    | AddAddress
    | RemoveAddress
    | SetPreferred
    | SetLink
    | TuneLink
    | AddRoute
    | AddUnreachable
    | RemoveUnreachable
    | RemoveRoute
    | AddRule
    | RemoveRule
    | RefuseReturn
    | AllowReturn
    | AddProxy
    | RemoveProxy
    | SetNeighbour
    | CreateIfb
    | SetBucket
    | HookIngress
    | Redirect
    | AddElements
    | RemoveElements
    | LoadRuleset
    | RouteLoopback
    | UnloadRuleset
    | FlushFlows
    | Await
    | Announce
    | DeleteLink
)
