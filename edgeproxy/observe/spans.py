"""Spans of requests, exported over OTLP/HTTP by OpenTelemetry's own SDK: an extra (``edgeproxy[otel]``).

Rules of this file:

- A span is made of a finished Trace, and only where the request was chosen to be recorded when it came
  (front/traced.py): there is nothing to be done while it is under way, and nothing at all for the others.
- Each is a server's span, with a client's below it where the origin was asked. Their ids are those that the
  origin has been told. The client's is placed behind what was spent on the store and on waiting: a Trace
  holds how long things took, not when they began.
- Names and attributes are OpenTelemetry's for HTTP where there are any; ours begin ``edgeproxy.``. What
  follows a "?" is not told: it may hold secrets.
- Export never holds up a request: a thread sends batches, and what its bounded queue has no room for is lost.
- Headers, certificates and compression of the export are the SDK's own variables (OTEL_EXPORTER_OTLP_HEADERS
  and its kin).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from edgeproxy import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from edgeproxy.clock import Clock
    from edgeproxy.observe.trace import Trace
    from edgeproxy.policy.trace_context import Span

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
"""Others are told as HTTP: what clients make up must not make up names of spans."""
SCHEDULE = 1.0
"""Seconds that a batch waits for more at most."""
PATIENCE = 3
"""Seconds that a collector has for one; the end of a worker may take as long."""
_RECORDED = TraceFlags(TraceFlags.SAMPLED)


class _Given(IdGenerator):
    """Ids that were chosen when the request came."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = ""

    def generate_trace_id(self) -> int:
        return int(self.trace_id, 16)

    def generate_span_id(self) -> int:
        return int(self.span_id, 16)


class Spans:
    """``endpoint``: base URL of a collector, such as http://127.0.0.1:4318. ``name``: service.name."""

    def __init__(self, clock: Clock, endpoint: str, name: str) -> None:
        self._clock = clock
        self._ids = _Given()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # whether it is recorded is known already
            resource=Resource.create({"service.name": name, "service.version": __version__}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=PATIENCE)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=round(SCHEDULE * 1000))
        )
        self._tracer = self._provider.get_tracer("edgeproxy", __version__)

    def finish(self, trace: Trace) -> None:
        """An observer of finished requests."""
        if trace.span is not None:
            self._record(trace, trace.span)

    def _record(self, trace: Trace, span: Span) -> None:
        method = trace.method if trace.method in METHODS else "HTTP"
        end = self._clock.now()
        start = end - trace.seconds
        self._ids.trace_id, self._ids.span_id = span.trace_id, span.span_id
        server = self._tracer.start_span(
            f"{method} {trace.rule}",
            _parent(span),
            SpanKind.SERVER,
            _attributes(trace, method),
            start_time=_nanoseconds(start),
        )
        if trace.status >= 500 or trace.aborted:
            server.set_status(Status(StatusCode.ERROR, trace.reason))
        if trace.forwarded is not None and not trace.collapsed:
            self._ids.span_id = span.fetch_id
            begun = min(start + trace.l2_seconds + trace.queue_seconds, end)
            client = self._tracer.start_span(
                method,
                set_span_in_context(server),
                SpanKind.CLIENT,
                {
                    "http.request.method": method,
                    "http.response.status_code": trace.forwarded_status or trace.status,
                    "edgeproxy.forwarded": trace.forwarded.value if trace.forwarded else "",
                },
                start_time=_nanoseconds(begun),
            )
            if trace.failure is not None:
                client.set_status(Status(StatusCode.ERROR, trace.failure.value))
            client.end(_nanoseconds(min(begun + trace.origin_seconds, end)))
        server.end(_nanoseconds(end))

    def close(self) -> None:
        """Send what is left. Blocks, for as long as the exporter's time limit."""
        self._provider.shutdown()


def _parent(span: Span) -> Context | None:
    if not span.parent_id:
        return None
    context = SpanContext(
        int(span.trace_id, 16), int(span.parent_id, 16), is_remote=True, trace_flags=_RECORDED
    )
    return set_span_in_context(NonRecordingSpan(context))


def _attributes(trace: Trace, method: str) -> dict[str, str | int | bool]:
    told: dict[str, str | int | bool] = {
        "http.request.method": method,
        "url.path": trace.target.partition("?")[0],
        "server.address": trace.host,
        "client.address": trace.client,
        "http.response.status_code": trace.status,
        "http.response.body.size": trace.bytes_out,
        "edgeproxy.rule": trace.rule,
        "edgeproxy.cache": trace.word.value,
        "edgeproxy.tier": trace.tier.value,
        "edgeproxy.request_id": trace.request_id,
        "edgeproxy.collapsed": trace.collapsed,
        "edgeproxy.stored": trace.stored,
    }
    if trace.reason:
        told["edgeproxy.reason"] = trace.reason
    return told


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
