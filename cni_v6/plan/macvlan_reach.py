"""Who may reach a container of a macvlan network, and where its packets leave: for ``reach``, from what is known.

The node routes nothing for it and no rule of the node sees its packets. What routers and hosts of the link do with them
is not known here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni_v6.leases.attachment import MacvlanLink
from cni_v6.plan.situation import Situation, macvlan_link


def from_link(seen: Situation) -> str:
    """Why hosts of the link reach the container."""
    return f"it is a host of the link of {_port(seen).master}: no rule of the node sees its packets"


def from_node(seen: Situation, address: str) -> tuple[bool, str]:
    """Whether the node reaches it, and why."""
    port = _port(seen)
    if not port.node:
        return False, "the kernel passes no frame between a macvlan and its master (hostAccess)"
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


def _port(seen: Situation) -> MacvlanLink:
    port = macvlan_link(seen)
    assert port
    return port
