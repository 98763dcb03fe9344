"""What can be done to the kernel, as values. No operation touches anything by itself: ``kernel`` applies them.

``netns`` is the path of a network namespace as the runtime gave it; ``HOST`` (the empty string) is the node's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cni_v6.firewall.sets import Element

HOST = ""


@dataclass(frozen=True, slots=True)
class EnsureBridge:
    """A bridge, created down; one that is there already is fine and keeps what it has."""

    name: str
    mac: str
    mtu: int
    multicast_snooping: bool
    vlan_filtering: bool


@dataclass(frozen=True, slots=True)
class SetBridge:
    """Change an existing bridge's VLAN filtering."""

    name: str
    vlan_filtering: bool


@dataclass(frozen=True, slots=True)
class CreateVeth:
    """Both ends in one request: the host end on its bridge and up, the peer in its namespace and down.

    The name must be free on both sides. Undone by deleting ``host``, which takes the peer along. ``shared``: one that
    is there already is fine, and it is not undone, since it belongs to the network.
    """

    host: str
    host_mac: str
    bridge: str
    netns: str
    ifname: str
    mac: str
    mtu: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class SetAlias:
    """The interface's ``ifalias``: whose it is."""

    netns: str
    ifname: str
    alias: str


@dataclass(frozen=True, slots=True)
class SetPort:
    """A bridge port's flags (``IFLA_BRPORT_MODE``, ``IFLA_BRPORT_ISOLATED``)."""

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
    """VLANs of a bridge port: ``pvid`` untagged (0: none), ``trunk`` ranges tagged, inclusive."""

    ifname: str
    pvid: int
    trunk: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class RemovePortVlan:
    """Take one VLAN off a bridge port; absent is fine."""

    ifname: str
    vlan: int


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write ``net/<key>`` below /proc/sys in a namespace; ``was`` is what undo writes back (None: leave it).

    ``precaution``: containers work without it, so that where it cannot be written a warning is enough.
    """

    netns: str
    key: str
    value: str
    was: str | None = None
    precaution: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """An address, ``ip/prefixlen``. ``dad`` asks the kernel for duplicate address detection; there already is fine."""

    netns: str
    ifname: str
    address: str
    dad: bool = False


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Take an address, ``ip/prefixlen``, off an interface; absent is fine."""

    netns: str
    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class SetLink:
    """Up or down; promiscuous or not, and its link group (None: leave it)."""

    netns: str
    ifname: str
    up: bool
    promisc: bool | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class AddProxy:
    """Have the node answer neighbour solicitations for an IPv6 address on one of its interfaces; already is fine."""

    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class RemoveProxy:
    """Answer for it no more; absent is fine."""

    ifname: str
    address: str


@dataclass(frozen=True, slots=True)
class AwaitPort:
    """Wait for the kernel's own word that a bridge port is no longer disabled: it learns of the peer's carrier late."""

    ifname: str


@dataclass(frozen=True, slots=True)
class AwaitAddresses:
    """Wait for the end of duplicate address detection on an interface's addresses; a duplicate is an error."""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class AwaitEnd:
    """Wait for the kernel's own word that an interface of the node is gone, with its other end's namespace."""

    ifname: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the segment who has the interface's addresses now: gratuitous ARP, unsolicited neighbour advertisement.

    The kernel does it when the MAC is set, to the one it has (NETDEV_CHANGEADDR in net/ipv4/devinet.c and
    net/ipv6/ndisc.c), on an interface whose ``arp_notify`` and ``ndisc_notify`` are 1. A packet socket would do too,
    but closing one waits for an RCU grace period (packet_release, net/packet/af_packet.c): 14 ms, more than the rest.
    """

    netns: str
    ifname: str
    mac: str


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Delete an interface; absent is fine. A veth takes its peer along."""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class AddRoute:
    """A unicast route through an interface; the same route there already is fine.

    ``dst`` is a prefix; ``gateway`` an address or None for on-link; ``scope`` as in rtnetlink (0 global, 253 link).
    None for any other attribute leaves it to the kernel.
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


@dataclass(frozen=True, slots=True)
class AddUnreachable:
    """An IPv6 prefix of which nothing is reached but by other routes, all of which go before this; already is fine."""

    netns: str
    dst: str


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Take the route of a prefix through an interface out of the main table, whatever its next hop; absent is fine."""

    netns: str
    ifname: str
    dst: str


@dataclass(frozen=True, slots=True)
class SetPreferred:
    """Whether an IPv6 address, ``ip/prefixlen``, is one to call from, or deprecated.

    The kernel adds one that is not there (inet6_rtm_newaddr, net/ipv6/addrconf.c).
    """

    netns: str
    ifname: str
    address: str
    preferred: bool


