"""``cni-v6ctl doctor``: looks at the node from top to bottom, and says what is wrong, why it matters, and what to do.

It reads, and changes nothing without ``--fix``. What it looks at is read in this package; ``plan.health`` judges.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.ctl import findings
from cni_v6.engine.handle import real_context
from cni_v6.errors import CniError
from cni_v6.plan.health.finding import FIXES, GREEN, RELOAD, REPAIR, Finding, worst

OUTPUTS = {"doctor": findings.OUTPUT}


def register(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="look at the whole node: what is wrong, why it matters, what to do")
    parser.add_argument("--conf-dir", type=Path, metavar="DIR",
                        help="configurations (default: what the runtimes of this node are told)")
    parser.add_argument("--bin-dir", type=Path, action="append", metavar="DIR", help="plugins (default: the same)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list of objects: level, check, message, why, remedy, fix")
    form.add_argument("--fix", action="store_true",
                      help="do what is safe: reload, check --repair, gc, as far as a finding asks for it; "
                           "shows the plan first, and looks again afterwards")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    """
    :returns: 0 if all is green, 1 with something amber, 2 with something red.
    """
    found = _look(chosen, make_node)
    if chosen.json:
        OUTPUTS["doctor"].show([asdict(finding) for finding in found])
        return worst(found)
    print("\n".join(_lines(found)))
    fixes = [fix for fix in FIXES if any(finding.fix == fix for finding in found)]
    if not chosen.fix or not fixes:
        return worst(found)
    print("", *_planned(fixes, make_node), sep="\n")
    for fix in fixes:
        print(f"\n$ cni-v6ctl {fix}", flush=True)
        _do(fix, make_node)
    print(flush=True)
    found = _look(chosen, make_node)
    print("\n".join(_lines([finding for finding in found if finding.level != GREEN])))
    return worst(found)


def _look(chosen: argparse.Namespace, make_node: Callable[[], Context]) -> list[Finding]:
    from cni_v6.ctl.doctor import look

    node = make_node()
    try:
        return look.findings(chosen.conf_dir, chosen.bin_dir, node)
    finally:
        node.kernel.close()


def _planned(fixes: Sequence[str], make_node: Callable[[], Context]) -> list[str]:
    from cni_v6.ctl.doctor import plan

    node = make_node()
    try:
        return list(plan.lines(fixes, node))
    except CniError as error:  # what cannot be looked at is no reason not to mend it
        return [f"plan: {error}"]
    finally:
        node.kernel.close()


def _do(fix: str, make_node: Callable[[], Context]) -> None:
    """Run a command as a person would. If it fails, the findings of the second look say what is left."""
    from cni_v6.ctl import check, gc, reload

    everything: dict[str, Any] = {"networks": [], "data_dir": None, "json": False}
    try:
        if fix == RELOAD:
            reload.run(argparse.Namespace(json=False), make_node)
        elif fix == REPAIR:
            check.run(argparse.Namespace(repair=True, **everything), make_node)
        else:
            gc.run(argparse.Namespace(dry_run=False, valid=None, older_than="10m", **everything), make_node)
    except CniError as error:
        print(f"cni-v6ctl: error {error.code}: {error}", file=sys.stderr)


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    for finding in found:
        yield from findings.lines(finding)
    yield findings.total(found)
