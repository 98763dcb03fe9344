"""The node's own child of a master (``hostAccess``) goes with the last container that has the node as neighbour."""

from __future__ import annotations

from cni_v6.attachments.context import Context
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLinks
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.leases.store import Transaction
from cni_v6.plan import host_access
from cni_v6.protocol import names


def release(record: Attachment, link: ChildLink, leases: Transaction, context: Context) -> None:
    """Before a record is removed: remove the node's routes to the container, or the node's child with all of them.

    Under the lock of the leases: the record of an ADD is there before the ADD makes the interface.

    :param link: of the record, with a child of the node's.
    :raises CniError: KERNEL_REFUSED.
    """
    name = link.node
    others = any(
        isinstance(other.port, ChildLink) and other.port.node == name
        for other in leases.attachments() if other.owner != record.owner and other.boot in ("", context.boot)
    )
    steps: list[Op] = [ops.RemoveRoute(HOST, name, anchor.prefix) for anchor in record.anchors if anchor.on_link]
    context.kernel.remove(steps if others else [ops.DeleteLink(HOST, name)])
    if not others:
        _allow_return(link, context)


def _allow_return(link: ChildLink, context: Context) -> None:
    """Undo what is refused for the children that the node had on a master, with the last of them.

    Other networks have theirs there, and this call has not their locks: for one that comes meanwhile it is refused
    again.
    """
    refused = tuple(host_access.refusal(link))
    if refused and not _is_used(link.master, context):
        context.kernel.apply([ops.AllowReturn(step.ifname, step.group) for step in refused])
        if _is_used(link.master, context):
            context.kernel.apply(refused)


def _is_used(master: str, context: Context) -> bool:
    group = names.node_group(master)
    return any(found.group == group for found in context.kernel.observe([GetLinks()]).links())
