"""The fake kernel and the real one keep the same promises, operation by operation and question by question.

The real one works on a throwaway node. VLANs are the fake's alone here: ``tests/uml`` has a kernel that knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cni_v6 import errors
from cni_v6.errors import CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import (
    BRIDGE_PORTS_MAX,
    FOREVER,
    Ipv6Interface,
    Lifetime,
    Link,
    RouteEntry,
    Shaping,
    TokenBucket,
    Uplink,
)
from cni_v6.kernel.ops import HOST, AddRoute, Op, SetLink
from cni_v6.kernel.questions import (
    GetAddresses,
    GetAliases,
    GetAlive,
    GetIpv6Interfaces,
    GetLifetimes,
    GetLink,
    GetLinks,
    GetMacHolder,
    GetNeighbour,
    GetNeighbours,
    GetShaping,
    GetPeerAddresses,
    GetPortVlans,
    GetRoutes,
    GetRules,
    RefusesReturn,
    GetSurroundings,
    GetSysctl,
    GetUplinks,
    HasProxy,
    HasRoute,
    Question,
)
from cni_v6.kernel.route_place import METRICS_TRIED
from tests.contract.kernels import KernelTestbed, LinuxTestbed

MAC, HOST_MAC, BRIDGE_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
BRIDGE = ops.EnsureBridge("br0", BRIDGE_MAC, 1500, multicast_snooping=False, vlan_filtering=False)
NO_DAD = "ipv6/conf/{}/accept_dad"


@contextmanager
def refused(code: int, *words: str) -> Iterator[None]:
    """The block ends with a CniError of this code that says all these words."""
    with pytest.raises(CniError) as caught:
        yield
    assert caught.value.code == code, caught.value
    assert [word for word in words if word not in str(caught.value)] == [], caught.value
    assert caught.value.details


def veth(netns: str, number: int = 0) -> ops.CreateVeth:
    """The pair ``veth<n>`` on br0 and ``eth<n>``."""
    middle = f"{number >> 8:02x}:{number & 255:02x}"
    host_mac, mac = f"02:00:00:{middle}:0b", f"02:00:00:{middle}:0a"
    return ops.CreateVeth(f"veth{number}", host_mac, "br0", netns, f"eth{number}", mac, 1500)


def attach(testbed: KernelTestbed, netns: str | None = None, number: int = 0) -> str:
    """A container on the bridge, its interface ``eth<n>`` up; returns its path."""
    netns = testbed.a if netns is None else netns
    pair = veth(netns, number)
    quiet = ops.SetSysctl(HOST, f"ipv6/conf/{pair.host}/disable_ipv6", "1")
    up = (ops.SetLink(HOST, "br0", up=True), ops.SetLink(netns, pair.ifname, up=True), awaits.AwaitPort(pair.host))
    testbed.kernel.apply([BRIDGE, pair, quiet, *up])
    return netns


def link(testbed: KernelTestbed, netns: str, ifname: str) -> Link | None:
    return testbed.kernel.observe([GetLink(netns, ifname)]).link(netns, ifname)


def there(testbed: KernelTestbed, netns: str, ifname: str) -> Link:
    found = link(testbed, netns, ifname)
    assert found is not None, f"no interface {ifname}"
    return found


def addresses(testbed: KernelTestbed, netns: str, ifname: str) -> list[str]:
    """In any order; without the link-local one that the real kernel makes up."""
    found = testbed.kernel.observe([GetAddresses(netns, ifname)]).addresses(netns, ifname)
    return sorted(each for each in found if not each.startswith("fe80:"))


def routes(testbed: KernelTestbed, netns: str, dst: str, ifname: str = "eth0") -> list[RouteEntry]:
    found = testbed.kernel.observe([GetRoutes(netns, ifname)]).routes(netns, ifname)
    return [each for each in found if each.dst == dst]


def sysctl(testbed: KernelTestbed, netns: str, key: str) -> str | None:
    return testbed.kernel.observe([GetSysctl(netns, key)]).sysctl(netns, key)


# Links


def test_a_bridge_is_created_down(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE])
    assert there(testbed, HOST, "br0") == Link("br0", BRIDGE_MAC, 1500, kind="bridge", group_fwd_mask=ops.LLDP)


def test_a_bridge_without_a_given_mtu_has_the_kernels(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([replace(BRIDGE, mtu=0)])
    assert there(testbed, HOST, "br0").mtu == 1500


def test_a_bridge_that_is_there_keeps_what_it_has(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, ops.SetLink(HOST, "br0", up=True)])
    before = there(testbed, HOST, "br0")
    testbed.kernel.apply([replace(BRIDGE, mac=MAC, mtu=1400)])
    assert there(testbed, HOST, "br0") == before


def test_veth(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([replace(BRIDGE, mtu=9000), replace(veth(testbed.a), mac=MAC, host_mac=HOST_MAC, mtu=1400)])
    host, inside = there(testbed, HOST, "veth0"), there(testbed, testbed.a, "eth0")
    assert host == Link("veth0", HOST_MAC, 1400, kind="veth", up=True, master="br0")
    assert inside == Link("eth0", MAC, 1400, kind="veth")
    assert link(testbed, HOST, "eth0") is None
    assert link(testbed, testbed.b, "eth0") is None


def test_veth_without_a_given_mtu_has_the_kernels(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, replace(veth(testbed.a), mtu=0)])
    assert (there(testbed, HOST, "veth0").mtu, there(testbed, testbed.a, "eth0").mtu) == (1500, 1500)


def test_veth_with_both_ends_on_the_node(testbed: KernelTestbed) -> None:
    attach(testbed, HOST)
    assert (there(testbed, HOST, "veth0").master, there(testbed, HOST, "eth0").master) == ("br0", "")


def test_veth_whose_host_name_is_taken(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a)])
    with refused(errors.ALREADY_ATTACHED, "veth0"):
        testbed.kernel.apply([replace(veth(testbed.b), ifname="eth1")])
    assert link(testbed, testbed.b, "eth1") is None


def test_veth_whose_name_is_taken_in_the_container(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a)])
    with refused(errors.ALREADY_ATTACHED, "eth0", testbed.a):
        testbed.kernel.apply([replace(veth(testbed.a), host="veth1")])
    assert link(testbed, HOST, "veth1") is None
    assert there(testbed, testbed.a, "eth0").mac == veth(testbed.a).mac


def test_a_shared_veth_that_is_there_is_fine(testbed: KernelTestbed) -> None:
    """The gateway's port in a VLAN: another container of the network may have made it meanwhile."""
    shared = replace(veth(HOST), shared=True)
    testbed.kernel.apply([BRIDGE, shared])
    before = there(testbed, HOST, "veth0"), there(testbed, HOST, "eth0")
    testbed.kernel.apply([replace(shared, mac=MAC)])
    assert (there(testbed, HOST, "veth0"), there(testbed, HOST, "eth0")) == before


def test_veth_without_its_bridge(testbed: KernelTestbed) -> None:
    with refused(errors.KERNEL_REFUSED, "veth0", "br0"):
        testbed.kernel.apply([veth(testbed.a)])
    assert link(testbed, HOST, "veth0") is None


