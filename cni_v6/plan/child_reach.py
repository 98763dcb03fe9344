"""Who may reach a container with a child interface, and where its packets leave: for ``reach``, from what is known.

The node routes nothing for it and none of our rules sees its packets. What routers and hosts of the link do with them
is not known here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni_v6.leases.attachment import ChildLink
from cni_v6.plan.situation import Situation, child_link


_WHY_NOT = {
    "macvlan": "the kernel passes no frame between a macvlan and its master (hostAccess)",
    "ipvlan": "the kernel passes no packet of the node between an ipvlan and its master (hostAccess)",
    "vlan": "the node has no interface in that VLAN: only a router reaches it from there",
}


def from_link(seen: Situation) -> str:
    """Why hosts of the link reach the container."""
    port = _port(seen)
    link = f"VLAN {port.mode} of {port.master}" if port.kind == "vlan" else f"the link of {port.master}"
    return f"it is a host of {link}: no rule of the node sees its packets"


def from_node(seen: Situation, address: str) -> tuple[bool, str]:
    """Whether the node reaches it, and why."""
    port = _port(seen)
    if not port.node:
        return False, _WHY_NOT[port.kind]
    way = seen.ways.get(address)
    if way is None or way.interface != port.node:
        return False, f"the node has no route to it through {port.node} (cni-v6ctl check --repair)"
    return True, f"through {port.node}, on every port"


def exits(seen: Situation, family: int) -> Iterator[str]:
    """The next hops of the container's default routes of a family."""
    default = "::/0" if family == 6 else "0.0.0.0/0"
    for route in seen.inside.routes if seen.inside else ():
        if route.dst == default:
            yield route.gateway or "the link"


def _port(seen: Situation) -> ChildLink:
    port = child_link(seen)
    assert port
    return port
