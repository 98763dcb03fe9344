"""Refuses an ipvlan in another mode than those that its master has: the kernel would change the mode of all of them.

It changes it without a word (ipvlan_link_new, drivers/net/ipvlan/ipvlan_main.c), and running containers would hear no
neighbour any more, or suddenly be heard. What other programs make is not known here; CHECK finds a mode that changed.
"""

from __future__ import annotations

from cni_v6.attachments.context import Context
from cni_v6.config.child import ChildConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.leases.attachment import Attachment, ChildLink


def check(conf: ChildConf, context: Context) -> None:
    """
    :param conf: with the master's name.
    :raises CniError: NODE_CONFLICT.
    """
    if conf.link_in_container:
        return
    for data_dir in dict.fromkeys((conf.data_dir, *context.data_dirs.known())):
        for network in context.data_dirs.recorded(data_dir):
            record = _of_network(conf, network, data_dir, context)
            port = record.port if record else None
            if record and isinstance(port, ChildLink) and port.mode != conf.mode:
                words = (f"mode: {conf.mode}: master {conf.master} has ipvlans in mode {port.mode}, such as that of "
                         f"{record.owner}, and the kernel has one mode for all of them")
                raise CniError(NODE_CONFLICT, words, f'write "mode": "{port.mode}" or another master, or delete those '
                               "containers first (cni-v6ctl gc frees those that have ended)")


def _of_network(conf: ChildConf, network: str, data_dir: str, context: Context) -> Attachment | None:
    """A record of a network about an ipvlan on the same master. All of these have one mode, so one is enough.

    The containers of a network are of one type, so the search ends with one of another type.
    """
    with context.leases(network, data_dir).transaction() as leases:
        for record in leases.attachments():
            if record.boot != context.boot:
                continue
            port = record.port
            if not isinstance(port, ChildLink) or port.kind != conf.kind:
                return None
            if port.master == conf.master and not port.in_container and port.mode:
                return record
    return None
