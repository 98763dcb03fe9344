"""Records that cannot be read: completed by what the kernel says, or their containers blocked, and always reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from cni_v6.errors import CHECK_FAILED, KERNEL_REFUSED, LIMITED, CniError
from cni_v6.firewall.policy import GUARD_BLOCKED
from cni_v6.kernel import ops
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST, Op
from cni_v6.leases.attachment import Attachment
from tests.unit.fake_context import CONFIG, FakeContext, gc

OPEN: dict[str, Any] = CONFIG | {"ingress": "open", "guard": False}
OTHER: dict[str, Any] = CONFIG | {
    "name": "other", "bridge": "cni1",
    "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "2001:db8:2::/64"}], [{"subnet": "10.2.0.0/24"}]]},
}
REPORTED = "was damaged: made anew from the firewall's sets"
BLOCKED = "pods/c1/eth0 is blocked"


def damage(fake: FakeContext, network: str = "pods") -> Attachment:
    """All that the lease files tell is left of the first record. Returns it as it was."""
    record = fake.attachments(network)[0]
    with fake.leases(network).transaction() as leases:
        leases.update(Attachment(record.owner, record.addresses, damaged=True))
    return record


def said(fake: FakeContext, config: dict[str, Any] = CONFIG) -> str:
    return fake.call("STATUS", config=config).error(LIMITED)


def test_status_completes_it_from_the_sets() -> None:
    fake = FakeContext()
    fake.add("c1")
    before = damage(fake)
    elements = set(fake.kernel.firewall.elements())
    assert REPORTED in said(fake)
    [record] = fake.attachments()
    assert record.policy == before.policy and record.host == before.host and not record.damaged
    assert set(fake.kernel.firewall.elements()) == elements
    fake.call("STATUS").ok()


def test_check_completes_its_containers() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    damage(fake)
    assert REPORTED in fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).error(CHECK_FAILED)
    assert fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).ok() is None


def test_gc_completes_it() -> None:
    fake = FakeContext()
    fake.add("c1")
    before = damage(fake)
    assert REPORTED in fake.call("GC", config=gc("c1")).stderr
    assert fake.attachments()[0].policy == before.policy


def test_without_the_tables_the_container_is_blocked_until_it_is_added_again() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    damage(fake)
    fake.kernel.apply([ops.UnloadRuleset()])
    for _ in range(2):
        assert BLOCKED in said(fake)
        policy = fake.attachments()[0].policy
        assert policy and policy.guard == GUARD_BLOCKED
        message = fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).error(CHECK_FAILED)
        assert "the container is blocked" in message
    fake.add("c2")
    assert BLOCKED in fake.call("GC", config=gc("c1", "c2")).stderr
    fake.kernel.apply([ops.UnloadRuleset()])
    assert BLOCKED in said(fake), "a reload says it again"
    fake.call("DEL", "c1").ok()
    fake.add("c1")
    fake.call("STATUS").ok()


def test_a_network_without_a_firewall_has_none_afterwards() -> None:
    fake = FakeContext()
    fake.add("c1", OPEN)
    fake.add("c2", OPEN)
    damage(fake)
    assert "made anew, without a firewall" in said(fake, OPEN)
    assert [record.policy for record in fake.attachments()] == [None, None]
    fake.call("STATUS", config=OPEN).ok()


def test_a_reload_for_another_network_knows_it_by_its_neighbours() -> None:
    fake = FakeContext()
    fake.add("c1", OPEN)
    fake.add("c2", OPEN)
    damage(fake)
    assert "made anew, without a firewall" in fake.call("ADD", "d1", OTHER, CNI_NETNS=fake.container("d1")).stderr
    assert [record.policy for record in fake.attachments()] == [None, None]


def test_one_without_an_interface_is_no_alarm() -> None:
    fake = FakeContext()
    fake.add("c1")
    record = damage(fake)
    fake.kernel.remove([ops.DeleteLink(HOST, record.host)])
    fake.call("STATUS").ok()
    fake.call("DEL", "c1").ok()
    assert fake.attachments() == []


class Refusing(FakeKernel):
    """A kernel that takes no rules."""

    refuses = False

    def apply(self, operations: Iterable[Op]) -> Mapping[Op, Op | None]:
        wanted = list(operations)
        if self.refuses and any(isinstance(operation, ops.LoadRuleset) for operation in wanted):
            raise CniError(KERNEL_REFUSED, "no rules today", "try tomorrow")
        return super().apply(wanted)


def test_tables_that_cannot_be_loaded_are_said() -> None:
    kernel = Refusing()
    fake = FakeContext(kernel=kernel)
    fake.add("c1")
    damage(fake)
    kernel.refuses = True
    message = said(fake)
    assert "records of pods are damaged, and the firewall cannot be loaded: " in message and "no rules today" in message


@pytest.mark.parametrize("network", ["pods", "other"])
def test_only_the_networks_own_are_reported(network: str) -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.add("d1", OTHER)
    damage(fake, network)
    for name, config in (("pods", CONFIG), ("other", OTHER)):
        if name == network:
            assert f"the record of {name}/" in said(fake, config)
        else:
            fake.call("STATUS", config=config).ok()
