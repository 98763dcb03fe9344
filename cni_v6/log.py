"""What an operation has to say besides its result: lines for stderr, kept in order and handed back with the reply.

Not ``logging``: a reply's lines travel to the caller's stderr, from the engine as well, and belong to one call.
"""

from __future__ import annotations


class Log:
    """Lines of one invocation. ``prefix`` says who speaks and for whom."""

    def __init__(self, prefix: str = "cni-v6") -> None:
        self.prefix = prefix
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        """Something worth knowing that needs no action."""
        self.lines.append(f"{self.prefix}: {text}")

    def warning(self, text: str) -> None:
        """Something an operator should look at; the operation goes on."""
        self.lines.append(f"{self.prefix}: warning: {text}")

    def text(self) -> str:
        """All lines, each ended by a newline; empty when there is nothing to say."""
        return "".join(line + "\n" for line in self.lines)