def test_a_pair_without_a_bridge(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([replace(veth(testbed.a), bridge="", group=7)])
    found = there(testbed, HOST, "veth0")
    assert (found.master, found.group, found.up, found.mac) == ("", 7, True, veth(testbed.a).host_mac)
    assert not there(testbed, testbed.a, "eth0").up


def pair(testbed: KernelTestbed) -> str:
    """A container whose pair is on no bridge, both ends up, addresses inside; returns its namespace."""
    inside = (("ipv6/conf/eth0/accept_dad", "0"), ("ipv6/conf/eth0/disable_ipv6", "0"))
    testbed.kernel.apply([
        replace(veth(testbed.a), bridge=""), *(ops.SetSysctl(testbed.a, *each) for each in inside),
        *(ops.AddAddress(testbed.a, "eth0", each) for each in ("192.0.2.2/32", "2001:db8::2/128")),
        ops.SetLink(testbed.a, "eth0", up=True),
    ])
    return testbed.a


def test_a_pair_runs_when_both_ends_are_up(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([replace(veth(testbed.a), bridge="")])
    assert not there(testbed, HOST, "veth0").running
    for _ in range(2):
        testbed.kernel.apply([ops.SetLink(testbed.a, "eth0", up=True), awaits.AwaitCarrier("veth0")])
        assert there(testbed, HOST, "veth0").running and there(testbed, testbed.a, "eth0").running
    testbed.kernel.apply([ops.SetLink(HOST, "veth0", up=False)])
    assert not there(testbed, HOST, "veth0").running


def test_neighbours_that_are_set_for_good(testbed: KernelTestbed) -> None:
    netns = pair(testbed)
    for mac in (MAC, HOST_MAC, HOST_MAC):
        steps = [ops.SetNeighbour(netns, "eth0", each, mac) for each in ("fe80::1", "192.0.2.1")]
        testbed.kernel.apply(steps)
        asked = [GetNeighbours(netns, "eth0"), GetNeighbours(netns, "lo"), GetNeighbours(netns, "none0")]
        seen = testbed.kernel.observe(asked)
        assert sorted(seen.neighbours(netns, "eth0")) == [("192.0.2.1", mac), ("fe80::1", mac)]
        assert seen.neighbours(netns, "lo") == seen.neighbours(netns, "none0") == ()


def test_one_neighbour_that_was_set_for_good(testbed: KernelTestbed) -> None:
    netns = pair(testbed)
    testbed.kernel.apply([ops.SetNeighbour(netns, "eth0", each, MAC) for each in ("fe80::1", "192.0.2.1")])
    places = [(name, each) for name in ("eth0", "lo", "none0") for each in ("fe80::1", "fe80::2", "192.0.2.1")]
    seen = testbed.kernel.observe([GetNeighbour(netns, *place) for place in places])
    found = {place: seen.neighbour(netns, *place) for place in places}
    assert {place: mac for place, mac in found.items() if mac} == {("eth0", "fe80::1"): MAC, ("eth0", "192.0.2.1"): MAC}


def test_a_tuned_interface(testbed: KernelTestbed) -> None:
    netns = pair(testbed)
    for step, expected in (
        (ops.TuneLink(netns, "eth0", promisc=True, tx_queue=77), (True, False, 77, True)),
        (ops.TuneLink(netns, "eth0", allmulti=True, arp=False), (True, True, 77, False)),
        (ops.TuneLink(netns, "eth0", promisc=False, allmulti=False, tx_queue=5), (False, False, 5, False)),
        (ops.TuneLink(netns, "eth0", arp=True), (False, False, 5, True)),
    ):
        testbed.kernel.apply([step])
        found = there(testbed, netns, "eth0")
        assert (found.promisc, found.allmulti, found.tx_queue, found.arp) == expected and found.up


def test_a_shaped_interface(testbed: KernelTestbed) -> None:
    """Each operation again changes nothing; another bucket takes the first one's place."""
    testbed.kernel.apply([replace(veth(testbed.a), bridge="")])
    asked = [GetShaping("veth0"), GetShaping("ifb0"), GetShaping("none0")]
    assert set(testbed.kernel.observe(asked).answers.values()) == {Shaping()}
    slow, fast = TokenBucket(125_000, 67_108_863, 64_000), TokenBucket(2**32 - 1, 20_000, 2**32 - 1)
    steps = ops.CreateIfb("ifb0"), ops.SetBucket("ifb0", slow), ops.HookIngress("veth0"), ops.Redirect("veth0", "ifb0")
    for _ in range(2):
        testbed.kernel.apply([ops.SetBucket("veth0", slow), *steps])
        seen = testbed.kernel.observe(asked)
        assert (seen.shaping("veth0"), seen.shaping("ifb0")) == (Shaping(slow, "ifb0"), Shaping(slow))
    testbed.kernel.apply([ops.SetBucket("ifb0", fast)])
    assert testbed.kernel.observe(asked).shaping("ifb0") == Shaping(fast)
    ifb = there(testbed, HOST, "ifb0")
    assert ifb.up and ifb.kind == "ifb"
    testbed.kernel.remove([ops.DeleteLink(HOST, "ifb0"), ops.DeleteLink(HOST, "veth0")])
    assert set(testbed.kernel.observe(asked).answers.values()) == {Shaping()}


def test_a_route_of_ipv4_by_a_next_hop_of_ipv6(testbed: KernelTestbed) -> None:
    netns = pair(testbed)
    for _ in range(2):
        assert testbed.kernel.apply([AddRoute(netns, "eth0", "0.0.0.0/0", "fe80::1")]) == {}
        [found] = routes(testbed, netns, "0.0.0.0/0")
        assert (found.gateway, found.scope, found.table) == ("fe80::1", 0, 254)


@pytest.mark.parametrize("address", ["192.0.2.9/32", "2001:db8::9/128"])
def test_a_route_to_one_container(testbed: KernelTestbed, address: str) -> None:
    pair(testbed)
    for _ in range(2):
        assert testbed.kernel.apply([AddRoute(HOST, "veth0", address)]) == {}
        [found] = routes(testbed, HOST, address, "veth0")
        assert found.gateway is None


def test_an_address_that_is_no_source(testbed: KernelTestbed) -> None:
    pair(testbed)
    testbed.kernel.apply([ops.AddAddress(HOST, "veth0", "169.254.1.1/32", scope=254)])
    assert addresses(testbed, HOST, "veth0") == ["169.254.1.1/32"]
    if isinstance(testbed, LinuxTestbed):
        testbed.node.run("ip", "address", "add", "198.51.100.1/32", "dev", "lo")
        testbed.kernel.apply([AddRoute(HOST, "veth0", "192.0.2.2/32")])
        [found] = testbed.node.ip_json("route", "get", "192.0.2.2")
        assert found["prefsrc"] == "198.51.100.1"


def test_what_is_unreachable_in_both_families(testbed: KernelTestbed) -> None:
    prefixes = ("2001:db8:0:0:1::/80", "192.0.2.0/24")
    for _ in range(2):
        testbed.kernel.apply([ops.AddUnreachable(HOST, each) for each in prefixes])
    if isinstance(testbed, LinuxTestbed):
        for family, prefix in zip(("-6", "-4"), prefixes):
            [found] = testbed.node.ip_json(family, "route", "show", "type", "unreachable", prefix)
            assert found["metric"] == 2**32 - 1
    for _ in range(2):
        testbed.kernel.apply([ops.RemoveUnreachable(HOST, each) for each in prefixes])
    if isinstance(testbed, LinuxTestbed):
        for family in ("-6", "-4"):
            assert not testbed.node.ip_json(family, "route", "show", "type", "unreachable")


def test_a_bridge_has_so_many_ports(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, *(veth(testbed.a, number) for number in range(BRIDGE_PORTS_MAX))])
    assert sum(each.master == "br0" for each in testbed.kernel.observe([GetLinks()]).links()) == BRIDGE_PORTS_MAX
    with refused(errors.PORTS_EXHAUSTED, "br0", str(BRIDGE_PORTS_MAX)):
        testbed.kernel.apply([veth(testbed.b, BRIDGE_PORTS_MAX)])


def test_alias(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a), ops.SetAlias(HOST, "veth0", "cni-v6 net/abc/eth0")])
    testbed.kernel.apply([ops.SetAlias(testbed.a, "eth0", "x" * 255)])
    assert there(testbed, HOST, "veth0").alias == "cni-v6 net/abc/eth0"
    assert there(testbed, testbed.a, "eth0").alias == "x" * 255


