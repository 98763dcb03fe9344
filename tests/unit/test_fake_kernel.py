"""What of the fake kernel the contract, held to the real one too, cannot show: VLANs, and failures made to order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni_v6 import errors
from cni_v6.errors import CniError
from cni_v6.firewall.sets import INET, Element
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetPortVlans

BRIDGE = ops.EnsureBridge("br0", "02:00:00:00:00:01", 1500, False, True)
PAIR = ops.CreateVeth("veth0", "02:00:00:00:00:02", "br0", "/run/netns/a", "eth0", "02:00:00:00:00:03", 1500)


@pytest.fixture
def kernel() -> FakeKernel:
    made = FakeKernel()
    made.add_netns("/run/netns/a")
    return made


def vlans(kernel: FakeKernel, *steps: Op) -> tuple[tuple[int, bool], ...]:
    kernel.apply([BRIDGE, PAIR, *steps])
    return kernel.observe([GetPortVlans("veth0")]).port_vlans("veth0")


def test_a_port_is_in_the_default_vlan(kernel: FakeKernel) -> None:
    assert vlans(kernel) == ((1, True),)


def test_one_untagged_vlan_at_a_time(kernel: FakeKernel) -> None:
    assert vlans(kernel, ops.AddPortVlans("veth0", 5, ())) == ((1, False), (5, True))


def test_trunk(kernel: FakeKernel) -> None:
    steps = ops.RemovePortVlan("veth0", 1), ops.AddPortVlans("veth0", 0, ((10, 11), (20, 20)))
    assert vlans(kernel, *steps) == ((10, False), (11, False), (20, False))


def test_a_vlan_that_the_port_is_not_in(kernel: FakeKernel) -> None:
    assert vlans(kernel, ops.RemovePortVlan("veth0", 7)) == ((1, True),)


def test_filtering_can_be_changed(kernel: FakeKernel) -> None:
    kernel.apply([BRIDGE, ops.SetBridge("br0", vlan_filtering=False)])
    assert not kernel.spaces[HOST].links["br0"].vlan_filtering
    for families in (frozenset((4, 6)), frozenset[int]()):
        kernel.apply([ops.SetBridge("br0", netfilter=families)])
        assert kernel.spaces[HOST].links["br0"].netfilter == families


@pytest.mark.parametrize(("awaited", "words"), [
    (awaits.AwaitPort("veth0"), "wait for bridge port veth0"),
    (awaits.AwaitCarrier("veth0"), "wait for the carrier of veth0"),
    (awaits.AwaitReception("/run/netns/a", "eth0", ("2001:db8::2",)), "takes packets for 2001:db8::2"),
])
def test_what_never_comes_is_told_at_once(kernel: FakeKernel, awaited: ops.Op, words: str) -> None:
    kernel.apply([BRIDGE, PAIR])
    with pytest.raises(CniError, match=words) as caught:
        kernel.apply([awaited])
    assert caught.value.code == errors.KERNEL_REFUSED


def test_a_failure_made_to_order(kernel: FakeKernel) -> None:
    kernel.fail = lambda op: CniError(100, "no") if isinstance(op, ops.SetAlias) else None
    with pytest.raises(CniError, match="no"):
        kernel.apply([BRIDGE, PAIR, ops.SetAlias(HOST, "veth0", "x")])
    assert kernel.applied == [BRIDGE, PAIR, ops.DeleteLink(HOST, "veth0")]


def test_a_bug_made_to_order_stays_what_it_is_though_undoing_fails(kernel: FakeKernel) -> None:
    def fail(op: Op) -> Exception | None:
        if isinstance(op, ops.SetAlias):
            return ZeroDivisionError("oh")
        return CniError(100, "no") if isinstance(op, ops.DeleteLink) else None

    kernel.fail = fail
    with pytest.raises(ZeroDivisionError, match="^oh$"):
        kernel.apply([BRIDGE, PAIR, ops.SetAlias(HOST, "veth0", "x")])


def test_no_two_namespaces_are_the_same_one(kernel: FakeKernel) -> None:
    kernel.add_netns("/run/netns/b")
    kernel.remove_netns("/run/netns/a")
    kernel.add_netns("/run/netns/c")
    assert kernel.netns_id("/run/netns/b") != kernel.netns_id("/run/netns/c")


def test_a_ruleset_that_cannot_be_loaded_leaves_the_one_before() -> None:
    """As nft does: all or nothing."""
    fake = FakeKernel()
    port = Element(INET, "ports4", ("6", "80"), ("10.1.0.2", "80"), "pods a/eth0")
    fake.apply([ops.LoadRuleset((port,))])
    before = fake.firewall.mark, fake.firewall.elements()
    with pytest.raises(CniError, match="pods a/eth0"):
        fake.apply([ops.LoadRuleset((port, replace(port, data=("10.1.0.3", "80"))))])
    assert (fake.firewall.mark, fake.firewall.elements()) == before
