"""The store of another cluster, read in a thread of its own: however slow it is, the agent waits for nothing.

Of the store only what reads is called.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from cni_v6.cluster.follow import LAST_PAUSE_SECONDS, Bell
from cni_v6.cluster.records import Objects
from cni_v6.cluster.store import Watched
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError

SECONDS = 1.0  # between two looks: whoever changes the store all the time keeps nobody busy
END_SECONDS = 1.0  # for which the end of the agent waits: a server may let the thread wait for longer


class OtherStore:
    """
    :param open_store: opens the store; it may fail now, and is called again.
    :param seconds: between two looks at least. After a failure it is as many, and then twice as many each time.
    :raises CniError: INVALID_CONFIG if it can never be opened.
    """

    def __init__(self, open_store: Callable[[], Watched], seconds: float = SECONDS) -> None:
        self._open = open_store
        self._seconds = seconds
        self._store: Watched | None = None
        self._seen: Objects | None = None
        self._failure: CniError | None = None
        self._told: list[int] = []  # what can be read when the store has changed
        try:
            self._store = open_store()
        except CniError as error:
            if error.code == INVALID_CONFIG:
                raise
        self._bell = Bell()
        self._closed, self._closing = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="other-cluster", daemon=True)
        self._thread.start()

    def read(self) -> Objects | None:
        if self._failure is not None:
            raise self._failure
        return self._seen

    def fileno(self) -> int:
        return self._bell.reader

    def drain(self) -> bool:
        return self._bell.drain()

    def close(self) -> None:
        os.write(self._closing, b".")
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            self._bell.close()
            os.close(self._closed)
            os.close(self._closing)

    def _run(self) -> None:
        pause = self._seconds
        while not self._wait(pause if self._look() else None):
            pause = min(2 * pause, LAST_PAUSE_SECONDS) if self._failure else self._seconds
        if self._store:
            self._store.close()

    def _look(self) -> bool:
        """Read it; whether it must be read again although nothing tells of a change."""
        failure, seen, deaf = None, self._seen, False
        try:
            self._store = self._store or self._open()
            self._told = [self._store.fileno()]  # from now on
            seen = self._store.read()
            deaf = self._store.unheard() is not None
        except CniError as error:
            failure = error
        except Exception as error:  # a thread that ends would leave the agent with old routes without a word
            failure = CniError(IO_FAILURE, f"{type(error).__name__}: {error}")
        if (seen, str(failure)) != (self._seen, str(self._failure)):
            self._seen, self._failure = seen, failure
            self._bell.ring()
        return failure is not None or deaf

    def _wait(self, seconds: float | None) -> bool:
        """Wait for news, at most so many seconds; whether it is the end."""
        if select.select([self._closed], [], [], self._seconds)[0]:
            return True
        ready = select.select([self._closed, *self._told], [], [], seconds)[0]
        if self._store and self._told:
            self._store.drain()
        return self._closed in ready
