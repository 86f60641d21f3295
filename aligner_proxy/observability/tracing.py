"""OpenTelemetry spans of a request and of its stages; no-ops if no exporter is set up.

Spans contain ids, names, lengths and reasons, named after the gen_ai conventions. They never contain text, keys,
headers or exception messages. In the gateway, LiteLLM's `otel` callback sets up the provider. The engine is a separate
process and calls `export`. Only the W3C `traceparent` is sent between the two, never a client's baggage.

The stages of the gateway are `upstream` (until the answer is complete), `cache`, `engine` (including queue and network)
and `gate`. Each is a span and is counted in one histogram. The engine times its own stages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from types import TracebackType
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aligner_proxy.errors import ConfigError
from aligner_proxy.observability.metrics import SECONDS

Value = str | int | float | bool | list[str]
_W3C = TraceContextTextMapPropagator()
"""Reads and writes the header `traceparent`."""


class TraceSpan:
    """One open span; in attribute names `__` means a dot, and attributes that are None are left out."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def is_recorded(self) -> bool:
        """Whether somebody sees what is added to the span."""
        return self._span.is_recording()

    def set_attributes(self, **attributes: Value | None) -> None:
        """Add attributes to the span; one that it has already is replaced."""
        if self.is_recorded:
            self._span.set_attributes(_dot_attributes(attributes))

    def add_event(self, name: str, **attributes: Value | None) -> None:
        """Add an event to the span, at the current time."""
        self._span.add_event(name, _dot_attributes(attributes))

    def fail(self, kind: str) -> None:
        """Mark the span as failed; `kind` is a reason or the name of an exception type."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.Status(trace.StatusCode.ERROR))


_NO_SPAN = nullcontext(TraceSpan(trace.INVALID_SPAN))
"""Stands for every span while no provider is set up."""


def span(
    name: str, parent: Context | None = None, *, kind: str = "INTERNAL", **attributes: Value | None
) -> AbstractContextManager[TraceSpan]:
    """Context manager that opens a span, under `parent` (from `context_of` or `extract_context`) or the current span.

    `kind` is OpenTelemetry's kind of span, such as "CLIENT". An exception marks the span as failed, and passes.
    """
    if not parent and not _has_provider():  # a context without a span is empty
        return _NO_SPAN
    return _open_span(name, parent, kind, attributes)


@contextmanager
def _open_span(
    name: str, parent: Context | None, kind: str, attributes: Mapping[str, Value | None]
) -> Iterator[TraceSpan]:
    """Context manager for `span`; of an exception only the type is recorded, since its message may quote a text."""
    with _tracer().start_as_current_span(
        name,
        context=parent,
        kind=trace.SpanKind[kind],
        attributes=_dot_attributes(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as open_span:
        trace_span = TraceSpan(open_span)
        try:
            yield trace_span
        except BaseException as error:
            trace_span.fail(type(error).__name__)
            raise


def record_span(
    name: str, seconds: float, ago: float = 0.0, parent: Context | None = None, **attributes: Value | None
) -> None:
    """Record a span afterwards: it took `seconds` and ended `ago` seconds ago."""
    if not _has_provider():
        return
    end_ns = time.time_ns() - int(ago * 1e9)
    start_ns = end_ns - int(seconds * 1e9)
    past_span = _tracer().start_span(name, context=parent, start_time=start_ns, attributes=_dot_attributes(attributes))
    past_span.end(end_ns)


def current_context() -> Context:
    """The current context, with which another thread can add spans under the current one."""
    return context.get_current()


def context_of(parent: trace.Span | None) -> Context:
    """The context under which child spans of `parent` are opened; without a parent, the current context.

    LiteLLM passes such a span to its hooks.
    """
    return current_context() if parent is None else trace.set_span_in_context(parent)


def propagation_headers() -> dict[str, str]:
    """The HTTP header `traceparent` that identifies the current span; empty without a span."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier


def extract_context(carrier: Mapping[str, str]) -> Context:
    """The context from another process's `propagation_headers`; an invalid traceparent is ignored."""
    return _W3C.extract(carrier)


def export(service: str) -> None:
    """Export this process's spans as the standard OTEL_EXPORTER_OTLP_... variables say.

    `service` is the name of the process, unless an environment variable sets a name. Raises `ConfigError` if
    OpenTelemetry is missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(
            "traces are asked for, but OpenTelemetry is not installed: pip install 'aligner-proxy[otel]'"
        ) from None
    # The name from OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES; without them, the SDK's "unknown_service...".
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@cache
def _tracer() -> trace.Tracer:
    """The package's tracer; it also follows a provider that is set later."""
    return trace.get_tracer("aligner_proxy")


def _has_provider() -> bool:
    """Whether a provider is set up, so that spans are made; without one, a request need not pay for them."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _dot_attributes(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    """The attributes that are not None, with dots in their names."""
    return {name.replace("__", "."): value for name, value in attributes.items() if value is not None}


def stage(name: str, *, kind: str = "INTERNAL", **attributes: Value | None) -> AbstractContextManager[TraceSpan]:
    """Context manager around a stage, failed or not: opens a span, and counts its seconds in the histogram."""
    return _TimedSpan(name, span(f"aligner.{name}", None, kind=kind, **attributes))


class _TimedSpan:
    """Context manager that opens a span, and counts the seconds until it closes in the histogram of stages."""

    def __init__(self, name: str, span: AbstractContextManager[TraceSpan]) -> None:
        self._name = name
        self._span = span
        self._start = 0.0

    def __enter__(self) -> TraceSpan:
        self._start = time.perf_counter()
        return self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return self._span.__exit__(kind, error, traceback)
        finally:
            SECONDS.labels(self._name).observe(time.perf_counter() - self._start)


def record_stage(name: str, seconds: float, parent: Any = None, **attributes: Value | None) -> None:
    """Record the span and duration of a stage that took `seconds` and ends now."""
    SECONDS.labels(name).observe(seconds)
    record_span(f"aligner.{name}", seconds, 0.0, parent, **attributes)
