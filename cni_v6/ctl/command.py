"""The command line: its commands, and how a failure is reported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cni_v6 import __version__
from cni_v6.ctl import (
    burn,
    check,
    doctor,
    engine,
    explain,
    gc,
    lint,
    list as list_command,
    plan,
    prefix,
    reload,
    renumber,
    schema,
)
from cni_v6.errors import CniError
from cni_v6.kernel import privilege

COMMANDS = (list_command, explain, doctor, check, gc, lint, burn, plan, prefix, reload, renumber, schema, engine)


def run(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the command it names.

    :returns: 0; 1 after an error, which is on stderr with its code and remedy; 2 (argparse) for wrong usage.
    """
    parser = argparse.ArgumentParser(prog="cni-v6ctl", description="Look after the networks of cni-v6 on this node.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.register(commands)
    chosen = parser.parse_args(arguments)
    try:
        if vars(chosen).get("root", False):
            privilege.require(f"cni-v6ctl {chosen.command}")
        status = chosen.run(chosen)
        sys.stdout.flush()
    except CniError as error:
        print(f"cni-v6ctl: error {error.code}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as head, has ended; the interpreter's flush at exit must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    assert isinstance(status, int)
    return status
