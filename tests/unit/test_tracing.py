"""Calls as spans: in whose trace, how long each step took, and that they arrive where the environment says."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cni_v6 import __version__, errors
from cni_v6.engine import handle, tracing
from cni_v6.engine.call_log import CallLog
from cni_v6.log import COMPUTE
from cni_v6.protocol.invocation import Request
from tests.unit.fake_context import CONFIG, FakeContext

ROOT = Path(__file__).resolve().parents[2]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PATIENCE = 20  # seconds, for what needs none
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Traced:
    """Calls of a fake node, and the spans that they make."""

    def __init__(self) -> None:
        self.fake = FakeContext()
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.log = CallLog("", tracing=tracing.Tracing(provider))

    def spans(self, command: str, container: str = "c1", **env: str) -> list[ReadableSpan]:
        """The spans of a call, those that end first before the others: the steps, then the call."""
        self._exporter.clear()
        call(self.log, self.fake, command, container, **env)
        return list(self._exporter.get_finished_spans())


def call(log: CallLog, fake: FakeContext, command: str, container: str, **env: str) -> None:
    variables = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
    if command not in ("STATUS", "VERSION"):
        variables |= {"CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_NETNS": fake.container(container)}
    request = Request("cni-v6", variables | env, json.dumps(CONFIG).encode())
    report = log.begin(time.monotonic())
    report.steps.switch(COMPUTE)
    log.end(report, request, handle.handle(request, replace(fake.context(), report=report)))


class Stuck(TracerProvider):
    """Its collector does not answer. ``freed``: whether it was not waited for; None while it waits."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.answers = threading.Event()
        self.freed: bool | None = None

    def shutdown(self) -> None:
        self.freed = self.answers.wait(PATIENCE)


def test_an_engine_ends_though_the_collector_does_not_answer() -> None:
    stuck, before = Stuck(), set(threading.enumerate())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "CLOSE_SECONDS", 0.05)
        tracing.Tracing(stuck).close()
    assert stuck.freed is None
    stuck.answers.set()
    for closing in set(threading.enumerate()) - before:
        closing.join()
    assert stuck.freed


def test_the_steps_are_child_spans_in_the_runtimes_trace() -> None:
    pod = "K8S_POD_NAMESPACE=web;K8S_POD_NAME=a-1;IgnoreUnknown=1"
    *steps, span = Traced().spans("ADD", TRACEPARENT=TRACEPARENT, CNI_ARGS=pod)
    assert span.context and span.parent and span.start_time and span.end_time
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert (span.name, span.kind, span.status.status_code) == ("cni-v6 ADD", SpanKind.SERVER, StatusCode.UNSET)
    found = dict(span.attributes or {})
    assert len(str(found.pop("cni.call"))) == 8 and str(found.pop("cni.netns")).startswith("/run/netns/")
    assert "ingress" in str(found.pop("cni.warnings"))
    assert found == {
        "cni.plugin": "cni-v6", "cni.command": "ADD", "cni.network": "pods", "container.id": "c1", "cni.ifname": "eth0",
        "cni.addresses": ("2001:db8:1::2", "10.1.0.2"), "k8s.namespace.name": "web", "k8s.pod.name": "a-1",
    }
    assert {"queue", "compute", "observe", "lock", "store", "apply"} == {step.name for step in steps}
    assert all(step.parent == span.context for step in steps)
    times = [(step.start_time or 0, step.end_time or 0) for step in steps]
    assert abs(times[0][0] - span.start_time) < 2 and abs(times[-1][1] - span.end_time) < 2
    for (began, ended), (next_began, _) in zip(times, times[1:]):
        assert began <= ended and abs(next_began - ended) < 2, "one after the other, without a gap"


def test_an_error_is_the_spans_status() -> None:
    traced = Traced()
    traced.spans("ADD")
    *_, span = traced.spans("ADD")
    assert span.parent is None, "a trace of its own, since the runtime has none"
    assert span.status.status_code is StatusCode.ERROR and "already" in str(span.status.description)
    assert (span.attributes or {})["error.type"] == str(errors.ALREADY_ATTACHED)


def test_a_runtime_that_does_not_sample_gets_no_span() -> None:
    assert Traced().spans("ADD", TRACEPARENT=TRACEPARENT[:-2] + "00") == []