def test_a_bridge_keeps_its_mac(testbed: KernelTestbed) -> None:
    low = replace(veth(testbed.a), host_mac="02:00:00:00:00:01")
    testbed.kernel.apply([BRIDGE, ops.PinMac("br0", BRIDGE_MAC), low])
    assert there(testbed, HOST, "br0").mac == BRIDGE_MAC
    with refused(errors.KERNEL_REFUSED, "br1"):
        testbed.kernel.apply([ops.PinMac("br1", BRIDGE_MAC)])


def test_a_mac_is_one_ports_on_a_bridge(testbed: KernelTestbed) -> None:
    claim = ops.ClaimMac("veth0", "br0", MAC)
    testbed.kernel.apply([BRIDGE, veth(testbed.a), ops.SetAlias(HOST, "veth0", "cni-v6 n/c/eth0"), claim])
    with refused(errors.ADDRESS_UNAVAILABLE, MAC, "held by n/c/eth0"):
        testbed.kernel.apply([veth(testbed.b, 1), replace(claim, ifname="veth1")])
    assert link(testbed, HOST, "veth1") is None
    testbed.kernel.apply([veth(testbed.b, 1), replace(claim, ifname="veth1", bridge="br1")])
    testbed.kernel.remove([ops.DeleteLink(HOST, "veth0")])
    testbed.kernel.apply([replace(claim, ifname="veth1")])
    with refused(errors.KERNEL_REFUSED, "veth2"):
        testbed.kernel.apply([replace(claim, ifname="veth2")])


def test_whose_macs_are_on_a_bridge(testbed: KernelTestbed) -> None:
    inside, here = veth(testbed.a), veth(HOST, 1)
    ports = {inside.host_mac: "veth0", inside.mac: "veth0", here.host_mac: "veth1", here.mac: "veth1"}
    wanted = {**ports, BRIDGE.mac: "br0"}
    questions = [GetMacHolder("br0", mac) for mac in (*wanted, "02:00:00:00:00:ee")]

    def holders() -> dict[str, Link]:
        seen = testbed.kernel.observe(questions)
        return {asked.mac: found for asked in questions if (found := seen.mac_holder("br0", asked.mac))}

    assert holders() == {}
    testbed.kernel.apply([BRIDGE, inside, ops.SetAlias(HOST, "veth0", "cni-v6 n/c/eth0"), here])
    found = holders()
    assert {mac: holder.name for mac, holder in found.items()} == wanted
    assert found[inside.mac].alias == "cni-v6 n/c/eth0"


@pytest.mark.parametrize(("hairpin", "isolated"), [(True, False), (False, True), (True, True), (False, False)])
def test_port_flags(testbed: KernelTestbed, hairpin: bool, isolated: bool) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a), ops.SetPort("veth0", not hairpin, not isolated)])
    testbed.kernel.apply([ops.SetPort("veth0", hairpin, isolated)])
    found = there(testbed, HOST, "veth0")
    assert (found.hairpin, found.isolated) == (hairpin, isolated)


def test_up_down_and_promiscuous(testbed: KernelTestbed) -> None:
    def state() -> tuple[bool, bool, int]:
        found = there(testbed, HOST, "br0")
        return found.up, found.promisc, found.group

    testbed.kernel.apply([BRIDGE])
    assert state() == (False, False, 0)
    testbed.kernel.apply([ops.SetLink(HOST, "br0", up=True, promisc=True, group=7)])
    assert state() == (True, True, 7)
    testbed.kernel.apply([ops.SetLink(HOST, "br0", up=False)])
    assert state() == (False, True, 7)
    testbed.kernel.apply([ops.SetLink(HOST, "br0", up=True, promisc=False, group=0)])
    assert state() == (True, False, 0)


def test_a_port_is_enabled_when_bridge_and_peer_are_up(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a), ops.SetLink(testbed.a, "eth0", up=True)])
    assert not there(testbed, HOST, "veth0").port_enabled
    testbed.kernel.apply([ops.SetLink(HOST, "br0", up=True), awaits.AwaitPort("veth0")])
    assert there(testbed, HOST, "veth0").port_enabled
    testbed.kernel.apply([awaits.AwaitPort("veth0")])


