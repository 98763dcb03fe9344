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
from cni_v6.leases.attachment import SETTING_KEYS, Attachment, GatewayAddress, RoutedLink, Setting
from cni_v6.leases.records import anchor_words, read_anchor, safe
from cni_v6.leases.store import Transaction
from cni_v6.net import addresses
from cni_v6.plan import gateways
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address
from cni_v6.values import dataclass

NOBODY = "", ""  # the user of a setting that is needed for another reason


@dataclass(frozen=True, slots=True)
class Memo:
    """What a network has on the node since it booted: the gateway addresses on interfaces of ours, the prefixes whose
    rest is unreachable.

    ``looked_at``: those whose prefixes overlap with nothing else of the node (``overlaps``). ``recalled``: whether the
    store was compared with the node (``recall``). ``settings``: what it has changed of the node's interfaces
    (``node_settings``); those without a user are of interfaces on which the node answers for containers of the network
    that are elsewhere (``former_bridge``).
    """

    live: tuple[GatewayAddress, ...] = ()
    draining: tuple[GatewayAddress, ...] = ()
    looked_at: tuple[GatewayAddress, ...] = ()
    recalled: bool = False
    settings: tuple[Setting, ...] = ()


def encode(memo: Memo, boot: str) -> bytes:
    parts = ("live", memo.live), ("draining", memo.draining), ("lookedAt", memo.looked_at)
    words = {name: [*map(anchor_words, anchors)] for name, anchors in parts}
    settings = {"settings": [*map(setting_words, memo.settings)]} if memo.settings else {}
    return json.dumps({"boot": boot, "recalled": memo.recalled, **words, **settings}).encode()


@lru_cache(maxsize=64)  # it rarely changes, and every ADD reads it
def decode(content: bytes, boot: str) -> Memo:
    """Read a memo. An empty one if it is damaged, or of another boot: those interfaces are gone."""
    try:
        raw = json.loads(content or b"{}")
        if raw.get("boot") != boot:
            return Memo()
        keys = ("live", "draining", "lookedAt")  # the last one is younger, and so is "settings"
        live, draining, looked_at = (
            tuple(read_anchor(*map(str, words)) for words in raw.get(key, ())) for key in keys
        )
        settings = tuple(read_setting(*map(str, words)) for words in raw.get("settings", ()))
    except (ValueError, TypeError, AttributeError):
        return Memo()
    return Memo(live, draining, looked_at, raw.get("recalled") is True, settings)


def setting_words(setting: Setting) -> list[str]:
    """A changed setting of the node as JSON."""
    return [setting.home, setting.key, setting.before, *setting.user]


def read_setting(home: str, key: str, before: str, container_id: str, ifname: str) -> Setting:
    """A changed setting of the node from JSON.

    :raises ValueError: ``setting_words`` does not write these words.
    """
    is_value = (before.isascii() and before.isdecimal()) or (key == "netfilter" and not before)
    if not (safe(home) and key in SETTING_KEYS and is_value):
        raise ValueError("settings")
    return Setting(home, key, before, (container_id, ifname))


def settled(
    conf: MainConf, ips: Iterable[Address], leases: Transaction, context: Context, *, is_ours: bool,
    rest: tuple[GatewayAddress, ...] = (),
) -> tuple[GatewayAddress, ...]:
    """The gateway addresses that an attachment uses, which is about to be recorded.

    They become live. Those that the network's configuration no longer has start to drain.

    :param ips: the container's addresses.
    :param rest: the prefixes whose rest is unreachable.
    :param is_ours: whether we made the gateway interface, or are about to make it.
    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    own = tuple(ips)
    needed = *gateways.lasting(conf, own), *rest
    if is_ours and (needed or not conf.is_shared):  # a routed network may have had ``rest``
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
    own: Iterable[str], network: str, leases: Transaction, context: Context
) -> Mapping[str, tuple[str, ...]]:
    """As ``former_bridge.interfaces``, for a container with these addresses, once ``settled`` is done.

    What that changes there is remembered before, so that it ends.
    """
    memo = decode(leases.memo(), context.boot)
    if not memo.draining:
        return {}
    from cni_v6.plan import former_bridge  # while a network changes its type

    found = former_bridge.interfaces(memo.draining, own)
    if found:
        from cni_v6.attachments import node_settings

        node_settings.claim(former_bridge.settings(found), network, leases, context)
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


def release_settings(record: Attachment, leases: Transaction, context: Context) -> None:
    """Before a record is removed: give back the settings of the node that only this attachment needs.

    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    memo = decode(leases.memo(), context.boot)
    if any(setting.user == (record.owner.container_id, record.owner.ifname) for setting in memo.settings):
        from cni_v6.attachments import node_settings  # for the one attachment that is named

        node_settings.release(record, leases, context)


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
    if anchor.unreachable and not isinstance(record.port, RoutedLink):
        return False
    if record.anchors and not anchor.unreachable:
        return anchor in record.anchors
    return any(addresses.overlap(addresses.host_prefix(address), anchor.prefix) for address in record.addresses)


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
        leases.keep_memo(encode(_silent(network, left, context) if left.settings else left, context.boot))


def _silent(network: str, memo: Memo, context: Context) -> Memo:
    """The memo once the node answers nowhere any more where nobody is left who would ask.

    Somebody is where a gateway drains, and where one is live, as long as others drain: the network may have gone back.
    """
    from cni_v6.attachments import node_settings

    busy = {anchor.home for anchor in (*memo.draining, *(memo.live if memo.draining else ()))}
    over = [setting for setting in memo.settings if setting.user == NOBODY and setting.home not in busy]
    node_settings.give_back(over, network, context)
    return replace(memo, settings=tuple(setting for setting in memo.settings if setting not in over))


def _put_again(anchors: Collection[GatewayAddress], context: Context) -> None:
    if anchors:
        seen = context.kernel.observe([GetLink(HOST, anchor.home) for anchor in anchors])
        context.kernel.apply([gateways.ensure(anchor) for anchor in anchors if seen.link(HOST, anchor.home)])


def _of_others(network: str, context: Context) -> frozenset[GatewayAddress]:
    """The gateway addresses of other networks: two may share a bridge and a subnet, each with a part of it."""
    memos = (decode(content, context.boot) for name, content in context.data_dirs.memos() if name != network)
    return frozenset(anchor for memo in memos for anchor in (*memo.live, *memo.draining))
