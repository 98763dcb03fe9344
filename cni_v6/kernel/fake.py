"""The same kernel in dictionaries: no privilege, the same answers. Shipped for tests and ``cni-v6ctl plan``.

Knows no link-local addresses (the kernel adds one when a carrier comes) and no on-link prefix routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from netaddr import IPNetwork

from cni_v6 import kernel, ops
from cni_v6.errors import (
    ALREADY_ATTACHED,
    IO_FAILURE,
    KERNEL_REFUSED,
    PORTS_EXHAUSTED,
    UNKNOWN_CONTAINER,
    CniError,
    Errors,
)
from cni_v6.kernel import BRIDGE_PORTS_MAX, Ipv6Interface, Link, Question, RouteEntry, Snapshot
from cni_v6.ops import HOST, Op

INTERFACE_SYSCTLS = {
    "ipv4": {"arp_notify": "0"},
    "ipv6": {
        "accept_dad": "1",
        "accept_ra": "1",
        "autoconf": "1",
        "disable_ipv6": "0",
        "force_forwarding": "0",
        "ndisc_notify": "0",
    },
}
NODE_SYSCTLS = {"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0"}


@dataclass(slots=True)
class Space:
    """One namespace."""

    inode: int
    links: dict[str, Link] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    routes: dict[str, list[RouteEntry]] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)


class FakeKernel:
    """A node with a loopback interface, and the namespaces that ``add_netns`` made.

    ``applied`` lists what was done; ``announced`` the addresses that ``Announce`` told; ``fail`` gives the exception that
    an operation ends with, or None.
    """

    def __init__(self) -> None:
        self.spaces: dict[str, Space] = {}
        self.peers: dict[tuple[str, str], tuple[str, str]] = {}
        self.vlans: dict[str, dict[int, bool]] = {}
        self.applied: list[Op] = []
        self.announced: list[str] = []
        self.uplink = ""
        self.fail: Callable[[Op], Exception | None] = lambda _: None
        self.add_netns(HOST)

    def add_netns(self, path: str) -> None:
        """Make a namespace with its loopback interface."""
        self.spaces[path] = Space(inode=len(self.spaces) + 1, sysctls=dict(NODE_SYSCTLS))
        for pseudo in ("all", "default"):
            self._interface_sysctls(path, pseudo)
        self.add_link(path, Link("lo", "00:00:00:00:00:00", 65536, up=True))

    def remove_netns(self, path: str) -> None:
        """End a namespace: the links in it go, and a veth's other end with them."""
        for name in list(self.spaces[path].links):
            self._delete(path, name)
        del self.spaces[path]

    def add_link(self, netns: str, link: Link) -> None:
        """Put an interface into a namespace, as if it had been there before."""
        self._space(netns).links[link.name] = link
        self._interface_sysctls(netns, link.name)

    # The contract

    def netns_id(self, path: str) -> tuple[int, int]:
        return 4, self._space(path).inode

    def close(self) -> None:
        """Nothing is open."""

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        return Snapshot({question: _ANSWERS[type(question)](self, question) for question in questions})

    def apply(self, operations: Iterable[Op]) -> None:
        done: list[Op] = []
        try:
            for operation in operations:
                self._do(operation)
                done.append(operation)
        except Exception:
            self.remove(undo for undo in map(ops.inverse, reversed(done)) if undo is not None)
            raise

    def remove(self, operations: Iterable[Op]) -> None:
        errors = Errors()
        for operation in operations:
            errors.run(lambda: self._do(operation))
        errors.check()

    # What is behind it

    def _do(self, operation: Op) -> None:
        failure = self.fail(operation)
        if failure:
            raise failure
        _EFFECTS[type(operation)](self, operation)
        self.applied.append(operation)

    def _space(self, netns: str) -> Space:
        if netns not in self.spaces:
            raise CniError(UNKNOWN_CONTAINER, f"cannot open network namespace {netns}", "No such file or directory")
        return self.spaces[netns]

    def _interface_sysctls(self, netns: str, name: str) -> None:
        sysctls = self._space(netns).sysctls
        for family, keys in INTERFACE_SYSCTLS.items():
            for key, value in keys.items():
                default = sysctls.get(f"{family}/conf/default/{key}", value)
                sysctls.setdefault(f"{family}/conf/{name}/{key}", default)

    def _existing(self, netns: str, name: str, operation: Op) -> Link:
        link = self._space(netns).links.get(name)
        if link is None:
            raise CniError(KERNEL_REFUSED, f"cannot {ops.describe(operation)}", f"there is no interface {name}")
        return link

    def _delete(self, netns: str, name: str) -> None:
        space = self.spaces.get(netns)
        if space is None or space.links.pop(name, None) is None:
            return
        for kept in (space.addresses, space.routes):
            kept.pop(name, None)
        for key in [key for key in space.sysctls if key.split("/")[1:3] == ["conf", name]]:
            del space.sysctls[key]
        self.vlans.pop(name, None)
        peer = self.peers.pop((netns, name), None)
        if peer:
            self._delete(*peer)


