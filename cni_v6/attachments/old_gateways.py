"""Keeps the gateway of an earlier subnet beside the new one until the last container that uses it is gone.

A network remembers with its leases (``Transaction.memo``) the gateway addresses that it has put on interfaces of ours.
*Live* are those of its latest configuration, *draining* those of earlier ones. An ADD with a changed configuration
moves addresses that it no longer has from live to draining. A draining address is removed by the DEL or GC of the last
container that uses it, or by that ADD if none does. Addresses that others put on an interface are never removed.

Everything happens under the lock of the network's leases. All attachments are read only when an address starts to
drain, and at the DEL of a container that uses a draining one. Otherwise the cost is one small file to read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLink
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.leases.records import anchor_words, read_anchor
from cni_v6.leases.store import Transaction
from cni_v6.net import addresses
from cni_v6.plan import gateways
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Memo:
    """The gateway addresses that a network has on interfaces of ours since the node booted.

    ``looked_at``: those whose prefixes overlap with nothing else of the node (``overlaps``). ``recalled``: whether the
    store was compared with the node (``recall``). ``answering``: the interfaces on which the node answers for
    containers of the network that are elsewhere (``former_bridge``).
    """

    live: tuple[GatewayAddress, ...] = ()
    draining: tuple[GatewayAddress, ...] = ()
    looked_at: tuple[GatewayAddress, ...] = ()
    recalled: bool = False
    answering: tuple[str, ...] = ()


def encode(memo: Memo, boot: str) -> bytes:
    parts = ("live", memo.live), ("draining", memo.draining), ("lookedAt", memo.looked_at)
    words = {name: [*map(anchor_words, anchors)] for name, anchors in parts}
    return json.dumps({"boot": boot, "recalled": memo.recalled, "answering": memo.answering, **words}).encode()


@lru_cache(maxsize=64)  # it rarely changes, and every ADD reads it
def decode(content: bytes, boot: str) -> Memo:
    """Read a memo. An empty one if it is damaged, or of another boot: those interfaces are gone."""
    try:
        raw = json.loads(content or b"{}")
        if raw.get("boot") != boot:
            return Memo()
        keys = ("live", "draining", "lookedAt")  # the last one is younger, and so is "answering"
        live, draining, looked_at = (
            tuple(read_anchor(*map(str, words)) for words in raw.get(key, ())) for key in keys
        )
        answering = tuple(map(str, raw.get("answering", ())))
    except (ValueError, TypeError, AttributeError):
        return Memo()
    return Memo(live, draining, looked_at, raw.get("recalled") is True, answering)


def settled(
    conf: MainConf, ips: Iterable[Address], leases: Transaction, context: Context, *, is_ours: bool
) -> tuple[GatewayAddress, ...]:
    """The gateway addresses that an attachment uses, which is about to be recorded.

    They become live. Those that the network's configuration no longer has start to drain.

    :param ips: the container's addresses.
    :param is_ours: whether we made the gateway interface, or are about to make it.
    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    own = tuple(ips)
    needed = gateways.lasting(conf, own)
    if needed and is_ours:
        _settle(conf, needed, leases, context)
    return gateways.anchors(conf, own)


def _settle(
    conf: MainConf, needed: tuple[GatewayAddress, ...], leases: Transaction, context: Context
) -> None:
    memo = decode(leases.memo(), context.boot)
    current = {*needed, *gateways.anchors_of_ranges(conf)}
    if current.issuperset(memo.live) and set(memo.live).issuperset(needed):
        return
    known = dict.fromkeys((*memo.live, *memo.draining))
    live = tuple(dict.fromkeys((*(anchor for anchor in known if anchor in current), *needed)))
    draining = tuple(anchor for anchor in known if anchor not in current)
    settled_memo = replace(memo, live=live, draining=draining)
    leases.keep_memo(encode(settled_memo, context.boot))
    again = [anchor for anchor in needed if anchor in memo.draining]
    _take_away(conf.network, settled_memo, _unneeded(draining, leases, context), leases, context, again)


def former(
    own: Iterable[str], leases: Transaction, context: Context
) -> Mapping[str, tuple[str, ...]]:
    """As ``former_bridge.interfaces``, for a container with these addresses, once ``settled`` is done.

    Remembered before the node answers there, so that it ends.
    """
    memo = decode(leases.memo(), context.boot)
    if not memo.draining:
        return {}
    from cni_v6.plan import former_bridge  # while a network changes its type

    found = former_bridge.interfaces(memo.draining, own)
    answering = tuple(dict.fromkeys((*memo.answering, *found)))
    if answering != memo.answering:
        leases.keep_memo(encode(replace(memo, answering=answering), context.boot))
    return found


