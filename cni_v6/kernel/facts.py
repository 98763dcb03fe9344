"""What the kernel tells: the values that its answers are made of. ``questions`` asks for them."""

from __future__ import annotations

from cni_v6.values import dataclass


FOREVER = 0xFFFF_FFFF  # net/addrconf.h, INFINITY_LIFE_TIME: a lifetime in seconds that has no end
BRIDGE_PORTS_MAX = 1023  # net/bridge/br_private.h: BR_MAX_PORTS is 1 << 10, and br_if.c gives out no port number 0
MODULES = {"vlan": "8021q"}  # of kinds of interfaces, where the kernel's module has another name


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. ``master``: the name of its bridge, or "". ``kind``: as in ``IFLA_INFO_KIND``, "" for hardware."""

    name: str
    mac: str
    mtu: int
    kind: str = ""
    up: bool = False
    # Up, and the kernel sends there: it has seen the carrier (IF_OPER_UP). Before it has looked for the first time the
    # state is unknown, which IFF_RUNNING takes for running (netif_oper_up, linux/netdevice.h).
    running: bool = False
    promisc: bool = False
    allmulti: bool = False
    arp: bool = True  # it resolves neighbours: not IFF_NOARP
    tx_queue: int = 1000  # IFLA_TXQLEN, packets; DEFAULT_TX_QUEUE_LEN of linux/netdevice.h
    master: str = ""
    alias: str = ""
    hairpin: bool = False
    isolated: bool = False
    stp: bool = False  # of a bridge: its ports forward only after 30 seconds
    vlan_filtering: bool = False
    default_vlan: int = 1  # a bridge's IFLA_BR_VLAN_DEFAULT_PVID: the VLAN of its new ports; 0 for none
    group: int = 0
    group_fwd_mask: int = 0  # a bridge's IFLA_BR_GROUP_FWD_MASK: which of 01:80:c2:00:00:0X it forwards
    # A bridge's IFLA_BR_NF_CALL_IPTABLES and _IP6TABLES: the families whose frames pass the node's rules for packets.
    netfilter: frozenset[int] = frozenset()
    port_enabled: bool = False  # a bridge port whose IFLA_BRPORT_STATE is not BR_STATE_DISABLED


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """The queue of an interface that sends no faster than ``rate``, in bytes a second (tc-tbf(8)).

    ``buffer``: the time in which a full bucket is sent, in 64 ns (PSCHED_SHIFT, net/pkt_sched.h). ``limit``: of the
    bytes that wait.
    """

    rate: int
    buffer: int
    limit: int


@dataclass(frozen=True, slots=True)
class Shaping:
    """How an interface is shaped. ``redirected``: the interface whose queue all that it receives passes, "" for none.
    """

    bucket: TokenBucket | None = None
    redirected: str = ""


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A unicast route as the kernel lists it. ``dst``: a prefix, ``0.0.0.0/0`` or ``::/0`` for a default route."""

    dst: str
    gateway: str | None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int = 254
    scope: int = 0


@dataclass(frozen=True, slots=True)
class Ipv6Interface:
    """IPv6 settings of an interface of the node: ``net/ipv6/conf/<name>/accept_ra`` and ``disable_ipv6``."""

    name: str
    accept_ra: str
    disabled: bool


@dataclass(frozen=True, slots=True)
class Uplink:
    """The interface of a default route of a family (4 or 6). A multipath route has one for each next hop."""

    family: int
    ifname: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The lifetimes of an IPv6 address, ``ip/prefixlen``, in seconds or FOREVER. ``preferred`` 0: deprecated.

    ``temporary``: a temporary address, which the kernel replaces by itself (RFC 8981).
    """

    address: str
    preferred: int = FOREVER
    valid: int = FOREVER
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the node has, for each the interface: addresses (``ip/prefixlen``), and routes of the main table."""

    addresses: tuple[tuple[str, str], ...]
    routes: tuple[tuple[str, RouteEntry], ...]


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
