"""``cni-v6ctl list``: who holds which address, network by network, and what the kernel says of the host interface."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cni_v6.attachments.damaged import is_blocked
from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR
from cni_v6.engine.handle import real_context
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.identifiers import check_network

COLUMNS = ("NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "HOST INTERFACE", "STATE", "SINCE")
MISSING = "missing"


def register(commands: Any) -> None:
    parser = commands.add_parser("list", help="list attachments and their addresses")
    parser.add_argument("network", nargs="?", help="only this network")
    parser.add_argument("--data-dir", default=DEFAULT_DATA_DIR, metavar="DIR", help="ipam.dataDir (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    found = sorted(_attachments(chosen.data_dir, chosen.network), key=lambda each: each.owner)
    states = _states() if found else {}
    if chosen.json:
        for each in found:
            print(json.dumps(_document(each, states)))
        return 0
    rows = [COLUMNS, *(_row(each, states) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0


def _states() -> Mapping[str, str]:
    """Name -> ``up`` or ``down`` of the node's interfaces. Up needs both ends up (RFC 2863, ifOperStatus)."""
    from pyroute2 import IPRoute  # the other commands start without it

    with IPRoute() as route:
        return {link.get("ifname"): "up" if link.get("operstate") == "UP" else "down" for link in route.get_links()}


def _state(each: Attachment, states: Mapping[str, str]) -> str:
    """Of the host interface, "" where there is none to look for; or that the record is damaged."""
    if is_blocked(each):
        return "blocked"
    if each.damaged:
        return "damaged"
    return states.get(each.host, MISSING) if each.host else ""


def _attachments(data_dir: str, network: str | None) -> Iterator[Attachment]:
    node = real_context()
    for name in [check_network(network)] if network else node.data_dirs.networks(data_dir):
        if os.path.isdir(os.path.join(data_dir, name)):  # looking creates nothing
            with node.leases(name, data_dir).transaction() as leases:
                yield from list(leases.attachments())


def _row(each: Attachment, states: Mapping[str, str]) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.created)) if each.created else "-"
    owner = each.owner
    held = " ".join((*each.addresses, *each.prefixes))
    words = (owner.network, owner.container_id, owner.ifname, held, each.host, _state(each, states), since)
    return tuple(word or "-" for word in words)


def _document(each: Attachment, states: Mapping[str, str]) -> dict[str, object]:
    return {
        "network": each.owner.network,
        "containerID": each.owner.container_id,
        "ifname": each.owner.ifname,
        "addresses": list(each.addresses),
        "prefixes": list(each.prefixes),
        "hostInterface": each.host,
        "hostInterfaceState": _state(each, states),
        "created": each.created,
    }
