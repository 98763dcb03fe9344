"""Threads of one process take turns at a network's store before they ask for its lock.

flock(2) keeps processes apart, and waiting for it takes a thread more; threads of the engine wait here, in the order
they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class _Turn:
    """A folder's, for as long as anybody holds it or waits for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0


_turns: dict[str, _Turn] = {}
_guard = Lock()


@contextmanager
def turn(path: str, seconds: float) -> Iterator[None]:
    """Hold the turn for the folder at ``path``, the same for every caller of the process.

    Who has waited for so long goes on without: the store's own lock refuses, and says who holds it.
    """
    with _guard:
        found = _turns.setdefault(path, _Turn())
        found.users += 1
    held = found.lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if held:
            found.lock.release()
        with _guard:
            found.users -= 1
            if not found.users:  # networks come and go
                del _turns[path]
