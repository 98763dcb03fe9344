"""Macvlans of the fake kernel's node."""

from __future__ import annotations

from cni_v6.errors import ALREADY_ATTACHED, NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import Link
from cni_v6.kernel.fake.node import FakeNode

PASSTHRU = "passthru"


def create(fake: FakeNode, operation: ops.CreateMacvlan) -> None:
    lower, inside = fake.existing(operation.place, operation.master, operation), fake.space(operation.netns)
    if operation.ifname in inside.links and operation.shared:
        return
    if operation.ifname in inside.links:
        raise CniError(ALREADY_ATTACHED, f"cannot {describe(operation)}", "File exists")
    modes = [mode for *master, mode in fake.macvlans.values() if master == [operation.place, operation.master]]
    if lower.master or (modes and PASSTHRU in (operation.mode, *modes)):
        raise CniError(NODE_CONFLICT, f"cannot {describe(operation)}", "Invalid argument")
    mac = lower.mac if operation.mode == PASSTHRU else operation.mac
    made = Link(operation.ifname, mac, operation.mtu or lower.mtu, kind="macvlan", alias=operation.alias)
    fake.add_link(operation.netns, made)
    fake.macvlans[operation.netns, operation.ifname] = operation.place, operation.master, operation.mode
