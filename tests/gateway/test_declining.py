"""Answers of which nothing remains, through the hooks: the text in their place, its headers, or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.gateway.test_guardrail import answer, build, data, ledger_of, user
from tests.support.scripted import SegmentEngine

RUDE = "You fool. Get lost, fool."


async def test_what_the_policy_says_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("decline", "block", "original"):
        route = {"match": {}, "objectives": ["harmless"], "if_nothing_remains": setting, "decline": "Not {objective}."}
        guard = build(tmp_path, monkeypatch, {"routes": [route]})
        guard.pipeline = Pipeline(SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0))
        request = data()
        if setting == "block":
            with pytest.raises(Blocked, match="nothing_remains"):
                await guard.async_post_call_success_hook(request, user(), answer(RUDE))
        else:
            got = await guard.async_post_call_success_hook(request, user(), answer(RUDE))
            assert got.choices[0].message.content == ("Not harmless." if setting == "decline" else RUDE)
        headers = ledger_of(request).headers()
        told = {"decline": ("corrected", "declined"), "block": ("failed", "nothing_remains")}
        expected = told.get(setting, ("unchanged", "gate_empty"))
        assert (headers["x-aligner-status"], headers["x-aligner-reason"]) == expected
