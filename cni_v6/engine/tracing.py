"""Calls as spans of OpenTelemetry, their steps as child spans: where it is installed, and its environment asks for it.

Nothing of it is imported otherwise. The variables are those of
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and of the OTLP exporter; what is not
read here, such as the sampler, the SDK reads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Thread
from typing import TYPE_CHECKING, Any

from cni_v6 import __version__
from cni_v6.log import QUEUE, Steps
from cni_v6.protocol.invocation import Report, Request

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

NAME = "cni-v6"
PARTS = 200  # child spans of a call, at most: a GC has as many steps as it frees attachments
CLOSE_SECONDS = 2.0  # for a collector, when an engine ends
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP, GRPC = "http/protobuf", "grpc"
INSTALL = "pip install 'cni-v6[tracing]' into the Python that runs the engine"
# Keys of a line of the log, and the attributes that they become; the same names as OpenTelemetry's where it has one.
ATTRIBUTES = {
    "id": "cni.call", "plugin": "cni.plugin", "command": "cni.command", "network": "cni.network",
    "container": "container.id", "ifname": "cni.ifname", "netns": "cni.netns", "addresses": "cni.addresses",
    "warnings": "cni.warnings",
}
POD = ("k8s.namespace.name", "k8s.pod.name")


class Recorded(Steps):
    """Steps that remember when each part of them was. ``parts``: step, begin and end, by the clock."""

    def __init__(self, clock: Any, since: float, step: str) -> None:
        super().__init__(clock, since, step)
        self.parts: list[tuple[str, float, float]] = []

    def switch(self, step: str) -> str:
        began = self._since
        before = super().switch(step)
        self.parts.append((before, began, self._since))
        return before


class Tracing:
    """
    :param provider: gives spans to the exporter.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer(NAME, __version__)
        self._context = TraceContextTextMapPropagator()

    def steps(self, started: float) -> Recorded:
        """The steps of a call that arrived at this time of time.monotonic()."""
        return Recorded(time.monotonic, started, QUEUE)

    def call(self, report: Report, request: Request, said: Mapping[str, Any]) -> None:
        """A call has ended.

        :param said: its line in the log.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        steps = report.steps
        assert isinstance(steps, Recorded)
        past = time.time_ns() - time.monotonic_ns()

        def moment(seconds: float) -> int:
            return past + int(seconds * 1e9)

        given = {key.lower(): request.env[key] for key in ("TRACEPARENT", "TRACESTATE") if key in request.env}
        span = self._tracer.start_span(
            f"{request.plugin} {said.get('command', '')}".rstrip(), self._context.extract(given),
            SpanKind.SERVER, _attributes(said), start_time=moment(steps.parts[0][1]),
        )
        error = said.get("error")
        if error:
            span.set_attribute("error.type", str(error["code"]))
            span.set_status(Status(StatusCode.ERROR, error["msg"]))
        if span.is_recording():
            inside = set_span_in_context(span)
            for step, began, ended in steps.parts[:PARTS]:
                self._tracer.start_span(step, inside, start_time=moment(began)).end(moment(ended))
            if len(steps.parts) > PARTS:
                span.set_attribute("cni.steps_left_out", len(steps.parts) - PARTS)
        span.end(moment(steps.parts[-1][2]))

    def close(self) -> None:
        """Send what has not been sent, if the collector takes it soon.

        One that does not answer would hold an engine that ends for 30 seconds (the SDK's limit), and the next engine
        waits for that.
        """
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def asked(env: Mapping[str, str]) -> bool:
    """Whether an environment asks for spans: by an endpoint, or by the exporter's name."""
    exporter = env.get("OTEL_TRACES_EXPORTER", "")
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter not in ("", "otlp"):
        return False
    return bool(exporter or any(env.get(name) for name in ENDPOINTS))


def start(env: Mapping[str, str]) -> Tracing:
    """What sends spans to where an environment says. A thread of its own sends them, a call waits for nothing.

    :raises ImportError: OpenTelemetry is not installed, or not what the protocol needs.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = env.get("OTEL_SERVICE_NAME") or "service.name=" in env.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {"service.version": __version__, **({} if named else {"service.name": NAME})}
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(env)))
    return Tracing(provider)


def _exporter(env: Mapping[str, str]) -> SpanExporter:
    protocol = next((env[name] for name in PROTOCOLS if env.get(name)), HTTP)
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        exporter: SpanExporter = Grpc()
        return exporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _attributes(said: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: said[key] for key, name in ATTRIBUTES.items() if key in said}
    return found | dict(zip(POD, said.get("pod", "").split("/", 1))) if "/" in said.get("pod", "") else found
