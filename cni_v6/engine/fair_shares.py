"""Limits how many calls of one network run at a time. The others wait, in the order of their arrival.

So a plugin or a lock that blocks the calls of one network blocks only that network's share of the engine's threads.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

from cni_v6.values import dataclass

Job = TypeVar("Job")

# Calls of one network at a time. Most of a call is waiting for the kernel; two cores cannot use more threads well.
WORKERS = 16
WORKERS_MOST = 16 * WORKERS  # calls of all networks: sixteen networks must hang to block the others
QUEUE = 1024  # further calls of one network that may wait
# Numbers of descriptors: the engine's own, at most; those of a worker with its call; those of a call that waits.
OWN, WORKING, WAITING = 64, 16, 2


@dataclass(frozen=True, slots=True)
class Room:
    """The capacity of an engine: threads, calls in all, waiting calls of one network."""

    workers: int
    calls: int
    queue: int


def room(files: int) -> Room:
    """The capacity of an engine with this number of descriptors, at least 512."""
    workers = max(WORKERS, min(WORKERS_MOST, files // 2 // WORKING))
    waiting = max(WORKERS, (files - OWN - workers * WORKING) // WAITING)
    return Room(workers, workers + waiting, min(QUEUE, waiting // 4))


class _Share(Generic[Job]):
    def __init__(self) -> None:
        self.busy = 0
        self.waiting: deque[Job] = deque()


class Shares(Generic[Job]):
    """
    :param most: jobs of one name that run at a time.
    :param waiting: further jobs of one name that may wait.
    """

    def __init__(self, most: int, waiting: int) -> None:
        self._most = most
        self._waiting = waiting
        self._lock = Lock()
        self._shares: dict[str, _Share[Job]] = {}

    def enter(self, name: str, job: Job, most: int | None = None) -> bool | None:
        """Whether a job may run now. False: it waits until ``leave`` returns it. None: too many are waiting already.

        :param most: the limit for this name; None for the usual one.
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
        """A job has ended: return the next waiting job of its name, which may run now; None for none."""
        with self._lock:
            share = self._shares[name]
            if share.waiting:
                return share.waiting.popleft()
            share.busy -= 1
            if not share.busy:  # networks come and go
                del self._shares[name]
            return None
