"""What the executables run: environment and stdin in, stdout and exit status out."""

from __future__ import annotations

import os
import sys


def main(plugin: str) -> int:
    """One call of a runtime, or a person at a terminal who wants to know what this is.

    :param plugin: the executable's CNI type.
    :returns: the exit status.
    """
    from cni_v6 import protocol
    from cni_v6.engine import handle

    if "CNI_COMMAND" not in os.environ and sys.stdin.isatty():
        sys.stderr.write(protocol.about(plugin))
        return 0
    reply = handle(protocol.Request(plugin, dict(os.environ), sys.stdin.buffer.read()))
    sys.stderr.write(reply.stderr)
    sys.stdout.buffer.write(reply.stdout)
    sys.stdout.buffer.flush()
    return reply.code
