"""Reads what ``map`` draws: records and allocators' state without locks, interfaces, addresses and routes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cni_v6.attachments.context import Context
from cni_v6.attachments.stale import Here
from cni_v6.config.ipam import IpamConf
from cni_v6.ctl import conf_dir, places
from cni_v6.drawing.node import node_map
from cni_v6.drawing.picture import Facts, Shown
from cni_v6.drawing.space import spaces
from cni_v6.errors import CniError
from cni_v6.firewall import ruleset
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLinks, GetRuleset, GetSurroundings
from cni_v6.leases.attachment import Attachment
from cni_v6.planning import usage


def facts(chosen: argparse.Namespace, node: Context, name: str, privileged: bool) -> Facts:
    """All facts, of one network or of all.

    :raises CniError: INVALID_CONFIG for a network that is neither on record nor configured; STORE_FAILED.
    """
    confs = [conf for conf in configured(chosen.conf_dir, node) if chosen.network in (None, conf.network)]
    names = [chosen.network] if chosen.network else []
    there = places.of_networks(names, chosen.data_dir, node, leased=True,
                               without_records={conf.network for conf in confs})
    records = [record for _, record in places.peek(there, node)]
    seen = node.kernel.observe([GetLinks(), GetSurroundings()])
    loaded = None
    if privileged:  # the kernel shows nftables to CAP_NET_ADMIN only (net/netfilter/nfnetlink.c)
        loaded = node.kernel.observe([GetRuleset()]).ruleset() == ruleset.mark()
    here = Here(node.boot, node.kernel.netns_id(HOST))
    drawn = node_map(name, records, seen.links(), seen.surroundings(), here, loaded)
    known = {conf.network for conf in confs}
    unknown = sorted({record.owner.network for record in records} - known)
    return Facts(drawn, [shown for conf in confs for shown in _shown(conf, records, node)], node.now(), unknown)


def configured(folder: Path, node: Context) -> list[IpamConf]:
    """The networks whose addresses are ours to give, each name once: the file that a runtime reads first counts."""
    found: dict[str, IpamConf] = {}
    with suppress(CniError):  # no such folder
        for _, config in conf_dir.ours(folder):
            with suppress(CniError):  # an ADD would say what is wrong with it
                conf = conf_dir.ipam(config, node)
                if conf:
                    found.setdefault(conf.network, conf)
    return list(found.values())


def _shown(conf: IpamConf, records: Sequence[Attachment], node: Context) -> Iterator[Shown]:
    own = [record for record in records if record.owner.network == conf.network]
    held = [(text, record.created) for record in own for text in record.addresses]
    store = node.leases(conf.network, conf.data_dir)
    try:
        traces = [store.traces(range_set) for range_set in conf.sets]
        counts = [store.count(range_set)[0] for range_set in conf.sets]
    except CniError as error:
        print(f"cni-v6ctl: the address space of {conf.network} is not drawn: {error}", file=sys.stderr)
        return
    now = node.now()
    usages = [usage.usage(range_set, conf.policy, count, held, now, None)
              for range_set, count in zip(conf.sets, counts)]
    growths = [usage.growth(range_set, found, held, now) for range_set, found in zip(conf.sets, usages)]
    for space in spaces(conf, own, traces):
        yield Shown(space, usages[space.number], growths[space.number])
