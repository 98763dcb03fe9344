"""``cni-v6ctl doctor``: looks at the node from top to bottom, and says what is wrong, why it matters, and what to do.

It reads, and changes nothing. What it looks at is read in this package; ``plan.health`` judges.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.ctl import screen
from cni_v6.engine.handle import real_context
from cni_v6.plan.health.finding import GREEN, LEVELS, Finding, worst

INDENT = 7  # the longest level and two blanks


def register(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="look at the whole node: what is wrong, why it matters, what to do")
    parser.add_argument("--conf-dir", type=Path, metavar="DIR",
                        help="configurations (default: what the runtimes of this node are told)")
    parser.add_argument("--bin-dir", type=Path, action="append", metavar="DIR", help="plugins (default: the same)")
    parser.add_argument("--json", action="store_true", help="a list of objects: level, check, message, why, remedy")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    """
    :returns: 0 if all is green, 1 with something amber, 2 with something red.
    """
    from cni_v6.ctl.doctor import look  # the other commands need none of it

    node = make_node()
    try:
        found = look.findings(chosen.conf_dir, chosen.bin_dir, node)
    finally:
        node.kernel.close()
    if chosen.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    else:
        print("\n".join(_lines(found)))
    return worst(found)


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    for each in found:
        yield from screen.wrapped(each.level, f"{each.check}: {each.message}", INDENT)
        if each.level != GREEN:
            yield from screen.wrapped(" " * INDENT + "why:", each.why, INDENT + 5)
            yield from screen.wrapped(" " * INDENT + "do:", each.remedy, INDENT + 5)
    counts = {level: sum(each.level == level for each in found) for level in reversed(LEVELS)}
    yield ", ".join(f"{count} {level}" for level, count in counts.items() if count)