@pytest.mark.parametrize(
    "operation",
    [
        awaits.AwaitPort("veth0"),
        awaits.AwaitCarrier("veth0"),
        ops.SetNeighbour(HOST, "veth0", "2001:db8::2", MAC),
        awaits.AwaitReception(HOST, "veth0", ("2001:db8::2",)),
        awaits.AwaitAddresses(HOST, "veth0"),
        ops.SetAlias(HOST, "veth0", "x"),
        ops.SetLink(HOST, "veth0", up=True),
        ops.SetPort("veth0", hairpin=True, isolated=False),
        ops.AddAddress(HOST, "veth0", "2001:db8::1/64"),
        ops.SetPreferred(HOST, "veth0", "2001:db8::1/64", preferred=False),
        ops.AddRoute(HOST, "veth0", "2001:db8::/64"),
        ops.Announce(HOST, "veth0", MAC),
        ops.AddProxy("veth0", "2001:db8::2"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_an_interface_that_is_not_there(testbed: KernelTestbed, operation: Op) -> None:
    with refused(errors.KERNEL_REFUSED, "veth0", describe(operation)):
        testbed.kernel.apply([operation])


@pytest.mark.parametrize(
    "operation",
    [
        ops.DeleteLink(HOST, "veth0"),
        ops.RemoveAddress(HOST, "veth0", "2001:db8::1/64"),
        ops.RemovePortVlan("veth0", 1),
        ops.RemoveRoute(HOST, "veth0", "2001:db8::2/128"),
        ops.RemoveProxy("veth0", "2001:db8::2"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_what_is_to_go_is_gone_with_its_interface(testbed: KernelTestbed, operation: Op) -> None:
    testbed.kernel.apply([operation])
    testbed.kernel.remove([operation])


def test_delete_link_takes_the_peer_along_and_can_be_done_twice(testbed: KernelTestbed) -> None:
    attach(testbed)
    testbed.kernel.apply([ops.AddAddress(testbed.a, "eth0", "2001:db8::2/64")])
    for _ in range(2):
        testbed.kernel.remove([ops.DeleteLink(HOST, "veth0")])
        assert link(testbed, HOST, "veth0") is None
        assert link(testbed, testbed.a, "eth0") is None
        assert addresses(testbed, testbed.a, "eth0") == []
        assert sysctl(testbed, testbed.a, "ipv6/conf/eth0/accept_ra") is None


def test_delete_link_from_within(testbed: KernelTestbed) -> None:
    attach(testbed)
    testbed.kernel.apply([ops.DeleteLink(testbed.a, "eth0")])
    assert link(testbed, HOST, "veth0") is None


def test_made_again_after_its_end(testbed: KernelTestbed) -> None:
    """No index or name of the first pair is taken for the second's."""
    for _ in range(2):
        netns = attach(testbed)
        testbed.kernel.apply([
            ops.AddAddress(netns, "eth0", "2001:db8::2/64"), AddRoute(netns, "eth0", "::/0", "2001:db8::1")
        ])
        assert addresses(testbed, netns, "eth0") == ["2001:db8::2/64"]
        testbed.kernel.remove([ops.DeleteLink(HOST, "veth0")])


# Sysctls


def test_sysctl_is_set(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a)])
    key = "ipv6/conf/eth0/accept_ra"
    testbed.kernel.apply([ops.SetSysctl(testbed.a, key, "0")])
    assert sysctl(testbed, testbed.a, key) == "0"
    testbed.kernel.apply([ops.SetSysctl(testbed.a, key, "0"), ops.SetSysctl(testbed.a, key, "2")])
    assert sysctl(testbed, testbed.a, key) == "2"


def test_sysctl_of_one_namespace_is_nobody_elses(testbed: KernelTestbed) -> None:
    key = "ipv6/conf/lo/disable_ipv6"
    testbed.kernel.apply([ops.SetSysctl(testbed.a, key, "1")])
    assert [sysctl(testbed, netns, key) for netns in (testbed.a, testbed.b, HOST)] == ["1", "0", "0"]


def test_sysctl_of_an_interface_whose_name_has_a_dot(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, replace(veth(testbed.a), ifname="eth0.5")])
    testbed.kernel.apply([ops.SetSysctl(testbed.a, "ipv6/conf/eth0.5/accept_ra", "0")])
    assert sysctl(testbed, testbed.a, "ipv6/conf/eth0.5/accept_ra") == "0"


@pytest.mark.parametrize("key", ["ipv6/conf/eth9/accept_ra", "decnet/conf/all/forwarding"])
def test_sysctl_that_is_not_there(testbed: KernelTestbed, key: str) -> None:
    assert sysctl(testbed, testbed.a, key) is None
    with refused(errors.IO_FAILURE, f"net/{key}=0", "no such key"):
        testbed.kernel.apply([ops.SetSysctl(testbed.a, key, "0")])


# Addresses


@pytest.mark.parametrize(
    "address", ["2001:db8::2/64", "2001:db8::2/128", "192.0.2.2/24", "192.0.2.2/31", "192.0.2.2/32"]
)
def test_address(testbed: KernelTestbed, address: str) -> None:
    netns = attach(testbed)
    for _ in range(2):
        testbed.kernel.apply([ops.AddAddress(netns, "eth0", address)])
        assert addresses(testbed, netns, "eth0") == [address]
    for _ in range(2):
        testbed.kernel.apply([ops.RemoveAddress(netns, "eth0", address)])
        assert addresses(testbed, netns, "eth0") == []


def test_addresses_of_both_families_and_of_no_interface(testbed: KernelTestbed) -> None:
    netns = attach(testbed)
    wanted = ["192.0.2.2/24", "2001:db8:0:1::2/64", "2001:db8::2/64"]
    testbed.kernel.apply(ops.AddAddress(netns, "eth0", each) for each in wanted)
    assert addresses(testbed, netns, "eth0") == wanted
    assert addresses(testbed, testbed.b, "eth0") == []


def test_removing_an_address_leaves_the_others(testbed: KernelTestbed) -> None:
    netns = attach(testbed)
    testbed.kernel.apply(ops.AddAddress(netns, "eth0", each) for each in ("192.0.2.2/24", "2001:db8::2/64"))
    testbed.kernel.apply([ops.RemoveAddress(netns, "eth0", "192.0.2.2/24")])
    assert addresses(testbed, netns, "eth0") == ["2001:db8::2/64"]


def test_lifetimes(testbed: KernelTestbed) -> None:
    netns = attach(testbed)
    one, other = "2001:db8::2/64", "2001:db8:0:1::2/64"
    asked = GetLifetimes(netns, "eth0")

    def lifetimes() -> set[Lifetime]:
        found = testbed.kernel.observe([asked]).lifetimes(netns, "eth0")
        return {each for each in found if not each.address.startswith("fe80:")}

    assert lifetimes() == set()
    testbed.kernel.apply(ops.AddAddress(netns, "eth0", each) for each in ("192.0.2.2/24", one, other))
    assert lifetimes() == {Lifetime(one), Lifetime(other)}
    for preferred in (False, False, True):
        testbed.kernel.apply([ops.SetPreferred(netns, "eth0", one, preferred)])
        assert lifetimes() == {Lifetime(one, FOREVER if preferred else 0), Lifetime(other)}
    testbed.kernel.apply([ops.SetPreferred(netns, "eth0", other, False), ops.RemoveAddress(netns, "eth0", other)])
    assert lifetimes() == {Lifetime(one)}
    testbed.kernel.apply([ops.SetPreferred(netns, "eth0", other, True)])
    assert lifetimes() == {Lifetime(one), Lifetime(other)}
    assert testbed.kernel.observe([GetLifetimes(netns, "none")]).lifetimes(netns, "none") == ()


def test_an_interface_without_ipv6_takes_no_ipv6_address(testbed: KernelTestbed) -> None:
    netns = attach(testbed)
    testbed.kernel.apply([ops.SetSysctl(netns, "ipv6/conf/eth0/disable_ipv6", "1")])
    with refused(errors.KERNEL_REFUSED, "2001:db8::2/64", "eth0"):
        testbed.kernel.apply([ops.AddAddress(netns, "eth0", "2001:db8::2/64")])


# Routes


def routed(testbed: KernelTestbed) -> str:
    """A container with an address of each family."""
    netns = attach(testbed)
    testbed.kernel.apply(ops.AddAddress(netns, "eth0", each) for each in ("192.0.2.2/24", "2001:db8::2/64"))
    return netns


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        (AddRoute("", "eth0", "0.0.0.0/0", "192.0.2.1"), RouteEntry("0.0.0.0/0", "192.0.2.1")),
        (AddRoute("", "eth0", "::/0", "2001:db8::1"), RouteEntry("::/0", "2001:db8::1", priority=1024)),
        (AddRoute("", "eth0", "::/0", "fe80::1"), RouteEntry("::/0", "fe80::1", priority=1024)),
        (AddRoute("", "eth0", "198.51.100.0/24"), RouteEntry("198.51.100.0/24", None, scope=253)),
        (AddRoute("", "eth0", "198.51.100.0/24", scope=0), RouteEntry("198.51.100.0/24", None, scope=0)),
        (AddRoute("", "eth0", "2001:db8:1::/48"), RouteEntry("2001:db8:1::/48", None, priority=1024)),
        (
            AddRoute("", "eth0", "198.51.100.7/32", "192.0.2.1", mtu=1400, advmss=1300, priority=50),
            RouteEntry("198.51.100.7/32", "192.0.2.1", 1400, 1300, 50),
        ),
        (
            AddRoute("", "eth0", "2001:db8:1::7/128", "2001:db8::1", mtu=1400, advmss=1300, priority=50),
            RouteEntry("2001:db8:1::7/128", "2001:db8::1", 1400, 1300, 50),
        ),
        (
            AddRoute("", "eth0", "198.51.100.0/24", "192.0.2.1", table=100),
            RouteEntry("198.51.100.0/24", "192.0.2.1", table=100),
        ),
        (
            AddRoute("", "eth0", "2001:db8:1::/48", "2001:db8::1", table=1000),
            RouteEntry("2001:db8:1::/48", "2001:db8::1", priority=1024, table=1000),
        ),
    ],
    ids=lambda value: f"{value.dst} {value.gateway} {value.table}" if isinstance(value, AddRoute) else "",
)
def test_route(testbed: KernelTestbed, route: AddRoute, wanted: RouteEntry) -> None:
    netns = routed(testbed)
    for _ in range(2):
        testbed.kernel.apply([replace(route, netns=netns)])
        assert routes(testbed, netns, wanted.dst) == [wanted]


@pytest.mark.parametrize(
    ("gateway", "other", "metric"), [("192.0.2.1", "192.0.2.9", 1), ("2001:db8::1", "2001:db8::9", 1025)]
)
def test_another_route_to_a_place_is_added_beside_the_first(
    testbed: KernelTestbed, gateway: str, other: str, metric: int
) -> None:
    netns = routed(testbed)
    dst = "::/0" if ":" in gateway else "0.0.0.0/0"
    first, second = (AddRoute(netns, "eth0", dst, each) for each in (gateway, other))
    third = AddRoute(netns, "eth0", dst, f"{other[:-1]}8")
    assert testbed.kernel.apply([first, second, first, third]) == {
        second: replace(second, priority=metric), third: replace(third, priority=metric + 1),
    }
    found = {each.gateway: each.priority or 0 for each in routes(testbed, netns, dst)}
    assert found == {gateway: metric - 1, other: metric, f"{other[:-1]}8": metric + 1}
    assert testbed.kernel.apply([first, second]) == {}, "both are there"


@pytest.mark.parametrize(("gateway", "other"), [("192.0.2.1", "192.0.2.9"), ("2001:db8::1", "2001:db8::9")])
def test_another_route_of_a_metric_that_is_wanted_is_left_out(testbed: KernelTestbed, gateway: str, other: str) -> None:
    netns = routed(testbed)
    dst = "::/0" if ":" in gateway else "0.0.0.0/0"
    first, second = (AddRoute(netns, "eth0", dst, each, priority=7) for each in (gateway, other))
    assert testbed.kernel.apply([first, second]) == {second: None}
    assert [each.gateway for each in routes(testbed, netns, dst)] == [gateway]


def test_a_place_with_no_metric_left(testbed: KernelTestbed) -> None:
    netns = routed(testbed)
    many = [AddRoute(netns, "eth0", "0.0.0.0/0", f"192.0.2.{last}") for last in range(100, 100 + METRICS_TRIED + 2)]
    assert testbed.kernel.apply(many)[many[-1]] is None
    assert len(routes(testbed, netns, "0.0.0.0/0")) == METRICS_TRIED + 1


def test_a_route_of_the_node_to_a_container_is_the_only_one(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, SetLink(HOST, "br0", up=True), ops.AddAddress(HOST, "br0", "2001:db8::1/64")])
    first, second = (AddRoute(HOST, "br0", "2001:db8:5::/80", f"2001:db8::{last}") for last in (2, 3))
    testbed.kernel.apply([first])
    with refused(errors.KERNEL_REFUSED, "2001:db8:5::/80", "2001:db8::3", "ip -6 route show 2001:db8:5::/80"):
        testbed.kernel.apply([second])
    assert [each.gateway for each in routes(testbed, HOST, "2001:db8:5::/80", "br0")] == ["2001:db8::2"]


