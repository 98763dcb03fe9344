"""An ADD for a container id that was had before: what the earlier container of that name has left, if it has ended.

A runtime that restarts a container may keep its id; where nobody called DEL (the node's services were restarted, the
runtime was killed), record and addresses are there still. They are freed where that one is provably over
(``mortality``); else it is attached, and a second ADD is refused, as the specification has it.
"""

from __future__ import annotations

from contextlib import suppress

from cni_v6 import healing, mortality, ops, plan
from cni_v6.config import BridgeConf
from cni_v6.errors import CniError
from cni_v6.firewall import attach
from cni_v6.kernel import Snapshot
from cni_v6.leases import Attachment, Transaction
from cni_v6.log import Log
from cni_v6.mortality import Here
from cni_v6.names import Owner
from cni_v6.node import Node
from cni_v6.ops import HOST
from cni_v6.plan import Site


def seen(site: Site, conf: BridgeConf, found: Snapshot, node: Node) -> Snapshot:
    """Answers to ``plan.questions``, once an interface that goes with its namespace is gone.

    The kernel takes a namespace that has ended down in its own time, and a veth pair with it.

    :param found: the answers of this moment.
    """
    if not found.link(HOST, site.host):
        return found
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(site.owner)
    if record is None or not _has_ended(record, node):
        return found
    with suppress(CniError):  # it stays: somebody took the other end into a namespace that lives
        node.kernel.apply([ops.AwaitEnd(site.host)])
    return node.kernel.observe(plan.questions(site, conf))


def release(owner: Owner, leases: Transaction, node: Node, log: Log) -> bool:
    """Free what an earlier container has left that is provably over; whether there was one.

    :raises CniError: KERNEL_REFUSED, STORE_FAILED.
    """
    record = leases.get(owner)
    for over, why in healing.dead([record], node) if record else ():
        attach.drop(over, leases, node)
        log.info(f"freed {' '.join(over.addresses) or 'no address'} of an earlier {owner}: {why}")
        return True
    return False


def release_at(data_dir: str, owner: Owner, node: Node, log: Log) -> bool:
    """The same, in a transaction of its own."""
    with node.leases(owner.network, data_dir).transaction() as leases:
        return release(owner, leases, node, log)


def _has_ended(record: Attachment, node: Node) -> bool:
    """Whether its namespace has, whatever became of its interface."""
    known = mortality.candidates([record], Here(node.boot, node.kernel.netns_id(HOST)))
    return bool(mortality.ended(known, node.kernel.observe(mortality.last_questions(known))))
