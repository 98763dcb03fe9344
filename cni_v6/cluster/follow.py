"""Reads the objects of a server: from a copy while a watch keeps it up to date, else from the server itself.

A thread listens. It goes on from the revision of the copy after a watch has ended, so nothing is read twice. Only what
the server has forgotten (etcd: compacted, Kubernetes: 410 Gone) makes the agent read all anew.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from cni_v6.cluster.mirror import Event, Forgotten, Kept, Mirror
from cni_v6.errors import DECODING_FAILURE, CniError

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 30.0  # before the thread connects again
# A server that is gone without a word is noticed after 25 seconds (tcp(7)).
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Heard(Protocol):
    """A watch that has begun: what has changed, and up to which revision. It ends when the server ends it.

    :raises Forgotten: and CniError for whatever else ends it.
    """

    def __iter__(self) -> Iterator[tuple[Sequence[Event], int]]: ...

    def opened(self) -> socket.socket | None:
        """The connection that it is read from."""
        ...


class Server(Protocol):
    """Each failure is a CniError."""

    def list(self) -> tuple[dict[str, Kept], int]:
        """All objects, and the revision that they are of."""
        ...

    def watch(self, revision: int, attempt: int) -> AbstractContextManager[Heard]:
        """Changes after a revision.

        :param attempt: its number, to take another member of the server after a failure.
        :raises Forgotten:
        """
        ...


class Bell:
    """A pipe that can be read when there is news."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            os.write(self._writer, b".")

    def drain(self) -> bool:
        with suppress(BlockingIOError):
            return bool(os.read(self.reader, 1 << 16))
        return False

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


class Follower:
    """
    :param seconds: that a change of our own may take to be heard.
    """

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._mirror = Mirror()
        self._least = 0  # the revision of our own last change
        self._stale = False
        self._listener: _Listener | None = None

    def read(self) -> dict[str, Kept]:
        """
        :raises CniError: the server does not answer.
        """
        found = None if self._stale else self._mirror.read(self._least, self._seconds)
        if found is None:
            found, revision = self._server.list()
            self._mirror.replace(found, revision)
            self._least = min(self._least, revision)  # what a server says that was restored from a backup
            self._stale = False
        return found

    def written(self, revision: int | None) -> None:
        """A change of our own has this revision: what is read next has it. None: read all from the server."""
        if revision is None:
            self._stale = True
        else:
            self._least = max(self._least, revision)

    def start(self, bell: Bell) -> None:
        """Listen; ring at each change, and when a watch has begun or cannot begin."""
        self._listener = self._listener or _Listener(self._server, self._mirror, bell)

    def unheard(self) -> str | None:
        """Why changes are not heard; None if they are, or nobody listens."""
        return self._listener.failure if self._listener else None

    def close(self) -> None:
        if self._listener:
            self._listener.close()


class _Listener:
    """The thread."""

    def __init__(self, server: Server, mirror: Mirror, bell: Bell) -> None:
        self.failure: str | None = None
        self._server = server
        self._mirror = mirror
        self._bell = bell
        self._heard: Heard | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._mirror.end()
        opened = self._heard.opened() if self._heard else None
        if opened:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)  # what the thread reads ends
        self._thread.join()

    def _run(self) -> None:
        attempt, pause = 0, FIRST_PAUSE_SECONDS
        while (revision := self._mirror.start()) is not None:
            began = time.monotonic()
            heard = self._watch(revision, attempt)
            self._mirror.follow(False)
            attempt += 1
            lasted = time.monotonic() - began >= LAST_PAUSE_SECONDS
            pause = FIRST_PAUSE_SECONDS if heard or lasted else min(2 * pause, LAST_PAUSE_SECONDS)
            self._closed.wait(pause)

    def _watch(self, revision: int, attempt: int) -> bool:
        """Listen until a watch ends; whether anything was heard."""
        begun = heard = False
        try:
            with self._server.watch(revision, attempt) as self._heard:
                self._begin(self._heard)
                begun = True
                if not self._closed.is_set():
                    for events, last in self._heard:
                        heard = True
                        if self._mirror.apply(events, last):
                            self._bell.ring()
        except Forgotten:
            self._mirror.forget()
            self._bell.ring()
        except CniError as error:
            garbage = error.code == DECODING_FAILURE
            if garbage:
                self._mirror.forget()  # from the same revision it would come again
            if garbage or not begun:
                self._fail(str(error))
        except Exception as error:  # a thread that ends would leave the agent deaf without a word
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._heard = None
        return heard

    def _begin(self, heard: Heard) -> None:
        opened = heard.opened()
        if opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                opened.setsockopt(socket.IPPROTO_TCP, option, value)
        self._mirror.follow(True)
        self.failure = None
        self._bell.ring()

    def _fail(self, words: str) -> None:
        if self.failure is None and not self._closed.is_set():
            self.failure = words
            self._bell.ring()
