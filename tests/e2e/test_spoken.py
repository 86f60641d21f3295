"""Answers in a language that the aligner does not know, through the real proxy: said, edited, or kept back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.clients import Gateway
from tests.e2e.scripted_answers import FOREIGN
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED


def align(client: Gateway, answer: str, model: str = "gpt") -> Any:
    messages = [{"role": "user", "content": "foreign"}]
    return client.http.post("/v1/align", json={"messages": messages, "answer": answer, "model": model})


def test_it_is_said(gateway: Gateway) -> None:
    got = gateway.chat("foreign")
    told = (got.headers["x-aligner-status"], got.headers["x-aligner-reason"])
    assert (told, got.json()["choices"][0]["message"]["content"]) == (("not_judged", "language"), FOREIGN)
    assert gateway.chat_stream("foreign").comments[-1] == ": aligner status=not_judged reason=language"
    assert align(gateway, FOREIGN).json()["status"] == "not_judged"
    counted = gateway.http.get("/metrics/", follow_redirects=True).text
    assert 'policy="all",reason="language",status="not_judged",tenant="master"}' in counted


@pytest.mark.parametrize("script", ["foreign", "foreign_rude"])
def test_a_route_may_keep_it_back(gateway: Gateway, script: str) -> None:
    got = gateway.chat(script, "known-languages")
    assert (got.status_code, got.json()["error"]["type"]) == (422, "aligner_error")
    assert align(gateway, FOREIGN, "known-languages").status_code == 422
    for model in ("known-languages", "known-languages-released"):
        stream = gateway.chat_stream(script, model=model)
        assert "aligner_error" in stream.raw
        assert "Kessel" not in stream.raw
    assert gateway.chat("good", "known-languages").headers["x-aligner-status"] == "unchanged"
    assert gateway.chat_stream("good", model="known-languages-released").text() != ""
