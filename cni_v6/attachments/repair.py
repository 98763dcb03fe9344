"""Compares the node with the records of its attachments, and mends what differs: ports, gateways, firewall, routes.

An ADD that finds its bridge gone does so for every network of that bridge, before its own work; ``cni-v6ctl check``
for any network, with or without ``--repair``. Each network is repaired under the lock of its leases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cni_v6.attachments import namespaces
from cni_v6.attachments.context import Context
from cni_v6.errors import CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLink, GetLinks
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.leases.store import Transaction
from cni_v6.log import counted
from cni_v6.protocol.names import owned, owner_of_alias

if TYPE_CHECKING:
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

    The kernel is asked first, so that no lock is taken of a network that has lost nothing. A network that cannot be
    repaired keeps no other from it. Containers that somebody has plugged into another bridge are left alone.
    """
    names = _cut_off(bridge, context)
    for data_dir in context.data_dirs.known() if names else ():
        for network in context.data_dirs.recorded(data_dir):
            if network in names:
                try:
                    yield from _restore(network, data_dir, bridge, context)
                except CniError as error:
                    yield f"network {network} cannot be repaired: {error}; run cni-v6ctl check {network} --repair"


def plug_in(port: str, context: Context, leave: str = "") -> Iterator[str]:
    """Plug a port of ours in again that was taken out of its bridge, with all that it had; yields what was done.

    One that is gone, or in another bridge, is left alone, and so is one whose bridge is gone (``restore``).

    :param leave: why it is not plugged in; then that is said, and no more.
    """
    link = context.kernel.observe([GetLink(HOST, port)]).link(HOST, port)
    owner = owner_of_alias(link.alias) if link else None
    if owner is None or link is None or link.master:
        return
    for data_dir in context.data_dirs.known():
        if owner.network not in context.data_dirs.recorded(data_dir):
            continue
        with context.leases(owner.network, data_dir).transaction() as leases:
            views = [view for view in _views(leases, context)
                     if view.record.owner == owner and view.conf and view.link and view.link.name == port]
            bridges = [view.conf.bridge for view in views if view.conf]
            seen = context.kernel.observe([GetLink(HOST, bridge) for bridge in bridges])
            if not any(seen.link(HOST, bridge) for bridge in bridges):
                continue
            errors = () if leave else mend(_findings(views, context), context)
        was = f"port {port} of {owner} was taken out of bridge {bridges[0]}"
        if leave:
            yield f"{was} {leave}; cni-v6ctl check {owner.network} --repair plugs it in"
        else:
            yield f"{was}: {'; '.join(map(str, errors)) or 'plugged in again'}"


def _cut_off(bridge: str, context: Context) -> frozenset[str]:
    """The networks with ports in no bridge, or in this one while it is down."""
    links = context.kernel.observe([GetLinks()]).links()
    down = {link.name for link in links if link.kind == "bridge" and not link.up and link.name == bridge}
    return frozenset(owner.network for owner, link in owned(links) if not link.master or link.master in down)


def _restore(network: str, data_dir: str, bridge: str, context: Context) -> Iterator[str]:
    with context.leases(network, data_dir).transaction() as leases:
        views = [view for view in _views(leases, context) if _was_in(view, bridge)]
        if not views:
            return
        found = _findings(views, context)
        errors = mend(found, context)
    if found.steps:
        whose = f"{counted(len(views), 'container')} of network {network}"
        unplugged = any(view.link and not view.link.master for view in views)
        words = f"was gone: plugged {whose} in again" if unplugged else f"was down: put right for {whose}"
        yield "; ".join((f"bridge {bridge} {words}", *map(str, errors)))


def _was_in(view: View, bridge: str) -> bool:
    if view.conf is None or view.link is None or view.conf.bridge != bridge:
        return False
    return view.link.master in ("", bridge)


def _views(leases: Transaction, context: Context) -> list[View]:
    node = context.kernel.netns_id(HOST)
    records: list[Attachment] = [record for record in leases.attachments()
                                 if namespaces.is_here(record, context.boot, node) or _has_master_here(record, context)]
    if not records:
        return []
    from cni_v6.plan import repair  # nearly all calls find nothing to repair

    return repair.views(records, context.kernel.observe([GetLinks()]).links())


def _has_master_here(record: Attachment, context: Context) -> bool:
    """Whether it is a child, of this boot, of an interface of the node."""
    return isinstance(record.port, ChildLink) and not record.port.in_container and record.boot == context.boot


def _findings(views: list[View], context: Context) -> Findings:
    from cni_v6.plan import repair

    seen = context.kernel.observe(repair.questions(views, context.id))
    seen = seen.with_answers(context.kernel.observe(repair.more_questions(views, seen)))
    return repair.findings(views, context.id, seen)
