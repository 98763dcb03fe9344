"""The network namespaces of the container and of the node: the check that they differ, and what was made in which."""

from __future__ import annotations

from cni_v6.attachments.context import Context
from cni_v6.errors import INVALID_NETNS, UNKNOWN_CONTAINER, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.invocation import Invocation

UNKNOWN = (0, 0)  # a namespace id in records of another plugin or of an older version


def namespaces(call: Invocation, context: Context) -> tuple[tuple[int, int], tuple[int, int]]:
    """The ids of the container's namespace and of the node's (``Kernel.netns_id``).

    As in skel, the container's must not be the plugin's own, unless CNI_NETNS_OVERRIDE allows it.
    """
    inside, host = context.kernel.netns_id(call.netns), context.kernel.netns_id(HOST)
    if inside == host and call.env.get("CNI_NETNS_OVERRIDE", "").lower() not in ("1", "t", "true"):
        words = f"CNI_NETNS {call.netns} is the plugin's own network namespace"
        raise CniError(INVALID_NETNS, words, "pass the container's namespace; a container on the node's needs no CNI")
    return inside, host


def is_here(record: Attachment, boot: str, node: tuple[int, int]) -> bool:
    """Whether an attachment with a host interface was made in this boot, in the node's namespace that we are in."""
    return bool(record.host) and record.boot == boot and record.home in (UNKNOWN, node)


def refused(call: Invocation, context: Context) -> CniError | None:
    """For DEL: the error why nothing in CNI_NETNS may be changed; None if DEL may go on.

    CNI_NETNS can be the node's own namespace if a pid in its path now belongs to another process. A namespace that no
    longer exists is no error for DEL.
    """
    try:
        namespaces(call, context)
    except CniError as error:
        return None if error.code == UNKNOWN_CONTAINER else error
    return None
