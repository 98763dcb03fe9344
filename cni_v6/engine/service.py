"""Handles the calls of an engine's workers: each with its time limits, its line in the log, its answer."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from cni_v6.attachments.context import Context
from cni_v6.engine import handle, tracing
from cni_v6.engine.call_log import CallLog
from cni_v6.engine.delivery import deliver, has_gone
from cni_v6.engine.engine_metrics import EngineMetrics
from cni_v6.engine.handle import Reply
from cni_v6.engine.in_order import InOrder
from cni_v6.engine.incoming import Call
from cni_v6.engine.log_file import RUN_FILE
from cni_v6.engine.metrics import MetricsServer, socket_beside
from cni_v6.engine.watch import Watch
from cni_v6.errors import TRY_AGAIN, CniError
from cni_v6.kernel.deadline import Limits, Patience, Token
from cni_v6.kernel.link_deletion import Reaper
from cni_v6.kernel.linux import LinuxKernel
from cni_v6.kernel.netns.enter import Namespace
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.private_proc import PrivateProc
from cni_v6.leases.disk.known_records import KnownRecords
from cni_v6.log import COMPUTE
from cni_v6.protocol.invocation import Report, Request

CONFIRM_SECONDS = 10.0  # for the caller's confirmation

Handler = Callable[[Request, Context], Reply]


class Service:
    """
    :param path: of the engine's socket. Its folder is the one of what lasts until a reboot.
    :param workers: how many calls can be handled at a time.
    :param metrics: a further socket that listens for who reads the metrics; None for none.
    """

    def __init__(
        self, path: str, handler: Handler, limits: Limits, workers: int, metrics: socket.socket | None
    ) -> None:
        self._run_dir = os.path.dirname(path)
        self._handler = handler
        self._limits = limits
        self._known, self._in_order = KnownRecords(), InOrder()  # before the threads that look at the node
        self._metrics = EngineMetrics(self._context, workers)
        own = os.path.join(self._run_dir, RUN_FILE) if self._run_dir else ""
        self._log = CallLog(own, self._metrics, _tracing())
        self._metrics_server = MetricsServer(socket_beside(path), metrics, self._metrics.text)
        self._watch = Watch(self._context, self._log.say)
        self._reaper = Reaper(self._watch.bridge_deleted, self._watch.port_left)
        self._token = Token()
        self._proc = PrivateProc()

    def close(self) -> None:
        """After the last call."""
        self._metrics_server.close()
        self._reaper.close()
        self._watch.close()
        self._in_order.close()
        self._proc.close()
        self._log.close()

    def refuse(self, call: Call, words: str, remedy: str) -> Reply:
        """The answer to a call that is not begun."""
        report = self._log.begin(call.started)
        error = CniError(TRY_AGAIN, words, remedy)
        return self._log.end(report, call.request, handle.refuse(call.request, error, report))

    def serve(self, call: Call, host: Namespace) -> None:
        """Handle a call and send its answer.

        :param host: the node's own namespace, which the worker keeps open.
        """
        connection = call.connection
        connection.settimeout(CONFIRM_SECONDS)
        if has_gone(connection):
            return
        patience = Patience(self._limits, caller=connection.fileno(), started=call.started)
        if patience.is_over:
            words = f"calls of network {call.network} before this one took {self._limits.work:g} seconds"
            deliver(connection, self.refuse(call, words, "run the command again"))
            return
        reply = self._handle(call, call.request, host, patience, call.started)
        if not deliver(connection, reply) and reply.code == 0:
            self._take_back(call, host)

    def _handle(self, call: Call, request: Request, host: Namespace, patience: Patience, started: float) -> Reply:
        given = {request.env.get("CNI_NETNS", ""): call.netns} if call.netns >= 0 else {}
        spaces = Spaces(host, given, rules_watched=self._watch.is_sure, proc=self._proc)
        report = self._log.begin(started)
        self._metrics.counters.begin()
        try:
            with self._token.held():
                report.steps.switch(COMPUTE)
                context = self._context(LinuxKernel(spaces, self._reaper), patience, report)
                return self._log.end(report, request, self._handler(request, context))
        finally:
            self._metrics.counters.end()
            if spaces.has_elements:
                self._watch.firewall()

    def _context(
        self, kernel: LinuxKernel | None = None, patience: Patience | None = None, report: Report | None = None
    ) -> Context:
        return handle.real_context(kernel, patience, self._run_dir, self._known, report, self._in_order)

    def _take_back(self, call: Call, host: Namespace) -> None:
        """Undo an ADD by a DEL: its caller was gone before the answer, so nobody will use what it made."""
        if call.request.env.get("CNI_COMMAND") == "ADD":
            undo = replace(call.request, env={**call.request.env, "CNI_COMMAND": "DEL"})
            patience = Patience(replace(self._limits, work=self._limits.undo))
            self._handle(call, undo, host, patience, time.monotonic())


def _tracing() -> tracing.Tracing | None:
    """What sends calls as spans, if the engine's environment asks for it. What is missing is no reason to serve nobody.
    """
    if not tracing.asked(os.environ):
        return None
    try:
        return tracing.start(os.environ)
    except ImportError as error:
        print(f"cni-v6 engine: no spans are sent: {error}; {tracing.INSTALL}", file=sys.stderr, flush=True)
        return None
