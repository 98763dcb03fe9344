"""The command line: its commands, and how a failure is reported."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from cni_v6 import __version__
from cni_v6.errors import CniError
from cni_v6.kernel import privilege

# Each command, and its module in this package. Only the module of the command that is run is imported: all of them take
# twice as long (docs/design/ctl.md). The order is that of the help.
COMMANDS: Mapping[str, str] = {
    "list": "list", "explain": "explain", "map": "map", "doctor": "doctor", "connectivity": "connectivity",
    "trace": "trace", "log": "log", "watch": "log", "top": "top", "metrics": "metrics",
    "check": "check", "gc": "gc", "lint": "lint",
    "ipam": "burn", "plan": "plan", "plan-prefix": "prefix", "reload": "reload", "teardown": "reload",
    "renumber": "renumber", "schema": "schema", "engine": "engine",
    "agent": "agent", "nodes": "nodes",
    "install": "install", "uninstall": "install", "init": "init", "convert": "convert",
    "completion": "completion",
}

# What the exit status says, where it is more than success, an error (1) and wrong usage (2).
EXITS: Mapping[str, str] = {
    "list": "1 also if nobody has the address",
    "explain": "1 also if nobody has it",
    "doctor": "0 if all is green, 1 with something amber, 2 with something red",
    "connectivity": "0 if every promise is kept, 1 if some could not be tried, 2 if one is broken",
    "trace": "0 if the packet arrives, 1 if it does not",
    "log": "1 also if nothing matches",
    "check": "0 if nothing differs, or nothing any more, 1 if something does",
    "lint": "0 without remarks, 1 with warnings, 2 with errors",
    "nodes": "1 also if an object in the store cannot be read",
}

# What fails with these is the output: all files have a CniError of their own.
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the command it names.

    :returns: 0; 1 after an error, which is on stderr with its code and remedy; 2 (argparse) for wrong usage.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    top, commands = parser()
    for module in _modules(given):
        import_module(f"cni_v6.ctl.{module}").register(commands)
    _describe(commands)
    chosen = top.parse_args(given)
    try:
        if vars(chosen).get("root", False):
            privilege.require(f"cni-v6ctl {chosen.command}")
        status = chosen.run(chosen)
    except CniError as error:
        from cni_v6.ctl.screen import plain

        print(plain(f"cni-v6ctl: error {error.code}: {error}"), file=sys.stderr)  # files and calls are quoted in it
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        return _not_written(error, 0)
    assert isinstance(status, int)
    try:
        if sys.stdout is not None:  # None: the caller has closed it
            sys.stdout.flush()
    except OSError as error:
        return _not_written(error, status)
    return status


def parser() -> tuple[argparse.ArgumentParser, Any]:
    """The parser without its commands, and what they are added to."""
    made = argparse.ArgumentParser(prog="cni-v6ctl", description="Look after the networks of cni-v6 on this node.")
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return made, made.add_subparsers(required=True, metavar="COMMAND", dest="command")


def _describe(commands: Any) -> None:
    """Have the help of each command begin with what it is for, and end with its exit status."""
    for listed in commands._choices_actions:  # noqa: SLF001 (argparse shows this in the list of commands alone)
        command = commands.choices[listed.dest]
        command.description = command.description or f"{listed.help[:1].upper()}{listed.help[1:]}."
        command.epilog = f"exit status: {EXITS.get(listed.dest, '0, 1 after an error, 2 for wrong usage')}"


def _not_written(error: OSError, status: int) -> int:
    """The exit status where the output cannot be written: ``status`` if the reader, such as head, has ended, else 1."""
    _drop_output()
    if error.errno == errno.EPIPE:
        return status
    print(f"cni-v6ctl: cannot write the output: {error.strerror}", file=sys.stderr)
    return 1


def _drop_output() -> None:
    """The interpreter's flush at exit must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _modules(given: Sequence[str]) -> Sequence[str]:
    """The modules that the command line needs: all of them for help, or for a command that does not exist."""
    if given[:1] == ["--version"]:
        return ()
    named = COMMANDS.get(given[0]) if given else None
    return [named] if named else list(dict.fromkeys(COMMANDS.values()))
