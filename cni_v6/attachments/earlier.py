"""An ADD for a container id that already has a record: release what an earlier container of that id has left.

A runtime that restarts a container may keep its id. If nobody called DEL (the node's services were restarted, the
runtime was killed), the record and its addresses still exist. They are released if that container has provably ended
(``stale``). Otherwise the container is attached, and the specification has a second ADD refused.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from cni_v6.attachments import register, stale
from cni_v6.attachments.context import Context
from cni_v6.attachments.stale import Here
from cni_v6.config.main import MainConf
from cni_v6.errors import CniError
from cni_v6.kernel import awaits
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.log import Log
from cni_v6.plan.site import Site
from cni_v6.protocol.names import Owner


# The kernel closes a netlink socket, and lets go of its namespace, after an RCU grace period (net/netlink/af_netlink.c,
# deferred_put_nlk_sk): tens of milliseconds in which a namespace whose last user has gone counts as alive.
DOUBT_SECONDS = 1.0


def observe(
    site: Site, conf: MainConf, inside: tuple[int, int], questions: Collection[Question], context: Context
) -> Snapshot:
    """The answers that an ADD needs. Waits first for an interface of an earlier container that is about to go.

    The kernel removes an ended namespace asynchronously, and a veth pair together with it. An earlier container with
    another namespace may be over although that cannot be proved yet; it is given a second.

    :param inside: the id of the container's namespace.
    """
    found = context.kernel.observe(questions)
    if not found.link(HOST, site.host):
        return found
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(site.owner)
    if record is None or record.netns == inside:
        return found
    end = awaits.AwaitEnd(site.host) if _has_ended(record, context) else awaits.AwaitEnd(site.host, DOUBT_SECONDS)
    with suppress(CniError):  # it stays: its other end is in a namespace that is alive
        context.kernel.apply([end])
    return context.kernel.observe(questions)


def release(owner: Owner, leases: Transaction, context: Context, log: Log) -> bool:
    """Release the record of an earlier container that has provably ended, or a damaged one that holds nothing.

    :returns: whether there was one.

    :raises CniError: KERNEL_REFUSED, STORE_FAILED.
    """
    record = leases.get(owner)
    if record and records.is_nothing(record):  # its interface is gone: ADD has looked for it
        register.release(record, leases, context)
        return True
    for ended, why in stale.dead([record], context) if record else ():
        register.release(ended, leases, context)
        log.info(f"freed {' '.join(ended.addresses) or 'no address'} of an earlier {owner}: {why}")
        log.reclaimed += 1
        return True
    return False


def release_at(data_dir: str, owner: Owner, context: Context, log: Log) -> bool:
    """``release`` in a transaction of its own."""
    with context.leases(owner.network, data_dir).transaction() as leases:
        return release(owner, leases, context, log)


def _has_ended(record: Attachment, context: Context) -> bool:
    """Whether the namespace of an attachment has ended, whether or not its interface still exists."""
    candidates = stale.candidates([record], Here(context.boot, context.kernel.netns_id(HOST)))
    return bool(stale.ended(candidates, context.kernel.observe(stale.last_questions(candidates))))