def answering(interfaces: Mapping[str, tuple[str, ...]], context: Context) -> Iterable[Op]:
    """The operations by which the node answers for a new container on such interfaces."""
    from cni_v6.plan import former_bridge

    return former_bridge.steps(interfaces, context.kernel.observe(former_bridge.questions(interfaces)))


def release(record: Attachment, leases: Transaction, context: Context) -> None:
    """Before a record is removed: remove the draining addresses that only this attachment uses.

    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    memo = decode(leases.memo(), context.boot)
    leaving = [anchor for anchor in memo.draining if _counts_on(record, anchor)]
    _take_away(record.owner.network, memo, _unneeded(leaving, leases, context, but=record.owner), leases, context)


def _unneeded(
    draining: Iterable[GatewayAddress], leases: Transaction, context: Context, but: Owner | None = None
) -> tuple[GatewayAddress, ...]:
    """Those that no attachment uses. Stops reading attachments once a user of each address is found."""
    left = list(draining)
    if not left:
        return ()
    for record in leases.attachments():
        if record.owner != but and record.boot in ("", context.boot):  # containers of an earlier boot are gone
            left = [anchor for anchor in left if not _counts_on(record, anchor)]
            if not left:
                break
    return tuple(left)


def _counts_on(record: Attachment, anchor: GatewayAddress) -> bool:
    """Whether an attachment uses a gateway address: by its record, for the reference plugin's by its addresses."""
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
    """Remove the unneeded addresses, then add the live ones again, which the kernel may have deleted with them.

    The kernel deletes an interface's other IPv4 addresses of a subnet with the first one (__inet_del_ifa,
    net/ipv4/devinet.c), and keeps an IPv6 address with one prefix length only.
    An interface that does not exist has nothing to restore: the plan of the ADD creates it with the addresses it needs.

    :param again: addresses that were draining when this call read the node, and may have been removed since.
    """
    shared = _of_others(network, context) if unneeded else frozenset()
    context.kernel.remove([gateways.take_away(anchor) for anchor in unneeded if anchor not in shared])
    interfaces = {anchor.home for anchor in unneeded}
    kept = [anchor for anchor in memo.live if not anchor.on_link and anchor.home in interfaces]
    _put_again(dict.fromkeys((*kept, *again)), context)
    if unneeded:
        left = replace(memo, draining=tuple(anchor for anchor in memo.draining if anchor not in unneeded))
        leases.keep_memo(encode(_silent(network, left, context) if left.answering else left, context.boot))


def _silent(network: str, memo: Memo, context: Context) -> Memo:
    """The memo once the node answers nowhere any more where nobody is left who would ask.

    Somebody is where a gateway drains, and where one is live, as long as others drain: the network may have gone back.
    """
    from cni_v6.plan import former_bridge

    busy = {anchor.home for anchor in (*memo.draining, *(memo.live if memo.draining else ()))}
    over = [home for home in memo.answering if home not in busy]
    memos = (decode(content, context.boot) for name, content in context.data_dirs.memos() if name != network)
    shared = {home for other in memos for home in other.answering}
    seen = context.kernel.observe([question for home in over for question in former_bridge.end_questions(home)])
    steps = (step for home in over if home not in shared for step in former_bridge.end_steps(home, seen))
    context.kernel.apply(tuple(steps))
    return replace(memo, answering=tuple(home for home in memo.answering if home in busy))


def _put_again(anchors: Collection[GatewayAddress], context: Context) -> None:
    if anchors:
        seen = context.kernel.observe([GetLink(HOST, anchor.home) for anchor in anchors])
        context.kernel.apply([gateways.ensure(anchor) for anchor in anchors if seen.link(HOST, anchor.home)])


def _of_others(network: str, context: Context) -> frozenset[GatewayAddress]:
    """The gateway addresses of other networks: two may share a bridge and a subnet, each with a part of it."""
    memos = (decode(content, context.boot) for name, content in context.data_dirs.memos() if name != network)
    return frozenset(anchor for memo in memos for anchor in (*memo.live, *memo.draining))
