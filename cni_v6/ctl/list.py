"""``cni-v6ctl list``: the attachments of each network, their addresses, and the state of the host interface."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cni_v6.attachments import stale
from cni_v6.attachments.context import Context
from cni_v6.attachments.damaged import is_blocked
from cni_v6.ctl import places, screen
from cni_v6.ctl.output import HELD, OWNER, Output, number, object_of, text
from cni_v6.engine.handle import real_context
from cni_v6.leases.attachment import Attachment
from cni_v6.net.addresses import overlap

COLUMNS = ("NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "HOST INTERFACE", "STATE", "SINCE")
NARROW = ("NETWORK", "CONTAINER", "INTERFACE", "HOST INTERFACE", "STATE", "AGE")
MISSING, ENDED = "missing", "ended"
MARGIN = "    "  # before the addresses of a narrow table
OUTPUTS = {"list": Output(object_of({
    **OWNER, **HELD,
    "hostInterface": text("empty if the record names none"),
    "hostInterfaceState": text("up, down, missing, ended, damaged, blocked, or empty"),
    "created": number("seconds since the epoch; 0 if it is not known"),
}), lines=True)}


def register(commands: Any) -> None:
    parser = commands.add_parser("list", help="list attachments and their addresses")
    parser.add_argument("what", nargs="?", metavar="WHAT", help="only this network, or who has this address or prefix")
    parser.add_argument("--data-dir", metavar="DIR", help="ipam.dataDir (default: all since the node was started)")
    parser.add_argument("--wide", action="store_true", help="whole ids and a line for each attachment, however long")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    """
    :returns: 1 if nobody has the address or prefix.
    """
    node = make_node()
    try:
        prefix = places.prefix_of(chosen.what) if chosen.what else None
        names = [chosen.what] if chosen.what and not prefix else []
        looked_at = places.of_networks(names, chosen.data_dir, node, leased=True)
        found = [record for _, record in places.peek(looked_at, node) if not prefix or _has(record, prefix)]
    finally:
        node.kernel.close()
    if prefix and not found:
        print(f"cni-v6ctl: nobody has {chosen.what}: cni-v6ctl explain {chosen.what} says why", file=sys.stderr)
        return 1
    found.sort(key=lambda record: record.owner)
    states = _states(found, node.boot)
    if chosen.json:
        for record in found:
            OUTPUTS["list"].show(_document(record, states[record]))
        return 0
    lines = screen.table([COLUMNS, *(_row(record, states[record]) for record in found)])
    if not chosen.wide and max(map(len, lines)) > screen.WIDTH:
        lines = list(_narrow(found, states, node.now()))
    print("\n".join(lines))
    return 0


def _has(record: Attachment, prefix: str) -> bool:
    return any(overlap(places.prefix_of(held) or held, prefix)
               for held in (*record.addresses, *record.prefixes))


def links() -> Mapping[str, str]:
    """Name -> ``up`` or ``down`` of the node's interfaces. Up needs both ends up (RFC 2863, ifOperStatus)."""
    from pyroute2 import IPRoute  # imported here: the other commands do not need it

    with IPRoute() as route:
        return {link.get("ifname"): "up" if link.get("operstate") == "UP" else "down" for link in route.get_links()}


def _states(records: Sequence[Attachment], boot: str) -> dict[Attachment, str]:
    there = links() if any(record.host for record in records) else {}
    return {record: _state(record, there, boot) for record in records}


def _state(record: Attachment, there: Mapping[str, str], boot: str) -> str:
    """The state of the host interface, "" if the record names none; or what is wrong with the record."""
    if is_blocked(record):
        return "blocked"
    if record.damaged:
        return "damaged"
    if stale.is_of_earlier_boot(record, boot):
        return ENDED
    return there.get(record.host, MISSING) if record.host else ""


def _row(record: Attachment, state: str) -> tuple[str, ...]:
    since = screen.moment(record.created) if record.created else "-"
    owner = record.owner
    held = " ".join((*record.addresses, *record.prefixes))
    words = (owner.network, owner.container_id, owner.ifname, held, record.host, state, since)
    return tuple(word or "-" for word in words)


def _narrow(records: Sequence[Attachment], states: Mapping[Attachment, str], now: float) -> Iterator[str]:
    """A table that fits the screen: unique starts of container ids, and addresses on lines of their own."""
    rows: list[tuple[str, ...]] = [NARROW]
    for record in records:
        owner, age = record.owner, screen.age(now - record.created) if record.created else ""
        words = (owner.network, owner.container_id, owner.ifname, record.host, states[record], age)
        rows.append(tuple(word or "-" for word in words))
    room = screen.WIDTH - sum(max(len(row[column]) for row in rows) + 2 for column in range(2, len(NARROW))) - 2
    networks, ids = (max(len(row[column]) for row in rows) for column in (0, 1))
    if networks + ids > room:
        short = screen.starts([record.owner.container_id for record in records])
        rows = [(row[0], short.get(row[1], row[1]), *row[2:]) for row in rows]
        width = min(max(len(row[1]) for row in rows), max(screen.LEAST, room - networks))
        rows = [(screen.cut(row[0], room - width), screen.cut(row[1], width), *row[2:]) for row in rows]
    head, *lines = screen.table(rows)
    yield head
    for record, line in zip(records, lines):
        yield line
        held = " ".join((*record.addresses, *record.prefixes))
        yield from screen.wrapped(MARGIN, held, len(MARGIN)) if held else ()


def _document(record: Attachment, state: str) -> dict[str, object]:
    return {
        "network": record.owner.network,
        "containerID": record.owner.container_id,
        "ifname": record.owner.ifname,
        "addresses": list(record.addresses),
        "prefixes": list(record.prefixes),
        "hostInterface": record.host,
        "hostInterfaceState": state,
        "created": record.created,
    }
