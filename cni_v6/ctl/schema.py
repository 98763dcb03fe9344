"""``cni-v6ctl schema``: the JSON Schema of the configuration, for editors and linters."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from cni_v6.config.json_schema import schema


def register(commands: Any) -> None:
    parser = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    parser.add_argument("--agent", action="store_true", help="of the node agent's, not of a network's")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    print(json.dumps(_agent_schema() if chosen.agent else schema(), indent=2))
    return 0


def _agent_schema() -> Mapping[str, Any]:
    from cni_v6.cluster.config import schema  # only for this: it imports netaddr

    return schema()
