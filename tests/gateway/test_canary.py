"""Several aligners for one policy: shares drawn by conversation, told in the header, the record and the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy import shares
from aligner_proxy.types import Turn
from tests.gateway.test_guardrail import POLICIES, answer, build, data, user
from tests.support.scripted import SCRIPTED, ScriptedEngine

ABOUT = SCRIPTED.model_copy(update={"others": {"acme-2": SCRIPTED.model_copy(update={"content_hash": "acme-2"})}})
ADAPTERS = {"adapters": {"acme-2": "./acme-2"}}


def of(policies: dict[str, Any]) -> dict[str, Any]:
    return POLICIES | {"aligner": ADAPTERS, "defaults": policies, "trust": {}}


def asking(question: str, *later: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}]
    for text in later:
        turns += [{"role": "assistant", "content": "So."}, {"role": "user", "content": text}]
    return data() | {"messages": turns}


def counted(name: str, **labels: str) -> float:
    """The sum of a counter over all labels but these."""
    samples = (sample for metric in REGISTRY.collect() for sample in metric.samples if sample.name == name)
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


async def completed(guard: AlignerGuardrail, request: dict[str, Any]) -> dict[str, str]:
    await guard.async_pre_call_hook(user(), None, request, "acompletion")
    response = answer("It is so. You fool.")
    corrected = await guard.async_post_call_success_hook(request, user(), response)
    headers = await guard.async_post_call_response_headers_hook(request, user(), corrected)
    assert headers is not None
    return headers


async def test_a_conversation_stays_with_its_aligner_and_everything_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = build(tmp_path, monkeypatch, of({"aligner": {"default": 50, "acme-2": 50}}))
    before = {name: counted("aligner_by_aligner_total", aligner=name) for name in ("default", "acme-2")}
    models = {}
    told: list[str] = []

    def polite(request: AlignRequest) -> str:
        told.append(request.aligner)
        return request.answer.replace(" You fool.", "")

    guard.pipeline = Pipeline(ScriptedEngine(polite, about=ABOUT), extensions=guard.pipeline.extensions)
    for n in range(12):
        early = (await completed(guard, asking(f"Question {n}?")))["x-aligner-model"]
        late = (await completed(guard, asking(f"Question {n}?", f"And {n}?")))["x-aligner-model"]
        assert early == late
        models[n] = early
    assert set(models.values()) == {"embedded", "acme-2"}
    assert told == [("default" if models[n] == "embedded" else "acme-2") for n in range(12) for _ in range(2)]
    for name in ("default", "acme-2"):
        assert counted("aligner_by_aligner_total", aligner=name) - before[name] == told.count(name)
    place = shares.position(f"key:{'a' * 64}", [Turn("user", "Question 0?")])
    assert models[0] == ("embedded" if place < 50 else "acme-2")
