"""References on the way of a request through the hooks: files, system prompts, results of tools, headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from litellm.proxy._types import ProxyException
from prometheus_client import REGISTRY

from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.reload import Policies
from aligner_proxy.observability import metrics
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy_grounding.references import references_of
from tests.gateway.test_guardrail import answer, build, data, ledger_of, user
from tests.support.editors import ScriptedChat
from tests.support.judges import contradicting, judges

PAGE = "Online orders can be returned within 28 days of delivery.\n"
WRONG = "Online orders can be returned within 30 days of delivery."
RIGHT = "Online orders can be returned within 28 days of delivery."
HEADER = {"x-facts": PAGE.strip()}


def guarded(folder: Path, monkeypatch: pytest.MonkeyPatch, references: list[Any], **more: Any) -> AlignerGuardrail:
    (folder / "RULES.md").write_text(f"# Rules\n\n{PAGE}")
    return build(folder, monkeypatch, {"defaults": {"references": references}, **more})


async def delivered(guard: AlignerGuardrail, request: dict[str, Any], **who: Any) -> str:
    await guard.async_pre_call_hook(user(**who), None, request, "acompletion")
    response = answer(WRONG)
    got = await guard.async_post_call_success_hook(request, user(**who), response) or response
    text: str = got.choices[0].message.content
    return text


def replaced() -> float:
    labels = {"result": "replaced", "kind": "duration"}
    return REGISTRY.get_sample_value("aligner_grounded_total", labels) or 0.0


async def test_a_file_corrects_an_answer_and_headers_and_metrics_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = guarded(tmp_path, monkeypatch, [{"file": "RULES.md"}])
    before = replaced()
    request = data()
    assert await delivered(guard, request) == RIGHT
    state = ledger_of(request)
    headers = state.headers()
    assert (headers["x-aligner-status"], headers["x-aligner-grounded"]) == ("corrected", "1")
    assert "grounded=1" in state.comment().decode()
    (choice,) = state.record()["choices"]
    assert choice["grounded"] == {
        "edits": 1,
        "replaced": [{"kind": "duration", "source": "RULES.md:3"}],
        "unsettled": [],
    }
    assert replaced() == before + 1


async def test_the_system_prompt_and_the_results_of_tools_correct_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = guarded(tmp_path, monkeypatch, ["system", "tool_results"])
    for role in ("system", "tool", "user"):
        request = data()
        request["messages"].insert(0, {"role": role, "content": PAGE})
        assert await delivered(guard, request) == (WRONG if role == "user" else RIGHT)
    assert await delivered(guard, data()) == WRONG


async def test_a_header_counts_for_those_who_may_send_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants = [{"match": {"team": "a"}, "allow_references": True}]
    guard = guarded(tmp_path, monkeypatch, [{"header": "X-Facts"}], tenants=tenants)
    assert await delivered(guard, data(headers=HEADER), team_id="a") == RIGHT
    assert await delivered(guard, data(), team_id="a") == WRONG
    with pytest.raises(ProxyException, match="allow_references") as refused:
        await delivered(guard, data(headers=HEADER), team_id="b")
    assert str(refused.value.code) == "403"


def test_a_changed_file_counts_and_a_missing_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    path = tmp_path / "p.yaml"
    path.write_text("defaults: {references: [{file: RULES.md}]}\n")
    (tmp_path / "RULES.md").write_text(PAGE)
    policies = Policies(path)

    def text() -> str:
        for _ in range(2):
            policies.check_files()
        (reference,) = references_of(policies.current.resolver.resolve(RequestFacts("gpt")))
        return reference.text

    assert text() == PAGE
    (tmp_path / "RULES.md").write_text(PAGE.replace("28 days", "14 days"))
    assert "14 days" in text()
    (tmp_path / "RULES.md").unlink()
    assert "14 days" in text()


async def test_a_judge_of_doubts_is_paid_for_and_reported_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "Wrapping a present costs £4 in paper and £6 in a box.\n"
    (tmp_path / "PRICES.md").write_text(page)
    defaults = {"references": [{"file": "PRICES.md"}], "judge": {"chat": "of-facts"}}
    guard = build(tmp_path, monkeypatch, {"defaults": defaults})
    chat = ScriptedChat(contradicting({"£5": "£6"}))
    guard.pipeline.judges = judges(chat)
    flagged = metrics.JUDGED_SEGMENTS.labels("of-facts", "flagged")._value
    calls = metrics.JUDGE_CALLS.labels("of-facts", "replied")._value
    before = (flagged.get(), calls.get())
    request = data()
    await guard.async_pre_call_hook(user(), None, request, "acompletion")
    got = await guard.async_post_call_success_hook(request, user(), answer("We wrap a present for £5."))
    assert got.choices[0].message.content == "We wrap a present for £6."
    state = ledger_of(request)
    assert state.headers()["x-aligner-judge"].startswith("of-facts asked=1 flagged=1 cleared=0 calls=1 read=")
    assert b" judge=1/1/0 " in state.comment()
    (choice,) = state.record()["choices"]
    assert {name: choice["judge"][name] for name in ("model", "asked", "flagged", "calls", "failed")} == {
        "model": "of-facts",
        "asked": 1,
        "flagged": 1,
        "calls": 1,
        "failed": 0,
    }
    assert (flagged.get(), calls.get()) == (before[0] + 1, before[1] + 1)
    assert [payer["user_api_key"] for payer in chat.payers] == [user().api_key]
    assert "present" not in json.dumps(state.record())
