"""How long a call may wait, and whether its caller still waits for it.

A call that is past its limit, or whose caller is gone, starts no further step. It is undone, and undo has a time limit
of its own. ``wire`` defines the limits. A call without an engine has only the limits of its single waits, because its
runtime kills it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from cni_v6 import wire


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a call in seconds; see ``wire``."""

    delegate: float = wire.DELEGATE_SECONDS
    work: float = wire.WORK_SECONDS
    undo: float = wire.UNDO_SECONDS
    gone: float = wire.GONE_SECONDS


LIMITS = Limits()
WITHOUT_END = Limits(work=math.inf)


class Patience:
    """The time limits of one call, as deadlines.

    :param caller: a descriptor that reports POLLHUP when the caller is gone; None if that is not known.
    :param started: when the request arrived, by ``clock``; None for now.
    :param clock: returns seconds.
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
        """The seconds that a wait may take from now on: at most ``most``, and at most the rest of the call's time."""
        if self.is_over:
            self.give_up()
        return max(0.0, min(most, self._end - self._clock()))

    @property
    def is_over(self) -> bool:
        """Whether it is too late to start another step."""
        return self._clock() >= self._end

    def give_up(self) -> None:
        """From now on the call is undone: the limit for undo applies, and it does not matter if the caller is gone."""
        if not self._undoing:
            self._undoing = True
            self.caller = None
            self._end = min(self._clock() + self.limits.undo, self._last)
