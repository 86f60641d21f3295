"""Several aligners for one policy: shares drawn by conversation, and one that judges beside; where each is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineOverloaded
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.evidence import pair_answers
from tests.gateway.test_guardrail import POLICIES, answer, build, data, user
from tests.support.background import wait_for_shadows
from tests.support.scripted import SCRIPTED, ScriptedEngine

ABOUT = replace(SCRIPTED, others={"acme-2": replace(SCRIPTED, content_hash="acme-2")})
ADAPTERS = {"adapters": {"acme-2": "./acme-2"}}


def make_policies(policies: dict[str, Any]) -> dict[str, Any]:
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
    guard = build(tmp_path, monkeypatch, make_policies({"aligner": {"default": 50, "acme-2": 50}}))
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


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    """A guardrail with an aligner beside, and a store in which its entries are."""
    policies = make_policies({"shadow_aligner": "acme-2"}) | {
        "audit": {"enabled": True, "file": str(tmp_path / "audit.db")}
    }
    guard = build(tmp_path, monkeypatch, policies)

    def script(request: AlignRequest) -> str:
        return request.answer.replace(" You fool.", " You friend." if request.aligner == "acme-2" else "")

    guard.pipeline = Pipeline(ScriptedEngine(script, about=ABOUT), extensions=guard.pipeline.extensions)
    return guard


def entries(tmp_path: Path) -> list[Entry]:
    store = AuditStore(tmp_path / "audit.db")
    try:
        return sorted(store.entries(), key=lambda entry: entry.aligner_id)
    finally:
        store.close()


async def test_the_aligner_beside_judges_the_same_answer_and_changes_none(
    watched: AlignerGuardrail, tmp_path: Path
) -> None:
    request = asking("Who?")
    headers = await completed(watched, request)
    assert (headers["x-aligner-model"], headers["x-aligner-status"]) == ("embedded", "corrected")
    await wait_for_shadows(watched._shadows)
    await watched._audit_writers.aclose()
    first, beside = entries(tmp_path)
    assert (first.aligner_id, beside.aligner_id) == (headers["x-aligner-id"], headers["x-aligner-id"] + "-beside")
    assert (first.mode, beside.mode, beside.policy, beside.aligner) == ("enforce", "shadow", "all/beside", "acme-2")
    assert first.content is not None
    assert beside.content is not None
    assert (first.content.edited, beside.content.edited) == ("It is so.", "It is so. You friend.")
    both = pair_answers([first], [beside])
    assert (both.answers, both.otherwise) == (1, 1)


async def test_where_anything_else_is_to_be_done_nothing_is_judged_beside(
    watched: AlignerGuardrail, tmp_path: Path
) -> None:
    before = counted("aligner_shadow_aligner_total", result="shed")
    watched._shadows.active_count += 1  # a correction that somebody waits for
    await completed(watched, asking("Who?"))
    watched._shadows.active_count -= 1
    assert not watched._shadows.judgements
    assert counted("aligner_shadow_aligner_total", result="shed") == before + 1
    await watched._audit_writers.aclose()
    assert [entry.mode for entry in entries(tmp_path)] == ["enforce"]


async def test_an_answer_that_comes_meanwhile_ends_what_is_judged_beside(watched: AlignerGuardrail) -> None:
    engine = watched.pipeline.engine
    assert isinstance(engine, ScriptedEngine)
    before = {result: counted("aligner_shadow_aligner_total", result=result) for result in ("shed", "judged")}
    await completed(watched, asking("Who?"))
    [beside] = watched._shadows.judgements
    await completed(watched, asking("What?"))
    await asyncio.gather(beside, return_exceptions=True)
    assert beside.cancelled()
    assert counted("aligner_shadow_aligner_total", result="shed") - before["shed"] >= 1
    await wait_for_shadows(watched._shadows)
    after = {result: counted("aligner_shadow_aligner_total", result=result) for result in ("shed", "judged")}
    assert sum(after.values()) - sum(before.values()) == 2


async def test_an_engine_that_fails_beside_is_counted_and_costs_no_answer(watched: AlignerGuardrail) -> None:
    before = counted("aligner_shadow_aligner_total", result="failed")

    def script(request: AlignRequest) -> str | Exception:
        return EngineOverloaded("full") if request.aligner == "acme-2" else request.answer

    watched.pipeline = Pipeline(ScriptedEngine(script, about=ABOUT), extensions=watched.pipeline.extensions)
    assert (await completed(watched, asking("Who?")))["x-aligner-status"] == "unchanged"
    await wait_for_shadows(watched._shadows)
    assert counted("aligner_shadow_aligner_total", result="failed") == before + 1
