"""Threads that do jobs in the order these come; as many as there is work for, up to a bound.

Each sleeps at a lock of its own, so a job wakes one thread. Of those that wait at a common queue
(``queue.SimpleQueue``) each that gets something wakes the next, which finds nothing and has taken the interpreter's
lock meanwhile. Who rested last is called first: its stack and heap are in the processor's caches, and those that a
quiet node never needs do not grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Lock, Thread, current_thread
from typing import Generic, TypeVar

Job = TypeVar("Job")


class _Worker(Generic[Job]):
    """A thread that waits; ``job`` is what it is woken for, None at the end."""

    def __init__(self, job: Job | None) -> None:
        self.wakeup = Lock()
        self.wakeup.acquire()
        self.job = job


class WorkerPool(Generic[Job]):
    """
    :param most: threads that there can be.
    :param work: what each runs, with the jobs that it gets, until there are no more.
    :param kept: threads that stay when there is nothing to do; None for all that there were.
    """

    def __init__(self, most: int, work: Callable[[Iterator[Job]], None], kept: int | None = None) -> None:
        self._kept = most if kept is None else kept
        self._most = most
        self._work = work
        self._lock = Lock()
        self._resting: list[_Worker[Job]] = []
        self._waiting: deque[Job] = deque()
        self._closed = False
        self._threads: set[Thread] = set()

    def put(self, job: Job) -> None:
        """Have it done as soon as somebody has time.

        :raises RuntimeError: where there is nobody, and no thread can be made.
        """
        with self._lock:
            if not self._resting:
                self._hire(job)
                return
            sleeper = self._resting.pop()
        sleeper.job = job
        sleeper.wakeup.release()

    def finish(self) -> None:
        """Wait until all jobs are done and the threads have ended; no job may come any more."""
        with self._lock:
            self._closed = True
            resting, self._resting = self._resting, []
            threads = tuple(self._threads)
        for sleeper in resting:
            sleeper.wakeup.release()
        for thread in threads:
            thread.join()

    def _hire(self, job: Job) -> None:
        """A thread more for a job; where there cannot be one, it waits. With the lock held."""
        if len(self._threads) < self._most:
            thread = Thread(target=self._run, args=(_Worker(job),), name=f"worker-{len(self._threads)}", daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
                return
            except RuntimeError:  # the limit of processes, or of memory
                self._threads.discard(thread)
                if not self._threads:
                    raise
        self._waiting.append(job)

    def _run(self, sleeper: _Worker[Job]) -> None:
        try:
            self._work(self._jobs(sleeper))
        finally:
            with self._lock:
                self._threads = {thread for thread in self._threads if thread is not current_thread()}

    def _jobs(self, sleeper: _Worker[Job]) -> Iterator[Job]:
        job = sleeper.job
        while job is not None:
            yield job
            job = self._next(sleeper)

    def _next(self, sleeper: _Worker[Job]) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed or len(self._threads) > self._kept:
                self._threads.discard(current_thread())
                return None
            sleeper.job = None
            self._resting.append(sleeper)
        sleeper.wakeup.acquire()
        return sleeper.job
