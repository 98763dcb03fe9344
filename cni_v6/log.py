"""The log of one call: lines for stderr, in order, returned with the reply.

``logging`` does not fit: the lines belong to one call, and the engine sends them to the caller's stderr.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST = 3  # of a list in one message


def few(words: Sequence[str]) -> str:
    """The first ones of a list, and how many more there are."""
    more = f" and {len(words) - MOST} more" if len(words) > MOST else ""
    return ", ".join(words[:MOST]) + more


class Log:
    """Lines of one invocation. ``prefix`` names the plugin, the command and the attachment."""

    def __init__(self, prefix: str = "cni-v6") -> None:
        self.prefix = prefix
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        """Log an event that needs no action."""
        self.lines.append(f"{self.prefix}: {text}")

    def warning(self, text: str) -> None:
        """Log a problem that the operator should look at. The operation continues."""
        self.lines.append(f"{self.prefix}: warning: {text}")

    def text(self) -> str:
        """All lines, each ended by a newline; empty if there are none."""
        return "".join(line + "\n" for line in self.lines)
