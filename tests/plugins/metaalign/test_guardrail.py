"""Preferences at the hooks: who may bring them, in which fields they stand, and what a response and a stream tell."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litellm.proxy._types import ProxyException
from prometheus_client import REGISTRY

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.request_policy import request_facts
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Policy
from aligner_proxy_systems.metaalign import checks
from aligner_proxy_systems.metaalign.extension import Preferences
from aligner_proxy_systems.metaalign.objectives import tiers
from tests.gateway.test_guardrail import POLICIES, answer, build, data, flow, opened, user
from tests.support.comments import without_id
from tests.support.scripted import ScriptedEngine, SegmentEngine
from tests.support.stream_fixtures import chat_items, chat_text

READS: dict[str, Any] = {"preferences": ["request", "persona", "system"]}
RULES: dict[str, Any] = {
    **POLICIES,
    "routes": [
        {"match": {"model": "deaf"}, "objectives": ["kind"]},
        {"match": {"model": "bare"}, **READS},
        {"match": {"model": "passthrough"}, "objectives": ["kind"], "stream": "passthrough", **READS},
        {"match": {"model": "sentence"}, "objectives": ["kind"], "stream": "sentence", **READS},
        {"match": {"model": "*"}, "objectives": ["kind"], **READS},
    ],
    "tenants": [{"match": {"team": "acme"}, "allow_preferences": True, "enforce": ["harmless"]}],
}
ACME = {"team_id": "acme"}
FIELDS = ("preference", "persona")
SAID = {"preference": "No emoji, no exclamation marks."}
TEXT = "It is so! \U0001f600 You fool."
LEFT = "The lake is very deep."
"""A sentence that stands by itself."""


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    guard = build(tmp_path, monkeypatch, RULES)
    guard.pipeline = pipeline(ScriptedEngine(lambda request: request.answer.replace(" You fool.", "")))
    return guard


def pipeline(engine: Any) -> Pipeline:
    return Pipeline(engine, extensions=Extensions([Preferences()]))


async def test_a_response_with_preferences(guard: AlignerGuardrail) -> None:
    request = data(aligner=SAID, requester_metadata={"aligner": SAID})
    ledger = await opened(guard, request, user(**ACME))
    edited = await guard.async_post_call_success_hook(request, user(**ACME), answer(TEXT))
    assert edited.choices[0].message.content == "It is so."
    headers = ledger.headers()
    assert headers["x-aligner-objectives"] == "harmless,kind,no-emoji,no-exclamation-marks"
    assert headers["x-aligner-preferences"] == "no-emoji=no/yes,no-exclamation-marks=no/yes"
    assert "No emoji" not in json.dumps(request, default=str)
    (info,) = request["metadata"]["standard_logging_guardrail_information"]
    assert info["guardrail_response"]["choices"][0]["preferences"]["no-emoji"] == [False, True]


async def test_of_several_choices_all_must_meet_it(guard: AlignerGuardrail) -> None:
    request = data("bare", aligner={"preference": "At most 3 words, no emoji."})
    ledger = await opened(guard, request, user(**ACME))
    await guard.async_post_call_success_hook(
        request, user(**ACME), answer("It is so.", "It is not quite so. \U0001f600")
    )
    assert ledger.headers()["x-aligner-preferences"] == "max-words=no/no,no-emoji=no/yes"


@pytest.mark.parametrize(("words", "leaves"), [("Be brief.", False), ("Be brief. " * 500, True)])
async def test_a_long_system_prompt_is_read_beside_the_event_loop(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, words: str, leaves: bool
) -> None:
    threads: list[int] = []
    resolve = Preferences.resolve

    def note_thread(extension: Preferences, policy: Policy, request: RequestFacts) -> Policy:
        threads.append(threading.get_ident())
        return resolve(extension, policy, request)

    monkeypatch.setattr(Preferences, "resolve", note_thread)
    guard.pipeline = pipeline(ScriptedEngine())
    request = data()
    request["messages"] = [{"role": "system", "content": words}, {"role": "user", "content": "When?"}]
    await guard.async_pre_call_hook(user(**ACME), None, request, "acompletion")
    assert (threads == [threading.get_ident()]) is not leaves


@pytest.mark.parametrize(("times", "leaves"), [(1, False), (100, True)])
async def test_a_long_answer_is_checked_beside_the_event_loop(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, times: int, leaves: bool
) -> None:
    threads: set[int] = set()
    check = checks.language

    def note_thread(text: str) -> str | None:
        threads.add(threading.get_ident())
        return check(text)

    monkeypatch.setattr(checks, "language", note_thread)
    request = data(aligner={"preference": "Answer in English."})
    await opened(guard, request, user(**ACME))
    await guard.async_post_call_success_hook(request, user(**ACME), answer("It is so. " * times))
    assert (threading.get_ident() not in threads) is leaves
    assert threads


@pytest.mark.parametrize("wish", [SAID, {"persona": "I am ten."}])
async def test_a_tenant_that_may_not_gets_a_403(guard: AlignerGuardrail, wish: dict[str, str]) -> None:
    with pytest.raises(ProxyException) as caught:
        await guard.async_pre_call_hook(user(), None, data(aligner=wish), "acompletion")
    assert (caught.value.code, caught.value.type) == ("403", "permission_error")


async def test_what_is_too_long_gets_a_400(guard: AlignerGuardrail) -> None:
    with pytest.raises(ProxyException, match="at most 1,000") as caught:
        await guard.async_pre_call_hook(user(**ACME), None, data(aligner={"preference": "a" * 1001}), "acompletion")
    assert (caught.value.code, caught.value.param) == ("400", "metadata.aligner")


@pytest.mark.parametrize("who", [{}, ACME])
async def test_a_route_that_reads_none_is_as_it_was(guard: AlignerGuardrail, who: dict[str, str]) -> None:
    ledger = await opened(guard, data("deaf", aligner={"preference": "a" * 5000}), user(**who))
    assert "kind" in [objective.name for objective in ledger.policy.objectives]
    assert all(objective.allowance is None for objective in ledger.policy.objectives)


async def test_where_nothing_can_be_met_the_response_is_untouched(guard: AlignerGuardrail) -> None:
    request = data("bare", aligner=SAID)
    response = answer("It is so.")
    await opened(guard, request, user(**ACME))
    before = response.model_dump_json()
    assert await guard.async_post_call_success_hook(request, user(**ACME), response) in (None, response)
    assert response.model_dump_json() == before


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": [{"role": "system", "content": "a"}, {"role": "developer", "content": [{"text": "b"}]}]}, "a\nb"),
        (
            {"instructions": "a", "input": [{"role": "system", "content": "b"}, {"role": "user", "content": "c"}]},
            "a\nb",
        ),
        ({"system": [{"type": "text", "text": "a"}], "messages": [{"role": "user", "content": "c"}]}, "a"),
        ({"messages": "no", "system": 7, "input": "text"}, ""),
    ],
)
def test_the_system_prompt_of_every_endpoint(body: dict[str, Any], expected: str) -> None:
    request = {**data(aligner={"persona": "p", "preference": ["x", 3, "y"]}), "messages": [], **body}
    assert [text for _, text in tiers(request_facts(request, user(), FIELDS))] == [expected, "x\ny", "p"]


@pytest.mark.parametrize("wish", [7, {"a": 1}, None, True])
def test_what_is_no_text_is_no_preference(wish: object) -> None:
    assert {text for _, text in tiers(request_facts(data(aligner={"preference": wish}), user(), FIELDS))} == {""}


def test_facts_do_not_show_what_was_said() -> None:
    assert "secret" not in repr(request_facts(data(aligner={"preference": "secret"}), user(), FIELDS))


@pytest.mark.parametrize(
    ("model", "status", "expected"),
    [
        ("gpt", "corrected", LEFT),
        ("sentence", "corrected", LEFT),
        ("passthrough", "shadow", f"{LEFT[:-1]}! \U0001f600 You fool."),
    ],
)
async def test_streams(guard: AlignerGuardrail, model: str, status: str, expected: str) -> None:
    engine = SegmentEngine(lambda segment: 1.5 if "fool" in segment else -4.0)
    guard.pipeline = pipeline(engine)
    ledger, got = await read_stream(guard, model, [LEFT[:-1], "! \U0001f600", " You fool."])
    assert chat_text(got) == expected
    if model == "passthrough":
        for task in list(guard._shadows._tasks):
            await task
    else:
        told = "preferences=no-emoji=no/yes,no-exclamation-marks=no/yes"
        assert without_id(got[-1]) == f": aligner status={status} {told}\n\n".encode()
    assert ledger.status.value == status


async def read_stream(guard: AlignerGuardrail, model: str, pieces: list[str]) -> tuple[RequestState, list[Any]]:
    request = data(model, aligner=SAID)
    ledger = await opened(guard, request, user(**ACME))
    hook = guard.async_post_call_streaming_iterator_hook
    return ledger, [item async for item in hook(user(**ACME), flow(chat_items(pieces)), request)]


async def test_metrics_and_audit(guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[AuditEvent] = []
    monkeypatch.setattr(guard, "_auditor", SimpleNamespace(note=kept.append, required=False))
    labels = {"preference": "no-emoji", "before": "false", "after": "true"}
    before = REGISTRY.get_sample_value("aligner_preferences_total", labels) or 0
    request = data(aligner=SAID)
    await opened(guard, request, user(**ACME))
    await guard.async_post_call_success_hook(request, user(**ACME), answer(TEXT))
    assert REGISTRY.get_sample_value("aligner_preferences_total", labels) == before + 1
    content = make_entry(kept[0], lambda text: text.replace("emoji", "...")).content
    assert content is not None
    assert content.facts.fields["preference"] == "No ..., no exclamation marks."
    assert content.reports["preferences"] == {"no-emoji": [False, True], "no-exclamation-marks": [False, True]}
