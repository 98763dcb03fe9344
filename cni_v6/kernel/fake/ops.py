"""The effect of each operation on the fake kernel's node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from netaddr import IPNetwork

from cni_v6.errors import (
    ADDRESS_UNAVAILABLE,
    ALREADY_ATTACHED,
    IO_FAILURE,
    KERNEL_REFUSED,
    PORTS_EXHAUSTED,
    CniError,
)
from cni_v6.kernel import awaits, mac_claims, ops, route_place
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import BRIDGE_PORTS_MAX, FOREVER, Lifetime, Link, RouteEntry, Shaping
from cni_v6.kernel.fake import child_link, waits
from cni_v6.kernel.fake.node import FakeNode, Space
from cni_v6.kernel.ops import HOST, Op


def _ensure_bridge(fake: FakeNode, operation: ops.EnsureBridge) -> None:
    if operation.name not in fake.spaces[HOST].links:
        mtu = operation.mtu or 1500
        made = Link(operation.name, operation.mac, mtu, kind="bridge", group_fwd_mask=ops.LLDP)
        fake.add_link(HOST, replace(made, vlan_filtering=operation.vlan_filtering))


def _change(fake: FakeNode, netns: str, name: str, operation: Op, **changes: Any) -> None:
    fake.spaces[netns].links[name] = replace(fake.existing(netns, name, operation), **changes)


def _set_bridge(fake: FakeNode, operation: ops.SetBridge) -> None:
    if operation.vlan_filtering is not None:
        _change(fake, HOST, operation.name, operation, vlan_filtering=operation.vlan_filtering)
    if operation.netfilter is not None:
        _change(fake, HOST, operation.name, operation, netfilter=operation.netfilter)


def _pin_mac(fake: FakeNode, operation: ops.PinMac) -> None:
    _change(fake, HOST, operation.bridge, operation, mac=operation.mac)


def _create_veth(fake: FakeNode, operation: ops.CreateVeth) -> None:
    host, inside = fake.spaces[HOST], fake.space(operation.netns)
    if operation.bridge:
        fake.existing(HOST, operation.bridge, operation)
    if operation.shared and operation.host in host.links:
        return
    if operation.host in host.links or operation.ifname in inside.links:
        raise CniError(ALREADY_ATTACHED, f"cannot {describe(operation)}", "File exists")
    if operation.bridge and len(fake.ports(operation.bridge)) >= BRIDGE_PORTS_MAX:
        words = f"bridge {operation.bridge} has no port left: it takes {BRIDGE_PORTS_MAX}"
        raise CniError(PORTS_EXHAUSTED, words, "Exchange full")
    mtu = operation.mtu or 1500
    made = Link(operation.host, operation.host_mac, mtu, kind="veth", up=True, master=operation.bridge)
    fake.add_link(HOST, replace(made, group=operation.group))
    fake.add_link(operation.netns, Link(operation.ifname, operation.mac, mtu, kind="veth"))
    fake.peers[HOST, operation.host] = (operation.netns, operation.ifname)
    fake.peers[operation.netns, operation.ifname] = (HOST, operation.host)
    default = host.links[operation.bridge].default_vlan if operation.bridge else 0
    fake.vlans[operation.host] = {default: True} if default else {}


def _set_link(fake: FakeNode, operation: ops.SetLink) -> None:
    changes: dict[str, Any] = {"up": operation.up}
    if operation.promisc is not None:
        changes["promisc"] = operation.promisc
    if operation.group is not None:
        changes["group"] = operation.group
    kind, mode = fake.children.get((operation.netns, operation.ifname), ("", "", "", ""))[2:]
    if kind == "ipvlan" and operation.up:  # ipvlan_open, drivers/net/ipvlan/ipvlan_main.c
        changes["arp"] = mode == "l2"
    _change(fake, operation.netns, operation.ifname, operation, **changes)
    _carry(fake)


def _tune_link(fake: FakeNode, operation: ops.TuneLink) -> None:
    wanted = {"promisc": operation.promisc, "allmulti": operation.allmulti, "tx_queue": operation.tx_queue,
              "arp": operation.arp}
    changes = {name: value for name, value in wanted.items() if value is not None}
    _change(fake, operation.netns, operation.ifname, operation, **changes)


def _carry(fake: FakeNode) -> None:
    """Set the state of all pairs, which run while both ends are up, of ports, enabled while their bridge is too, and of
    bridges, which run while a port is enabled."""
    links = fake.spaces[HOST].links
    for (netns, name), (other, inside) in fake.peers.items():
        here, there = fake.spaces[netns].links[name], fake.spaces[other].links[inside]
        fake.spaces[netns].links[name] = replace(here, running=here.up and there.up)
    for (netns, name), (other, inside) in fake.peers.items():
        master = links.get(links[name].master) if netns == HOST else None
        if master:
            links[name] = replace(links[name], port_enabled=master.up and fake.spaces[other].links[inside].up)
    enabled = {link.master for link in links.values() if link.port_enabled}
    for name, link in links.items():
        if link.kind == "bridge":
            links[name] = replace(link, running=link.up and name in enabled)


def _delete_link(fake: FakeNode, operation: ops.DeleteLink) -> None:
    fake.delete(operation.netns, operation.ifname)
    _carry(fake)


def _set_alias(fake: FakeNode, operation: ops.SetAlias) -> None:
    _change(fake, operation.netns, operation.ifname, operation, alias=operation.alias)


def _claim_mac(fake: FakeNode, operation: ops.ClaimMac) -> None:
    fake.existing(HOST, operation.ifname, operation)
    holder = fake.claims.setdefault((operation.bridge, operation.mac), operation.ifname)
    if holder != operation.ifname:
        raise mac_claims.taken(operation.mac, fake.spaces[HOST].links[holder])


def _set_port(fake: FakeNode, operation: ops.SetPort) -> None:
    _change(fake, HOST, operation.ifname, operation, hairpin=operation.hairpin, isolated=operation.isolated)


def _plug_in(fake: FakeNode, operation: ops.PlugIn) -> None:
    default = fake.existing(HOST, operation.bridge, operation).default_vlan
    _change(fake, HOST, operation.ifname, operation, master=operation.bridge, hairpin=False, isolated=False)
    fake.vlans[operation.ifname] = {default: True} if default else {}
    _carry(fake)


def _add_port_vlans(fake: FakeNode, operation: ops.AddPortVlans) -> None:
    fake.existing(HOST, operation.ifname, operation)
    vlans = fake.vlans.setdefault(operation.ifname, {})
    if operation.pvid:
        vlans.update(dict.fromkeys(vlans, False))
        vlans[operation.pvid] = True
    for first, last in operation.trunk:
        vlans.update(dict.fromkeys(range(first, last + 1), False))


def _remove_port_vlan(fake: FakeNode, operation: ops.RemovePortVlan) -> None:
    fake.vlans.get(operation.ifname, {}).pop(operation.vlan, None)


def _set_sysctl(fake: FakeNode, operation: ops.SetSysctl) -> None:
    sysctls = fake.space(operation.netns).sysctls
    if operation.key not in sysctls:
        words = "the kernel has no such key; the interface may be gone"
        raise CniError(IO_FAILURE, f"cannot set net/{operation.key}={operation.value}", words)
    sysctls[operation.key] = operation.value
    if operation.key == "ipv6/conf/all/forwarding":  # addrconf_forward_change, net/ipv6/addrconf.c
        every = (key for key in sysctls if key.startswith("ipv6/conf/") and key.endswith("/forwarding"))
        sysctls.update(dict.fromkeys(every, operation.value))


def _add_address(fake: FakeNode, operation: ops.AddAddress) -> None:
    fake.existing(operation.netns, operation.ifname, operation)
    space = fake.spaces[operation.netns]
    if ":" in operation.address and space.sysctls[f"ipv6/conf/{operation.ifname}/disable_ipv6"] != "0":
        words = "Permission denied (IPv6 is disabled on this device)"
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", words)
    if child_link.address_is_a_siblings(fake, operation):
        raise CniError(ADDRESS_UNAVAILABLE, f"cannot {describe(operation)}", "Address already in use")
    held = space.addresses.setdefault(operation.ifname, [])
    if operation.address not in held:
        held.append(operation.address)


def _remove_address(fake: FakeNode, operation: ops.RemoveAddress) -> None:
    space = fake.spaces.get(operation.netns)
    held = space.addresses.get(operation.ifname, []) if space else []
    if space and operation.address in held:
        held.remove(operation.address)
        space.lifetimes.pop((operation.ifname, operation.address), None)


def _set_preferred(fake: FakeNode, operation: ops.SetPreferred) -> None:
    fake.existing(operation.netns, operation.ifname, operation)
    _add_address(fake, ops.AddAddress(operation.netns, operation.ifname, operation.address))
    lifetime = Lifetime(operation.address, FOREVER if operation.preferred else 0)
    fake.spaces[operation.netns].lifetimes[operation.ifname, operation.address] = lifetime


def _add_route(fake: FakeNode, operation: ops.AddRoute) -> None:
    link = fake.existing(operation.netns, operation.ifname, operation)
    if not link.up:
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", "Network is down")
    space = fake.spaces[operation.netns]
    if operation.gateway and not _reachable(space, operation.ifname, operation.gateway):
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", "Nexthop has invalid gateway")
    taken = {_place(entry) for entries in space.routes.values() for entry in entries}
    own = space.routes.setdefault(operation.ifname, [])
    wanted = [operation, *(replace(operation, priority=metric) for metric in route_place.metrics(operation))]
    free = [route for route in wanted if _place(_entry(route)) not in taken]
    if wanted[0] in free:
        own.append(_entry(operation))
    elif not any(route_place.is_same(operation, entry) for entry in own):
        beside = free[0] if free else None
        if beside:
            own.append(_entry(beside))
        elif operation.netns == HOST:
            raise route_place.refusal(operation)
        fake.otherwise[operation] = beside


def _place(entry: RouteEntry) -> tuple[str, int, int]:
    return entry.dst, entry.priority or 0, entry.table


def _entry(operation: ops.AddRoute) -> RouteEntry:
    """The route with the kernel's defaults; IP6_RT_PRIO_USER is 1024 (net/ip6_route.h)."""
    version6 = ":" in operation.dst
    on_link = 0 if operation.gateway or version6 else 253
    return RouteEntry(
        operation.dst,
        operation.gateway,
        operation.mtu,
        operation.advmss,
        1024 if version6 and operation.priority is None else operation.priority,
        operation.table or 254,
        operation.scope if operation.scope is not None and not version6 else on_link,
    )


