"""What the fake and the real kernel promise about VLANs.

The fake alone is here: the real one needs a kernel with VLAN filtering, so ``tests/uml`` runs these with it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni_v6.errors import CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLink, GetPortVlans
from tests.contract.kernels import KernelTestbed, fake_testbed
from tests.contract.test_kernel import BRIDGE, BRIDGE_MAC, veth

FILTERING = ops.EnsureBridge("br0", BRIDGE_MAC, 1500, multicast_snooping=False, vlan_filtering=True)


@pytest.fixture
def testbed() -> KernelTestbed:
    return fake_testbed()


def vlans(testbed: KernelTestbed, *steps: Op) -> tuple[tuple[int, bool], ...]:
    """Of the port veth0 after these operations."""
    testbed.kernel.apply([FILTERING, veth(testbed.a), *steps])
    return testbed.kernel.observe([GetPortVlans("veth0")]).port_vlans("veth0")


def filters(testbed: KernelTestbed) -> bool:
    link = testbed.kernel.observe([GetLink(HOST, "br0")]).link(HOST, "br0")
    assert link and link.default_vlan == 1
    return link.vlan_filtering


def test_a_bridge_filters_vlans_or_not(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([FILTERING])
    assert filters(testbed)
    testbed.kernel.apply([FILTERING, BRIDGE])  # there already: it keeps what it has
    assert filters(testbed)


def test_a_bridge_changes_its_mind(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([BRIDGE])
    assert not filters(testbed)
    for wanted in (True, True, False):
        testbed.kernel.apply([ops.SetBridge("br0", vlan_filtering=wanted)])
        assert filters(testbed) is wanted


def test_frames_of_a_bridge_pass_the_rules_or_not(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([FILTERING])
    for families in ({4, 6}, {6}, {4}, set[int]()):
        testbed.kernel.apply([ops.SetBridge("br0", netfilter=frozenset(families))])
        link = testbed.kernel.observe([GetLink(HOST, "br0")]).link(HOST, "br0")
        assert link and link.netfilter == families and link.vlan_filtering


def test_a_new_port_is_in_the_default_vlan(testbed: KernelTestbed) -> None:
    assert vlans(testbed) == ((1, True),)


def test_an_untagged_vlan_takes_over(testbed: KernelTestbed) -> None:
    assert vlans(testbed, ops.AddPortVlans("veth0", 100, ())) == ((1, False), (100, True))


def test_trunk(testbed: KernelTestbed) -> None:
    wanted = ((1, True), *((vlan, False) for vlan in (10, 11, 12, 20, 4093, 4094)))
    assert vlans(testbed, ops.AddPortVlans("veth0", 0, ((10, 12), (20, 20), (4093, 4094)))) == wanted


def test_a_whole_trunk(testbed: KernelTestbed) -> None:
    found = vlans(testbed, ops.AddPortVlans("veth0", 100, ((1, 99), (101, 4094))))
    assert found == tuple((vlan, vlan == 100) for vlan in range(1, 4095))


def test_adding_twice_and_removing_twice(testbed: KernelTestbed) -> None:
    add, remove = ops.AddPortVlans("veth0", 100, ((20, 21),)), ops.RemovePortVlan("veth0", 1)
    assert vlans(testbed, remove, add, add, remove) == ((20, False), (21, False), (100, True))


def test_the_untagged_vlan_becomes_a_tagged_one(testbed: KernelTestbed) -> None:
    assert vlans(testbed, ops.AddPortVlans("veth0", 0, ((1, 2),))) == ((1, False), (2, False))


def test_a_port_without_its_untagged_vlan(testbed: KernelTestbed) -> None:
    assert vlans(testbed, ops.RemovePortVlan("veth0", 1)) == ()


def test_a_shared_pair_that_is_there_is_fine_and_stays(testbed: KernelTestbed) -> None:
    """As an ADD finds the node's port in a VLAN when another ADD made it a moment ago; then it fails."""
    pair = replace(veth(HOST), shared=True)
    with pytest.raises(CniError):
        testbed.kernel.apply([BRIDGE, pair, pair, ops.SetLink(HOST, "eth0", up=True), awaits.AwaitPort("nowhere")])
    seen = testbed.kernel.observe([GetLink(HOST, "veth0"), GetLink(HOST, "eth0")])
    ends = [seen.link(HOST, name) for name in ("veth0", "eth0")]
    assert [(end.kind, end.up) for end in ends if end] == [("veth", True)] * 2
