"""A pool of threads that run jobs in the order of their arrival; started as needed, up to a maximum.

Each idle thread waits at its own lock, so a job wakes only one thread. With a common queue (``queue.SimpleQueue``), a
thread that gets a job wakes the next one, which finds nothing but has taken the interpreter's lock. The thread that
became idle last gets the next job: its stack and heap are in the processor's caches, and the memory of threads that a
quiet node does not need does not grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Lock, Thread, current_thread
from typing import Generic, TypeVar

Job = TypeVar("Job")


class _Worker(Generic[Job]):
    """A thread's place to wait. ``job``: its next job; None tells it to end."""

    def __init__(self, job: Job | None) -> None:
        self.wakeup = Lock()
        self.wakeup.acquire()
        self.job = job


class WorkerPool(Generic[Job]):
    """
    :param most: the maximum number of threads.
    :param work: the function of each thread; it gets an iterator over the thread's jobs.
    :param kept: number of threads that stay when there is no work; None for all.
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
        """Give a job to an idle or new thread; if there is none, it waits for the first thread that becomes free.

        :raises RuntimeError: there is no thread, and none can be started.
        """
        with self._lock:
            if not self._resting:
                self._hire(job)
                return
            worker = self._resting.pop()
        worker.job = job
        worker.wakeup.release()

    def finish(self) -> None:
        """Wait until all jobs are done and all threads have ended. ``put`` must not be called any more."""
        with self._lock:
            self._closed = True
            resting, self._resting = self._resting, []
            threads = tuple(self._threads)
        for worker in resting:
            worker.wakeup.release()
        for thread in threads:
            thread.join()

    def _hire(self, job: Job) -> None:
        """Start another thread for a job. If that is not possible, the job waits. The caller holds the lock."""
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

    def _run(self, worker: _Worker[Job]) -> None:
        try:
            self._work(self._jobs(worker))
        finally:
            with self._lock:
                self._threads = {thread for thread in self._threads if thread is not current_thread()}

    def _jobs(self, worker: _Worker[Job]) -> Iterator[Job]:
        job = worker.job
        while job is not None:
            yield job
            job = self._next(worker)

    def _next(self, worker: _Worker[Job]) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed or len(self._threads) > self._kept:
                self._threads.discard(current_thread())
                return None
            worker.job = None
            self._resting.append(worker)
        worker.wakeup.acquire()
        return worker.job