def _reachable(space: Space, ifname: str, gateway: str) -> bool:
    """Whether a gateway is in a prefix of the interface, is reached by one of its routes, or is link-local."""
    hop = IPNetwork(gateway).ip
    known = space.addresses.get(ifname, []) + [route.dst for route in space.routes.get(ifname, [])]
    return hop.is_link_local() or any(hop in IPNetwork(prefix) for prefix in known)


def _remove_route(fake: FakeNode, operation: ops.RemoveRoute) -> None:
    space = fake.spaces.get(operation.netns)
    held = space.routes.get(operation.ifname, []) if space else []
    held[:] = [route for route in held if (route.dst, route.table) != (operation.dst, operation.table or 254)]


def _add_unreachable(fake: FakeNode, operation: ops.AddUnreachable) -> None:
    held = fake.space(operation.netns).unreachable
    if operation.dst not in held:
        held.append(operation.dst)


def _remove_unreachable(fake: FakeNode, operation: ops.RemoveUnreachable) -> None:
    space = fake.spaces.get(operation.netns)
    if space and operation.dst in space.unreachable:
        space.unreachable.remove(operation.dst)


def _add_rule(fake: FakeNode, operation: ops.AddRule) -> None:
    held = fake.space(operation.netns).rules
    if (operation.source, operation.table) not in held:
        held.append((operation.source, operation.table))