# Questions


def _ipv6_interfaces(fake: FakeKernel) -> tuple[Ipv6Interface, ...]:
    sysctls = fake.spaces[HOST].sysctls
    names = sorted(key.split("/")[2] for key in sysctls if key.startswith("ipv6/conf/") and key.endswith("/accept_ra"))
    return tuple(
        Ipv6Interface(name, sysctls[f"ipv6/conf/{name}/accept_ra"], sysctls[f"ipv6/conf/{name}/disable_ipv6"] != "0")
        for name in names
        if name not in ("all", "default", "lo")
    )


def _ports(fake: FakeKernel, bridge: str) -> tuple[Link, ...]:
    return tuple(link for link in fake.spaces[HOST].links.values() if link.master == bridge)


_ANSWERS: dict[type[Any], Callable[[FakeKernel, Any], object]] = {
    kernel.GetLink: lambda fake, asked: fake._space(asked.netns).links.get(asked.ifname),
    kernel.GetAddresses: lambda fake, asked: tuple(fake._space(asked.netns).addresses.get(asked.ifname, ())),
    kernel.GetRoutes: lambda fake, asked: tuple(fake._space(asked.netns).routes.get(asked.ifname, ())),
    kernel.GetSysctl: lambda fake, asked: fake._space(asked.netns).sysctls.get(asked.key),
    kernel.GetIpv6Interfaces: lambda fake, _: _ipv6_interfaces(fake),
    kernel.GetUplink: lambda fake, _: fake.uplink,
    kernel.GetPorts: lambda fake, asked: _ports(fake, asked.bridge),
    kernel.GetPortVlans: lambda fake, asked: tuple(sorted(fake.vlans.get(asked.ifname, {}).items())),
}


# Operations


def _ensure_bridge(fake: FakeKernel, operation: ops.EnsureBridge) -> None:
    if operation.name not in fake.spaces[HOST].links:
        mtu = operation.mtu or 1500
        filtering = operation.vlan_filtering
        fake.add_link(HOST, Link(operation.name, operation.mac, mtu, kind="bridge", vlan_filtering=filtering))


def _change(fake: FakeKernel, netns: str, name: str, operation: Op, **changes: Any) -> None:
    fake.spaces[netns].links[name] = replace(fake._existing(netns, name, operation), **changes)


def _set_bridge(fake: FakeKernel, operation: ops.SetBridge) -> None:
    _change(fake, HOST, operation.name, operation, vlan_filtering=operation.vlan_filtering)


def _create_veth(fake: FakeKernel, operation: ops.CreateVeth) -> None:
    host, inside = fake.spaces[HOST], fake._space(operation.netns)
    fake._existing(HOST, operation.bridge, operation)
    if operation.host in host.links or operation.ifname in inside.links:
        raise CniError(ALREADY_ATTACHED, f"cannot {ops.describe(operation)}", "File exists")
    if len(_ports(fake, operation.bridge)) >= BRIDGE_PORTS_MAX:
        raise CniError(PORTS_EXHAUSTED, f"bridge {operation.bridge} has no port left", "Exchange full")
    mtu = operation.mtu or 1500
    fake.add_link(
        HOST, Link(operation.host, operation.host_mac, mtu, kind="veth", up=True, master=operation.bridge)
    )
    fake.add_link(operation.netns, Link(operation.ifname, operation.mac, mtu, kind="veth"))
    fake.peers[HOST, operation.host] = (operation.netns, operation.ifname)
    fake.peers[operation.netns, operation.ifname] = (HOST, operation.host)
    fake.vlans[operation.host] = {1: True}


def _set_link(fake: FakeKernel, operation: ops.SetLink) -> None:
    changes: dict[str, Any] = {"up": operation.up}
    if operation.promisc is not None:
        changes["promisc"] = operation.promisc
    _change(fake, operation.netns, operation.ifname, operation, **changes)
    peer = fake.peers.get((operation.netns, operation.ifname))
    if peer and fake.spaces[peer[0]].links[peer[1]].master:
        _change(fake, *peer, operation, port_enabled=operation.up)


