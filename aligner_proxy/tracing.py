"""How do the spans of one request hang together? OpenTelemetry where it is installed, nothing where it is not.

Spans carry ids, names, lengths and reasons (the gen_ai conventions name them), never text, keys, headers or the message
of an exception. In the gateway the provider is whatever LiteLLM's `otel` callback has set up; the engine, a process of
its own, calls `export`. Between the two only W3C `traceparent` travels; a client's baggage stays where it is.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from aligner_proxy.errors import ConfigError

Value = str | int | float | bool | list[str]
_NAME = "aligner_proxy"


def _module(name: str) -> Any:
    """A module of OpenTelemetry, or None: nothing here may need it."""
    try:
        return importlib.import_module(f"opentelemetry.{name}")
    except ImportError:
        return None


_trace, _context = _module("trace"), _module("context")
_w3c = _module("trace.propagation.tracecontext")


class Told:
    """What is said about one span while it lasts. Without OpenTelemetry it is said to nobody."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: Value | None) -> None:
        """Attributes, `__` for a dot; what is None is left out."""
        if self._span is not None:
            self._span.set_attributes(_dotted(attributes))

    def event(self, name: str, **attributes: Value | None) -> None:
        """Something that happened at this moment."""
        if self._span is not None:
            self._span.add_event(name, _dotted(attributes))

    def fail(self, kind: str) -> None:
        """It did not succeed; `kind` is a reason or the name of a type."""
        if self._span is not None:
            self._span.set_attribute("error.type", kind)
            self._span.set_status(_trace.Status(_trace.StatusCode.ERROR))


@contextmanager
def span(name: str, parent: Any = None, *, kind: str = "INTERNAL", **attributes: Value | None) -> Iterator[Told]:
    """A span for as long as the block runs, under `parent` (of `under` or `received`) or whatever span is open here."""
    if _trace is None:
        yield Told()
        return
    # An exception's message may quote the text: only its type is kept.
    with _tracer().start_as_current_span(
        name,
        context=parent,
        kind=_trace.SpanKind[kind],
        attributes=_dotted(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as open_span:
        told = Told(open_span)
        try:
            yield told
        except BaseException as error:
            told.fail(type(error).__name__)
            raise


def lasted(name: str, seconds: float, ago: float = 0.0, parent: Any = None, **attributes: Value | None) -> None:
    """A span that is over: it took `seconds` and ended `ago` seconds before now."""
    if _trace is None:
        return
    end = time.time_ns() - int(ago * 1e9)
    made = _tracer().start_span(
        name, context=parent, start_time=end - int(seconds * 1e9), attributes=_dotted(attributes)
    )
    made.end(end)


def here() -> Any:
    """The present context, to hang spans below it from another thread."""
    return None if _context is None else _context.get_current()


def under(parent: Any) -> Any:
    """The context of a span that somebody else holds (LiteLLM hands one to its hooks), else the present one."""
    return here() if _trace is None or parent is None else _trace.set_span_in_context(parent)


def headers() -> dict[str, str]:
    """What carries the present span over HTTP; empty where there is none."""
    carried: dict[str, str] = {}
    if _w3c is not None:
        _w3c.TraceContextTextMapPropagator().inject(carried)
    return carried


def received(given: Mapping[str, str]) -> Any:
    """The context that another process sent with `headers`; what is no traceparent counts as none."""
    return None if _w3c is None else _w3c.TraceContextTextMapPropagator().extract(given)


def export(service: str) -> None:
    """Send the spans of this process where the standard OTEL_EXPORTER_OTLP_... variables say."""
    sdk, exporter = _module("sdk.trace"), _module("exporter.otlp.proto.http.trace_exporter")
    resources, batch = _module("sdk.resources"), _module("sdk.trace.export")
    if sdk is None or exporter is None:
        raise ConfigError("traces are asked for, but OpenTelemetry is not installed: pip install 'aligner-proxy[otel]'")
    # What stands in OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES goes before our own name.
    ours = resources.Resource({"service.name": service})
    told = resources.Resource.create()
    unnamed = str(told.attributes.get("service.name", "")).startswith("unknown_service")
    provider = sdk.TracerProvider(resource=told.merge(ours) if unnamed else told)
    provider.add_span_processor(batch.BatchSpanProcessor(exporter.OTLPSpanExporter()))
    _trace.set_tracer_provider(provider)


@cache
def _tracer() -> Any:
    """Found once; a provider that is set afterwards is found through it, too."""
    return _trace.get_tracer(_NAME)


def _dotted(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name.replace("__", "."): value for name, value in attributes.items() if value is not None}
