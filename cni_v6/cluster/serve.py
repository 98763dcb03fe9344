"""Runs the agent: a step at the start, one whenever the store, the kernel or the leases have news, one after a failure,
and one when the agent itself has something to do later."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from cni_v6.cluster.agent import Agent, Outcome

PAUSE_SECONDS = 0.05  # after a step: what changes meanwhile is looked at once, and nobody can keep the agent busy
# After a step in which something failed, as nobody tells when it would succeed. Each failure doubles the time.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
LONGEST_SECONDS = 86400.0  # poll(2) takes no more than 24 days; a step that comes early does nothing
ENDING = (signal.SIGTERM, signal.SIGINT)


class Source(Protocol):
    """Something with news."""

    def fileno(self) -> int: ...

    def drain(self) -> bool: ...


def serve(agent: Agent, sources: Sequence[Source], after: Callable[[Outcome], None] = lambda _: None) -> int:
    """Run until a signal ends it, or until the node is removed from the cluster; the exit status.

    Routes and configuration stay as they are when it ends: containers go on while the agent is replaced.

    :param after: is told of each step.
    :raises CniError: as ``Agent.step``.
    """
    with _signals() as ended:
        waiting = select.poll()
        for source in sources:
            waiting.register(source.fileno(), select.POLLIN)
        waiting.register(ended, select.POLLIN)
        told, retry = False, FIRST_RETRY_SECONDS
        while True:
            outcome = agent.step()
            after(outcome)
            if outcome.removed:
                return 0
            if outcome.ready and not told:
                notify("READY=1")
                told = True
            retry = FIRST_RETRY_SECONDS if outcome.complete else retry
            times = [] if outcome.complete else [retry]
            times += [] if outcome.again is None else [outcome.again]
            if _wait(waiting, sources, ended, min((*times, LONGEST_SECONDS)) if times else None):
                notify("STOPPING=1")
                return 0
            retry = FIRST_RETRY_SECONDS if outcome.complete else min(2 * retry, LAST_RETRY_SECONDS)


def notify(text: str) -> None:
    """Tell the service manager (sd_notify(3)), where there is one."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        address = "\0" + path[1:] if path.startswith("@") else path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
            opened.sendto(text.encode(), address)


def _wait(waiting: select.poll, sources: Sequence[Source], ended: int, seconds: float | None) -> bool:
    """Wait for news, at most so many seconds; whether the agent shall end."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    if select.select([ended], [], [], PAUSE_SECONDS)[0]:
        return True
    while True:
        left = max(0.0, end - time.monotonic())  # whatever comes that is of no importance, it does not begin anew
        ready = {descriptor for descriptor, _ in waiting.poll(None if left == math.inf else left * 1000)}
        if ended in ready:
            return True
        news = [source.drain() for source in sources if source.fileno() in ready]
        if any(news) or time.monotonic() >= end:
            return False


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that can be read when a signal asks the agent to end."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, lambda *_: None) for number in ENDING}
    woken = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
