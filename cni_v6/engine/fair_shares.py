"""Who of those that ask may go on now: so many at a time of each network, the others in the order they came.

What keeps one network's calls, a plugin or a lock, keeps no more of an engine's threads than its share.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

Job = TypeVar("Job")

# Of one network at a time: most of a call is waiting for the kernel, and two cores run no more than that well.
WORKERS = 16
WORKERS_MOST = 16 * WORKERS  # of all networks: it takes sixteen that hang to keep up the others
QUEUE = 1024  # calls of one network that wait beside those
# Descriptors: the engine's own, at most; what a worker and its call have open; what a call has that waits.
OWN, WORKING, WAITING = 64, 16, 2


@dataclass(frozen=True, slots=True)
class Room:
    """What an engine can take on: threads, calls in all, calls of one network that wait."""

    workers: int
    calls: int
    queue: int


def room(files: int) -> Room:
    """With so many descriptors; 512 at least."""
    workers = max(WORKERS, min(WORKERS_MOST, files // 2 // WORKING))
    waiting = max(WORKERS, (files - OWN - workers * WORKING) // WAITING)
    return Room(workers, workers + waiting, min(QUEUE, waiting // 4))


class _Share(Generic[Job]):
    def __init__(self) -> None:
        self.busy = 0
        self.waiting: deque[Job] = deque()


class Shares(Generic[Job]):
    """
    :param most: jobs of one name at a time.
    :param waiting: that wait beside them.
    """

    def __init__(self, most: int, waiting: int) -> None:
        self._most = most
        self._waiting = waiting
        self._lock = Lock()
        self._shares: dict[str, _Share[Job]] = {}

    def enter(self, name: str, job: Job, most: int | None = None) -> bool | None:
        """Whether a job may go on; False: ``leave`` gives it out later. None: too many wait already.

        :param most: at a time, where that is another number for this name.
        """
        with self._lock:
            share = self._shares.setdefault(name, _Share())
            if share.busy < (self._most if most is None else most):
                share.busy += 1
                return True
            if len(share.waiting) >= self._waiting:
                return None
            share.waiting.append(job)
            return False

    def leave(self, name: str) -> Job | None:
        """One that went on has ended: the next, which may go on now."""
        with self._lock:
            share = self._shares[name]
            if share.waiting:
                return share.waiting.popleft()
            share.busy -= 1
            if not share.busy:  # networks come and go
                del self._shares[name]
            return None