def _remove_rule(fake: FakeNode, operation: ops.RemoveRule) -> None:
    space = fake.spaces.get(operation.netns)
    if space and (operation.source, operation.table) in space.rules:
        space.rules.remove((operation.source, operation.table))


def _refuse_return(fake: FakeNode, operation: ops.RefuseReturn) -> None:
    fake.refused.add((operation.ifname, operation.group))


def _allow_return(fake: FakeNode, operation: ops.AllowReturn) -> None:
    fake.refused.discard((operation.ifname, operation.group))


def _add_proxy(fake: FakeNode, operation: ops.AddProxy) -> None:
    fake.existing(HOST, operation.ifname, operation)
    held = fake.spaces[HOST].proxies.setdefault(operation.ifname, [])
    if operation.address not in held:
        held.append(operation.address)


def _remove_proxy(fake: FakeNode, operation: ops.RemoveProxy) -> None:
    held = fake.spaces[HOST].proxies.get(operation.ifname, [])
    if operation.address in held:
        held.remove(operation.address)


def _set_neighbour(fake: FakeNode, operation: ops.SetNeighbour) -> None:
    fake.existing(operation.netns, operation.ifname, operation)
    space = fake.spaces[operation.netns]
    space.neighbours.setdefault(operation.ifname, {})[operation.address] = operation.mac


