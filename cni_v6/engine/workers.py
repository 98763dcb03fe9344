"""Threads that do jobs in the order these come.

Each sleeps at a lock of its own, so a job wakes one thread. Of those that wait at a common queue
(``queue.SimpleQueue``) each that gets something wakes the next, which finds nothing and has taken the interpreter's
lock meanwhile. Who rested last is called first: its stack and heap are in the processor's caches, and those that a
quiet node never needs do not grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Lock, Thread
from typing import Generic, TypeVar

Job = TypeVar("Job")


class _Worker(Generic[Job]):
    """A thread that waits; ``job`` is what it is woken for, None at the end."""

    def __init__(self) -> None:
        self.wakeup = Lock()
        self.wakeup.acquire()
        self.job: Job | None = None


class WorkerPool(Generic[Job]):
    """
    :param count: of threads.
    :param work: what each runs, with the jobs that it gets, until there are no more.
    """

    def __init__(self, count: int, work: Callable[[Iterator[Job]], None]) -> None:
        self._work = work
        self._lock = Lock()
        self._resting: list[_Worker[Job]] = []
        self._waiting: deque[Job] = deque()
        self._closed = False
        self._threads = [Thread(target=self._run, name=f"worker-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> None:
        """Have it done as soon as somebody has time."""
        with self._lock:
            if not self._resting:
                self._waiting.append(job)
                return
            sleeper = self._resting.pop()
        sleeper.job = job
        sleeper.wakeup.release()

    def finish(self) -> None:
        """Wait until all jobs are done and the threads have ended; no job may come any more."""
        with self._lock:
            self._closed = True
            resting, self._resting = self._resting, []
        for sleeper in resting:
            sleeper.wakeup.release()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        self._work(self._jobs())

    def _jobs(self) -> Iterator[Job]:
        sleeper: _Worker[Job] = _Worker()
        while (job := self._next(sleeper)) is not None:
            yield job

    def _next(self, sleeper: _Worker[Job]) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                return None
            sleeper.job = None
            self._resting.append(sleeper)
        sleeper.wakeup.acquire()
        return sleeper.job
