"""The sets of addresses of a network, and how far they are used. Takes no lock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.allocation import ranges
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.health.store import Pool
from cni_v6.planning import usage


def of(conf: IpamConf, records: Iterable[Attachment], context: Context) -> Iterator[Pool]:
    """The pools of a network; not one whose allocator's state cannot be read, of which STATUS says what is wrong.

    :param records: attachments, of other networks too.
    """
    held = [(text, record.created) for record in records if record.owner.network == conf.network
            for text in record.addresses]
    store = context.leases(conf.network, conf.data_dir)
    for range_set in conf.sets:
        try:
            spent, waiting = store.count(range_set)
        except CniError:
            continue
        used = usage.usage(range_set, conf.policy, spent, held, context.now(), None)
        yield Pool(conf.network, ranges.describe(range_set), used, waiting)