def _announce(fake: FakeNode, operation: ops.Announce) -> None:
    fake.existing(operation.netns, operation.ifname, operation)
    fake.announced += fake.spaces[operation.netns].addresses.get(operation.ifname, [])


def _create_ifb(fake: FakeNode, operation: ops.CreateIfb) -> None:
    if operation.ifname not in fake.spaces[HOST].links:
        fake.add_link(HOST, Link(operation.ifname, "02:00:00:00:00:1f", 1500, kind="ifb", up=True))


def _set_bucket(fake: FakeNode, operation: ops.SetBucket) -> None:
    fake.existing(HOST, operation.ifname, operation)
    fake.shaping[operation.ifname] = replace(_shaping(fake, operation.ifname), bucket=operation.bucket)


def _hook_ingress(fake: FakeNode, operation: ops.HookIngress) -> None:
    fake.existing(HOST, operation.ifname, operation)


def _redirect(fake: FakeNode, operation: ops.Redirect) -> None:
    for name in (operation.ifname, operation.ifb):
        fake.existing(HOST, name, operation)
    fake.shaping[operation.ifname] = replace(_shaping(fake, operation.ifname), redirected=operation.ifb)


def _shaping(fake: FakeNode, name: str) -> Shaping:
    return fake.shaping.get(name, Shaping())


EFFECTS: dict[type[Any], Callable[[FakeNode, Any], None]] = {
    ops.EnsureBridge: _ensure_bridge,
    ops.SetBridge: _set_bridge,
    ops.PinMac: _pin_mac,
    ops.CreateVeth: _create_veth,
    ops.CreateChildLink: child_link.create,
    ops.SetAlias: _set_alias,
    ops.ClaimMac: _claim_mac,
    ops.SetPort: _set_port,
    ops.PlugIn: _plug_in,
    ops.AddPortVlans: _add_port_vlans,
    ops.RemovePortVlan: _remove_port_vlan,
    ops.SetSysctl: _set_sysctl,
    ops.AddAddress: _add_address,
    ops.RemoveAddress: _remove_address,
    ops.SetPreferred: _set_preferred,
    ops.SetLink: _set_link,
    ops.TuneLink: _tune_link,
    ops.AddRoute: _add_route,
    ops.AddUnreachable: _add_unreachable,
    ops.RemoveUnreachable: _remove_unreachable,
    ops.RemoveRoute: _remove_route,
    ops.AddRule: _add_rule,
    ops.RemoveRule: _remove_rule,
    ops.RefuseReturn: _refuse_return,
    ops.AllowReturn: _allow_return,
    ops.AddProxy: _add_proxy,
    ops.RemoveProxy: _remove_proxy,
    ops.SetNeighbour: _set_neighbour,
    ops.CreateIfb: _create_ifb,
    ops.SetBucket: _set_bucket,
    ops.HookIngress: _hook_ingress,
    ops.Redirect: _redirect,
    ops.AddElements: lambda fake, operation: fake.firewall.add(operation.elements),
    ops.RemoveElements: lambda fake, operation: fake.firewall.remove(operation.elements),
    ops.LoadRuleset: lambda fake, operation: fake.firewall.load(operation.elements),
    ops.RouteLoopback: lambda fake, _: fake.firewall.route_loopback(),
    ops.UnloadRuleset: lambda fake, operation: fake.firewall.unload(),
    ops.FlushFlows: lambda fake, operation: fake.firewall.flushed.append(operation),
    awaits.AwaitPort: waits.port,
    awaits.AwaitCarrier: waits.carrier,
    awaits.AwaitReception: waits.reception,
    awaits.AwaitAddresses: waits.addresses,
    awaits.AwaitRouter: waits.router,
    awaits.AwaitEnd: waits.end,
    ops.Announce: _announce,
    ops.DeleteLink: _delete_link,
}
