"""The record of an attachment: its addresses, its interfaces, and what was set up for it on the node."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.config.main import Bandwidth
from cni_v6.firewall.policy import Policy
from cni_v6.protocol.names import Owner
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class ProxyEntry:
    """An IPv6 address that the node proxies (NDP) on the interface ``uplink`` and routes to the interface ``home``."""

    uplink: str
    home: str
    address: str


@dataclass(frozen=True, slots=True, order=True)
class GatewayAddress:
    """Something on the node's interface ``home`` that a container needs as long as it exists.

    ``prefix``: the container's gateway, as ``ip/prefixlen``. With ``on_link``: the on-link route to a prefix, which a
    container with a link-local gateway needs. With ``unreachable``: a prefix, of which the node answers for the rest
    that nobody is there (``plan.routed.rest``).
    """

    home: str
    prefix: str
    on_link: bool = False
    unreachable: bool = False


# Of a bridge or a gateway interface; ``plan.node_settings`` says what each is.
SETTING_KEYS = "route_localnet", "proxy_arp", "proxy_delay4", "proxy_delay6", "promisc", "vlan_filtering", "netfilter"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the node's interface ``home`` that a network has changed, for as long as a container needs it.

    ``key``: one of ``SETTING_KEYS``. ``before``: the value that it had. ``user``: the container id and the
    interface of an attachment that needs it; empty where the network knows another reason.
    """

    home: str
    key: str
    before: str = ""
    user: tuple[str, str] = ("", "")

    @property
    def place(self) -> tuple[str, str]:
        return self.home, self.key


@dataclass(frozen=True, slots=True)
class BridgePort:
    """How the host interface is plugged in: what the kernel forgets when the interface leaves the bridge, or the bridge
    is deleted.

    The keys of the configuration at the ADD; ``hairpin`` and ``isolated`` as the port has them. ``link_local``: the
    container's gateway on the bridge where that is a link-local address, as ``ip/prefixlen``; "" for none.
    """

    bridge: str
    hairpin: bool = False
    isolated: bool = False
    vlan: int = 0
    trunk: tuple[tuple[int, int], ...] = ()
    preserve_default_vlan: bool = True
    promisc: bool = False
    multicast_snooping: bool = False
    link_local: str = ""
    netfilter: bool = False


@dataclass(frozen=True, slots=True)
class RoutedLink:
    """How a container with a link of its own is connected: its MAC, and the node's IPv4 address there, "" for none."""

    mac: str
    ipv4_gateway: str = ""


CHILD_KINDS = ("macvlan", "ipvlan", "vlan")


@dataclass(frozen=True, slots=True)
class ChildLink:
    """The link of a container without an interface on the node: its namespace's path, and the master's name.

    ``in_container``: the master is the container's too. ``node``: the node's own child of the master, by which node
    and container reach each other; "" for none. ``kind``, ``mode``: as in ``ops.CreateChildLink``; a mode that was not
    recorded is "".
    """

    netns: str
    master: str
    in_container: bool = False
    node: str = ""
    kind: str = "macvlan"
    mode: str = ""


@dataclass(frozen=True, slots=True)
class SourceRules:
    """The rules of a container's namespace by which it sends from its addresses of one network: the path of the
    namespace, the table, the source prefixes, and the destinations that the table has routes to."""

    netns: str
    table: int
    sources: tuple[str, ...]
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment of a container to a network, as recorded before the first change in the kernel.

    ``addresses``: the leased addresses, canonical, without prefix length, one per set in the sets' order. ``host``: the
    host interface, "" for a child of a master, and if the IPAM plugin ran alone. ``netns``: device and inode of the
    container's namespace. ``created``: seconds since the epoch. ``boot``: /proc/sys/kernel/random/boot_id; "" for a
    lease of the reference plugin, which records neither time nor boot. ``policy``: the firewall's policy, None for
    none. ``proxied``: the addresses that the node proxies. ``prefixes``: the delegated prefixes, canonical. ``home``:
    the namespace of ``host``, which is the node's; zeros if it was not recorded. ``anchors``: addresses and routes of
    the node that stay while a record names them. ``reuse``: for each address the ``AllocationPolicy.reuse_mode`` of its
    set; "" or missing if it is not known. ``identity``: as in ``AllocationPolicy``. ``port``: None if it was not
    recorded how the host interface is connected. ``bandwidth``: None if the container is not shaped. ``rules``: None if
    it sends by the main table alone. ``damaged``: the file could not be read, so that only the owner and what the lease
    files say is known.
    """

    owner: Owner
    addresses: tuple[str, ...]
    host: str = ""
    netns: tuple[int, int] = (0, 0)
    created: float = 0.0
    boot: str = ""
    policy: Policy | None = None
    proxied: tuple[ProxyEntry, ...] = ()
    prefixes: tuple[str, ...] = ()
    home: tuple[int, int] = (0, 0)
    anchors: tuple[GatewayAddress, ...] = ()
    reuse: tuple[str, ...] = ()
    identity: str = ""
    port: BridgePort | RoutedLink | ChildLink | None = None
    damaged: bool = False
    bandwidth: Bandwidth | None = None
    rules: SourceRules | None = None

    def reuse_mode(self, address: str) -> str:
        """The ``AllocationPolicy.reuse_mode`` of an address's set; "" if it is not known."""
        return dict(zip(self.addresses, self.reuse)).get(address, "")

    def holding(self, addresses: tuple[str, ...]) -> Attachment:
        """The same attachment with these addresses."""
        if addresses == self.addresses:
            return self
        reuse = tuple(map(self.reuse_mode, addresses))
        return replace(self, addresses=addresses, reuse=reuse if any(reuse) else ())
