"""``cni-v6ctl init``: a first network configuration from what the node has, with the reason for each key."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_v6.attachments.context import Context
from cni_v6.config.interface_prefix import InterfaceRange, Prefix
from cni_v6.ctl import conf_dir, lint, node_facts, screen
from cni_v6.ctl.output import Output, anything, choice, listed, object_of, or_null, text, texts
from cni_v6.ctl.prefix import machine_identifier
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, NODE_CONFLICT, CniError
from cni_v6.kernel.facts import Lifetime, Uplink
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLinks, GetSurroundings, GetUplinks
from cni_v6.plan import families, interface_prefix
from cni_v6.plan.lint.remark import ERROR

if TYPE_CHECKING:
    from cni_v6.plan.first_network import FirstNetwork
    from cni_v6.plan.first_prefix import Facts
    from cni_v6.plan.lint.addresses import Other

STDOUT = "-"
FILE_NAME = "10-cni-v6.conflist"
NO_IPV4 = "none"
OUTPUTS = {"init": Output(object_of({
    "situation": choice("what the node has for its containers", "routed", "on-link", "unique-local"),
    "file": or_null(text("that was written; null for none")),
    "network": object_of({}, meaning="the network configuration list"),
    "reasons": listed(object_of({
        "key": text("of the configuration"), "value": anything("its value"), "why": text("it is there"),
    }), "key by key"),
    "notes": texts("what one should know besides"),
}))}


def register(commands: Any) -> None:
    parser = commands.add_parser("init", help="a first network configuration from what this node has, explained")
    parser.add_argument("--type", choices=("bridge", "routed"), default="bridge",
                        help="containers are neighbours on a bridge, or each has a link of its own (%(default)s)")
    parser.add_argument("--name", default="", help="of the network (default: containers, or the next that is free)")
    parser.add_argument("--prefix", default="", metavar="PREFIX", help="an IPv6 prefix that is routed to this node")
    parser.add_argument("--ipv4", default="", metavar="PREFIX|none", help="its IPv4 prefix (default: one that is free)")
    parser.add_argument("--delegate", type=int, default=0, metavar="LENGTH",
                        help="each container also gets an IPv6 prefix of this length")
    parser.add_argument("--output", default=STDOUT, metavar="FILE|-",
                        help="write it there; no file is replaced (%(default)s)")
    parser.add_argument("--conf-dir", type=Path, default=conf_dir.CONF_DIR, metavar="DIR",
                        help="other configurations of this node (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object, with the configuration and the reasons")
    parser.set_defaults(run=run)


def run(
    chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context,
    discarded: Callable[[], Sequence[str]] = node_facts.discarded, clock: Callable[[], int] = time.time_ns,
    kubelet: Path = lint.KUBELET,
) -> int:
    from cni_v6.plan import first_prefix  # netaddr takes longer to import than all else of a command
    from cni_v6.plan.first_network import Wanted, propose
    from cni_v6.planning.prefix_plan import ntp_time, ula

    path = None if chosen.output == STDOUT else Path(chosen.output)
    if path and os.path.lexists(path):
        raise _there(path)
    said6, said4 = _said(chosen)
    context = make_node()
    try:
        facts = _facts(chosen.conf_dir, context, tuple(discarded()))
        six = first_prefix.ipv6(facts, str(ula(ntp_time(clock()), machine_identifier())), said6)
        four = None if said4 == NO_IPV4 else first_prefix.ipv4(facts, said4)
        found = propose(facts, Wanted(chosen.type, chosen.name, chosen.delegate), six, four)
        text = json.dumps(found.document, indent=2) + "\n"
        checked = _checked(text, path, chosen.conf_dir, context)
        notes = [*found.notes, *_for_pods(kubelet), *checked, *_earlier(path, chosen.conf_dir)]
    finally:
        context.kernel.close()
    if path:
        _write(path, text)
    if chosen.json:
        OUTPUTS["init"].show(_document(found, path, notes))
        return 0
    for line in _explained(found, path, notes):
        print(line, file=sys.stderr)
    if not path:
        print(text, end="")
    return 0


# What the node has


def _facts(folder: Path, context: Context, discarded: tuple[str, ...]) -> Facts:
    from cni_v6.plan.first_prefix import Facts

    seen = context.kernel.observe([GetSurroundings(), GetUplinks(), GetLinks(), *families.host_questions()])
    uplinks = seen.uplinks()
    lifetimes, prefix = _of_uplink(uplinks, context)
    links = frozenset(link.name for link in seen.links())
    others = tuple(_others(folder, context))
    off = families.node_ipv6_off(seen)
    return Facts(seen.surroundings(), uplinks, links, lifetimes, prefix, discarded, others, off)


def _of_uplink(uplinks: Sequence[Uplink], context: Context) -> tuple[tuple[Lifetime, ...], Prefix | None]:
    """The addresses and the on-link prefix of the interface of the IPv6 default route, as of a range ``from`` it."""
    name = next((uplink.ifname for uplink in uplinks if uplink.family == 6), "")
    if not name:
        return (), None
    follows = [InterfaceRange("", name, 0, 0)]
    seen = context.kernel.observe(interface_prefix.questions(follows))
    try:
        return seen.lifetimes(HOST, name), interface_prefix.prefixes(follows, seen)[name]
    except CniError:  # it has none
        return seen.lifetimes(HOST, name), None


def _others(folder: Path, context: Context) -> Iterator[Other]:
    with suppress(CniError):  # there is no such folder
        for path in conf_dir.files(folder):
            yield from lint.networks(path, context)


def _said(chosen: argparse.Namespace) -> tuple[str, str]:
    """The prefixes that the operator names, IPv6 first; "" for none, NO_IPV4 where none is wanted."""
    from cni_v6.plan.first_prefix import parse

    six = parse("--prefix", chosen.prefix, 6) if chosen.prefix else ""
    return six, parse("--ipv4", chosen.ipv4, 4) if chosen.ipv4 not in ("", NO_IPV4) else chosen.ipv4


def _checked(text: str, path: Path | None, folder: Path, context: Context) -> list[str]:
    """What lint says of it as of a file.

    :raises CniError: NODE_CONFLICT for an error.
    """
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, path.name if path else FILE_NAME)
        file.write_text(text, encoding="utf-8")
        remarks = lint.remarks(file, folder, context)
    errors = [remark for remark in remarks if remark.level == ERROR]
    if errors:
        words = f"this network would not work: {'; '.join(remark.message for remark in errors)}"
        raise CniError(NODE_CONFLICT, words, "; ".join(dict.fromkeys(remark.remedy for remark in errors)))
    return [f"{remark.message}: {remark.remedy}" for remark in remarks]


def _for_pods(kubelet: Path) -> Iterator[str]:
    """A cluster has ranges of its own for the pods of a node."""
    if kubelet.exists():
        yield ("a kubelet is configured here: the cluster says which ranges the pods of this node have; start from the "
               "sample 10-cni-v6-kubernetes.conflist instead (docs/runtimes.md)")


def _earlier(path: Path | None, folder: Path) -> Iterator[str]:
    """containerd and CRI-O take the first file of the folder by name."""
    if path and path.parent.resolve() == folder.resolve():
        with suppress(CniError):
            first = conf_dir.files(folder)[:1]
            if first and first[0].name < path.name:
                yield (f"{first[0]} comes before it: containerd and CRI-O take the first file of the folder, so give "
                       "this one a lower number, or move the other away")


# Output


def _there(path: Path) -> CniError:
    return CniError(NODE_CONFLICT, f"--output {path}: the file is there already", "name another, or move it away")


def _write(path: Path, text: str) -> None:
    """Write a file in one step, with the folders that it lacks. It replaces nothing.

    :raises CniError: NODE_CONFLICT if there is one; IO_FAILURE, INVALID_CONFIG if it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            os.link(file.name, path)
    except FileExistsError as error:
        if path.parent.is_dir():
            raise _there(path) from error
        raise CniError(INVALID_CONFIG, f"--output {path}: {path.parent} is no folder", "name another") from error
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot write --output {path}", str(error.strerror)) from error


def _explained(found: FirstNetwork, path: Path | None, notes: Sequence[str]) -> Iterator[str]:
    from cni_v6.plan.first_network import WORDS

    yield from screen.wrapped("IPv6:", WORDS[found.situation], 6)
    yield ""
    yield from screen.listed((line.key, f"{_value(line.value)}{line.why}") for line in found.lines)
    if notes:
        yield ""
    for note in notes:
        yield from screen.wrapped("note:", note, 6)
    if path:
        yield ""
        yield f"written: {path}"


def _value(value: object) -> str:
    return f"{json.dumps(value)}: " if value != "" else ""


def _document(found: FirstNetwork, path: Path | None, notes: Sequence[str]) -> Mapping[str, object]:
    return {
        "situation": found.situation,
        "file": str(path) if path else None,
        "network": found.document,
        "reasons": [{"key": line.key, "value": line.value, "why": line.why} for line in found.lines],
        "notes": list(notes),
    }
