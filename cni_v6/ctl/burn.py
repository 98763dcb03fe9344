"""``cni-v6ctl ipam burn``: how fast a network uses its addresses, and how long they last."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import STABLE
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.ctl import conf_dir, screen
from cni_v6.ctl.output import Output, choice, flag, listed, number, object_of, or_null, text, whole
from cni_v6.ctl.plan import configurations
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.planning import usage as rate_of_use
from cni_v6.planning.prefix_plan import YEAR, duration, parse_rate
from cni_v6.planning.usage import Usage

OUTPUTS = {"ipam burn": Output(object_of({
    "network": text("the name in its configuration"),
    "sets": listed(object_of({
        "set": text("its ranges"), "order": choice("ipam.allocation", "sequential", "random", "stable"),
        "reused": flag("whether addresses are given again"), "size": whole("addresses"),
        "leased": whole("that containers have"), "spent": whole("that were given, or set aside for it"),
        "left": whole("that can be given"),
        "observed": or_null(object_of({
            "count": whole("of attachments"), "seconds": number("since the oldest"),
            "atLeast": flag("whether there were more"),
        }, meaning="null if too few attachments are on record")),
        "ratePerSecond": or_null(number("assumed or observed; null if it is not known")),
        "years": or_null(number("that the set lasts; null if it is not known")), "note": text("empty for none"),
    }), "the sets of ranges"),
}), lines=True)}


def register(commands: Any) -> None:
    parser = commands.add_parser("ipam", help="what becomes of the addresses of a network")
    below = parser.add_subparsers(required=True, metavar="COMMAND")
    parser = below.add_parser("burn", help="how fast a network uses its addresses up, and how long they last")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("conflist", nargs="?", type=Path, help="its configuration (list) file")
    which.add_argument("--network", metavar="NAME", help="its name: the first file in --conf-dir that has it")
    parser.add_argument("--conf-dir", type=Path, default=conf_dir.CONF_DIR, metavar="DIR", help="%(default)s")
    parser.add_argument("--rate", help="assume as many ADDs on this node, such as 100/s, 20/min")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    rate = parse_rate("--rate", chosen.rate) if chosen.rate else None
    found = list(configurations(chosen.conflist)) if chosen.conflist else _named(chosen.conf_dir, chosen.network)
    node = make_node()
    try:
        shown = [(conf, _usages(conf, rate, node)) for config in found if (conf := conf_dir.ipam(config, node))]
    finally:
        node.kernel.close()
    if not shown:
        raise CniError(INVALID_CONFIG, "the network has no ipam of ours", "ask the plugin that ipam.type names")
    for conf, usages in shown:
        if chosen.json:
            sets = [_document(range_set, usage) for range_set, usage in zip(conf.sets, usages)]
            OUTPUTS["ipam burn"].show({"network": conf.network, "sets": sets})
        else:
            _table(conf, usages, node.now())
    return 0


def _named(folder: Path, name: str) -> list[dict[str, Any]]:
    """The configurations of a network, from the first file that has one with its name."""
    for path in conf_dir.files(folder):
        with suppress(CniError):  # skip files of other plugins, and damaged ones
            found = [config for config in configurations(path) if config.get("name") == name]
            if found:
                return found
    words = f"no configuration of ours in {folder} has the name {name}"
    raise CniError(INVALID_CONFIG, words, "give the configuration's file, or its --conf-dir")


def _usages(conf: IpamConf, rate: Fraction | None, context: Context) -> list[Usage]:
    if conf.network not in context.data_dirs.networks(conf.data_dir):  # opening the store would create its folder
        return [rate_of_use.usage(range_set, conf.policy, 0, [], context.now(), rate) for range_set in conf.sets]
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        held = [(text, record.created) for record in leases.attachments() for text in record.addresses]
        spent = [leases.spent(range_set) for range_set in conf.sets]
    return [
        rate_of_use.usage(range_set, conf.policy, count, held, context.now(), rate)
        for range_set, count in zip(conf.sets, spent)
    ]


def _table(conf: IpamConf, usages: list[Usage], now: float) -> None:
    print(f"network {conf.network}")
    for range_set, usage in zip(conf.sets, usages):
        print("", *screen.wrapped("", ranges.describe(range_set), 0), sep="\n")
        for name, words in _rows(usage, now):
            print(f"  {name:<7} {words}")


def _rows(usage: Usage, now: float) -> Iterator[tuple[str, str]]:
    yield "order", f"{usage.order}, {_again(usage)}"
    yield "size", f"{usage.size:,}"
    yield "leased", f"{usage.leased:,}"
    if usage.once:
        yield "spent", f"{usage.spent:,} (given, or set aside for it, and never again)"
    yield ("left" if usage.once else "free"), f"{usage.left:,}"
    yield "rate", _rate(usage, now)
    if usage.years is not None and usage.order != STABLE:
        yield ("lasts" if usage.once else "round"), duration(usage.years)
    if usage.verdict:
        yield "note", usage.verdict


def _again(usage: Usage) -> str:
    if usage.order == STABLE:
        return "a workload has its address again"
    return "no address given twice" if usage.once else "addresses are given again"


def _rate(usage: Usage, now: float) -> str:
    if usage.assumed:
        return f"{rate_of_use.per(usage.assumed)}, assumed"
    seen = usage.observed
    if seen is None:
        return "not known: too few attachments are on record (assume one with --rate)"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now - seen.seconds))
    least, period = "at least " if seen.least else "", duration(Fraction(seen.seconds) / YEAR)
    return f"{least}{rate_of_use.per(seen.rate)}: {least}{seen.count:,} in {period}, since {since}"


def _document(addresses: ranges.RangeSet, usage: Usage) -> dict[str, object]:
    seen = usage.observed
    return {
        "set": ranges.describe(addresses),
        "order": usage.order,
        "reused": not usage.once,
        "size": usage.size,
        "leased": usage.leased,
        "spent": usage.spent,
        "left": usage.left,
        "observed": {"count": seen.count, "seconds": seen.seconds, "atLeast": seen.least} if seen else None,
        "ratePerSecond": float(usage.rate) if usage.rate else None,
        "years": float(usage.years) if usage.years is not None else None,
        "note": usage.verdict,
    }
