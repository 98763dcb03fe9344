"""The log of one call: lines for stderr, in order, returned with the reply.

``logging`` does not fit: the lines belong to one call, and the engine sends them to the caller's stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST = 3  # of a list in one message
# The steps of a call, in the order in which they are shown (``Steps``).
QUEUE, COMPUTE, OBSERVE, LOCK, STORE, APPLY, PLUGIN = "queue", "compute", "observe", "lock", "store", "apply", "plugin"
STEPS = (QUEUE, COMPUTE, OBSERVE, LOCK, STORE, APPLY, PLUGIN)


def few(words: Sequence[str]) -> str:
    """The first ones of a list, and how many more there are."""
    more = f" and {len(words) - MOST} more" if len(words) > MOST else ""
    return ", ".join(words[:MOST]) + more


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


class Steps:
    """How long each step of a call took. Every moment belongs to one step, so the steps add up to the call.

    :param clock: returns seconds.
    :param since: when the first step began, by ``clock``; None for now.
    :param step: the first one.
    """

    def __init__(self, clock: Callable[[], float], since: float | None = None, step: str = COMPUTE) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._since = clock() if since is None else since
        self._step = step

    def switch(self, step: str) -> str:
        """Another step begins now; returns the one that it interrupts."""
        now, before = self._clock(), self._step
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._since, self._step = now, step
        return before


class Log:
    """Lines of one invocation. ``prefix`` names the plugin, the command and the attachment.

    ``released``: the addresses that a DEL has freed. ``reclaimed``: how many attachments were freed whose containers
    ended without a DEL. Both are for the log of calls, and not among the lines.
    """

    def __init__(self, prefix: str = "cni-v6") -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self.released: tuple[str, ...] = ()
        self.reclaimed = 0

    def info(self, text: str) -> None:
        """Log an event that needs no action."""
        self.lines.append(f"{self.prefix}: {text}")

    def warning(self, text: str) -> None:
        """Log a problem that the operator should look at. The operation continues."""
        self.lines.append(f"{self.prefix}: warning: {text}")

    def text(self) -> str:
        """All lines, each ended by a newline; empty if there are none."""
        return "".join(line + "\n" for line in self.lines)