def test_routes_of_other_metrics_and_tables_stand_beside_each_other(testbed: KernelTestbed) -> None:
    netns = routed(testbed)
    steps = [AddRoute(netns, "eth0", "::/0", "2001:db8::1", priority=each) for each in (10, 20)]
    testbed.kernel.apply([*steps, AddRoute(netns, "eth0", "::/0", "2001:db8::1", priority=10, table=7)])
    found = {(each.priority, each.table) for each in routes(testbed, netns, "::/0")}
    assert found == {(10, 7), (10, 254), (20, 254)}


@pytest.mark.parametrize(("dst", "gateway"), [("0.0.0.0/0", "203.0.113.1"), ("::/0", "2001:db8:ffff::1")])
def test_route_via_an_unreachable_gateway(testbed: KernelTestbed, dst: str, gateway: str) -> None:
    netns = routed(testbed)
    with refused(errors.KERNEL_REFUSED, dst, gateway, "eth0"):
        testbed.kernel.apply([AddRoute(netns, "eth0", dst, gateway)])
    assert routes(testbed, netns, dst) == []


@pytest.mark.parametrize(
    ("dst", "gateway"), [("203.0.113.1/32", "203.0.113.1"), ("2001:db8:ffff::1/128", "2001:db8:ffff::1")]
)
def test_route_via_a_gateway_that_another_route_makes_reachable(testbed: KernelTestbed, dst: str, gateway: str) -> None:
    netns = routed(testbed)
    default = "::/0" if ":" in gateway else "0.0.0.0/0"
    testbed.kernel.apply([AddRoute(netns, "eth0", dst), AddRoute(netns, "eth0", default, gateway)])
    assert [each.gateway for each in routes(testbed, netns, default)] == [gateway]


@pytest.mark.parametrize("dst", ["198.51.100.0/24", "2001:db8:1::/48"])
def test_route_through_an_interface_that_is_down(testbed: KernelTestbed, dst: str) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a)])
    with refused(errors.KERNEL_REFUSED, dst):
        testbed.kernel.apply([AddRoute(testbed.a, "eth0", dst)])


def test_the_addresses_of_a_ports_other_end(testbed: KernelTestbed) -> None:
    """Wherever that is; asked for by the node, which need not have the namespace's path."""
    netns = routed(testbed)
    asked = GetPeerAddresses("veth0"), GetPeerAddresses("br0"), GetPeerAddresses("none")
    seen = testbed.kernel.observe(asked)
    assert {"192.0.2.2/24", "2001:db8::2/64"} <= set(seen.peer_addresses("veth0"))
    assert netns != HOST and (seen.peer_addresses("br0"), seen.peer_addresses("none")) == ((), ())


def test_the_surroundings(testbed: KernelTestbed) -> None:
    """Without what another table has, nor other kinds of routes."""
    before = testbed.kernel.observe([GetSurroundings()]).surroundings()
    testbed.kernel.apply([
        BRIDGE, SetLink(HOST, "br0", up=True), ops.AddAddress(HOST, "br0", "10.7.0.1/24"),
        ops.AddAddress(HOST, "br0", "2001:db8:7::1/64"), AddRoute(HOST, "br0", "10.8.0.0/16", "10.7.0.9"),
        AddRoute(HOST, "br0", "2001:db8:8::/48", "2001:db8:7::9"), AddRoute(HOST, "br0", "10.9.0.0/16", table=77),
        ops.AddUnreachable(HOST, "2001:db8::/32"),
    ])
    found = testbed.kernel.observe([GetSurroundings()]).surroundings()
    added = {each for each in found.addresses if each not in before.addresses and "fe80:" not in each[1]}
    assert added == {("br0", "10.7.0.1/24"), ("br0", "2001:db8:7::1/64")}
    led = {(name, route.dst, route.gateway) for name, route in found.routes if route.gateway}
    assert led >= {("br0", "10.8.0.0/16", "10.7.0.9"), ("br0", "2001:db8:8::/48", "2001:db8:7::9")}
    assert not {route.dst for _, route in found.routes} & {"10.9.0.0/16", "2001:db8::/32"}


# Of each family: prefixes, of which each contains the next one, an address elsewhere, a next hop and what is behind it.
PREFIXES = {
    4: ("192.0.0.0/16", "192.0.2.0/24", "192.0.2.128/25", "198.51.100.7/32", "192.0.2.1",
        "203.0.113.0/24", "0.0.0.0/0"),
    6: ("2001:db8::/48", "2001:db8::/64", "2001:db8:0:0:ffff::/96", "2001:db8:1::7/128", "2001:db8::1",
        "2001:db8:2::/56", "::/0"),
}


@pytest.mark.parametrize("family", [4, 6])
def test_whether_a_route_is_there(testbed: KernelTestbed, family: int) -> None:
    """It is the very route: not one to a longer or shorter prefix, of another table, interface, next hop or metric."""
    shorter, covering, longer, single, hop, behind, default = PREFIXES[family]
    netns, other = routed(testbed), single.replace("7/", "8/")
    testbed.kernel.apply([
        AddRoute(netns, "eth0", covering), AddRoute(netns, "eth0", longer), AddRoute(netns, "eth0", single),
        AddRoute(netns, "eth0", behind, hop), AddRoute(netns, "eth0", default, hop, priority=5000),
        AddRoute(netns, "eth0", other, table=1 << 30), AddRoute(netns, "eth0", single.replace("7/", "9/"), hop),
    ])
    expected = {
        (covering, ()): True, (longer, ()): True, (single, ()): True, (default, (hop,)): True, (behind, (hop,)): True,
        (behind, (single.partition("/")[0], hop)): True, (behind, ()): False, (single, (hop,)): False,
        (default, ()): False, (other, ()): False, (shorter, ()): False, (single.replace("7/", "9/"), ()): False,
    }
    places = [(name, *asked) for asked in expected for name in ("eth0", "lo", "none0")]
    seen = testbed.kernel.observe([HasRoute(netns, *place) for place in places])
    assert {place: seen.has_route(netns, *place) for place in places} == {
        (name, *asked): is_there and name == "eth0" for asked, is_there in expected.items()
        for name in ("eth0", "lo", "none0")
    }


