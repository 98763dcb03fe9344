"""What can be done to routes, as values; ``cni_v6.ops`` has them among all the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AddRoute:
    """A unicast route through an interface; the same route there already is fine.

    ``dst`` is a prefix; ``gateway`` an address or None for on-link; ``scope`` as in rtnetlink (0 global, 253 link).
    None for any other attribute leaves it to the kernel.
    """

    netns: str
    ifname: str
    dst: str
    gateway: str | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


@dataclass(frozen=True, slots=True)
class AddUnreachable:
    """An IPv6 prefix of which nothing is reached but by other routes, all of which go before this; already is fine."""

    netns: str
    dst: str


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Take the route of a prefix through an interface out of the main table, whatever its next hop; absent is fine."""

    netns: str
    ifname: str
    dst: str
