"""``cni-v6ctl gc``: frees attachments of all networks that provably ended, or that a list of valid ones lacks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from cni_v6.attachments import stale
from cni_v6.attachments.context import Context
from cni_v6.attachments.stale import StaleAttachment, Valid
from cni_v6.config.reader import wrong
from cni_v6.config.text import FormatError, seconds
from cni_v6.ctl.output import HELD, OWNER, Output, flag, object_of, text
from cni_v6.ctl.places import of_networks
from cni_v6.ctl.screen import wrapped
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, CniError, Errors
from cni_v6.log import counted
from cni_v6.protocol.json_reader import decode
from cni_v6.protocol.valid import valid_attachments

STDIN = "-"
KEY = "cni.dev/valid-attachments"
OUTPUTS = {"gc": Output(object_of({
    **OWNER, **HELD, "why": text("it is known to have ended"), "dryRun": flag("whether nothing was freed"),
}), lines=True)}


def register(commands: Any) -> None:
    parser = commands.add_parser("gc", help="free the addresses of containers that ended without a DEL")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="only these")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, and say what would go")
    parser.add_argument(
        "--valid", metavar="FILE", help=f"free what is not in this list either: {KEY} as in GC (-: standard input)"
    )
    parser.add_argument(
        "--older-than", default="10m", metavar="TIME", help="with --valid: and is as old as this (%(default)s)"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="ipam.dataDir (default: all since the node was started)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each attachment and line")
    parser.set_defaults(run=run, root=True)


def run(
    chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context,
    stdin: Callable[[], bytes] = lambda: sys.stdin.buffer.read(),
) -> int:
    node = make_node()
    listed = _listed(chosen.valid, stdin) if chosen.valid else None
    valid = None if listed is None else Valid(listed, node.now() - _age(chosen.older_than))
    count = 0
    errors = Errors()
    for data_dir, network in places(chosen, node):
        for found in _swept(stale.sweep(node.leases(network, data_dir), node, valid, dry=chosen.dry_run), errors):
            count += 1
            if chosen.json:
                OUTPUTS["gc"].show(_document(found, chosen.dry_run), flush=True)
            else:
                print("\n".join(_lines(found, chosen.dry_run)))
    node.kernel.close()
    if not chosen.json:
        print(f"{counted(count, 'attachment')} {'would be freed' if chosen.dry_run else 'freed'}")
    errors.check()
    return 0


def _swept(found: Iterator[StaleAttachment], errors: Errors) -> Iterator[StaleAttachment]:
    """The stale attachments of one network. An error is collected, so that the other networks are swept too."""
    try:
        yield from found
    except CniError as error:
        errors.caught.append(error)


def _lines(found: StaleAttachment, dry: bool) -> Iterator[str]:
    record, why = found
    owner = record.owner
    held = " ".join((*record.addresses, *record.prefixes)) or "-"
    words = "  ".join((owner.network, owner.container_id, owner.ifname or "-", held))
    return wrapped("would free" if dry else "freed", f"{words}  ({why})", 4)


def _document(found: StaleAttachment, dry: bool) -> dict[str, object]:
    record, why = found
    owner = record.owner
    return {
        "network": owner.network, "containerID": owner.container_id, "ifname": owner.ifname,
        "addresses": list(record.addresses), "prefixes": list(record.prefixes), "why": why, "dryRun": dry,
    }


def places(
    chosen: argparse.Namespace, context: Context, without_records: Collection[str] = ()
) -> list[tuple[str, str]]:
    """(data folder, network) of all wanted networks that have attachments on record.

    :param without_records: networks that may be named though they have none.
    """
    return of_networks(chosen.networks, chosen.data_dir, context, without_records=without_records)


def _age(text: str) -> int:
    try:
        return seconds(text)
    except FormatError as unfit:
        raise wrong("--older-than", text, str(unfit), "write a number and s, m, h or d, such as 10m") from None


def _listed(path: str, stdin: Callable[[], bytes]) -> frozenset[str]:
    """The list of valid attachments in a file: the list alone, or the configuration of a GC."""
    try:
        text = (stdin() if path == STDIN else Path(path).read_bytes()).strip()
    except OSError as error:
        raise CniError(INVALID_CONFIG, f"cannot read --valid {path}", str(error)) from error
    whole = text if text.startswith(b"{") else b'{"%s": %s}' % (KEY.encode(), text)
    listed = valid_attachments(decode(whole, f"--valid {path}"))
    if listed is None:
        remedy = 'write [{"containerID": "...", "ifname": "eth0"}]'
        raise CniError(INVALID_CONFIG, f"--valid {path} has no {KEY}", remedy)
    return listed
