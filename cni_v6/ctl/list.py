"""``cni-v6ctl list``: who holds which address, network by network."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR
from cni_v6.engine.handle import real_context
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.identifiers import check_network

COLUMNS = ("NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "HOST INTERFACE", "SINCE")


def register(commands: Any) -> None:
    parser = commands.add_parser("list", help="list attachments and their addresses")
    parser.add_argument("network", nargs="?", help="only this network")
    parser.add_argument("--data-dir", default=DEFAULT_DATA_DIR, metavar="DIR", help="ipam.dataDir (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    found = sorted(_attachments(chosen.data_dir, chosen.network), key=lambda each: each.owner)
    if chosen.json:
        for each in found:
            print(json.dumps(_document(each)))
        return 0
    rows = [COLUMNS, *(_row(each) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0


def _attachments(data_dir: str, network: str | None) -> Iterator[Attachment]:
    node = real_context()
    for name in [check_network(network)] if network else node.data_dirs.networks(data_dir):
        if os.path.isdir(os.path.join(data_dir, name)):  # looking creates nothing
            with node.leases(name, data_dir).transaction() as leases:
                yield from list(leases.attachments())


def _row(each: Attachment) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.created)) if each.created else "-"
    owner = each.owner
    held = " ".join((*each.addresses, *each.prefixes))
    words = (owner.network, owner.container_id, owner.ifname, held, each.host, since)
    return tuple(word or "-" for word in words)


def _document(each: Attachment) -> dict[str, object]:
    return {
        "network": each.owner.network,
        "containerID": each.owner.container_id,
        "ifname": each.owner.ifname,
        "addresses": list(each.addresses),
        "prefixes": list(each.prefixes),
        "hostInterface": each.host,
        "created": each.created,
    }
