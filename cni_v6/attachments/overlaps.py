"""Refuses a network whose prefix the node has elsewhere, before the first container of it is attached.

A network remembers with its leases (``old_gateways.Memo``) for which prefixes that was looked at since the node was
started, so that another ADD asks the kernel nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cni_v6.allocation import ranges
from cni_v6.attachments import old_gateways
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.kernel.questions import GetSurroundings
from cni_v6.leases.store import Transaction
from cni_v6.log import Log
from cni_v6.plan import gateways
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.result import Address


def check(
    conf: MainConf, leases: Transaction, context: Context, log: Log, ips: Sequence[Address] | None = None
) -> None:
    """Check the prefixes of the network's ranges, or those of a container's addresses.

    :param ips: addresses from another IPAM plugin.
    :raises CniError: NODE_CONFLICT, KERNEL_REFUSED, STORE_FAILED.
    """
    if not conf.is_gateway or conf.allow_overlap:
        return
    needed = gateways.anchors_of_ranges(conf) if ips is None else gateways.anchors(conf, ips)
    memo = old_gateways.decode(leases.memo(), context.boot)
    if {*memo.live, *memo.looked_at}.issuperset(needed):
        return
    from cni_v6.plan import overlap  # once in a network's boot

    found = _of_ranges(conf) if ips is None else ips
    places = [
        overlap.Place(conf.gateway_interface, canonical_prefix(ip.address, host_bits=False) or ip.address, ip.gateway)
        for ip in found if ip.gateway
    ]
    earlier = frozenset(anchor.home for anchor in (*memo.live, *memo.draining))
    seen = context.kernel.observe([GetSurroundings()]).surroundings()
    for warning in overlap.check(conf, places, seen, earlier, _networks(conf, context)):
        log.warning(warning)
    looked_at = needed if ips is None else tuple(dict.fromkeys((*memo.looked_at, *needed)))
    leases.keep_memo(old_gateways.encode(replace(memo, looked_at=looked_at), context.boot))


def _of_ranges(conf: MainConf) -> tuple[Address, ...]:
    sets = conf.ipam.sets if isinstance(conf.ipam, IpamConf) else ()
    return tuple(Address(ranges.subnet(part), part.gateway) for range_set in sets for part in range_set.written)


def _networks(conf: MainConf, context: Context) -> dict[str, str]:
    """The networks on other interfaces."""
    return {
        anchor.home: name for name, content in context.data_dirs.memos() if name != conf.network
        for anchor in old_gateways.decode(content, context.boot).live
    }
