"""The container's network namespace and the node's: which they are, and that they are not one."""

from __future__ import annotations

from cni_v6.attachments.context import Context
from cni_v6.errors import INVALID_NETNS, UNKNOWN_CONTAINER, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.protocol.invocation import Invocation


def namespaces(call: Invocation, context: Context) -> tuple[tuple[int, int], tuple[int, int]]:
    """What tells the container's namespace and the node's from others.

    As skel: the container's must not be the plugin's own, unless CNI_NETNS_OVERRIDE says so.
    """
    inside, home = context.kernel.netns_id(call.netns), context.kernel.netns_id(HOST)
    if inside == home and call.env.get("CNI_NETNS_OVERRIDE", "").lower() not in ("1", "t", "true"):
        words = f"CNI_NETNS {call.netns} is the plugin's own network namespace"
        raise CniError(INVALID_NETNS, words, "pass the container's namespace; a container on the node's needs no CNI")
    return inside, home


def refused(call: Invocation, context: Context) -> CniError | None:
    """For DEL: why nothing may be touched in CNI_NETNS, the node's own for a pid that is another's by now; to a DEL a
    namespace that is gone is fine."""
    try:
        namespaces(call, context)
    except CniError as error:
        return None if error.code == UNKNOWN_CONTAINER else error
    return None
