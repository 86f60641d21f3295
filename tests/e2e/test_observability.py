"""What the operator sees: metrics under /metrics without a licence, and logs without a word of the conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_metrics_are_served_by_the_proxy(gateway: Any) -> None:
    gateway.chat("rude metrics")
    text = gateway.http.get("/metrics/").text
    assert 'aligner_outcomes_total{policy="all",reason="",status="corrected"}' in text
    assert 'aligner_segments_total{flagged="true"}' in text
    assert "aligner_latency_seconds_bucket" in text


def test_metrics_are_for_the_operator(gateway: Any, tenants: Any) -> None:
    assert httpx.get(f"{gateway.address}/metrics/", trust_env=False).status_code == 401
    assert tenants["acme"].http.get("/metrics/").status_code in (401, 403)


def test_logs_hold_no_text_and_no_key(gateway: Any, tenants: Any, folder: Path) -> None:
    tenants["acme"].chat("rude logs", headers={"x-aligner-objectives": "concise"})
    tenants["acme"].chat_stream("slow logs", model="hasty")
    said = (folder / "guarded.log").read_text()
    for secret in ("You are an idiot", "capital of France", "key-acme-1", "sk-e2e"):
        assert secret not in said
