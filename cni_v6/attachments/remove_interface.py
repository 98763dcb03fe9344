"""DEL's first step: the container's interface goes, before its addresses are free."""

from __future__ import annotations

from cni_v6 import errors as codes
from cni_v6.attachments.context import Context
from cni_v6.config.main import RemovalConf
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAddresses, GetLink, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import host_interface, ifb


def remove_interface(call: Invocation, conf: RemovalConf, context: Context, *, foreign: bool) -> bool:
    """Delete the container's interface, and the device for its bandwidth; return whether there was one of ours.

    The device is looked for in any case: a record that was damaged or lost does not say whether there is one.

    :param foreign: whether an interface of the reference plugin may be deleted in CNI_NETNS.
    """
    host = host_interface(call.owner)
    questions = [GetLink(HOST, host), GetLink(HOST, ifb(call.owner))]
    seen = context.kernel.observe(questions)
    present = [question.ifname for question in questions if seen.link(HOST, question.ifname)]
    if present:
        context.kernel.remove([ops.DeleteLink(HOST, name) for name in present])
    if host in present:
        return True
    if call.netns and foreign:
        _remove_foreign(call, conf, context)
    return False


def _remove_foreign(call: Invocation, conf: RemovalConf, context: Context) -> None:
    """Delete an interface that the reference plugin made before the move to us: its host end has a random name.

    It is recognised by the container's addresses in the store. Other interfaces in the container are left alone.
    """
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    if record is None or not record.addresses:
        return
    try:
        seen = context.kernel.observe([GetLink(call.netns, call.ifname), GetAddresses(call.netns, call.ifname)])
    except CniError as error:
        # The path may also be a plain file: umount without rm leaves one.
        if error.code in (codes.UNKNOWN_CONTAINER, codes.INVALID_NETNS):
            return
        raise
    if _holds(seen, call, record):
        context.kernel.remove([ops.DeleteLink(call.netns, call.ifname)])


def _holds(seen: Snapshot, call: Invocation, record: Attachment) -> bool:
    link = seen.link(call.netns, call.ifname)
    present = {address.partition("/")[0] for address in seen.addresses(call.netns, call.ifname)}
    return link is not None and link.kind == "veth" and present.issuperset(record.addresses)
