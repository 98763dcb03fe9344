"""The log of calls: a line of JSON for each, in the engine's own file, the configuration's, and the journal."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cni_v6.engine import call_line, handle, log_file
from cni_v6.engine.handle import Reply
from cni_v6.log import COMPUTE, QUEUE, Steps
from cni_v6.protocol.invocation import MAIN, Report, Request

if TYPE_CHECKING:
    from cni_v6.engine.engine_metrics import EngineMetrics
    from cni_v6.engine.tracing import Tracing


class CallLog:
    """
    :param path: of the engine's own file; "" for none.
    :param metrics: of the engine; None without one.
    :param tracing: is given the calls as spans; None for nobody.
    """

    def __init__(self, path: str, metrics: EngineMetrics | None = None, tracing: Tracing | None = None) -> None:
        self._path = path
        self._metrics = metrics
        self._tracing = tracing
        self._journal = _journal() if metrics else None

    def begin(self, started: float) -> Report:
        """The report of a call that arrived at this time of time.monotonic()."""
        steps = self._tracing.steps(started) if self._tracing else Steps(time.monotonic, started, QUEUE)
        return Report(os.urandom(4).hex(), steps)

    def end(self, report: Report, request: Request, reply: Reply) -> Reply:
        """Write the line of a call.

        :returns: the reply; with a warning if the file of the configuration cannot be written.
        """
        report.steps.switch(QUEUE)
        if self._metrics:
            self._metrics.call(report, request)
        said = call_line.document(report, request, now(), os.getpid())
        if said is None:
            return reply
        line = call_line.encode(said)
        self._own(line)
        if self._tracing:
            self._tracing.call(report, request, said)
        if self._journal:
            with suppress(OSError):  # it takes no more at present: a call does not wait for a logger
                self._journal.send(line, socket.MSG_DONTWAIT)
        path = call_line.path_of(request, MAIN)
        if not path:
            return reply
        try:
            log_file.append(path, line)
            return reply
        except OSError as error:
            words = f"{request.plugin}: warning: cannot write log {path}: {error.strerror or error}\n"
            return replace(reply, stderr=reply.stderr + words)

    def say(self, words: str) -> None:
        """Something that the engine does by itself, between calls: it has no caller to tell."""
        print(f"cni-v6 engine: {words}", file=sys.stderr, flush=True)
        if self._metrics:
            self._metrics.counters.event()
        self._own(call_line.encode(call_line.event(words, now(), os.getpid())))

    def close(self) -> None:
        """After the last call."""
        if self._tracing:
            self._tracing.close()

    def _own(self, line: bytes) -> None:
        """Write to the engine's file. One that cannot be written is no reason to fail."""
        if self._path:
            try:
                log_file.append(self._path, line, log_file.RUN_BYTES)
            except OSError:
                if self._metrics:
                    self._metrics.counters.lose()


def handle_logged(request: Request) -> Reply:
    """Handle a call in this process, with its line in the file of the configuration."""
    log = CallLog("")
    report = log.begin(time.monotonic())
    report.steps.switch(COMPUTE)
    return log.end(report, request, handle.handle(request, report=report))


def now() -> str:
    """The time in UTC, as RFC 3339 has it."""
    seconds = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1e6):06d}Z"


def _journal() -> socket.socket | None:
    """The journal, if standard error leads there: systemd.exec(5), $JOURNAL_STREAM."""
    with suppress(OSError, ValueError):
        found = os.fstat(2)
        if os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}" and stat.S_ISSOCK(found.st_mode):
            return socket.socket(fileno=os.dup(2))
    return None
