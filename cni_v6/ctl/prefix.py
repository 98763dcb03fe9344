"""``cni-v6ctl plan-prefix``: splits a site's prefix over nodes and networks, and says how long the addresses last."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cni_v6.config.reader import wrong
from cni_v6.ctl.output import Output, flag, listed, number, object_of, text, texts, whole
from cni_v6.planning.prefix_plan import (
    PrefixPlan,
    Wanted,
    duration,
    ntp_time,
    of_clusters,
    parse_count,
    parse_rate,
    parse_site,
    sample,
    split,
    ula,
)

MACHINE_ID = Path("/etc/machine-id")
_FITTING = object_of({
    "planned": whole("as asked for"), "fit": whole("into the prefix above"), "prefixLength": whole("of each"),
}, meaning="how the prefix above is split")
OUTPUTS = {"plan-prefix": Output(object_of({
    "site": text("its prefix"), "nodes": _FITTING, "networks": _FITTING, "pods": whole("of a node at once"),
    "churn": text("as asked for"), "years": number("that the addresses last"),
    "reused": flag("whether addresses are given again after that"), "notes": texts("what one should know"),
    "examples": listed(object_of({
        "node": whole("its number"), "prefix": text("of the node"), "firstNetwork": text("its prefix"),
        "lastNetwork": text("its prefix"),
    }), "some of the nodes"),
}))}


def register(commands: Any) -> None:
    parser = commands.add_parser("plan-prefix", help="split a site's IPv6 prefix over its nodes and their networks")
    site = parser.add_mutually_exclusive_group(required=True)
    site.add_argument("prefix", nargs="?", metavar="PREFIX", help="the site's, such as 2001:db8::/48")
    site.add_argument("--ula", action="store_true", help="a new unique local /48 (RFC 4193) instead")
    parser.add_argument("--clusters", default="1", metavar="N", help="clusters of the site (%(default)s)")
    parser.add_argument("--cluster", default="1", metavar="K", help="the cluster to plan (%(default)s)")
    parser.add_argument("--nodes", default="1", metavar="N", help="nodes of the site, or cluster (%(default)s)")
    parser.add_argument("--networks", default="1", metavar="N", help="networks of a node (%(default)s)")
    parser.add_argument("--pods", default="110", metavar="N", help="containers of a node at once (%(default)s)")
    parser.add_argument("--churn", default="1/s", metavar="RATE", help="ADDs on a node, as 100/s, 20/min (%(default)s)")
    parser.add_argument("--node", default="1", metavar="K", help="the node to show, and of the sample (%(default)s)")
    parser.add_argument("--network", default="1", metavar="K", help="its network of the sample (%(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--sample", action="store_true", help="a network configuration for the node")
    parser.set_defaults(run=run)


def machine_identifier(path: Path = MACHINE_ID) -> bytes:
    """16 bytes that no other machine has: its id (machine-id(5)), else random bytes.

    The id must not be disclosed. The prefix contains only 40 bits of a hash of the id and the time.
    """
    try:
        return bytes.fromhex(path.read_text()) or os.urandom(16)
    except (OSError, ValueError):
        return os.urandom(16)


def run(
    chosen: argparse.Namespace, clock: Callable[[], int] = time.time_ns,
    identifier: Callable[[], bytes] = machine_identifier,
) -> int:
    counts = {name: parse_count(f"--{name}", getattr(chosen, name)) for name in ("nodes", "networks", "pods")}
    wanted = Wanted(**counts, rate=parse_rate("--churn", chosen.churn))
    node, network = _number(chosen, "node", wanted.nodes), _number(chosen, "network", wanted.networks)
    clusters = parse_count("--clusters", chosen.clusters)
    cluster = _number(chosen, "cluster", clusters)
    whole_prefix = ula(ntp_time(clock()), identifier()) if chosen.ula else parse_site(chosen.prefix)
    length = of_clusters(whole_prefix, clusters)
    plan = split(whole_prefix.part(length, cluster - 1), wanted)
    if chosen.ula:
        words = f"{whole_prefix} is random, and new at every call: write it down, and call again with it"
        print(f"cni-v6ctl: {words}", file=sys.stderr)
    shown = sorted({1, node, wanted.nodes})
    if chosen.sample:
        print(json.dumps(sample(plan, node, network), indent=2))
    elif chosen.json:
        OUTPUTS["plan-prefix"].show(_document(plan, shown, chosen.churn))
    else:
        if clusters > 1:
            fit = f"{1 << length - whole_prefix.length:,} fit {whole_prefix}"
            print(f"cluster  /{length}  {fit}, {clusters:,} planned; this is {cluster}")
        _table(plan, shown, chosen.churn)
    return 0


def _number(chosen: argparse.Namespace, name: str, most: int) -> int:
    number = parse_count(f"--{name}", getattr(chosen, name))
    if number > most:
        raise wrong(f"--{name}", number, f"is more than there are: --{name}s is {most}", f"write one from 1 to {most}")
    return number


def _table(plan: PrefixPlan, shown: Sequence[int], churn: str) -> None:
    wanted = plan.wanted
    print(f"site     {plan.site}")
    print(f"node     /{plan.node_length}  {plan.nodes_fit:,} fit the site, {wanted.nodes:,} planned")
    print(f"network  /{plan.network_length}  {plan.networks_fit:,} fit a node, {wanted.networks:,} planned, "
          f"{wanted.pods:,} pods at once")
    after = "until addresses are given again" if plan.reused else "no address given twice"
    print(f"lasts    {duration(plan.years)} at {churn}, {after}")
    for note in plan.notes():
        print(f"note     {note}")
    print()
    nodes = ((str(node), str(plan.node(node)), _networks(plan, node)) for node in shown)
    rows = [("NODE", "PREFIX", "NETWORKS"), *nodes]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _networks(plan: PrefixPlan, node: int) -> str:
    first, last = plan.network(node, 1), plan.network(node, plan.wanted.networks)
    return str(first) if first == last else f"{first} to {last}"


def _document(plan: PrefixPlan, shown: Sequence[int], churn: str) -> dict[str, object]:
    wanted = plan.wanted
    return {
        "site": str(plan.site),
        "nodes": {"planned": wanted.nodes, "fit": plan.nodes_fit, "prefixLength": plan.node_length},
        "networks": {"planned": wanted.networks, "fit": plan.networks_fit, "prefixLength": plan.network_length},
        "pods": wanted.pods,
        "churn": churn,
        "years": float(plan.years),
        "reused": plan.reused,
        "notes": list(plan.notes()),
        "examples": [
            {
                "node": node,
                "prefix": str(plan.node(node)),
                "firstNetwork": str(plan.network(node, 1)),
                "lastNetwork": str(plan.network(node, wanted.networks)),
            }
            for node in shown
        ],
    }
