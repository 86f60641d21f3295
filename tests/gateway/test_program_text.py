"""Whole answers that a program reads, through the hooks as LiteLLM calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.test_guardrail import POLICIES, answer, build, data, ledger_of, opened, user
from tests.text.programs import CALLS, DATA, PROSE

ON_SKIP: dict[str, Any] = {"defaults": {"on_skip": {"tool_calls": "passthrough"}}}


async def test_whole_answers_for_programs_are_the_same_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = build(tmp_path, monkeypatch, POLICIES | ON_SKIP)
    begun = [{"role": "user", "content": "When?"}, {"role": "assistant", "content": '{"answer": "'}]
    cases: list[tuple[str, dict[str, Any], str]] = [
        (f"{CALLS['cline']}\nIt goes on. You fool.", {}, "tool_calls"),
        (DATA["commas, quoted"].replace("You fool.", "So. You fool."), {}, "structured_output"),
        ('It opens at nine. You fool."}', {"messages": begun}, "structured_output"),
    ]
    for text, fields, reason in cases:
        request = data() | fields
        response = answer(text)
        ledger = await opened(guard, request)
        assert await guard.async_post_call_success_hook(request, user(), response) is response
        assert ledger.headers()["x-aligner-status"] == "skipped"
        assert ledger.headers()["x-aligner-reason"] == reason


async def test_prose_with_a_fenced_call_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = build(tmp_path, monkeypatch, POLICIES | ON_SKIP)
    request = data()
    await opened(guard, request)
    response = answer(f"{PROSE['fenced call']} You fool.")
    edited = await guard.async_post_call_success_hook(request, user(), response)
    assert edited.choices[0].message.content == PROSE["fenced call"]
    assert ledger_of(request).headers()["x-aligner-status"] == "corrected"