def test_routes_of_no_interface(testbed: KernelTestbed) -> None:
    assert routes(testbed, testbed.a, "::/0") == []


# The node


def test_all_interfaces(testbed: KernelTestbed) -> None:
    attach(testbed)
    testbed.kernel.apply([ops.SetAlias(HOST, "veth0", "cni-v6 n/c/eth0")])
    found = {each.name: each for each in testbed.kernel.observe([GetLinks()]).links()}
    assert set(found) == {"lo", "br0", "veth0"}
    assert (found["veth0"].master, found["veth0"].alias, found["br0"].kind) == ("br0", "cni-v6 n/c/eth0", "bridge")
    for name in ("br0", "veth0"):  # a bridge runs some time after its port
        assert replace(found[name], running=True) == replace(there(testbed, HOST, name), running=True)


def test_which_namespaces_are_alive(testbed: KernelTestbed) -> None:
    home, a, b = (testbed.kernel.netns_id(path) for path in (HOST, testbed.a, testbed.b))
    never = a[0] + 2**40, a[1]
    asked = frozenset({home, a, b, never})
    assert testbed.kernel.observe([GetAlive(asked)]).alive(asked) == {home, a, b}


def test_interfaces_whose_alias_begins_so(testbed: KernelTestbed) -> None:
    attach(testbed)
    attach(testbed, testbed.b, 1)
    testbed.kernel.apply([replace(veth(testbed.b, 2), bridge=""), replace(BRIDGE, name="br1")])
    for name, alias in (("veth0", "cni-v6 n/c/eth0"), ("veth1", "of cni-v6 n/c/eth0"), ("veth2", "cni-v6 n/d/eth0")):
        testbed.kernel.apply([ops.SetAlias(HOST, name, alias)])
    on_bridge, alone = ("veth0", "cni-v6 n/c/eth0"), ("veth2", "cni-v6 n/d/eth0")
    nobody, some, others = frozenset[str](), frozenset({"veth9"}), frozenset({"veth0", "veth9"})
    for among, known, bridge, expected in (
        ({"veth0", "veth1", "veth9"}, nobody, "", {on_bridge}), (others, others, "", set()), (set(), nobody, "", set()),
        (others, nobody, "br0", {on_bridge}), (others, nobody, "br1", set()),
        ({f"veth{number}" for number in range(2, 100)}, nobody, "", {alone}),
    ):
        asked = GetAliases("cni-v6 n/", bridge, known, frozenset(among))
        assert set(testbed.kernel.observe([asked]).aliases(asked)) == expected, asked
    for known, bridge, expected in (
        (nobody, "", {on_bridge, alone}), (some, "", {on_bridge, alone}), (others, "", {alone}),
        (nobody, "br0", {on_bridge}), (some, "br0", {on_bridge}), (others, "br0", set()),
        (nobody, "br1", set()), (some, "br1", set()), (nobody, "br9", set()), (some, "br9", set()),
    ):
        asked = GetAliases("cni-v6 n/", bridge, known)
        assert set(testbed.kernel.observe([asked]).aliases(asked)) == expected, asked


def test_sysctls_beside_the_node_s_interfaces(testbed: KernelTestbed) -> None:
    """One dump answers both; of an interface that is not there, and of none, there are answers too."""
    attach(testbed)
    testbed.kernel.apply([ops.SetSysctl(HOST, "ipv6/conf/br0/accept_ra", "0")])
    keys = [f"ipv6/conf/{name}/{key}" for name in ("br0", "veth0", "none0", "all")
            for key in ("accept_ra", "disable_ipv6", "forwarding")]
    seen = testbed.kernel.observe([GetLinks(), *(GetSysctl(HOST, key) for key in keys)])
    assert [seen.sysctl(HOST, key) for key in keys] == [sysctl(testbed, HOST, key) for key in keys]
    assert seen.sysctl(HOST, "ipv6/conf/br0/accept_ra") == "0"


def test_a_bridge_that_is_deleted_leaves_its_ports(testbed: KernelTestbed) -> None:
    attach(testbed)
    testbed.kernel.apply([ops.SetPort("veth0", hairpin=True, isolated=True)])
    testbed.kernel.remove([ops.DeleteLink(HOST, "br0")])
    left = there(testbed, HOST, "veth0")
    assert (left.master, left.up, left.hairpin, left.isolated, left.port_enabled) == ("", True, False, False, False)


def test_a_port_that_is_plugged_in_again_is_a_new_one(testbed: KernelTestbed) -> None:
    """From no bridge, and from another one."""
    attach(testbed)
    fresh = there(testbed, HOST, "veth0")
    for lost in (ops.DeleteLink(HOST, "br0"), None):
        if lost:
            testbed.kernel.remove([lost])
        else:
            testbed.kernel.apply([replace(BRIDGE, name="br1"), ops.PlugIn("veth0", "br1")])
            assert there(testbed, HOST, "veth0").master == "br1"
        testbed.kernel.apply([
            BRIDGE, ops.PlugIn("veth0", "br0"), ops.SetLink(HOST, "br0", up=True), awaits.AwaitPort("veth0"),
        ])
        assert there(testbed, HOST, "veth0") == fresh
    with refused(errors.KERNEL_REFUSED, "plug veth0 into bridge br9"):
        testbed.kernel.apply([ops.PlugIn("veth0", "br9")])
    with refused(errors.KERNEL_REFUSED, "plug veth9 into bridge br0"):
        testbed.kernel.apply([ops.PlugIn("veth9", "br0")])


def test_vlans_of_no_port(testbed: KernelTestbed) -> None:
    assert testbed.kernel.observe([GetPortVlans("veth9")]).port_vlans("veth9") == ()


def test_interfaces_that_have_ipv6(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, replace(BRIDGE, name="br1")])
    off = [ops.SetSysctl(HOST, "ipv6/conf/br1/accept_ra", "2"), ops.SetSysctl(HOST, "ipv6/conf/br1/disable_ipv6", "1")]
    testbed.kernel.apply(off)
    found = testbed.kernel.observe([GetIpv6Interfaces()]).ipv6_interfaces()
    assert found == (Ipv6Interface("br0", "1", disabled=False), Ipv6Interface("br1", "2", disabled=True))


def test_no_uplink(testbed: KernelTestbed) -> None:
    assert testbed.kernel.observe([GetUplinks()]).uplinks() == ()


def test_uplinks(testbed: KernelTestbed) -> None:
    """Of each family the default route with the lowest metric."""
    other = replace(BRIDGE, name="br1", mtu=1400)
    testbed.kernel.apply([BRIDGE, other, *(ops.SetLink(HOST, name, up=True) for name in ("br0", "br1"))])
    testbed.kernel.apply([
        ops.AddAddress(HOST, "br0", "192.0.2.1/24"),
        AddRoute(HOST, "br0", "0.0.0.0/0", "192.0.2.9"),
        AddRoute(HOST, "br1", "::/0", "fe80::9", priority=2000),
    ])
    assert testbed.kernel.observe([GetUplinks()]).uplinks() == (Uplink(4, "br0", 1500), Uplink(6, "br1", 1400))
    testbed.kernel.apply([AddRoute(HOST, "br0", "::/0", "fe80::9")])
    assert testbed.kernel.observe([GetUplinks()]).uplinks() == (Uplink(4, "br0", 1500), Uplink(6, "br0", 1500))


