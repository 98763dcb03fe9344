"""When two routes are the same, and which metrics put one beside another. Pure."""

from __future__ import annotations

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import RouteEntry
from cni_v6.kernel.undo import inverse

DEFAULT_METRIC = {4: 0, 6: 1024}  # net/ip6_route.h: IP6_RT_PRIO_USER
METRICS_TRIED = 16  # a container has an interface in a few networks
MAIN_TABLE = 254  # linux/rtnetlink.h: RT_TABLE_MAIN


def is_same(operation: ops.AddRoute, entry: RouteEntry) -> bool:
    """Whether a route through the interface is the wanted one, whatever its metric if none is wanted."""
    optional = (
        (operation.mtu, entry.mtu), (operation.advmss, entry.advmss), (operation.priority, entry.priority),
    )
    place = operation.dst, operation.gateway, operation.table or MAIN_TABLE
    return place == (entry.dst, entry.gateway, entry.table) and all(value in (None, found) for value, found in optional)


def metrics(operation: ops.AddRoute) -> range:
    """The metrics to try beside another route, the preferred one first.

    None where the configuration names one, nor for a route to one container, which has to be the only one.
    """
    lowest = DEFAULT_METRIC[6 if ":" in operation.dst else 4] + 1
    is_free = operation.priority is None and inverse(operation) is None
    return range(lowest, lowest + METRICS_TRIED * is_free)


def refusal(operation: ops.AddRoute) -> CniError:
    """The error for a route of the node that another one is in the way of."""
    remedy = f"another route has its place: see ip route show {operation.dst}, ip -6 route show {operation.dst}"
    return CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", remedy)
