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
from cni_v6.kernel.questions import GetLinks, GetSurroundings
from cni_v6.leases.attachment import GatewayAddress
from cni_v6.leases.store import Transaction
from cni_v6.log import Log
from cni_v6.plan import forwarding, gateways
from cni_v6.protocol.names import owned
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
    needed = _needed(conf, ips)
    memo = old_gateways.decode(leases.memo(), context.boot)
    if {*memo.live, *memo.looked_at}.issuperset(needed):
        return
    from cni_v6.plan import overlap  # once in a network's boot

    found = _of_ranges(conf) if ips is None else ips
    places = [
        overlap.Place(
            conf.gateway_interface if conf.is_shared else forwarding.LOOPBACK, gateways.subnet(ip), ip.gateway
        )
        for ip in found if ip.gateway
    ]
    seen = context.kernel.observe([GetSurroundings(), GetLinks()])
    owners = {link.name: owner.network for owner, link in owned(seen.links())}
    earlier = {anchor.home for anchor in (*memo.live, *memo.draining)}
    earlier |= {name for name, network in owners.items() if network == conf.network}
    names = owners | _networks(conf, context)
    for warning in overlap.check(conf, places, seen.surroundings(), frozenset(earlier), names):
        log.warning(warning)
    looked_at = needed if ips is None else tuple(dict.fromkeys((*memo.looked_at, *needed)))
    leases.keep_memo(old_gateways.encode(replace(memo, looked_at=looked_at), context.boot))


def _needed(conf: MainConf, ips: Sequence[Address] | None) -> tuple[GatewayAddress, ...]:
    if not conf.is_shared:
        return tuple(map(_whole, _of_ranges(conf) if ips is None else ips))
    return gateways.anchors_of_ranges(conf) if ips is None else gateways.anchors(conf, ips)


def _whole(ip: Address) -> GatewayAddress:
    """What is remembered of a prefix that is on no interface, but in parts on that of each container."""
    return GatewayAddress(forwarding.LOOPBACK, gateways.subnet(ip), on_link=True)


def _of_ranges(conf: MainConf) -> tuple[Address, ...]:
    sets = conf.ipam.sets if isinstance(conf.ipam, IpamConf) else ()
    return tuple(Address(ranges.subnet(part), part.gateway) for range_set in sets for part in range_set.written)


def _networks(conf: MainConf, context: Context) -> dict[str, str]:
    """The networks on other interfaces."""
    return {
        anchor.home: name for name, content in context.data_dirs.memos() if name != conf.network
        for anchor in old_gateways.decode(content, context.boot).live
    }
