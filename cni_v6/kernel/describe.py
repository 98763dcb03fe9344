"""An operation in words, for messages and ``cni-v6ctl plan``."""

from __future__ import annotations

from cni_v6.kernel import awaits, ops
from cni_v6.kernel.ops import HOST, Op

_WORDS = {
    ops.EnsureBridge: "create bridge {name} (mac {mac}{size})",
    ops.SetBridge: "set bridge {name}: {settings}",
    ops.PinMac: "keep MAC {mac} on bridge {bridge}, whatever its ports have",
    ops.CreateVeth: "create veth {host}{place}, its peer {ifname} (mac {mac}, mtu {mtu}) in {netns}",
    ops.CreateChildLink: "create {kind} {ifname} ({settings}) on {master} in {netns}",
    ops.SetAlias: "name the owner of {ifname}: {alias}",
    ops.ClaimMac: "claim MAC {mac} on bridge {bridge} for {ifname}",
    ops.SetPort: "set port {ifname}: {settings}",
    ops.PlugIn: "plug {ifname} into bridge {bridge}",
    ops.AddPortVlans: "add to port {ifname}: vlan {pvid} untagged, {trunk} tagged",
    ops.RemovePortVlan: "remove vlan {vlan} from port {ifname}",
    ops.SetSysctl: "set net/{key} to {value} in {netns}",
    ops.AddAddress: "add address {address} to {ifname} in {netns}",
    ops.RemoveAddress: "remove address {address} from {ifname} in {netns}",
    ops.SetPreferred: "set address {address} of {ifname} in {netns}: preferred {preferred}",
    ops.SetLink: "set {ifname} in {netns}: {settings}",
    ops.TuneLink: "set {ifname} in {netns}: {settings}",
    ops.AddRoute: "add route {dst}{way} through {ifname} in {netns}{place}",
    ops.AddUnreachable: "make the rest of {dst} unreachable in {netns}",
    ops.RemoveUnreachable: "make the rest of {dst} unreachable in {netns} no more",
    ops.RemoveRoute: "remove route {dst} through {ifname} in {netns}{place}",
    ops.AddRule: "route what {source} sends in {netns} by table {table}",
    ops.RemoveRule: "route what {source} sends in {netns} by table {table} no more",
    ops.RefuseReturn: "answer that what came in by {ifname} reaches nobody through an interface of link group {group}",
    ops.AllowReturn: "pass what came in by {ifname} through an interface of link group {group} again",
    ops.AddProxy: "answer on {ifname} for neighbour {address}",
    ops.RemoveProxy: "answer on {ifname} for neighbour {address} no more",
    ops.SetNeighbour: "set the MAC of neighbour {address} of {ifname} in {netns} to {mac}",
    ops.CreateIfb: "create ifb {ifname}",
    ops.SetBucket: "send through {ifname} at most {rate} bytes a second",
    ops.HookIngress: "prepare {ifname} for filters of what it receives",
    ops.Redirect: "pass what {ifname} receives through the queue of {ifb}",
    ops.AddElements: "add elements to the firewall: {elements}",
    ops.RemoveElements: "remove elements from the firewall: {elements}",
    ops.LoadRuleset: "load the firewall, elements: {elements}",
    ops.RouteLoopback: "add the route by which published ports answer at ::1",
    ops.UnloadRuleset: "delete the firewall",
    ops.FlushFlows: "forget the UDP flows of addresses {addresses} and ports {ports}",
    awaits.AwaitPort: "wait for bridge port {ifname}",
    awaits.AwaitCarrier: "wait for the carrier of {ifname}",
    awaits.AwaitReception: "wait until {ifname} in {netns} takes packets for {addresses}",
    awaits.AwaitAddresses: "wait for duplicate address detection on {ifname} in {netns}",
    awaits.AwaitRouter: "wait for an address and a default route from a router on the link of {ifname} in {netns}",
    awaits.AwaitEnd: "wait for the end of {ifname}",
    ops.Announce: "announce the addresses of {ifname} in {netns} at {mac}",
    ops.DeleteLink: "delete interface {ifname} in {netns}",
}


def describe(op: Op) -> str:
    """One line of text: the operation and its object."""
    values = {name: getattr(op, name) for name in op.__dataclass_fields__}
    if isinstance(op, ops.CreateVeth):
        values["place"] = f" on bridge {op.bridge}" if op.bridge else ""
    if isinstance(op, ops.CreateChildLink):
        mode = f"{'id' if op.kind == 'vlan' else 'mode'} {op.mode}"
        values["settings"] = f"mac {op.mac or 'of the master'}, mtu {op.mtu}, {mode}"
    if isinstance(op, (ops.AddRoute, ops.RemoveRoute)):
        values["place"] = f", table {op.table}" if op.table else ""
    if isinstance(op, ops.AddRoute):
        values["way"] = f" via {op.gateway}" if op.gateway else ""
    if isinstance(op, ops.EnsureBridge):
        values["size"] = f", mtu {op.mtu}" if op.mtu else ""
    if isinstance(op, ops.SetBucket):
        values["rate"] = op.bucket.rate
    if settings := _settings(op):
        values["settings"] = ", ".join(_setting(*setting) for setting in settings if setting[1] is not None)
    if isinstance(op, awaits.AwaitReception):
        values["addresses"] = ", ".join(op.addresses)
    if "elements" in values:
        values["elements"] = len(values["elements"])
    if values.get("netns") == HOST:
        values["netns"] = "the node"
    return _WORDS[type(op)].format(**values)


def _settings(op: Op) -> tuple[tuple[str, bool | int | str | tuple[()] | None], ...]:
    """What an operation sets, and to what; None is left as it is, () is said by the name."""
    if isinstance(op, ops.SetBridge):
        passing = None if op.netfilter is None else " and ".join(f"IPv{family}" for family in sorted(op.netfilter))
        return ("vlan filtering", op.vlan_filtering), ("netfilter", "off" if passing == "" else passing)
    if isinstance(op, ops.SetPort):
        return ("hairpin", op.hairpin), ("isolated", op.isolated)
    if isinstance(op, ops.SetLink):
        return ("up" if op.up else "down", ()), ("promiscuous", op.promisc), ("group", op.group)
    if isinstance(op, ops.TuneLink):
        return ("promiscuous", op.promisc), ("all multicast", op.allmulti), ("queue", op.tx_queue), ("ARP", op.arp)
    return ()


def _setting(name: str, value: bool | int | str | tuple[()] | None) -> str:
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    return f"{name} {value}" if value != () else name
