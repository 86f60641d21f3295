"""One trace from the client through LiteLLM and the guardrail to the engine: three processes and a collector."""

from __future__ import annotations

import gzip
import importlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import deployment
from tests.e2e.clients import Gateway
from tests.e2e.deployment import Deployment
from tests.e2e.processes import scripted_engine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TRACED = Deployment(callbacks=("otel",)).model("gpt")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
WAIT_S = 60.0


@dataclass
class Collector:
    """What was exported, decoded from OTLP over HTTP."""

    address: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def spans(self, trace: str) -> dict[str, Any]:
        """The spans of one trace by name."""
        form = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        exported = [form.ExportTraceServiceRequest.FromString(body) for body in list(self.bodies)]
        groups = [scope for one in exported for resource in one.resource_spans for scope in resource.scope_spans]
        return {span.name: span for group in groups for span in group.spans if span.trace_id.hex() == trace}

    def until(self, trace: str, *names: str) -> dict[str, Any]:
        """The same, as soon as all `names` have come."""
        end = time.monotonic() + WAIT_S
        while not (found := self.spans(trace)).keys() >= set(names):
            assert time.monotonic() < end, sorted(found)
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Somebody who takes traces."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs aligner-proxy[otel]")
    made = Collector()

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                made.bodies.append(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Takes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made.address = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, upstream: str, collector: Collector) -> Iterator[Gateway]:
    """LiteLLM with its otel callback and our guardrail, and an engine that exports, too."""
    folder = tmp_path_factory.mktemp("traced")
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    engine = scripted_engine(folder, "engine", env=endpoint)
    proxy = deployment.proxy(TRACED, folder / "proxy", folder, upstream, engine, guarded=True)
    proxy.process.env |= {**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER": "otlp_http"}
    engine.start()
    proxy.process.start()
    proxy.wait()
    gateway = Gateway(proxy.address)
    yield gateway
    gateway.close()
    proxy.process.stop()
    engine.process.stop()


def sent(trace: str) -> dict[str, str]:
    """A client that has a trace already."""
    return {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}


@pytest.mark.parametrize("stream", [False, True])
def test_our_spans_hang_below_litellms_and_the_engines_below_ours(
    traced: Gateway, collector: Collector, stream: bool
) -> None:
    trace = TRACE[:-1] + str(int(stream))
    got = traced.chat(f"rude traces {stream}", headers=sent(trace), stream=stream)
    assert got.status_code == 200
    names = [f"aligner.{name}" for name in ("upstream", "correct", "align", "engine", "engine.request", "gate")]
    spans = collector.until(trace, *names, "Received Proxy Server Request")
    root = spans["Received Proxy Server Request"].span_id
    assert spans["aligner.upstream"].parent_span_id == root
    assert spans["aligner.correct"].parent_span_id == root
    assert spans["aligner.align"].parent_span_id == spans["aligner.correct"].span_id
    assert spans["aligner.engine"].parent_span_id == spans["aligner.align"].span_id
    assert spans["aligner.engine.request"].parent_span_id == spans["aligner.engine"].span_id


def test_our_spans_hold_no_text_and_no_key(traced: Gateway, collector: Collector, tmp_path: Path) -> None:
    trace = "5" + TRACE[1:]
    traced.chat("rude canary-5521", headers=sent(trace))
    spans = collector.until(trace, "aligner.correct", "aligner.engine.request")
    exported = " ".join(str(span) for name, span in spans.items() if name.startswith("aligner."))
    assert not [secret for secret in ("idiot", "canary-5521", "sk-e2e", "Paris") if secret in exported]
