"""A route to a place that has one already: what is there is read, and the route is added beside it where it differs."""

from __future__ import annotations

import errno
from dataclasses import replace

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops, route_place
from cni_v6.kernel.describe import describe
from cni_v6.kernel.netlink import requests
from cni_v6.kernel.netlink.socket import explain
from cni_v6.kernel.observe import observe
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.questions import GetRoutes


def add(spaces: Spaces, operation: ops.AddRoute) -> ops.AddRoute | None:
    """Finish an operation that the kernel refused with EEXIST.

    :returns: the operation, if the route is there; the one that was done in its place, with another metric; None if
        there is no place for it in a container.
    :raises CniError: KERNEL_REFUSED; also for a route of the node to one container, which has to be the only one.
    """
    asked = GetRoutes(operation.netns, operation.ifname)
    present = observe(spaces, [asked]).routes(operation.netns, operation.ifname)
    if any(route_place.is_same(operation, entry) for entry in present):
        return operation
    index, route = spaces.index(operation.netns, operation.ifname), spaces.get(operation.netns).route
    assert index is not None  # the refused request had it
    for metric in route_place.metrics(operation):
        beside = replace(operation, priority=metric)
        [answer] = route.request([requests.add_route(beside, index)])
        if not answer.error:
            return beside
        if answer.error != errno.EEXIST:
            raise CniError(KERNEL_REFUSED, f"cannot {describe(beside)}", explain(answer))
    if operation.netns == ops.HOST:
        raise route_place.refusal(operation)
    return None
