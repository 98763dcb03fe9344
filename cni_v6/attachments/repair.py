"""Compares the node with the records of its attachments, and mends what differs: ports, gateways, firewall, routes.

An ADD that finds its bridge gone does so for every network of that bridge, before its own work; ``cni-v6ctl check``
for any network, with or without ``--repair``. Each network is repaired under the lock of its leases.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni_v6.attachments import namespaces
from cni_v6.attachments.context import Context
from cni_v6.errors import CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLinks
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.plan import repair
from cni_v6.plan.repair import Findings, View


def look(leases: Transaction, context: Context) -> Findings:
    """What differs on the node for the attachments of a network, under the lock that the caller holds.

    :raises CniError: KERNEL_REFUSED.
    """
    return _findings(_views(leases, context), context)


def mend(found: Findings, context: Context) -> list[CniError]:
    """Do the operations of all steps; the errors of those that failed.

    A container may end meanwhile: its DEL deletes the interface without the lock.
    """
    errors = []
    for step in found.steps:
        try:
            context.kernel.apply(step)
        except CniError as error:
            errors.append(error)
    return errors


def restore(bridge: str, context: Context) -> Iterator[str]:
    """Repair all networks of a bridge that is gone, or was down; yields what was done, a line for each network.

    Containers that somebody has plugged into another bridge meanwhile are left alone.
    """
    for data_dir in context.data_dirs.known():
        for network in context.data_dirs.recorded(data_dir):
            with context.leases(network, data_dir).transaction() as leases:
                views = [view for view in _views(leases, context) if _was_in(view, bridge)]
                found = _findings(views, context) if views else Findings()
                errors = mend(found, context)
            if found.steps:
                words = f"bridge {bridge} was gone: plugged {len(views)} containers of network {network} in again"
                yield "; ".join((words, *map(str, errors)))


def _was_in(view: View, bridge: str) -> bool:
    return bool(view.conf and view.conf.bridge == bridge and view.link and view.link.master in ("", bridge))


def _views(leases: Transaction, context: Context) -> list[View]:
    node = context.kernel.netns_id(HOST)
    records: list[Attachment] = [each for each in leases.attachments() if namespaces.is_here(each, context.boot, node)]
    links = context.kernel.observe([GetLinks()]).links() if records else ()
    return repair.views(records, links)


def _findings(views: list[View], context: Context) -> Findings:
    seen = context.kernel.observe(repair.questions(views, context.id))
    seen = seen.with_answers(context.kernel.observe(repair.more_questions(views, seen)))
    return repair.findings(views, context.id, seen)
