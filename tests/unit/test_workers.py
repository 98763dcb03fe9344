"""Threads that do jobs in the order these come, all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

from cni_v6.engine.workers import WorkerPool

PATIENCE = 30.0  # seconds, until a test that hangs fails


class Doings:
    """What a crew of up to ``count`` does; a job is done when it is released."""

    def __init__(self, count: int, kept: int = 1) -> None:
        self.begun: SimpleQueue[str] = SimpleQueue()
        self.holds: dict[str, threading.Event] = {}
        self.crew: WorkerPool[str] = WorkerPool(count, self._work, kept)

    def _work(self, jobs: Iterator[str]) -> None:
        for job in jobs:
            self.begun.put(job)
            assert self.holds[job].wait(PATIENCE)

    def put(self, *jobs: str) -> None:
        for job in jobs:
            self.holds[job] = threading.Event()
            self.crew.put(job)

    def begin(self) -> str:
        return self.begun.get(timeout=PATIENCE)

    def end(self, job: str) -> None:
        self.holds[job].set()


def test_jobs_wait_in_order_while_everybody_works() -> None:
    doings = Doings(2)
    doings.put("a", "b", "c", "d")
    assert sorted((doings.begin(), doings.begin())) == ["a", "b"]
    doings.end("b")
    assert doings.begin() == "c"
    doings.end("a")
    assert doings.begin() == "d"
    doings.end("c")
    doings.end("d")
    doings.crew.finish()


def test_what_has_come_is_done_before_the_end() -> None:
    doings = Doings(1)
    doings.put("a", "b")
    doings.end("a")
    doings.end("b")
    doings.crew.finish()
    assert [doings.begun.get_nowait() for _ in range(2)] == ["a", "b"]
    assert doings.begun.empty()


def test_a_crew_that_has_nothing_to_do_ends() -> None:
    Doings(4).crew.finish()


def test_it_grows_with_its_work_and_shrinks_after_it() -> None:
    doings = Doings(8, kept=2)
    jobs = [f"job {number}" for number in range(8)]
    before = set(threading.enumerate())
    doings.put(*jobs)
    assert sorted(doings.begin() for _ in jobs) == jobs
    workers = set(threading.enumerate()) - before
    assert len(workers) == 8
    for job in jobs:
        doings.end(job)
    while sum(thread.is_alive() for thread in workers) > 2:  # none of the others waits for anything
        next(thread for thread in workers if thread.is_alive()).join(0.01)
    doings.crew.finish()
