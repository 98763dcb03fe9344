"""Waiting that Ctrl-C ends, without an exception in the middle of an ADD, of a DEL, or in another namespace."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cni_v6.errors import INVALID_CONFIG, CniError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LEAST, MOST = 0.1, 3600  # seconds that a person may ask for


def check_seconds(option: str, seconds: float) -> None:
    """Refuse a time that poll(2) does not know, such as inf and nan, or in which nothing happens.

    :raises CniError: INVALID_CONFIG.
    """
    if not LEAST <= seconds <= MOST:
        words = f"{option} {seconds:g} is not between {LEAST} and {MOST}"
        raise CniError(INVALID_CONFIG, words, "write a number of seconds")


class Interrupted(Exception):
    """The user has had enough. The signal's number is its argument."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """``told``: readable once a signal has come."""

    told: int

    def ready(self, sockets: Iterable[socket.socket], seconds: float, *, writing: bool = False) -> set[int]:
        """The descriptors of those sockets that can be read, or written, or have an error, within a time.

        :raises Interrupted: a signal has come.
        """
        return self.ready_files((waited.fileno() for waited in sockets), seconds, (), writing=writing)

    def ready_files(
        self, files: Iterable[int], seconds: float | None, connecting: Iterable[int] = (), *, writing: bool = False
    ) -> set[int]:
        """As ``ready``, of descriptors.

        :param seconds: None for as long as it takes.
        :param connecting: descriptors that are waited for until they can be written.
        """
        poll = select.poll()
        poll.register(self.told, select.POLLIN)
        for file in files:
            poll.register(file, select.POLLOUT if writing else select.POLLIN)
        for file in connecting:
            poll.register(file, select.POLLOUT)
        found = {file for file, _ in poll.poll(None if seconds is None else max(0.0, seconds) * 1000)}
        self.check(found)
        return found

    def check(self, found: Iterable[int] | None = None) -> None:
        """
        :param found: what is readable; None to look.
        :raises Interrupted: a signal has come.
        """
        if found is None:
            found, _, _ = select.select([self.told], [], [], 0)
        if self.told in found:
            raise Interrupted(os.read(self.told, 1)[0])

    def received(self, waited: socket.socket, seconds: float) -> Iterator[bytes]:
        """What comes within a time, however much that is.

        :raises OSError: an ICMP error that came for what the socket has sent.
        :raises Interrupted: a signal has come.
        """
        for _ in self.times_ready(waited, seconds):
            yield waited.recv(1 << 16)

    def times_ready(self, waited: socket.socket, seconds: float) -> Iterator[None]:
        """Yield whenever something has come within a time; it is to be read then.

        :raises Interrupted: a signal has come.
        """
        deadline = time.monotonic() + seconds
        while self.ready([waited], deadline - time.monotonic()):
            yield
            if time.monotonic() > deadline:
                return


@contextmanager
def interruptible() -> Iterator[Waiting]:
    """Signals end what waits, and nothing else. Those that are ignored, as under nohup(1), stay so."""
    reading, writing = os.pipe()

    def note(number: int, _: object) -> None:
        os.write(writing, bytes((number,)))

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield Waiting(reading)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
