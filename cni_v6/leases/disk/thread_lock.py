"""Threads of one process take turns at a network's store before they ask for its lock.

flock(2) keeps processes apart, and waiting for it takes a thread more; threads of the engine wait here, in the order
they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_locks: dict[str, Lock] = {}


@contextmanager
def turn(path: str, seconds: float) -> Iterator[None]:
    """Hold the turn for the folder at ``path``, the same for every caller of the process.

    Who has waited for so long goes on without: the store's own lock refuses, and says who holds it.
    """
    lock = _locks.setdefault(path, Lock())
    held = lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if held:
            lock.release()