def test_a_healthy_status_is_no_span() -> None:
    """Runtimes ask every few seconds, as for the log."""
    assert Traced().spans("STATUS") == []


def test_a_call_has_a_bound_of_spans() -> None:
    traced = Traced()
    report = traced.log.begin(time.monotonic())
    for _ in range(300):
        report.steps.switch(COMPUTE)
    exporter = traced._exporter
    traced.log.end(report, Request("cni-v6", {"CNI_COMMAND": "GC"}, b""), handle.Reply())
    *steps, span = exporter.get_finished_spans()
    assert len(steps) == tracing.PARTS and (span.attributes or {})["cni.steps_left_out"] == 301 - tracing.PARTS


@pytest.mark.parametrize(("env", "expected"), [
    ({}, False), ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:4318"}, True), ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
    ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1]/t"}, True), ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]", "OTEL_SDK_DISABLED": "True"}, False),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]", "OTEL_TRACES_EXPORTER": "none"}, False),
    ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://[::1]"}, False),
])
def test_who_asks(env: Mapping[str, str], expected: bool) -> None:
    assert tracing.asked(env) == expected


@contextmanager
def collector() -> Iterator[tuple[str, Queue[tuple[str, ExportTraceServiceRequest]]]]:
    """Receives spans as OTLP over HTTP: its address, and what arrives."""
    arrived: Queue[tuple[str, ExportTraceServiceRequest]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.put((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_spans_arrive_where_the_environment_says() -> None:
    with collector() as (address, arrived), pytest.MonkeyPatch.context() as patch:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_RESOURCE_ATTRIBUTES": "host.name=node-7"}
        for name, value in env.items():
            patch.setenv(name, value)  # the SDK reads them
        log = CallLog("", tracing=tracing.start(env))
        call(log, FakeContext(), "ADD", "c1", TRACEPARENT=TRACEPARENT)
        log.close()
        path, request = arrived.get(timeout=30)
    [found] = request.resource_spans
    resource = {item.key: item.value.string_value for item in found.resource.attributes}
    assert path == "/v1/traces" and resource.items() >= {
        "service.name": "cni-v6", "service.version": __version__, "host.name": "node-7"}.items()
    spans = {span.name: span for scope in found.scope_spans for span in scope.spans}
    assert spans["cni-v6 ADD"].trace_id.hex() == TRACE and spans["cni-v6 ADD"].parent_span_id.hex() == PARENT
    assert spans["apply"].parent_span_id == spans["cni-v6 ADD"].span_id


def test_the_service_has_the_name_that_it_is_given() -> None:
    with collector() as (address, arrived), pytest.MonkeyPatch.context() as patch:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{address}/here", "OTEL_SERVICE_NAME": "network"}
        for name, value in env.items():
            patch.setenv(name, value)
        log = CallLog("", tracing=tracing.start(env))
        call(log, FakeContext(), "ADD", "c1")
        log.close()
        path, request = arrived.get(timeout=30)
    named = [item.value.string_value for item in request.resource_spans[0].resource.attributes
             if item.key == "service.name"]
    assert (path, named) == ("/here", ["network"])


def test_an_engine_that_nobody_asks_for_spans_imports_nothing_of_it() -> None:
    program = f"import sys; sys.path[:0] = {[str(ROOT), sysconfig.get_path('purelib')]!r}\n" + (
        "import cni_v6.engine.server, cni_v6.engine.service as service\n"
        "assert service._tracing() is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-ISE", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_is_not_installed_is_said_and_no_hindrance() -> None:
    """The engine's Python has no such package: make install copies none."""
    program = f"import os, sys; sys.path[:0] = {[str(ROOT), sysconfig.get_path('purelib')]!r}\n" + (
        "sys.modules['opentelemetry'] = None\n"
        "os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://[::1]:4318'\n"
        "import cni_v6.engine.service as service\n"
        "assert service._tracing() is None"
    )
    done = subprocess.run([sys.executable, "-ISE", "-c", program], capture_output=True, text=True, check=True)
    assert "no spans are sent: " in done.stderr and "pip install 'cni-v6[tracing]'" in done.stderr
