"""A subnet that changed drains: its gateway stays beside the new one until the last container that counts on it goes.

What a network has put on interfaces of ours is kept in mind with its leases (``Transaction.memo``): *live*, what its
latest configuration has, and *draining*, what an earlier one had. An ADD with another configuration moves what it lacks
from the one to the other; the DEL or GC of the last container, or that ADD itself, takes it away. Somebody else's
address is in neither.

All under the lock of the network's leases. Attachments are walked over only when something starts to drain, and at the
DEL of a container that counts on what drains: an ordinary network pays for the reading of one small file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLink
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.leases.records import anchor_words, read_anchor
from cni_v6.leases.store import Transaction
from cni_v6.net import addresses
from cni_v6.plan import gateways
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address


@dataclass(frozen=True, slots=True)
class Memo:
    """What a network has on interfaces of ours since the node was started."""

    live: tuple[GatewayAddress, ...] = ()
    draining: tuple[GatewayAddress, ...] = ()


def encode(memo: Memo, boot: str) -> bytes:
    words = {"live": [*map(anchor_words, memo.live)], "draining": [*map(anchor_words, memo.draining)]}
    return json.dumps({"boot": boot, **words}).encode()


@lru_cache(maxsize=64)  # it hardly ever changes, and every ADD reads it
def decode(content: bytes, boot: str) -> Memo:
    """What was kept in mind; nothing where that was of another boot, whose interfaces are gone, or is not whole."""
    try:
        raw = json.loads(content or b"{}")
        if raw.get("boot") != boot:
            return Memo()
        live, draining = (tuple(read_anchor(*map(str, each)) for each in raw[key]) for key in ("live", "draining"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Memo()
    return Memo(live, draining)


def settled(
    conf: MainConf,
    record: Attachment,
    ips: Iterable[Address],
    leases: Transaction,
    context: Context,
    *,
    is_ours: bool,
) -> Attachment:
    """An attachment that is about to be recorded, with what it counts on. That is live from here on, and what the
    network's configuration lacks now drains.

    :param ips: the container's addresses.
    :param is_ours: the gateway's interface is one we made, or are about to make.
    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    wanted = gateways.anchors(conf, ips)
    if wanted and is_ours:
        _settle(conf, wanted, leases, context)
    return replace(record, anchors=wanted)


def _settle(
    conf: MainConf, wanted: tuple[GatewayAddress, ...], leases: Transaction, context: Context
) -> None:
    memo = decode(leases.memo(), context.boot)
    current = {*wanted, *gateways.anchors_of_ranges(conf)}
    if current.issuperset(memo.live) and set(memo.live).issuperset(wanted):
        return
    known = dict.fromkeys((*memo.live, *memo.draining))
    live = tuple(dict.fromkeys((*(each for each in known if each in current), *wanted)))
    draining = tuple(each for each in known if each not in current)
    leases.keep_memo(encode(Memo(live, draining), context.boot))
    again = [each for each in wanted if each in memo.draining]
    _take_away(conf.network, Memo(live, draining), _unneeded(draining, leases, context), leases, context, again)


def release(record: Attachment, leases: Transaction, context: Context) -> None:
    """Before an attachment is forgotten: take away what nobody else counts on.

    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    memo = decode(leases.memo(), context.boot)
    leaving = [each for each in memo.draining if _counts_on(record, each)]
    _take_away(record.owner.network, memo, _unneeded(leaving, leases, context, but=record.owner), leases, context)


def _unneeded(
    draining: Iterable[GatewayAddress], leases: Transaction, context: Context, but: Owner | None = None
) -> tuple[GatewayAddress, ...]:
    """Those that no attachment counts on; the walk ends with the first one for each."""
    left = list(draining)
    if not left:
        return ()
    for record in leases.attachments():
        if record.owner != but and record.boot in ("", context.boot):  # of an earlier boot: its container is gone
            left = [each for each in left if not _counts_on(record, each)]
            if not left:
                break
    return tuple(left)


def _counts_on(record: Attachment, anchor: GatewayAddress) -> bool:
    """By its own word; where it has none, being the reference plugin's, by its addresses."""
    if record.anchors:
        return anchor in record.anchors
    return any(
        addresses.version(address) == addresses.version(anchor.prefix)
        and addresses.overlap(_host(address), anchor.prefix)
        for address in record.addresses
    )


def _host(address: str) -> str:
    return f"{address}/{addresses.BITS[addresses.version(address)]}"


def _take_away(
    network: str, memo: Memo, unneeded: tuple[GatewayAddress, ...], leases: Transaction, context: Context,
    again: Iterable[GatewayAddress] = (),
) -> None:
    """What was taken away may have taken along what stays, so that is put there again.

    The kernel deletes an interface's other IPv4 addresses of a subnet with its first one (__inet_del_ifa,
    net/ipv4/devinet.c), and has an IPv6 address with one prefix only. An interface that is not there has nothing to
    put again: the plan of the ADD makes it, with the addresses it needs.

    :param again: what was draining when the call looked at the node, and may have gone since.
    """
    shared = _of_others(network, context) if unneeded else frozenset()
    context.kernel.remove([gateways.take_away(each) for each in unneeded if each not in shared])
    beside = [each for each in memo.live if not each.on_link and each.home in {gone.home for gone in unneeded}]
    _put_again(dict.fromkeys((*beside, *again)), context)
    if unneeded:
        draining = tuple(each for each in memo.draining if each not in unneeded)
        leases.keep_memo(encode(Memo(memo.live, draining), context.boot))


def _put_again(anchors: Collection[GatewayAddress], context: Context) -> None:
    if anchors:
        seen = context.kernel.observe([GetLink(HOST, each.home) for each in anchors])
        context.kernel.apply([gateways.ensure(each) for each in anchors if seen.link(HOST, each.home)])


def _of_others(network: str, context: Context) -> frozenset[GatewayAddress]:
    """What other networks have on the same interfaces: two may share a bridge, and a subnet, each with a part of it."""
    memos = (decode(content, context.boot) for name, content in context.data_dirs.memos() if name != network)
    return frozenset(each for memo in memos for each in (*memo.live, *memo.draining))
