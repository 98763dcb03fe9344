"""``cni-v6ctl reload`` and ``teardown``: rebuild the firewall's tables from the leases, or delete them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from cni_v6.attachments import firewall_reload as firewall
from cni_v6.attachments.context import Context
from cni_v6.ctl.output import Output, object_of, texts, whole
from cni_v6.engine.handle import real_context
from cni_v6.kernel.netfilter.events import own_changes
from cni_v6.log import counted

OUTPUTS = {
    "reload": Output(object_of({
        "attachments": whole("that the tables know"), "warnings": texts("records that are damaged"),
    })),
    "teardown": Output(object_of({"attachments": whole("that the tables knew")})),
}


def register(commands: Any) -> None:
    parser = commands.add_parser("reload", help="make the firewall's tables anew from the leases")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run, root=True)
    parser = commands.add_parser("teardown", help="take the firewall's tables away, once no attachment needs them")
    parser.add_argument("--force", action="store_true", help="though attachments need them: they lose what they have")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=teardown, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    node = make_node()
    warnings: list[str] = []

    def warn(words: str) -> None:
        warnings.append(words)
        print(f"cni-v6ctl: warning: {words}", file=sys.stderr)

    count = firewall.reload(node, warn)
    node.kernel.close()
    if chosen.json:
        OUTPUTS["reload"].show({"attachments": count, "warnings": warnings})
    else:
        print(f"loaded the firewall's tables, with {counted(count, 'attachment')}")
    return 0


def teardown(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    own_changes()  # no engine is to load them again
    node = make_node()
    count = firewall.unload(node, force=chosen.force)
    node.kernel.close()
    if chosen.json:
        OUTPUTS["teardown"].show({"attachments": count})
    else:
        print(f"took the firewall's tables away, with {counted(count, 'attachment')} in them")
    return 0
