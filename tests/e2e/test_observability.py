"""What the operator sees: metrics under /metrics without a licence, and logs without a word of the conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED


def test_metrics_are_served_by_the_proxy(gateway: Any) -> None:
    gateway.chat("rude metrics")
    text = gateway.http.get("/metrics/").text
    assert 'aligner_outcomes_total{model="gpt",policy="all",reason="",status="corrected",tenant="master"}' in text
    assert 'aligner_segments_total{flagged="true"}' in text
    assert "aligner_latency_seconds_bucket" in text
    for stage in ("upstream", "cache", "engine", "gate"):
        assert f'aligner_stage_seconds_count{{stage="{stage}"}}' in text
    assert "aligner_engine_up 1.0" in text


def test_metrics_are_for_the_operator(gateway: Any, tenants: Any) -> None:
    assert httpx.get(f"{gateway.address}/metrics/", trust_env=False, verify=False).status_code == 401
    assert tenants["acme"].http.get("/metrics/").status_code in (401, 403)


def test_logs_hold_no_text_and_no_key(gateway: Any, tenants: Any, folder: Path) -> None:
    """Whatever happens to a request: corrected, blocked, too slow, refused, unknown, on every endpoint."""
    acme = tenants["acme"]
    canary = "canary-9184-in-the-coal-mine"
    headers = {"x-aligner-objectives": "concise", "x-canary": canary}
    acme.chat(f"rude {canary}", headers=headers, metadata={"note": canary})
    acme.chat_stream(f"slow {canary}", model="hasty")
    acme.chat(f"slow {canary}", model="strict")
    acme.chat(f"gate {canary}")
    acme.chat(f"error {canary}")
    acme.chat_stream(f"break {canary}")
    acme.respond(f"rude {canary}")
    acme.message_stream(f"rude {canary}")
    acme.complete(f"rude {canary}")
    acme.chat(f"rude {canary}", headers={"x-aligner-objectives": canary})
    logged = gateway.log.read_text() + (folder / "engine.log").read_text()
    for secret in ("You are an idiot", "capital of France", "key-acme-1", "sk-e2e", canary):
        assert secret not in logged, secret


def test_every_choice_is_one_line_of_json(gateway: Any) -> None:
    call_id = gateway.chat("rude outcome").headers["x-litellm-call-id"]
    lines = [line for line in gateway.log.read_text().splitlines() if call_id in line]
    (outcome,) = [line for line in map(json.loads, lines) if line.get("logger") == "aligner_proxy.outcome"]
    assert (outcome["event"], outcome["call_id"], outcome["status"]) == ("aligner_outcome", call_id, "corrected")
    assert (outcome["level"], outcome["segments"], outcome["flagged"]) == ("info", 1, 1)