def test_uplinks_of_a_container(testbed: KernelTestbed) -> None:
    """A default route of another table than the main one does not count."""
    netns = routed(testbed)

    def uplinks() -> list[tuple[int, str]]:
        found = testbed.kernel.observe([GetUplinks(netns), GetUplinks()])
        assert found.uplinks() == ()
        return [(uplink.family, uplink.ifname) for uplink in found.uplinks(netns)]

    testbed.kernel.apply([AddRoute(netns, "eth0", "::/0", "2001:db8::1", table=7)])
    assert uplinks() == []
    testbed.kernel.apply([AddRoute(netns, "eth0", dst, hop)
                          for dst, hop in (("::/0", "2001:db8::1"), ("0.0.0.0/0", "192.0.2.1"))])
    assert uplinks() == [(4, "eth0"), (6, "eth0")]


# Rules by the interface that a packet came in by


def test_what_came_in_does_not_go_back(testbed: KernelTestbed) -> None:
    """The kernel refuses no name of an interface that is not there."""
    def refused_return(ifname: str, group: int) -> bool:
        return testbed.kernel.observe([RefusesReturn(ifname, group)]).refuses_return(ifname, group)

    for _ in range(2):
        testbed.kernel.apply([ops.RefuseReturn("up0", 7), ops.RefuseReturn("up1", 8)])
        assert refused_return("up0", 7) and refused_return("up1", 8)
        assert not (refused_return("up0", 8) or refused_return("up2", 7))
    for _ in range(2):
        testbed.kernel.apply([ops.AllowReturn("up0", 7)])
        assert not refused_return("up0", 7) and refused_return("up1", 8)


# Rules by source address


def rules(testbed: KernelTestbed, table: int = 1 << 30) -> tuple[str, ...]:
    return testbed.kernel.observe([GetRules(testbed.a, table)]).rules(testbed.a, table)


@pytest.mark.parametrize("source", ["192.0.2.2/32", "2001:db8::2/128", "2001:db8:0:0:1::/80"])
def test_a_rule_of_a_source(testbed: KernelTestbed, source: str) -> None:
    wanted = ops.AddRule(testbed.a, source, 1 << 30)
    for _ in range(2):
        testbed.kernel.apply([wanted, ops.AddRule(testbed.a, source, 7)])
        assert (rules(testbed), rules(testbed, 7), rules(testbed, 8)) == ((source,), (source,), ())
    for _ in range(2):
        testbed.kernel.remove([ops.RemoveRule(testbed.a, source, 1 << 30)])
        assert (rules(testbed), rules(testbed, 7)) == ((), (source,))


def test_a_rule_of_a_failed_change_is_undone(testbed: KernelTestbed) -> None:
    with refused(errors.KERNEL_REFUSED, "br9"):
        testbed.kernel.apply([ops.AddRule(testbed.a, "192.0.2.2/32", 7), SetLink(HOST, "br9", up=True)])
    assert rules(testbed, 7) == ()


def test_rules_are_gone_with_their_namespace(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([ops.AddRule(testbed.a, "192.0.2.2/32", 7)])
    testbed.remove_container(testbed.a)
    testbed.kernel.close()
    testbed.kernel.remove([ops.RemoveRule(path, "192.0.2.2/32", 7) for path in (testbed.a, testbed.gone)])


@pytest.mark.parametrize(("dst", "hop"), [("::/0", "2001:db8::1"), ("192.0.2.0/24", None), ("0.0.0.0/0", "192.0.2.1")])
def test_a_route_of_a_table_is_removed(testbed: KernelTestbed, dst: str, hop: str | None) -> None:
    netns = routed(testbed)
    testbed.kernel.apply([AddRoute(netns, "eth0", "2001:db8:7::/64", table=1 << 30)])
    for table in (1 << 30, 7):
        testbed.kernel.apply([AddRoute(netns, "eth0", dst, hop, table=table)])
    for _ in range(2):
        testbed.kernel.remove([ops.RemoveRoute(netns, "eth0", dst, table=1 << 30)])
        found = [route.table for route in routes(testbed, netns, dst) if route.table != 254]
        assert found == [7]
    assert [route.table for route in routes(testbed, netns, "2001:db8:7::/64")] == [1 << 30]


# Neighbours that the node answers for


def proxies(testbed: KernelTestbed, ifname: str = "br0") -> tuple[str, ...]:
    """Those of two addresses for which the node answers there."""
    candidates = ("2001:db8::2", "2001:db8::3")
    seen = testbed.kernel.observe([HasProxy(ifname, each) for each in candidates])
    return tuple(each for each in candidates if seen.has_proxy(ifname, each))


def test_proxies(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, replace(BRIDGE, name="br1")])
    assert proxies(testbed) == proxies(testbed, "br9") == ()
    for _ in range(2):
        testbed.kernel.apply([ops.AddProxy("br0", "2001:db8::2"), ops.AddProxy("br1", "2001:db8::3")])
        assert (proxies(testbed), proxies(testbed, "br1")) == (("2001:db8::2",), ("2001:db8::3",))
    for _ in range(2):
        testbed.kernel.remove([ops.RemoveProxy("br0", "2001:db8::2")])
        assert (proxies(testbed), proxies(testbed, "br1")) == ((), ("2001:db8::3",))
    testbed.kernel.remove([ops.DeleteLink(HOST, "br1")])
    assert proxies(testbed, "br1") == ()


def test_a_proxy_of_a_failed_change_is_undone(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, ops.SetLink(HOST, "br0", up=True), AddRoute(HOST, "br0", "2001:db8::/64")])
    entry = AddRoute(HOST, "br0", "2001:db8::2/128"), ops.AddProxy("br0", "2001:db8::2")
    with refused(errors.KERNEL_REFUSED, "br9"):
        testbed.kernel.apply([*entry, ops.SetLink(HOST, "br9", up=True)])
    assert proxies(testbed) == ()
    assert routes(testbed, HOST, "2001:db8::2/128", "br0") == []
    assert len(routes(testbed, HOST, "2001:db8::/64", "br0")) == 1  # the network's, not the container's


@pytest.mark.parametrize("dst", ["2001:db8::2/128", "192.0.2.0/24"])
def test_a_route_is_removed(testbed: KernelTestbed, dst: str) -> None:
    testbed.kernel.apply([BRIDGE, ops.SetLink(HOST, "br0", up=True), AddRoute(HOST, "br0", dst)])
    other = "2001:db8::3/128"
    testbed.kernel.apply([AddRoute(HOST, "br0", other)])
    for _ in range(2):
        testbed.kernel.remove([ops.RemoveRoute(HOST, "br0", dst)])
        assert routes(testbed, HOST, dst, "br0") == []
        assert len(routes(testbed, HOST, other, "br0")) == 1


def test_a_route_by_a_next_hop_is_removed_without_it(testbed: KernelTestbed) -> None:
    dst, subnet = "2001:db8:0:0:1::/80", "2001:db8::/64"
    testbed.kernel.apply([BRIDGE, ops.SetLink(HOST, "br0", up=True), AddRoute(HOST, "br0", subnet)])
    testbed.kernel.apply([AddRoute(HOST, "br0", dst, "2001:db8::2")])
    for _ in range(2):
        testbed.kernel.remove([ops.RemoveRoute(HOST, "br0", dst)])
        assert routes(testbed, HOST, dst, "br0") == []
        assert len(routes(testbed, HOST, subnet, "br0")) == 1