def _set_alias(fake: FakeKernel, operation: ops.SetAlias) -> None:
    _change(fake, operation.netns, operation.ifname, operation, alias=operation.alias)


def _set_port(fake: FakeKernel, operation: ops.SetPort) -> None:
    _change(fake, HOST, operation.ifname, operation, hairpin=operation.hairpin, isolated=operation.isolated)


def _add_port_vlans(fake: FakeKernel, operation: ops.AddPortVlans) -> None:
    fake._existing(HOST, operation.ifname, operation)
    vlans = fake.vlans.setdefault(operation.ifname, {})
    if operation.pvid:
        vlans.update(dict.fromkeys(vlans, False))
        vlans[operation.pvid] = True
    for first, last in operation.trunk:
        vlans.update(dict.fromkeys(range(first, last + 1), False))


def _remove_port_vlan(fake: FakeKernel, operation: ops.RemovePortVlan) -> None:
    fake.vlans.get(operation.ifname, {}).pop(operation.vlan, None)


def _set_sysctl(fake: FakeKernel, operation: ops.SetSysctl) -> None:
    sysctls = fake._space(operation.netns).sysctls
    if operation.key not in sysctls:
        words = "the kernel has no such key; the interface may be gone"
        raise CniError(IO_FAILURE, f"cannot set net/{operation.key}={operation.value}", words)
    sysctls[operation.key] = operation.value


def _add_address(fake: FakeKernel, operation: ops.AddAddress) -> None:
    fake._existing(operation.netns, operation.ifname, operation)
    held = fake.spaces[operation.netns].addresses.setdefault(operation.ifname, [])
    if operation.address not in held:
        held.append(operation.address)


def _remove_address(fake: FakeKernel, operation: ops.RemoveAddress) -> None:
    held = fake._space(operation.netns).addresses.get(operation.ifname, [])
    if operation.address in held:
        held.remove(operation.address)


def _add_route(fake: FakeKernel, operation: ops.AddRoute) -> None:
    link = fake._existing(operation.netns, operation.ifname, operation)
    if not link.up:
        raise CniError(KERNEL_REFUSED, f"cannot {ops.describe(operation)}", "Network is down")
    space = fake.spaces[operation.netns]
    if operation.gateway and not _reachable(space, operation.ifname, operation.gateway):
        raise CniError(KERNEL_REFUSED, f"cannot {ops.describe(operation)}", "Nexthop has invalid gateway")
    entry = RouteEntry(
        operation.dst,
        operation.gateway,
        operation.mtu,
        operation.advmss,
        operation.priority,
        operation.table or 254,
        operation.scope if operation.scope is not None else (0 if operation.gateway or ":" in operation.dst else 253),
    )
    if entry not in space.routes.setdefault(operation.ifname, []):
        space.routes[operation.ifname].append(entry)


def _reachable(space: Space, ifname: str, gateway: str) -> bool:
    """A gateway lies in a prefix of the interface, behind a route already there, or is link-local."""
    hop = IPNetwork(gateway).ip
    known = space.addresses.get(ifname, []) + [each.dst for each in space.routes.get(ifname, [])]
    return hop.is_link_local() or any(hop in IPNetwork(prefix) for prefix in known)


def _await(fake: FakeKernel, operation: ops.AwaitPort) -> None:
    if not fake._existing(HOST, operation.ifname, operation).port_enabled:
        raise CniError(KERNEL_REFUSED, f"cannot {ops.describe(operation)}", "it never came up")


def _await_addresses(fake: FakeKernel, operation: ops.AwaitAddresses) -> None:
    fake._existing(operation.netns, operation.ifname, operation)


def _announce(fake: FakeKernel, operation: ops.Announce) -> None:
    fake._existing(operation.netns, operation.ifname, operation)
    fake.announced += operation.addresses


_EFFECTS: dict[type[Any], Callable[[FakeKernel, Any], None]] = {
    ops.EnsureBridge: _ensure_bridge,
    ops.SetBridge: _set_bridge,
    ops.CreateVeth: _create_veth,
    ops.SetAlias: _set_alias,
    ops.SetPort: _set_port,
    ops.AddPortVlans: _add_port_vlans,
    ops.RemovePortVlan: _remove_port_vlan,
    ops.SetSysctl: _set_sysctl,
    ops.AddAddress: _add_address,
    ops.RemoveAddress: _remove_address,
    ops.SetLink: _set_link,
    ops.AddRoute: _add_route,
    ops.AwaitPort: _await,
    ops.AwaitAddresses: _await_addresses,
    ops.Announce: _announce,
    ops.DeleteLink: lambda fake, operation: fake._delete(operation.netns, operation.ifname),
}
