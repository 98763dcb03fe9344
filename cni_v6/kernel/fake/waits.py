"""What is waited for on the fake kernel's node: it is there, or will never come."""

from __future__ import annotations

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import autoconf, awaits, mac_claims
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import RouteEntry
from cni_v6.kernel.fake.node import FakeNode
from cni_v6.kernel.ops import HOST


def port(fake: FakeNode, operation: awaits.AwaitPort) -> None:
    if not fake.existing(HOST, operation.ifname, operation).port_enabled:
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", "it never came up")


def carrier(fake: FakeNode, operation: awaits.AwaitCarrier) -> None:
    if not fake.existing(HOST, operation.ifname, operation).running:
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", "it never came up")


def reception(fake: FakeNode, operation: awaits.AwaitReception) -> None:
    fake.existing(operation.netns, operation.ifname, operation)
    held = fake.spaces[operation.netns].addresses.get(operation.ifname, [])
    if not {address.partition("/")[0] for address in held}.issuperset(operation.addresses):
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", "it has no such address")


def addresses(fake: FakeNode, operation: awaits.AwaitAddresses) -> None:
    fake.existing(operation.netns, operation.ifname, operation)
    for address in fake.spaces[operation.netns].addresses.get(operation.ifname, ()):
        holder = fake.duplicates.get(address.partition("/")[0])
        if holder is not None:
            raise mac_claims.duplicate(address, operation.ifname, holder)


def end(fake: FakeNode, operation: awaits.AwaitEnd) -> None:
    if operation.ifname in fake.spaces[HOST].links:
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", "it stays")


def router(fake: FakeNode, operation: awaits.AwaitRouter) -> None:
    """Give the interface what the router advertises."""
    fake.existing(operation.netns, operation.ifname, operation)
    address, gateway = fake.advertised
    missing = [what for what, there in ((autoconf.ADDRESS, address), (autoconf.ROUTE, gateway)) if not there]
    if missing:
        raise autoconf.no_router(operation.ifname, operation.seconds, missing)
    space = fake.spaces[operation.netns]
    space.addresses.setdefault(operation.ifname, []).append(address)
    space.routes.setdefault(operation.ifname, []).append(RouteEntry("::/0", gateway, priority=1024))