def test_unreachable_but_for_what_is_known_better(testbed: KernelTestbed) -> None:
    """The same prefix through an interface goes before it."""
    dst = "2001:db8:0:0:1::/80"
    testbed.kernel.apply([BRIDGE, ops.SetLink(HOST, "br0", up=True)])
    testbed.kernel.apply([*[ops.AddUnreachable(HOST, dst)] * 2, AddRoute(HOST, "br0", dst)])
    assert len(routes(testbed, HOST, dst, "br0")) == 1
    if isinstance(testbed, LinuxTestbed):
        found = [line.strip() for line in testbed.node.run("ip", "-6", "route", "show", dst).stdout.splitlines()]
        assert found == [
            f"{dst} dev br0 proto static metric 1024 linkdown pref medium",
            f"unreachable {dst} dev lo proto static metric 4294967295 pref medium",
        ]


def test_many_questions_at_once(testbed: KernelTestbed) -> None:
    attach(testbed)
    names = ["br0", "veth0", *(f"none{number}" for number in range(300)), "lo"]
    asked = [GetLink(HOST, name) for name in names] + [GetLink(testbed.a, "eth0"), GetLink(testbed.a, "eth0")]
    seen = testbed.kernel.observe([*asked, GetSysctl(HOST, "ipv4/ip_forward"), GetAddresses(testbed.a, "eth0")])
    assert [name for name in names if seen.link(HOST, name)] == ["br0", "veth0", "lo"]
    assert seen.link(testbed.a, "eth0") == there(testbed, testbed.a, "eth0")
    assert seen.sysctl(HOST, "ipv4/ip_forward") == "0"


@pytest.mark.parametrize("changed", [{}, {"accept_ra": "2", "autoconf": "0", "accept_dad": "-1", "disable_ipv6": "1"}])
def test_settings_that_are_asked_for_with_their_interface_are_the_sysctls(
    testbed: KernelTestbed, changed: dict[str, str]
) -> None:
    testbed.kernel.apply([BRIDGE, *(ops.SetSysctl(HOST, f"ipv6/conf/br0/{key}", changed[key]) for key in changed)])
    names = ("accept_ra", "autoconf", "accept_dad", "disable_ipv6", "force_forwarding", "no_such_key")
    keys = [f"ipv6/conf/{ifname}/{name}" for ifname in ("br0", "none") for name in names]
    links = GetLink(HOST, "br0"), GetLink(HOST, "none")
    together = testbed.kernel.observe([*links, *(GetSysctl(HOST, key) for key in keys)])
    assert [together.sysctl(HOST, key) for key in keys] == [sysctl(testbed, HOST, key) for key in keys]
    assert {key: together.sysctl(HOST, f"ipv6/conf/br0/{key}") for key in changed} == changed


def test_asking_changes_nothing(testbed: KernelTestbed) -> None:
    attach(testbed)
    links = GetLink(HOST, "br0"), GetAliases("", "br0"), GetAddresses(testbed.a, "eth0"), GetRoutes(testbed.a, "eth0")
    by_key = HasProxy("br0", "2001:db8::2"), HasRoute(HOST, "br0", "2001:db8::2/128"), GetNeighbour(HOST, "br0", "::2")
    asked: list[Question] = [*links, GetIpv6Interfaces(), GetUplinks(), *by_key]
    assert testbed.kernel.observe(asked) == testbed.kernel.observe(asked)


# Namespaces


def test_identity_of_a_namespace(testbed: KernelTestbed) -> None:
    ids = [testbed.kernel.netns_id(path) for path in (HOST, testbed.a, testbed.b)]
    assert len(set(ids)) == 3
    assert ids == [testbed.kernel.netns_id(path) for path in (HOST, testbed.a, testbed.b)]
    with refused(errors.UNKNOWN_CONTAINER, testbed.gone):
        testbed.kernel.netns_id(testbed.gone)


def test_a_namespace_that_is_not_there(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE])
    with refused(errors.UNKNOWN_CONTAINER, testbed.gone):
        testbed.kernel.observe([GetLink(HOST, "br0"), GetLink(testbed.gone, "eth0")])
    with refused(errors.UNKNOWN_CONTAINER, testbed.gone):
        testbed.kernel.observe([GetSysctl(testbed.gone, "ipv4/ip_forward")])
    with refused(errors.UNKNOWN_CONTAINER, testbed.gone):
        testbed.kernel.apply([veth(testbed.gone)])
    assert link(testbed, HOST, "veth0") is None


def test_what_is_to_go_is_gone_with_its_namespace(testbed: KernelTestbed) -> None:
    address = ops.RemoveAddress(testbed.gone, "eth0", "2001:db8::1/64")
    testbed.kernel.remove([ops.DeleteLink(testbed.gone, "eth0"), address])


def test_a_pair_ends_with_its_container(testbed: KernelTestbed) -> None:
    attach(testbed)
    testbed.kernel.close()  # it would keep the namespace alive
    testbed.remove_container(testbed.a)
    testbed.kernel.remove([ops.DeleteLink(HOST, "veth0")])
    assert link(testbed, HOST, "veth0") is None


# All or none


def test_what_fails_is_undone(testbed: KernelTestbed) -> None:
    attach(testbed, testbed.b, 1)
    settings = (
        ops.SetSysctl(testbed.a, "ipv6/conf/lo/disable_ipv6", "1", was="0"),
        ops.SetSysctl(HOST, "ipv6/conf/br0/accept_ra", "0"),
    )
    up = ops.SetLink(testbed.a, "eth0", up=True)
    with refused(errors.KERNEL_REFUSED, "2001:db8:9::1"):
        testbed.kernel.apply([veth(testbed.a), *settings, up, AddRoute(testbed.a, "eth0", "::/0", "2001:db8:9::1")])
    assert link(testbed, HOST, "veth0") is None
    assert link(testbed, testbed.a, "eth0") is None
    assert sysctl(testbed, testbed.a, "ipv6/conf/lo/disable_ipv6") == "0"
    assert sysctl(testbed, HOST, "ipv6/conf/br0/accept_ra") == "0"  # the network's, not the container's
    assert there(testbed, testbed.b, "eth1").up
    attach(testbed)


def test_what_would_stay_is_not_made_after_a_refusal(testbed: KernelTestbed) -> None:
    """The gateway's port in a VLAN, by a kernel that refuses VLAN filtering of its bridge."""
    testbed.kernel.apply([BRIDGE])
    with refused(errors.KERNEL_REFUSED, "none"):
        testbed.kernel.apply([ops.SetAlias(HOST, "none", "x"), replace(veth(HOST), shared=True)])
    assert link(testbed, HOST, "veth0") is None
    assert link(testbed, HOST, "eth0") is None


def test_what_fails_first_is_what_is_told(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a)])
    steps = [AddRoute(testbed.a, "eth0", dst) for dst in ("192.0.2.0/24", "198.51.100.0/24")]
    with refused(errors.KERNEL_REFUSED, "192.0.2.0/24"):
        testbed.kernel.apply(steps)


def test_removing_does_every_step(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE, veth(testbed.a), veth(testbed.b, 1)])
    bad, worse = ops.SetSysctl(HOST, "ipv6/conf/none/accept_ra", "0"), ops.SetAlias(HOST, "none", "x")
    with refused(errors.IO_FAILURE, "2 steps failed", "accept_ra", "name the owner of none"):
        testbed.kernel.remove([bad, ops.DeleteLink(HOST, "veth0"), worse, ops.DeleteLink(HOST, "veth1")])
    assert [link(testbed, HOST, name) for name in ("veth0", "veth1")] == [None, None]


def test_nothing_to_do(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([])
    testbed.kernel.remove([])
    assert testbed.kernel.observe([]).answers == {}


def test_a_closed_kernel_opens_what_it_needs_again(testbed: KernelTestbed) -> None:
    netns = attach(testbed)
    testbed.kernel.close()
    testbed.kernel.close()
    assert there(testbed, netns, "eth0").up
