"""How long a call may wait, and whether its caller still waits for it.

A call that is past its limit, or whose caller is gone, starts no further step. It is undone, and undo has a time limit
of its own. ``wire`` defines the limits. A call without an engine has only the limits of its single waits, because its
runtime kills it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, local

from cni_v6 import wire
from cni_v6.values import dataclass


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


TOKEN_SECONDS = 0.05  # ten times as long as an ADD takes

_own = local()  # ``token`` and ``lock`` of the thread that holds one


class Token:
    """Held by the one call of an engine that computes; the others wait until it ends, or waits for something itself.

    Threads that compute at the same time hand the interpreter's lock to each other at every system call, so that ten
    ADDs at once take much longer than one after the other (docs/design/performance.md). It is for speed alone: a call
    that holds the token for long loses it, so that it delays nobody.

    :param seconds: how long.
    """

    def __init__(self, seconds: float = TOKEN_SECONDS) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._taken = 0  # how many times

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it, as far as ``without_token`` does not give it away."""
        _own.token, _own.lock = self, self._take()
        try:
            yield
        finally:
            _own.token = None
            _own.lock.release()

    def _take(self) -> Lock:
        while True:
            lock, taken = self._lock, self._taken
            if lock.acquire(timeout=self._seconds):
                if lock is self._lock:
                    self._taken += 1
                    return lock
                lock.release()  # who had it has lost it
            elif taken == self._taken and lock is self._lock:
                self._lock = Lock()  # the same call has it all this time

    def lend(self, lock: Lock) -> Iterator[None]:
        """Give it to others for a time."""
        lock.release()
        _own.token = None
        try:
            yield
        finally:
            _own.token, _own.lock = self, self._take()


@contextmanager
def without_token() -> Iterator[None]:
    """Wait for something within this: another call computes meanwhile. Nothing happens where this thread has none."""
    token: Token | None = getattr(_own, "token", None)
    if token is None:
        yield
    else:
        yield from token.lend(_own.lock)
