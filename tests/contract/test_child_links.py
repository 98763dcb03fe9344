"""What the fake and the real kernel promise about ipvlans and vlans.

The fake alone is here: the real one needs a kernel with both, so ``tests/uml`` runs these with it.
"""

from __future__ import annotations

from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetChildMode
from tests.contract.kernels import KernelTestbed, fake_testbed
from tests.contract.test_kernel import link, refused, there
from tests.contract.test_macvlan import MASTER_MAC, OTHER_MAC, macvlan, wired

IPVLAN: dict[str, Any] = {"kind": "ipvlan", "mode": "l2", "mac": ""}
VLAN: dict[str, Any] = {"kind": "vlan", "mode": "5", "mac": ""}


@pytest.fixture
def testbed() -> KernelTestbed:
    return fake_testbed()


def mode(testbed: KernelTestbed, netns: str, ifname: str) -> tuple[str, str]:
    return testbed.kernel.observe([GetChildMode(netns, ifname)]).child_mode(netns, ifname)


@pytest.mark.parametrize("wanted", [IPVLAN, {**IPVLAN, "mode": "l3"}, {**IPVLAN, "mode": "l3s"}, VLAN,
                                    {**VLAN, "mode": "0"}, {**VLAN, "mode": "4094"}])
def test_one_is_made_down_in_its_namespace(testbed: KernelTestbed, wanted: dict[str, Any]) -> None:
    """With the master's MAC and MTU; nothing of it is ever on the node."""
    wired(testbed).kernel.apply([macvlan(testbed, **wanted)])
    made = there(testbed, testbed.a, "eth0")
    assert (made.kind, made.mac, made.mtu, made.up) == (wanted["kind"], MASTER_MAC, 1400, False)
    assert made.alias == "cni-v6 lan/a/eth0"
    assert mode(testbed, testbed.a, "eth0") == (wanted["kind"], wanted["mode"])
    assert link(testbed, testbed.a, "mv0") is None and link(testbed, HOST, "eth0") is None


@pytest.mark.parametrize(("mode", "resolves"), [("l2", True), ("l3", False), ("l3s", False)])
def test_whether_an_ipvlan_resolves_neighbours(testbed: KernelTestbed, mode: str, resolves: bool) -> None:
    """The mode says so whenever it comes up, whatever was set before."""
    up = ops.SetLink(testbed.a, "eth0", up=True)
    wired(testbed).kernel.apply([macvlan(testbed, **{**IPVLAN, "mode": mode})])
    for _ in range(2):
        testbed.kernel.apply([ops.TuneLink(testbed.a, "eth0", arp=not resolves), up])
        assert there(testbed, testbed.a, "eth0").arp is resolves
        testbed.kernel.apply([ops.TuneLink(testbed.a, "eth0", arp=not resolves)])
        assert there(testbed, testbed.a, "eth0").arp is not resolves
        testbed.kernel.apply([ops.SetLink(testbed.a, "eth0", up=False)])


def test_mac_and_mtu_of_a_vlan(testbed: KernelTestbed) -> None:
    wired(testbed).kernel.apply([macvlan(testbed, **{**VLAN, "mac": OTHER_MAC}, mtu=1300)])
    made = there(testbed, testbed.a, "eth0")
    assert (made.mac, made.mtu) == (OTHER_MAC, 1300)


@pytest.mark.parametrize("where", ["a", "b"])
def test_a_vlan_of_a_master_has_one_interface(testbed: KernelTestbed, where: str) -> None:
    """In whatever namespace."""
    wired(testbed).kernel.apply([macvlan(testbed, **VLAN)])
    other = macvlan(testbed, **VLAN, ifname="eth1", temporary="mv1", netns=getattr(testbed, where))
    with refused(errors.NODE_CONFLICT):
        testbed.kernel.apply([other])
    testbed.kernel.remove([ops.DeleteLink(testbed.a, "eth0")])
    testbed.kernel.apply([other])


def test_vlans_of_a_master_side_by_side(testbed: KernelTestbed) -> None:
    second = macvlan(testbed, **{**VLAN, "mode": "6"}, netns=testbed.b)
    wired(testbed).kernel.apply([macvlan(testbed, **VLAN), second])
    assert (mode(testbed, testbed.a, "eth0"), mode(testbed, testbed.b, "eth0")) == (("vlan", "5"), ("vlan", "6"))


@pytest.mark.parametrize("kinds", [("ipvlan", "macvlan"), ("macvlan", "ipvlan")])
def test_a_master_has_macvlans_or_ipvlans(testbed: KernelTestbed, kinds: tuple[str, str]) -> None:
    makes = {"macvlan": macvlan(testbed), "ipvlan": macvlan(testbed, **IPVLAN)}
    wired(testbed).kernel.apply([makes[kinds[0]]])
    with refused(errors.NODE_CONFLICT):
        testbed.kernel.apply([macvlan(testbed, **({} if kinds[1] == "macvlan" else IPVLAN), netns=testbed.b)])


def test_a_vlan_beside_an_ipvlan(testbed: KernelTestbed) -> None:
    wired(testbed).kernel.apply([macvlan(testbed, **IPVLAN), macvlan(testbed, **VLAN, netns=testbed.b)])


def test_the_mode_of_ipvlans_is_their_masters(testbed: KernelTestbed) -> None:
    """So another mode is no matter of one container alone (attachments/one_mode.py)."""
    wired(testbed).kernel.apply([macvlan(testbed, **IPVLAN)])
    testbed.kernel.apply([macvlan(testbed, **{**IPVLAN, "mode": "l3"}, netns=testbed.b)])
    assert mode(testbed, testbed.a, "eth0") == ("ipvlan", "l3")


@pytest.mark.parametrize("wanted", [IPVLAN, VLAN])
def test_one_is_undone(testbed: KernelTestbed, wanted: dict[str, Any]) -> None:
    with refused(errors.KERNEL_REFUSED, "nothing"):
        wired(testbed).kernel.apply([macvlan(testbed, **wanted), ops.SetAlias(HOST, "nothing", "x")])
    assert link(testbed, testbed.a, "eth0") is None


@pytest.mark.parametrize("address", ["192.0.2.5/24", "2001:db8::5/64"])
def test_ipvlans_of_a_master_have_each_address_once(testbed: KernelTestbed, address: str) -> None:
    """The kernel tells them by it."""
    wired(testbed).kernel.apply([macvlan(testbed, **IPVLAN), macvlan(testbed, **IPVLAN, netns=testbed.b)])
    testbed.kernel.apply([ops.AddAddress(testbed.a, "eth0", address)])
    with refused(errors.ADDRESS_UNAVAILABLE, address):
        testbed.kernel.apply([ops.AddAddress(testbed.b, "eth0", address)])