@dataclass(frozen=True, slots=True)
class AddElements:
    """Put elements into the sets of our tables, all or none; the same one there already is fine.

    CniError(PORT_TAKEN) where another attachment has published the port, FIREWALL_MISSING where the tables are gone.
    """

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class RemoveElements:
    """Take elements out; absent is fine, and a map's entry with other data stays: it is another attachment's."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class LoadRuleset:
    """Make both tables, in place of what they are now, with these elements in their sets; in one transaction."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class UnloadRuleset:
    """Delete both tables; absent is fine."""


@dataclass(frozen=True, slots=True)
class FlushFlows:
    """Have the kernel forget UDP flows: of containers' addresses, and of published ports, (IP version, port) each.

    A flow's translation is decided with its first packet and kept while packets come: without this, one from before an
    ADD or DEL goes on to where nobody is. TCP ends by itself.
    """

    addresses: tuple[str, ...]
    ports: tuple[tuple[int, int], ...] = ()


Op = (
    EnsureBridge
    | SetBridge
    | CreateVeth
    | SetAlias
    | SetPort
    | PlugIn
    | AddPortVlans
    | RemovePortVlan
    | SetSysctl
    | AddAddress
    | RemoveAddress
    | SetPreferred
    | SetLink
    | AddRoute
    | AddUnreachable
    | RemoveRoute
    | AddProxy
    | RemoveProxy
    | AddElements
    | RemoveElements
    | LoadRuleset
    | UnloadRuleset
    | FlushFlows
    | AwaitPort
    | AwaitAddresses
    | AwaitEnd
    | Announce
    | DeleteLink
)


def inverse(op: Op) -> Op | None:
    """What undoes an operation of a failed ADD; None where there is nothing to undo.

    The bridge, the node's port in a VLAN, their addresses and the node's forwarding belong to the network, not to the
    container: another ADD may already count on them, so they stay (the reference plugin leaves them too). Everything
    else an ADD does lives on the veth pair and goes with it, but for sysctls of interfaces that were there before, and
    for what the node is told of the container's addresses: a proxy entry, a route to one host, or a route by it.
    """
    if isinstance(op, CreateVeth) and not op.shared:
        return DeleteLink(HOST, op.host)
    if isinstance(op, SetSysctl) and op.netns != HOST and op.was is not None:
        return SetSysctl(op.netns, op.key, op.was)
    if isinstance(op, AddElements):
        return RemoveElements(op.elements)
    if isinstance(op, AddProxy):
        return RemoveProxy(op.ifname, op.address)
    if isinstance(op, AddRoute) and op.netns == HOST and (op.gateway or op.dst.endswith("/128")):
        return RemoveRoute(HOST, op.ifname, op.dst)
    return None


_WORDS = {
    EnsureBridge: "create bridge {name} (mac {mac}, mtu {mtu})",
    SetBridge: "set vlan filtering of bridge {name} to {vlan_filtering}",
    CreateVeth: "create veth {host} on bridge {bridge}, its peer {ifname} (mac {mac}, mtu {mtu}) in {netns}",
    SetAlias: "name the owner of {ifname}: {alias}",
    SetPort: "set port {ifname}: hairpin {hairpin}, isolated {isolated}",
    PlugIn: "plug {ifname} into bridge {bridge}",
    AddPortVlans: "add to port {ifname}: vlan {pvid} untagged, {trunk} tagged",
    RemovePortVlan: "remove vlan {vlan} from port {ifname}",
    SetSysctl: "set net/{key} to {value} in {netns}",
    AddAddress: "add address {address} to {ifname} in {netns}",
    RemoveAddress: "remove address {address} from {ifname} in {netns}",
    SetPreferred: "set address {address} of {ifname} in {netns}: preferred {preferred}",
    SetLink: "set {ifname} in {netns}: up {up}, promiscuous {promisc}, group {group}",
    AddRoute: "add route {dst} via {gateway} through {ifname} in {netns}",
    AddUnreachable: "answer in {netns} that the rest of {dst} is unreachable",
    RemoveRoute: "remove route {dst} through {ifname} in {netns}",
    AddProxy: "answer on {ifname} for neighbour {address}",
    RemoveProxy: "answer on {ifname} for neighbour {address} no more",
    AddElements: "add elements to the firewall: {elements}",
    RemoveElements: "remove elements from the firewall: {elements}",
    LoadRuleset: "load the firewall, elements: {elements}",
    UnloadRuleset: "delete the firewall",
    FlushFlows: "forget the UDP flows of addresses {addresses} and ports {ports}",
    AwaitPort: "wait for bridge port {ifname}",
    AwaitAddresses: "wait for duplicate address detection on {ifname} in {netns}",
    AwaitEnd: "wait for the end of {ifname}",
    Announce: "announce the addresses of {ifname} in {netns} at {mac}",
    DeleteLink: "delete interface {ifname} in {netns}",
}


def describe(op: Op) -> str:
    """One line for a person: what the operation does, and to what."""
    values = {name: getattr(op, name) for name in op.__dataclass_fields__}
    if "elements" in values:
        values["elements"] = len(values["elements"])
    if values.get("netns") == HOST:
        values["netns"] = "the node"
    return _WORDS[type(op)].format(**values)
