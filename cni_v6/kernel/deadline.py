"""How long one call may wait, and whether anybody waits for it.

A call that runs late, or whose caller has gone, begins nothing more; what it did is undone, for which it has time of
its own. The limits are of ``wire``; calls without an engine have none but those of each wait, since their runtime ends
them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from cni_v6 import wire


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; see ``wire``."""

    delegate: float = wire.DELEGATE_SECONDS
    work: float = wire.WORK_SECONDS
    undo: float = wire.UNDO_SECONDS
    gone: float = wire.GONE_SECONDS


LIMITS = Limits()
WITHOUT_END = Limits(work=math.inf)


class Patience:
    """One call's.

    :param caller: a descriptor that hangs up (POLLHUP) when the caller has gone; None where that cannot be told.
    :param started: when the request was there, by ``clock``; None for now.
    """

    def __init__(
        self, limits: Limits = WITHOUT_END, *, caller: int | None = None, started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.caller = caller
        self._clock = clock
        self._end = (clock() if started is None else started) + limits.work
        self._last = self._end + limits.undo
        self._undoing = False

    def left(self, most: float) -> float:
        """Seconds that a wait may take from now on, which by itself may take ``most``."""
        if self.is_over:
            self.give_up()
        return max(0.0, min(most, self._end - self._clock()))

    @property
    def is_over(self) -> bool:
        """Whether it is too late to begin anything."""
        return self._clock() >= self._end

    def give_up(self) -> None:
        """From here on things are undone, and it does not matter who waits for that."""
        if not self._undoing:
            self._undoing = True
            self.caller = None
            self._end = min(self._clock() + self.limits.undo, self._last)
