"""DEL's first step, and GC's: the container's interface goes, before its addresses are free."""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6 import errors as codes
from cni_v6.attachments.context import Context
from cni_v6.config.main import RemovalConf
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAddresses, GetLink
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import CHILD_KINDS, Attachment, ChildLink
from cni_v6.protocol.invocation import CHILDREN, Invocation
from cni_v6.protocol.names import Owner, host_interface, ifb, owner_of_alias, unnamed_interface

GONE = (codes.UNKNOWN_CONTAINER, codes.INVALID_NETNS)  # the path may be a plain file: umount without rm leaves one


def remove(call: Invocation, conf: RemovalConf, context: Context, *, foreign: bool) -> bool:
    """Delete the container's interface, and the device for its bandwidth; return whether there was one of ours.

    The device is looked for in any case: a record that was damaged or lost does not say whether there is one.

    :param foreign: whether something may be deleted in CNI_NETNS.
    """
    host = host_interface(call.owner)
    questions = [GetLink(HOST, host), GetLink(HOST, ifb(call.owner))]
    seen = context.kernel.observe(questions)
    present = [question.ifname for question in questions if seen.link(HOST, question.ifname)]
    if present:
        context.kernel.remove([ops.DeleteLink(HOST, name) for name in present])
    if host in present:
        return True
    named = call.netns if foreign else ""
    if not named and call.plugin not in CHILDREN:
        return False
    record = None
    if foreign or conf.network in context.data_dirs.recorded(conf.data_dir):  # a refused call makes no store
        with context.leases(conf.network, conf.data_dir).transaction() as leases:
            record = leases.get(call.owner)
    is_inside = call.plugin in CHILDREN or bool(record and isinstance(record.port, ChildLink))
    inside = _inside(call.owner, record, named, context) if is_inside else []
    if not inside and named and record:
        _remove_foreign(call, record, context)
    context.kernel.remove(inside)
    return bool(inside)


def of_records(records: Iterable[Attachment], context: Context) -> list[ops.DeleteLink]:
    """The operations that delete the interfaces of those containers that have none on the node."""
    return [step for record in records if isinstance(record.port, ChildLink)
            for step in _inside(record.owner, record, "", context)]


def _inside(owner: Owner, record: Attachment | None, named: str, context: Context) -> list[ops.DeleteLink]:
    """The operations that delete a container's interface that has no end on the node, where it can be found.

    That is in CNI_NETNS, or where the record says, if that is still the same namespace. The alias says whose it is.
    In the namespace of the record the name is enough, because a container may change the alias.

    :param named: CNI_NETNS, "" for none.
    """
    known = record.port if record and isinstance(record.port, ChildLink) else None
    found = []
    for path in dict.fromkeys(filter(None, (named, known.netns if known else ""))):
        try:
            is_known = bool(known and record and record.netns == context.kernel.netns_id(path))
            names = owner.ifname, unnamed_interface(owner)
            seen = context.kernel.observe([GetLink(path, name) for name in names])
        except CniError as error:
            if error.code in GONE:
                continue
            raise
        links = (link for name in names if (link := seen.link(path, name)))
        found += [ops.DeleteLink(path, link.name) for link in links if _is_ours(owner, link, is_known=is_known)]
    return found


def _is_ours(owner: Owner, link: Link, *, is_known: bool) -> bool:
    if link.kind not in CHILD_KINDS:
        return False
    return is_known or link.name == unnamed_interface(owner) or owner_of_alias(link.alias) == owner


def _remove_foreign(call: Invocation, record: Attachment, context: Context) -> None:
    """Delete an interface that the reference plugin made before the move to us: its host end has a random name.

    It is recognised by the container's addresses in the store. Other interfaces in the container are left alone.
    """
    if not record.addresses:
        return
    try:
        seen = context.kernel.observe([GetLink(call.netns, call.ifname), GetAddresses(call.netns, call.ifname)])
    except CniError as error:
        if error.code in GONE:
            return
        raise
    if _holds(seen, call, record):
        context.kernel.remove([ops.DeleteLink(call.netns, call.ifname)])


def _holds(seen: Snapshot, call: Invocation, record: Attachment) -> bool:
    link = seen.link(call.netns, call.ifname)
    present = {address.partition("/")[0] for address in seen.addresses(call.netns, call.ifname)}
    kind = call.plugin.removeprefix("cni-v6-") if call.plugin in CHILDREN else "veth"
    return link is not None and link.kind == kind and present.issuperset(record.addresses)
