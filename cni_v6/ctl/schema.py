"""``cni-v6ctl schema``: JSON Schemas: of the configuration, and of what commands print with ``--json``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from cni_v6.config.json_schema import DRAFT, schema
from cni_v6.ctl.output import Output
from cni_v6.errors import INVALID_CONFIG, CniError

ALL = ""
LINES = "The schema of each line."


def register(commands: Any) -> None:
    parser = commands.add_parser("schema", help="print the JSON Schema of the configuration, or of --json of a command")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--agent", action="store_true", help="of the node agent's, not of a network's")
    what.add_argument("--of", nargs="?", const=ALL, metavar="COMMAND",
                      help='of what this command prints with --json, such as list or "ipam burn" (default: all)')
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.of is None:
        found = _agent_schema() if chosen.agent else schema()
    else:
        found = of_all() if chosen.of == ALL else of_output(chosen.of)
    print(json.dumps(found, indent=2))
    return 0


def of_all() -> Mapping[str, Any]:
    """A schema for each command, in ``$defs``."""
    defined = {words: _titled(words, output) for words, output in outputs().items()}
    return {"$schema": DRAFT, "title": "What cni-v6ctl prints with --json, by command", "$defs": defined}


def of_output(words: str) -> Mapping[str, Any]:
    """
    :raises CniError: INVALID_CONFIG for a command without ``--json``.
    """
    known = outputs()
    if words not in known:
        raise CniError(INVALID_CONFIG, f"--of {words} is no command with --json", f"write one of {', '.join(known)}")
    return {"$schema": DRAFT, **_titled(words, known[words])}


def outputs() -> Mapping[str, Output]:
    """What each command prints; also with an option that makes it another shape."""
    from cni_v6.ctl.command import COMMANDS

    found: dict[str, Output] = {}
    for module in dict.fromkeys(COMMANDS.values()):
        found |= getattr(import_module(f"cni_v6.ctl.{module}"), "OUTPUTS", {})
    return found


def _titled(words: str, output: Output) -> Mapping[str, Any]:
    titled = {"title": f"cni-v6ctl {words}", **output.schema}
    return {**titled, "$comment": LINES} if output.lines else titled


def _agent_schema() -> Mapping[str, Any]:
    from cni_v6.cluster.config import schema  # only for this: it imports netaddr

    return schema()
