"""Every operation can be told to a person, and whether a failed ADD undoes it."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from cni_v6.firewall.sets import INET, Element
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import TokenBucket
from cni_v6.kernel.fake.ops import EFFECTS
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.undo import inverse

A = "/run/netns/a"
PAIR = ops.CreateVeth("veth1", "02:00:00:00:00:0b", "cni0", A, "eth0", "02:00:00:00:00:0a", 1500)
MACVLAN = ops.CreateChildLink(HOST, "up0", A, "eth0", "new0", "macvlan", "bridge", "02:00:00:00:00:0a", 0, "x")
ELEMENT = Element(INET, "published4", ("10.1.2.3",))
SAID: dict[Op, str] = {
    ops.EnsureBridge("cni0", "02:00:00:00:00:01", 1500, False, False):
        "create bridge cni0 (mac 02:00:00:00:00:01, mtu 1500)",
    ops.SetBridge("cni0", True, frozenset()): "set bridge cni0: vlan filtering on, netfilter off",
    ops.SetBridge("cni0", netfilter=frozenset((4, 6))): "set bridge cni0: netfilter IPv4 and IPv6",
    ops.PinMac("br0", "02:00:00:00:00:01"): "keep MAC 02:00:00:00:00:01 on bridge br0, whatever its ports have",
    PAIR:
        "create veth veth1 on bridge cni0, its peer eth0 (mac 02:00:00:00:00:0a, mtu 1500) in /run/netns/a",
    MACVLAN: "create macvlan eth0 (mac 02:00:00:00:00:0a, mtu 0, mode bridge) on up0 in /run/netns/a",
    ops.SetAlias(HOST, "veth1", "cni-v6 pods/{a}/eth0"): "name the owner of veth1: cni-v6 pods/{a}/eth0",
    ops.ClaimMac("veth1", "cni0", "02:00:00:00:00:0a"): "claim MAC 02:00:00:00:00:0a on bridge cni0 for veth1",
    ops.SetPort("veth1", True, False): "set port veth1: hairpin on, isolated off",
    ops.PlugIn("veth1", "cni0"): "plug veth1 into bridge cni0",
    ops.AddPortVlans("veth1", 5, ((10, 20),)): "add to port veth1: vlan 5 untagged, ((10, 20),) tagged",
    ops.RemovePortVlan("veth1", 1): "remove vlan 1 from port veth1",
    ops.SetSysctl(HOST, "ipv4/ip_forward", "1"): "set net/ipv4/ip_forward to 1 in the node",
    ops.AddAddress(A, "eth0", "2001:db8::2/64"): "add address 2001:db8::2/64 to eth0 in /run/netns/a",
    ops.RemoveAddress(HOST, "cni0", "2001:db8::1/64"): "remove address 2001:db8::1/64 from cni0 in the node",
    ops.SetPreferred(A, "eth0", "2001:db8::2/64", False):
        "set address 2001:db8::2/64 of eth0 in /run/netns/a: preferred False",
    ops.SetLink(A, "eth0", True): "set eth0 in /run/netns/a: up",
    ops.AddRoute(A, "eth0", "::/0", "2001:db8::1"): "add route ::/0 via 2001:db8::1 through eth0 in /run/netns/a",
    ops.AddUnreachable(A, "2001:db8::/80"): "make the rest of 2001:db8::/80 unreachable in /run/netns/a",
    ops.RemoveUnreachable(HOST, "2001:db8::/80"): "make the rest of 2001:db8::/80 unreachable in the node no more",
    ops.RemoveRoute(HOST, "cni0", "2001:db8::2/128"): "remove route 2001:db8::2/128 through cni0 in the node",
    ops.AddRule(A, "2001:db8::2/128", 7): "route what 2001:db8::2/128 sends in /run/netns/a by table 7",
    ops.RemoveRule(A, "2001:db8::2/128", 7): "route what 2001:db8::2/128 sends in /run/netns/a by table 7 no more",
    ops.RefuseReturn("up0", 7): "answer that what came in by up0 reaches nobody through an interface of link group 7",
    ops.AllowReturn("up0", 7): "pass what came in by up0 through an interface of link group 7 again",
    ops.AddProxy("ens1", "2001:db8::2"): "answer on ens1 for neighbour 2001:db8::2",
    ops.RemoveProxy("ens1", "2001:db8::2"): "answer on ens1 for neighbour 2001:db8::2 no more",
    ops.TuneLink(A, "eth0", promisc=True, tx_queue=500):
        "set eth0 in /run/netns/a: promiscuous on, queue 500",
    ops.CreateIfb("ifb0"): "create ifb ifb0",
    ops.SetBucket("ifb0", TokenBucket(125_000, 1, 1)): "send through ifb0 at most 125000 bytes a second",
    ops.HookIngress("veth0"): "prepare veth0 for filters of what it receives",
    ops.Redirect("veth0", "ifb0"): "pass what veth0 receives through the queue of ifb0",
    ops.SetNeighbour(A, "eth0", "fe80::1", "02:00:00:00:00:0b"):
        "set the MAC of neighbour fe80::1 of eth0 in /run/netns/a to 02:00:00:00:00:0b",
    ops.AddElements((ELEMENT,)): "add elements to the firewall: 1",
    ops.RemoveElements((ELEMENT, ELEMENT)): "remove elements from the firewall: 2",
    ops.LoadRuleset(()): "load the firewall, elements: 0",
    ops.RouteLoopback(): "add the route by which published ports answer at ::1",
    ops.UnloadRuleset(): "delete the firewall",
    ops.FlushFlows(("10.1.2.3",), ((4, 53),)): "forget the UDP flows of addresses ('10.1.2.3',) and ports ((4, 53),)",
    awaits.AwaitPort("veth1"): "wait for bridge port veth1",
    awaits.AwaitCarrier("veth1"): "wait for the carrier of veth1",
    awaits.AwaitReception(A, "eth0", ("2001:db8::2", "2001:db8::3")):
        "wait until eth0 in /run/netns/a takes packets for 2001:db8::2, 2001:db8::3",
    awaits.AwaitAddresses(A, "eth0"): "wait for duplicate address detection on eth0 in /run/netns/a",
    awaits.AwaitRouter(A, "eth0", 10):
        "wait for an address and a default route from a router on the link of eth0 in /run/netns/a",
    awaits.AwaitEnd("veth1"): "wait for the end of veth1",
    ops.Announce(A, "eth0", "02:00:00:00:00:0a"):
        "announce the addresses of eth0 in /run/netns/a at 02:00:00:00:00:0a",
    ops.DeleteLink(HOST, "veth1"): "delete interface veth1 in the node",
}

UNDONE = (ops.CreateVeth, ops.CreateChildLink, ops.CreateIfb, ops.SetSysctl, ops.AddProxy, ops.AddRule, ops.AddElements)


def test_every_operation_is_here_and_has_an_effect() -> None:
    kinds = set(typing.get_args(ops.Op))
    assert {type(op) for op in SAID} == kinds
    assert EFFECTS.keys() == kinds


@pytest.mark.parametrize(("op", "words"), SAID.items(), ids=lambda value: type(value).__name__)
def test_describe(op: Op, words: str) -> None:
    assert describe(op) == words


def test_describe_a_route_of_a_table() -> None:
    words = "add route ::/0 via 2001:db8::1 through eth0 in /run/netns/a, table 7"
    assert describe(ops.AddRoute(A, "eth0", "::/0", "2001:db8::1", table=7)) == words


def test_describe_a_pair_without_a_bridge() -> None:
    words = "create veth veth1, its peer eth0 (mac 02:00:00:00:00:0a, mtu 1500) in /run/netns/a"
    assert describe(dataclasses.replace(PAIR, bridge="")) == words


@pytest.mark.parametrize("op", SAID, ids=lambda op: type(op).__name__)
def test_operations_are_values(op: Op) -> None:
    assert op == dataclasses.replace(op) and hash(op) == hash(dataclasses.replace(op))


@pytest.mark.parametrize(
    ("op", "undo"),
    [
        (PAIR, ops.DeleteLink(HOST, "veth1")),
        (dataclasses.replace(PAIR, shared=True), None),
        (ops.SetSysctl(A, "ipv4/conf/lo/forwarding", "0", was="1"), ops.SetSysctl(A, "ipv4/conf/lo/forwarding", "1")),
        (ops.CreateIfb("ifb0"), ops.DeleteLink(HOST, "ifb0")),
        (ops.AddElements((ELEMENT,)), ops.RemoveElements((ELEMENT,))),
        (ops.SetSysctl(A, "ipv6/conf/eth0/disable_ipv6", "0"), None),
        (ops.SetSysctl(HOST, "ipv4/ip_forward", "1", was="0"), None),
        (ops.AddProxy("ens1", "2001:db8::2"), ops.RemoveProxy("ens1", "2001:db8::2")),
        (ops.AddRoute(HOST, "cni0", "2001:db8::2/128"), ops.RemoveRoute(HOST, "cni0", "2001:db8::2/128")),
        (ops.AddRoute(HOST, "cni0", "10.0.0.2/32"), ops.RemoveRoute(HOST, "cni0", "10.0.0.2/32")),
        (MACVLAN, ops.DeleteLink("/run/netns/a", "eth0")),
        (dataclasses.replace(MACVLAN, shared=True), None),
        (ops.AddRoute(HOST, "cni0", "2001:db8::/64"), None),
        (ops.AddRoute(HOST, "cni0", "2001:db8::/80", "2001:db8::2"), ops.RemoveRoute(HOST, "cni0", "2001:db8::/80")),
        (ops.AddRule(A, "2001:db8::2/128", 7), ops.RemoveRule(A, "2001:db8::2/128", 7)),
        *((op, None) for op in SAID if not isinstance(op, UNDONE)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_inverse(op: Op, undo: Op | None) -> None:
    assert inverse(op) == undo
