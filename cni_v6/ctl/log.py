"""``cni-v6ctl log`` and ``watch``: the log of calls for a person, and what happens from now on."""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from cni_v6.ctl import log_lines
from cni_v6.ctl.engine import own_socket
from cni_v6.ctl.follow import LogFile
from cni_v6.ctl.log_lines import Said, Wanted
from cni_v6.engine.log_file import RUN_FILE
from cni_v6.engine.start import private_folder
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError
from cni_v6.kernel.privilege import needs_root

OUTPUTS = {"log": log_lines.OUTPUT, "watch": log_lines.OUTPUT}


def register(commands: Any) -> None:
    parser = commands.add_parser("log", help="show what calls did, how long they took, and their errors")
    _add_choice(parser)
    parser.add_argument("--call", default="", metavar="ID", help="the call with this id, which its error names")
    parser.add_argument("--follow", action="store_true", help="go on with what happens from now on")
    parser.add_argument("-n", "--lines", type=int, metavar="NUMBER", help="only so many of the last ones")
    parser.add_argument("--steps", action="store_true", help="show how long each step took")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, as in the file")
    parser.set_defaults(run=run)
    parser = commands.add_parser("watch", help="show calls and repairs as they happen, a line each")
    _add_choice(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, as in the file")
    parser.set_defaults(run=watch)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", default="", metavar="NAME", help="only calls of this network")
    parser.add_argument("--container", default="", metavar="ID", help="only calls whose container id begins so")
    parser.add_argument("--errors", action="store_true", help="only calls that failed")
    parser.add_argument("--file", metavar="FILE", help="the file of a network's key log (default: the engine's)")


def run(chosen: argparse.Namespace) -> int:
    """
    :returns: 1 if lines were asked for that there are none of.
    """
    if chosen.lines is not None and chosen.lines < 0:
        raise CniError(INVALID_CONFIG, f"--lines {chosen.lines} is no number of lines", "write 0 or more")
    wanted = Wanted(chosen.network, chosen.container, chosen.call, chosen.errors)
    with _opened(chosen.file, following=chosen.follow) as file:
        found: Iterable[Said] = _chosen(file.before(), wanted)
        if chosen.lines is not None:
            found = deque(found, chosen.lines)
        count = 0
        if not file.is_there:
            print(f"cni-v6ctl: there is no log yet: {file.path}", file=sys.stderr)
        for count, said in enumerate(found, 1):
            _print(said, chosen)
        if chosen.follow:
            sys.stdout.flush()
            for said in _chosen(file.following(), wanted):
                _print(said, chosen)
    if count or wanted.is_all:
        return 0
    print("cni-v6ctl: nothing matches", file=sys.stderr)
    return 1


def watch(chosen: argparse.Namespace) -> int:
    """Does not return by itself."""
    with _opened(chosen.file, following=True) as file:
        print(f"cni-v6ctl: watching {file.path}", file=sys.stderr, flush=True)
        for said in _chosen(file.following(), Wanted(chosen.network, chosen.container, errors=chosen.errors)):
            if chosen.json:
                OUTPUTS["watch"].show(said, flush=True)
            else:
                print(log_lines.in_a_line(said), flush=True)
    return 0


@contextmanager
def _opened(name: str | None, *, following: bool) -> Iterator[LogFile]:
    """The log, which need not exist. To be followed, it needs its folder: the engine's is made as the engine makes it.

    :raises CniError: IO_FAILURE if it cannot be read.
    """
    run_dir = os.path.dirname(own_socket())
    path = os.path.abspath(name) if name else os.path.join(os.fsdecode(run_dir), RUN_FILE)
    try:
        if following and not name:
            private_folder(run_dir)
        with closing(LogFile(path)) as file:
            yield file
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise CniError(IO_FAILURE, f"{needs_root(error)}cannot read {path}", str(error.strerror)) from error


def _chosen(lines: Iterable[bytes], wanted: Wanted) -> Iterator[Said]:
    return (said for said in log_lines.parse(lines) if wanted.has(said))


def _print(said: Said, chosen: argparse.Namespace) -> None:
    if chosen.json:
        OUTPUTS["log"].show(said, flush=chosen.follow)
    else:
        print("\n".join(log_lines.rendered(said, steps=chosen.steps)), flush=chosen.follow)
