"""What the first ADD of a network after a boot does under the lock of its leases, before an address is chosen."""

from __future__ import annotations

from cni_v6.attachments import overlaps, recall
from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf
from cni_v6.leases.store import Transaction
from cni_v6.protocol.invocation import Invocation


def prepare(call: Invocation, conf: MainConf, context: Context, leases: Transaction) -> None:
    """Compare the store with the node, and the network's prefixes with the node's.

    :raises CniError: NODE_CONFLICT, KERNEL_REFUSED, STORE_FAILED.
    """
    recall.check(conf, leases, context, call.log, but=call.owner)
    overlaps.check(conf, leases, context, call.log)
