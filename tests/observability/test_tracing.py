"""Spans: one trace across gateway and engine, phases where they happened, and nothing at all without OpenTelemetry."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.request_state import Arrival, RequestState
from aligner_proxy.observability import tracing
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, Objective, Policy, Turn
from tests.engine.server.test_app import serving
from tests.support import tiny
from tests.support.harness import correct_one

POLICY = Policy("traced", (Objective("kind", tiny.OBJECTIVES[0]),), caution=-1e9)
SECRETS = ("harbour", "fool", "coat", "avoid insults")


class Kept:
    """Exports into a list."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def named(self, name: str) -> Any:
        """The one span of a name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture(scope="module")
def provider() -> Kept:
    """OpenTelemetry's SDK, with an exporter that keeps everything; a process has one provider for good."""
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="needs aligner-proxy[otel]")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    api = importlib.import_module("opentelemetry.trace")
    kept = Kept()

    class Exporter(export.SpanExporter):  # type: ignore[misc,name-defined]
        def export(self, spans: Any) -> Any:
            kept.spans += spans
            return export.SpanExportResult.SUCCESS

    made = trace.TracerProvider()
    made.add_span_processor(export.SimpleSpanProcessor(Exporter()))
    api.set_tracer_provider(made)
    return kept


@pytest.fixture
def kept(provider: Kept) -> Kept:
    """What this test traces."""
    provider.spans.clear()
    return provider


async def settled(path: Path, *, read: bool = False) -> None:
    """One answer corrected by a real engine behind a real socket, under a span that LiteLLM would have made."""
    engine = LocalEngine(tiny.aligner)
    asked = Exchange("call-1", 0, (Turn("user", "When does the harbour open?"),), tiny.ANSWER)
    with tracing.span("litellm", kind="SERVER"):
        ledger = RequestState("call-1", POLICY, "tiny", Arrival(trace=tracing.current_context()))
    async with serving(engine, path) as client:
        await engine.start()
        pipeline = Pipeline(client)
        reading = await pipeline.read(asked, POLICY) if read else None
        if reading is not None:
            for i in range(0, len(tiny.ANSWER), 30):
                await reading.feed(tiny.ANSWER[i : i + 30])
                await asyncio.sleep(0.02)
        metrics.record_upstream_end(ledger)
        with tracing.span("aligner.correct", ledger.arrival.trace):
            await correct_one(pipeline, asked, POLICY, reading)
    await engine.aclose()


async def test_one_trace_from_litellms_span_to_the_engines_phases(kept: Kept, tmp_path: Path) -> None:
    await settled(tmp_path / "engine.sock")
    names = ["upstream", "correct", "align", "engine", "engine.request", "queue", "prefill", "generate", "gate"]
    spans = {name: kept.named(f"aligner.{name}") for name in names}
    assert len({span.context.trace_id for span in spans.values()}) == 1
    parents = {
        "upstream": kept.named("litellm"),
        "correct": kept.named("litellm"),
        "align": spans["correct"],
        "engine": spans["align"],
        "engine.request": spans["engine"],
        "queue": spans["engine.request"],
        "prefill": spans["engine.request"],
        "generate": spans["engine.request"],
        "gate": spans["align"],
    }
    for name, parent in parents.items():
        assert spans[name].parent.span_id == parent.context.span_id, name
    assert spans["queue"].end_time <= spans["prefill"].start_time + 1_000_000
    assert spans["prefill"].end_time <= spans["generate"].start_time + 1_000_000
    assert spans["align"].attributes["aligner.policy"] == "traced"
    assert spans["prefill"].attributes["gen_ai.usage.input_tokens"] > 0


async def test_what_the_detector_said_is_an_evaluation(kept: Kept, tmp_path: Path) -> None:
    await settled(tmp_path / "engine.sock")
    (event,) = kept.named("aligner.align").events
    assert event.name == "gen_ai.evaluation.result"
    assert event.attributes["gen_ai.evaluation.name"] == "kind"
    assert isinstance(event.attributes["gen_ai.evaluation.score.value"], float)


async def test_what_was_read_along_is_a_span_of_its_own(kept: Kept, tmp_path: Path) -> None:
    await settled(tmp_path / "engine.sock", read=True)
    along = kept.named("aligner.read_along")
    prefill = kept.named("aligner.prefill")
    assert along.end_time <= prefill.end_time
    assert along.start_time < prefill.start_time


async def test_no_span_holds_a_word_of_the_conversation(kept: Kept, tmp_path: Path) -> None:
    await settled(tmp_path / "engine.sock")
    said = " ".join(span.to_json() for span in kept.spans)
    assert not [secret for secret in SECRETS if secret in said]


def test_an_exception_leaves_its_type_and_not_its_words(kept: Kept) -> None:
    with contextlib.suppress(ValueError), tracing.span("broken"):
        raise ValueError("the harbour opens at six")
    span = kept.named("broken")
    assert span.attributes["error.type"] == "ValueError"
    assert "harbour" not in span.to_json()


def test_a_clients_baggage_is_not_passed_on(kept: Kept) -> None:
    sent = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "baggage": "secret=1"}
    with tracing.span("inner", tracing.extract_context(sent)):
        passed = tracing.propagation_headers()
    assert passed["traceparent"].split("-")[1] == "ab" * 16
    assert "baggage" not in passed


@pytest.mark.parametrize("odd", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 9999])
def test_an_odd_traceparent_counts_as_none(kept: Kept, odd: str) -> None:
    with tracing.span("inner", tracing.extract_context({"traceparent": odd})):
        pass
    assert kept.named("inner").parent is None


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process as it is where OpenTelemetry's SDK is not installed."""
    for name in [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.setattr(tracing, "_tracer", trace.NoOpTracer)


@pytest.mark.usefixtures("without")
def test_without_an_sdk_nothing_is_traced_and_nothing_fails() -> None:
    with tracing.span("aligner.align", tracing.context_of(None), aligner__choice=0) as span:
        span.set_attributes(a=1)
        span.add_event("b", c=2)
        span.fail("timeout")
        assert tracing.propagation_headers() == {}
    tracing.record_span("aligner.gate", 1.0)
    with pytest.raises(ConfigError, match=r"aligner-proxy\[otel\]"):
        tracing.export("engine")
