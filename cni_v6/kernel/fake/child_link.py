"""Macvlans, ipvlans and vlans of the fake kernel's node."""

from __future__ import annotations

from cni_v6.errors import ALREADY_ATTACHED, NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import Link
from cni_v6.kernel.fake.node import FakeNode

PASSTHRU = "passthru"


def create(fake: FakeNode, operation: ops.CreateChildLink) -> None:
    lower, inside = fake.existing(operation.place, operation.master, operation), fake.space(operation.netns)
    if operation.ifname in inside.links and operation.shared:
        return
    if operation.ifname in inside.links:
        raise CniError(ALREADY_ATTACHED, f"cannot {describe(operation)}", "File exists")
    siblings = {name: (kind, mode) for name, (*master, kind, mode) in fake.children.items()
                if master == [operation.place, operation.master]}
    if operation.kind == "vlan":
        if ("vlan", operation.mode) in siblings.values():
            raise CniError(NODE_CONFLICT, f"cannot {describe(operation)}", "VLAN device already exists")
    elif lower.master or _excludes(operation, set(siblings.values())):
        raise CniError(NODE_CONFLICT, f"cannot {describe(operation)}", "Invalid argument")
    mac = operation.mac if operation.mac and operation.mode != PASSTHRU else lower.mac
    made = Link(operation.ifname, mac, operation.mtu or lower.mtu, kind=operation.kind,
                alias=operation.alias)
    fake.add_link(operation.netns, made)
    fake.children[operation.netns, operation.ifname] = (
        operation.place, operation.master, operation.kind, operation.mode)
    for name, (kind, _) in siblings.items():
        if operation.kind == kind == "ipvlan":  # the mode is the master's
            fake.children[name] = (*fake.children[name][:3], operation.mode)


def address_is_a_siblings(fake: FakeNode, operation: ops.AddAddress) -> bool:
    """Whether another ipvlan of the same master has the address."""
    *master, kind, _ = fake.children.get((operation.netns, operation.ifname), ("",) * 4)
    address = operation.address.partition("/")[0]
    return kind == "ipvlan" and any(
        held.partition("/")[0] == address
        for (netns, name), (*other, other_kind, _) in fake.children.items()
        if (other, other_kind) == (master, kind) and (netns, name) != (operation.netns, operation.ifname)
        for held in fake.spaces[netns].addresses.get(name, ())
    )


def _excludes(operation: ops.CreateChildLink, siblings: set[tuple[str, str]]) -> bool:
    """Whether the children that a master has leave no place for this one."""
    others = {kind for kind, _ in siblings} - {"vlan", operation.kind}
    modes = [mode for kind, mode in siblings if kind == operation.kind]
    return bool(others) or bool(modes and PASSTHRU in (operation.mode, *modes))
