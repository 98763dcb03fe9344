"""The node's own child of a master (``hostAccess``) goes with the last container that has the node as neighbour."""

from __future__ import annotations

from cni_v6.attachments.context import Context
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.leases.store import Transaction


def release(record: Attachment, name: str, leases: Transaction, context: Context) -> None:
    """Before a record is removed: remove the node's routes to the container, or the node's child with all of them.

    Under the lock of the leases: the record of an ADD is there before the ADD makes the interface.

    :param name: of the node's child.
    :raises CniError: KERNEL_REFUSED.
    """
    others = any(
        isinstance(other.port, ChildLink) and other.port.node == name
        for other in leases.attachments() if other.owner != record.owner and other.boot in ("", context.boot)
    )
    steps: list[Op] = [ops.RemoveRoute(HOST, name, anchor.prefix) for anchor in record.anchors if anchor.on_link]
    context.kernel.remove(steps if others else [ops.DeleteLink(HOST, name)])
