"""``cni-v6ctl schema``: the JSON Schema of the configuration, for editors and linters."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cni_v6.config.json_schema import schema


def register(commands: Any) -> None:
    parser = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=2))
    return 0
