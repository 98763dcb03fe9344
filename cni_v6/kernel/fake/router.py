"""The link of the fake kernel's containers: a router, and other nodes that have an address."""

from __future__ import annotations

from cni_v6.kernel import autoconf, mac_claims, ops
from cni_v6.kernel.facts import RouteEntry
from cni_v6.kernel.fake.node import FakeNode


def await_router(fake: FakeNode, operation: ops.AwaitRouter) -> None:
    """Give the interface what the router advertises."""
    fake.existing(operation.netns, operation.ifname, operation)
    address, gateway = fake.advertised
    missing = [what for what, there in ((autoconf.ADDRESS, address), (autoconf.ROUTE, gateway)) if not there]
    if missing:
        raise autoconf.no_router(operation.ifname, operation.seconds, missing)
    space = fake.spaces[operation.netns]
    space.addresses.setdefault(operation.ifname, []).append(address)
    space.routes.setdefault(operation.ifname, []).append(RouteEntry("::/0", gateway, priority=1024))


def await_addresses(fake: FakeNode, operation: ops.AwaitAddresses) -> None:
    fake.existing(operation.netns, operation.ifname, operation)
    for address in fake.spaces[operation.netns].addresses.get(operation.ifname, ()):
        holder = fake.duplicates.get(address.partition("/")[0])
        if holder is not None:
            raise mac_claims.duplicate(address, operation.ifname, holder)
