"""``cni-v6ctl``, the operator's command: a module per command, each with ``register(commands)``.

A command that changes the network, or must see every process of the node, sets the default ``root=True``.
"""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status. Failures are one line on stderr."""
    from cni_v6.ctl.command import run

    return run(arguments)
