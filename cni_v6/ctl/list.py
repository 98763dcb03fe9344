"""``cni-v6ctl list``: the attachments of each network, their addresses, and the state of the host interface."""

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
    found = sorted(_attachments(chosen.data_dir, chosen.network), key=lambda record: record.owner)
    states = _states() if found else {}
    if chosen.json:
        for record in found:
            print(json.dumps(_document(record, states)))
        return 0
    rows = [COLUMNS, *(_row(record, states) for record in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0


def _states() -> Mapping[str, str]:
    """Name -> ``up`` or ``down`` of the node's interfaces. Up needs both ends up (RFC 2863, ifOperStatus)."""
    from pyroute2 import IPRoute  # imported here: the other commands do not need it

    with IPRoute() as route:
        return {link.get("ifname"): "up" if link.get("operstate") == "UP" else "down" for link in route.get_links()}


def _state(record: Attachment, states: Mapping[str, str]) -> str:
    """The state of the host interface, "" if the record names none; or that the record is damaged."""
    if is_blocked(record):
        return "blocked"
    if record.damaged:
        return "damaged"
    return states.get(record.host, MISSING) if record.host else ""


def _attachments(data_dir: str, network: str | None) -> Iterator[Attachment]:
    node = real_context()
    for name in [check_network(network)] if network else node.data_dirs.networks(data_dir):
        if os.path.isdir(os.path.join(data_dir, name)):  # opening the store would create its folder
            with node.leases(name, data_dir).transaction() as leases:
                yield from list(leases.attachments())


def _row(record: Attachment, states: Mapping[str, str]) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created)) if record.created else "-"
    owner = record.owner
    held = " ".join((*record.addresses, *record.prefixes))
    words = (owner.network, owner.container_id, owner.ifname, held, record.host, _state(record, states), since)
    return tuple(word or "-" for word in words)


def _document(record: Attachment, states: Mapping[str, str]) -> dict[str, object]:
    return {
        "network": record.owner.network,
        "containerID": record.owner.container_id,
        "ifname": record.owner.ifname,
        "addresses": list(record.addresses),
        "prefixes": list(record.prefixes),
        "hostInterface": record.host,
        "hostInterfaceState": _state(record, states),
        "created": record.created,
    }
