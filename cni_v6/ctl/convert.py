"""``cni-v6ctl convert``: a network of another program as a network of ours, and a report of what differs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_v6.attachments.context import Context
from cni_v6.ctl import conf_dir, lint, screen
from cni_v6.ctl.output import Output, choice, listed, object_of, text, texts
from cni_v6.engine.handle import real_context
from cni_v6.errors import DECODING_FAILURE, INVALID_CONFIG, CniError
from cni_v6.plan.lint.remark import ERROR

if TYPE_CHECKING:
    from cni_v6.conversion.report import Conversion

STDIN = "-"
NAME = "name"
OUTPUTS = {"convert": Output(object_of({
    "source": text("what the file is, in words"),
    "network": object_of({}, meaning="the network configuration list"),
    "report": listed(object_of({
        "kind": choice("of the difference", "changed", "no counterpart", "look at"), "key": text("of the source"),
        "message": text("what differs"),
    }), "what differs"),
    "leases": text("what becomes of them"), "commands": texts("of the move, in order"),
    "notes": texts("what lint says of the result"),
}))}
ENVIRONMENT = Path("/run/flannel/subnet.env")  # where flanneld writes the node's ranges


def register(commands: Any) -> None:
    parser = commands.add_parser("convert", help="a network of other plugins, podman or Docker as one of cni-v6")
    parser.add_argument("file", metavar="FILE|-",
                        help="a CNI configuration, or what podman or docker network inspect prints")
    parser.add_argument("--to", choices=("bridge", "routed"), default="", help="the form (default: what is nearest)")
    parser.add_argument("--network", default="", metavar="NAME", help="which one, if the file has several")
    parser.add_argument("--subnet", action="append", default=[], metavar="PREFIX",
                        help="a range of this node, if the file has none (can be repeated)")
    parser.add_argument("--json", action="store_true", help="one JSON object, with the configuration and the report")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context,
        environment: Path = ENVIRONMENT) -> int:
    from cni_v6.conversion.convert import convert  # netaddr takes longer to import than all else of a command
    from cni_v6.conversion.report import Wanted

    subnets = tuple(_subnet(text) for text in chosen.subnet)
    found = convert(_read(chosen.file), Wanted(chosen.to, chosen.network, subnets, _environment(environment)))
    network = json.dumps(found.document, indent=2) + "\n"
    context = make_node()
    try:
        notes = _checked(network, context)
    finally:
        context.kernel.close()
    commands = _commands(found, chosen.file)
    if chosen.json:
        OUTPUTS["convert"].show(_document(found, commands, notes))
        return 0
    for line in _report(found, commands, notes, _name(found, chosen.file)):
        print(screen.plain(line), file=sys.stderr)  # the document may be anybody's
    print(network, end="")
    return 0


def _read(name: str) -> object:
    """
    :raises CniError: INVALID_CONFIG, DECODING_FAILURE.
    """
    try:
        content = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise CniError(INVALID_CONFIG, f"cannot read {name}", str(error.strerror)) from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        words = f"{name} is not JSON: {error}"
        raise CniError(DECODING_FAILURE, words, "give the file, or the output, as it is") from error


def _environment(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # flannel is not on this node
        return ""


def _subnet(text: str) -> str:
    from cni_v6.plan.first_prefix import parse

    return parse("--subnet", text, 6 if ":" in text else 4)


def _name(found: Conversion, source: str) -> str:
    """The file that the result is for: with the number that a replaced one has."""
    return f"{Path(source).stem if _replaces(found, source) else f'10-{found.document[NAME]}'}.conflist"


def _replaces(found: Conversion, source: str) -> bool:
    return found.is_in_place and source != STDIN


def _commands(found: Conversion, source: str) -> list[str]:
    """The commands of the move. What the document says is quoted: it may be anybody's."""
    folder = Path(source).parent if _replaces(found, source) else conf_dir.CONF_DIR
    places = {"file": source if source != STDIN else "FILE", "new": _name(found, source), "folder": str(folder),
              "name": str(found.document[NAME]), "bridge": found.bridge}
    quoted = {key: shlex.quote(value) for key, value in places.items()}
    return [command.format(**quoted) for command in found.commands]


def _checked(text: str, context: Context) -> list[str]:
    """What lint says of the result, as in CI: on which node it is to be used, nobody says.

    :raises CniError: INVALID_CONFIG for what our own parser refuses.
    """
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "10-converted.conflist")
        file.write_text(text, encoding="utf-8")
        remarks = lint.remarks(file, conf_dir.CONF_DIR, context, no_node=True)
    errors = [remark for remark in remarks if remark.level == ERROR]
    if errors:
        words = f"the result would be refused: {'; '.join(remark.message for remark in errors)}"
        raise CniError(INVALID_CONFIG, words, "; ".join(dict.fromkeys(remark.remedy for remark in errors)))
    return [f"{remark.message}: {remark.remedy}" for remark in remarks]


def _report(found: Conversion, commands: Sequence[str], notes: Sequence[str], name: str) -> Iterator[str]:
    yield from screen.wrapped("from:", found.source, 6)
    for kind in dict.fromkeys(remark.kind for remark in found.remarks):
        yield ""
        yield f"{kind}:"
        yield from screen.listed((remark.path, remark.words) for remark in found.remarks if remark.kind == kind)
    yield ""
    yield from screen.wrapped("leases:", found.leases, 8)
    for note in notes:
        yield from screen.wrapped("lint:", note, 6)
    yield ""
    yield f"the move, with this output as {name}:"
    yield from (f"  {command}" for command in commands)


def _document(found: Conversion, commands: Sequence[str], notes: Sequence[str]) -> Mapping[str, object]:
    return {
        "source": found.source,
        "network": found.document,
        "report": [{"kind": remark.kind, "key": remark.path, "message": remark.words} for remark in found.remarks],
        "leases": found.leases,
        "commands": list(commands),
        "notes": list(notes),
    }
