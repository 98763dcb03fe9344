"""An ADD for a container id that was had before: what the earlier container of that name has left, if it has ended.

A runtime that restarts a container may keep its id; where nobody called DEL (the node's services were restarted, the
runtime was killed), record and addresses are there still. They are freed where that one is provably over
(``stale``); else it is attached, and a second ADD is refused, as the specification has it.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from cni_v6.attachments import register, stale
from cni_v6.attachments.context import Context
from cni_v6.attachments.stale import Here
from cni_v6.config.main import MainConf
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.log import Log
from cni_v6.plan.site import Site
from cni_v6.protocol.names import Owner


def observe(site: Site, conf: MainConf, questions: Collection[Question], context: Context) -> Snapshot:
    """What an ADD asks of the kernel, once an interface that goes with an ended namespace is gone.

    The kernel takes a namespace that has ended down in its own time, and a veth pair with it.
    """
    found = context.kernel.observe(questions)
    if not found.link(HOST, site.host):
        return found
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(site.owner)
    if record is None or not _has_ended(record, context):
        return found
    with suppress(CniError):  # it stays: somebody took the other end into a namespace that lives
        context.kernel.apply([ops.AwaitEnd(site.host)])
    return context.kernel.observe(questions)


def release(owner: Owner, leases: Transaction, context: Context, log: Log) -> bool:
    """Free what an earlier container has left that is provably over; whether there was one.

    :raises CniError: KERNEL_REFUSED, STORE_FAILED.
    """
    record = leases.get(owner)
    for over, why in stale.dead([record], context) if record else ():
        register.release(over, leases, context)
        log.info(f"freed {' '.join(over.addresses) or 'no address'} of an earlier {owner}: {why}")
        return True
    return False


def release_at(data_dir: str, owner: Owner, context: Context, log: Log) -> bool:
    """The same, in a transaction of its own."""
    with context.leases(owner.network, data_dir).transaction() as leases:
        return release(owner, leases, context, log)


def _has_ended(record: Attachment, context: Context) -> bool:
    """Whether its namespace has, whatever became of its interface."""
    known = stale.candidates([record], Here(context.boot, context.kernel.netns_id(HOST)))
    return bool(stale.ended(known, context.kernel.observe(stale.last_questions(known))))
