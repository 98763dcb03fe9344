"""The state of the fake kernel: namespaces with links, addresses, routes and sysctls, in dictionaries."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from cni_v6.errors import KERNEL_REFUSED, UNKNOWN_CONTAINER, CniError
from cni_v6.firewall.loopback import STANDS_FOR
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import Lifetime, Link, Listener, RouteEntry, Shaping
from cni_v6.kernel.fake.firewall import FakeFirewall
from cni_v6.kernel.ops import HOST, Op

INTERFACE_SYSCTLS = {
    "ipv4": {"arp_ignore": "0", "arp_notify": "0", "proxy_arp": "0", "route_localnet": "0"},
    "ipv6": {
        "accept_dad": "1",
        "accept_ra": "1",
        "accept_redirects": "1",
        "addr_gen_mode": "0",
        "autoconf": "1",
        "disable_ipv6": "0",
        "force_forwarding": "0",
        "forwarding": "0",
        "keep_addr_on_down": "0",
        "ndisc_notify": "0",
        "proxy_ndp": "0",
        "router_solicitation_delay": "1",
        "router_solicitation_interval": "4",
        "use_tempaddr": "0",
    },
}
DEVICE = 4  # the device of all namespace files
NODE_SYSCTLS = {"ipv4/ip_forward": "0"}


@dataclass(slots=True)
class Space:
    """A namespace. ``lifetimes``: by (interface, address), if they are not the default ones."""

    inode: int
    links: dict[str, Link] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    lifetimes: dict[tuple[str, str], Lifetime] = field(default_factory=dict)
    routes: dict[str, list[RouteEntry]] = field(default_factory=dict)
    proxies: dict[str, list[str]] = field(default_factory=dict)
    neighbours: dict[str, dict[str, str]] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)
    rules: list[tuple[str, int]] = field(default_factory=list)


class FakeNode:
    """A node with a loopback interface, and the namespaces that ``add_netns`` made.

    ``children`` maps (namespace, name) of each macvlan, ipvlan or vlan to its master, (namespace, name), kind and mode.
    ``duplicates``: addresses that another node has, with its MAC. ``advertised``: the address that a container gets
    from a router on its link, and that router; "" for none. ``vlans`` maps a bridge port to {VLAN: whether it is the
    untagged PVID}. ``announced``: the addresses that ``Announce`` has announced. ``claims`` maps (bridge, MAC) to the
    port that has claimed it. ``refused``: as of ``RefuseReturn``. ``blind``: it cannot tell which namespaces have
    ended. ``listeners``: sockets of its own.
    """

    def __init__(self) -> None:
        self._inodes = itertools.count(1)
        self.spaces: dict[str, Space] = {}
        self.peers: dict[tuple[str, str], tuple[str, str]] = {}
        self.children: dict[tuple[str, str], tuple[str, str, str, str]] = {}
        self.duplicates: dict[str, str] = {}
        self.advertised: tuple[str, str] = ("", "")
        self.vlans: dict[str, dict[int, bool]] = {}
        self.shaping: dict[str, Shaping] = {}
        self.announced: list[str] = []
        self.claims: dict[tuple[str, str], str] = {}
        self.refused: set[tuple[str, int]] = set()
        self.blind = False
        self.firewall = FakeFirewall()
        self.otherwise: dict[Op, Op | None] = {}  # as ``Kernel.apply`` returns it
        self.listeners: list[Listener] = []
        self.add_netns(HOST)

    def add_netns(self, path: str) -> None:
        """Make a namespace with its loopback interface."""
        self.spaces[path] = Space(inode=next(self._inodes), sysctls=dict(NODE_SYSCTLS))
        for pseudo in ("all", "default"):
            self._interface_sysctls(path, pseudo)
        self.add_link(path, Link("lo", "00:00:00:00:00:00", 65536, up=True))

    def remove_netns(self, path: str) -> None:
        """End a namespace: its links are deleted, and the peers of its veths."""
        for name in list(self.spaces[path].links):
            self.delete(path, name)
        del self.spaces[path]

    def add_link(self, netns: str, link: Link) -> None:
        """Add an interface to a namespace, as if it had existed before."""
        self.space(netns).links[link.name] = link
        self._interface_sysctls(netns, link.name)

    def space(self, netns: str) -> Space:
        """The namespace; raises CniError(UNKNOWN_CONTAINER) if it does not exist."""
        if netns not in self.spaces:
            raise CniError(UNKNOWN_CONTAINER, f"cannot open network namespace {netns}", "No such file or directory")
        return self.spaces[netns]

    def _interface_sysctls(self, netns: str, name: str) -> None:
        sysctls = self.space(netns).sysctls
        for family, keys in INTERFACE_SYSCTLS.items():
            sysctls.setdefault(f"{family}/neigh/{name}/proxy_delay", "80")
            for key, value in keys.items():
                default = sysctls.get(f"{family}/conf/default/{key}", value)
                sysctls.setdefault(f"{family}/conf/{name}/{key}", default)

    def lifetimes(self, netns: str, name: str) -> tuple[Lifetime, ...]:
        """The IPv6 addresses of an interface."""
        space = self.space(netns)
        held = (address for address in space.addresses.get(name, ()) if ":" in address)
        return tuple(space.lifetimes.get((name, address), Lifetime(address)) for address in held)

    def existing(self, netns: str, name: str, operation: Op) -> Link:
        """The interface; raises CniError(KERNEL_REFUSED) naming the operation if it does not exist."""
        link = self.space(netns).links.get(name)
        if link is None:
            raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", f"there is no interface {name}")
        return link

    def delete(self, netns: str, name: str) -> None:
        """Delete an interface and its peer. It may be absent already."""
        space = self.spaces.get(netns)
        if space is None or space.links.pop(name, None) is None:
            return
        space.addresses.pop(name, None)
        space.routes.pop(name, None)
        space.proxies.pop(name, None)
        space.neighbours.pop(name, None)
        for key in [key for key in space.sysctls if key.split("/")[1:3] in (["conf", name], ["neigh", name])]:
            del space.sysctls[key]
        self.vlans.pop(name, None)
        if netns == HOST:
            self.shaping.pop(name, None)
            self.claims = {claim: port for claim, port in self.claims.items() if port != name}
        for port in self.ports(name) if netns == HOST else ():
            space.links[port.name] = replace(port, master="", hairpin=False, isolated=False, port_enabled=False)
            self.vlans.pop(port.name, None)
        self.children.pop((netns, name), None)
        for upper in [upper for upper, (*master, _, _) in self.children.items() if master == [netns, name]]:
            self.delete(*upper)
        peer = self.peers.pop((netns, name), None)
        if peer:
            self.delete(*peer)

    def alive(self, namespaces: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        """Those of the namespaces that exist; all of them if ``blind``."""
        return namespaces if self.blind else namespaces & {(DEVICE, space.inode) for space in self.spaces.values()}

    def peer_addresses(self, ifname: str) -> tuple[str, ...]:
        netns, name = self.peers.get((HOST, ifname), (HOST, ""))
        return tuple(self.spaces[netns].addresses.get(name, ())) if netns in self.spaces else ()

    def is_local(self, address: str) -> bool:
        """See ``questions.IsLocal``. Loopback has ::1 while it is up."""
        node = self.spaces[HOST]
        own = {held.partition("/")[0] for addresses in node.addresses.values() for held in addresses}
        own |= {STANDS_FOR} if self.firewall.is_routed else set()
        own |= {"::1"} if node.links["lo"].up else set()
        return address in own

    def ports(self, bridge: str) -> tuple[Link, ...]:
        """The ports of a bridge on the node."""
        return tuple(link for link in self.spaces[HOST].links.values() if link.master == bridge)

    def mac_holder(self, bridge: str, mac: str) -> Link | None:
        """See ``questions.GetMacHolder``."""
        links = self.spaces[HOST].links
        found = {port.mac: port for port in self.ports(bridge)}
        for port in self.ports(bridge):
            netns, inside = self.peers.get((HOST, port.name), (HOST, port.name))
            found[self.spaces[netns].links[inside].mac] = port
        if bridge in links:
            found[links[bridge].mac] = links[bridge]
        return found.get(mac)
