"""Texts of requests through the hooks: tool results and history, reported or refused, and never rewritten."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from litellm.proxy._types import ProxyException

from aligner_proxy.audit.entry import AuditEvent
from aligner_proxy.gateway import incoming_texts
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Status
from tests.gateway.test_guardrail import answer, build, data, ledger_of, user
from tests.gateway.test_side_texts import CountingEngine
from tests.support.stream_fixtures import chat_items, flow

FINE = "The harbour opens at nine on workdays."
RUDE = "Only a perfect fool would ask for more than that."
ASKED = "When does the harbour open on workdays?"


def route(name: str, **settings: Any) -> dict[str, Any]:
    return {"match": {"model": name}, "name": name, "objectives": ["kind"], **settings}


def both(treatment: str) -> dict[str, str]:
    return {"incoming_tool_results": treatment, "incoming_history": treatment}


FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        route("block", **both("block")),
        route("strict", on_error="block", **both("block")),
        route("report", **both("report")),
        route("results", incoming_tool_results="block"),
        route("history", incoming_history="block"),
        route("shadow", mode="shadow", **both("block")),
        route("off", mode="off", **both("block")),
        route("pass"),
    ],
}


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: CountingEngine) -> AlignerGuardrail:
    made = build(tmp_path, monkeypatch, FILE)
    made.pipeline = Pipeline(engine, extensions=made.pipeline.extensions)
    return made


def chat(result: str, remark: str) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    return {
        "messages": [
            {"role": "system", "content": RUDE},  # the operator's
            {"role": "user", "content": [{"type": "text", "text": remark}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": result},
        ]
    }


def messages(result: str, remark: str) -> dict[str, Any]:
    use = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
    found = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": result}]}
    return {
        "system": RUDE,
        "messages": [
            {"role": "user", "content": remark},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [found]},
        ],
    }


def responses(result: str, remark: str) -> dict[str, Any]:
    return {
        "instructions": RUDE,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": remark}]},
            {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": json.dumps({"page": result})},
        ],
    }


FORMATS = {
    "/v1/chat/completions": (chat, "messages.3", "messages.1"),
    "/v1/messages": (messages, "messages.2", "messages.0"),
    "/v1/responses": (responses, "input.2", "input.0"),
}


def request_to(model: str, body: dict[str, Any]) -> dict[str, Any]:
    request = data(model)
    del request["messages"]
    return request | body


async def ask(guard: AlignerGuardrail, path: str, request: dict[str, Any]) -> None:
    await guard.async_pre_call_hook(user(path), None, request, "acompletion")


async def headers_of(guard: AlignerGuardrail, path: str, request: dict[str, Any]) -> dict[str, str]:
    response = answer(FINE)
    await guard.async_post_call_success_hook(request, user(path), response)
    headers = await guard.async_post_call_response_headers_hook(request, user(path), response)
    assert headers is not None
    return headers


async def test_block_refuses_a_request_with_a_flagged_text(guard: AlignerGuardrail) -> None:
    wrong: list[tuple[object, ...]] = []
    for path, (form, result_place, remark_place) in FORMATS.items():
        for model, body, place, kind in (
            ("block", form(RUDE, ASKED), result_place, "tool_results"),
            ("block", form(FINE, RUDE), remark_place, "history"),
            ("results", form(RUDE, RUDE), result_place, "tool_results"),
            ("history", form(RUDE, RUDE), remark_place, "history"),
        ):
            request = request_to(model, body)
            with pytest.raises(ProxyException) as refused:
                await ask(guard, path, request)
            error = refused.value
            told = (error.code, error.param, error.message)
            if told != ("422", place, f"{place} of the request ({kind}) was flagged: kind"):
                wrong.append((path, model, told))
            state = ledger_of(request)
            if (state.status, state.reason) != (Status.FAILED, f"incoming_{kind}"):
                wrong.append((path, model, state.status, state.reason))
    assert not wrong


async def test_a_request_that_goes_on_is_never_rewritten(guard: AlignerGuardrail) -> None:
    for path, (form, *_) in FORMATS.items():
        for model, body in (
            ("block", form(FINE, ASKED)),
            ("results", form(FINE, RUDE)),
            ("history", form(RUDE, ASKED)),
            ("report", form(RUDE, RUDE)),
            ("shadow", form(RUDE, RUDE)),
            ("off", form(RUDE, RUDE)),
            ("pass", form(RUDE, RUDE)),
        ):
            request = request_to(model, body)
            given = copy.deepcopy(body)
            await ask(guard, path, request)
            assert {name: request[name] for name in given} == given, (path, model)


async def test_report_names_message_and_objective(guard: AlignerGuardrail) -> None:
    for path, (form, result_place, remark_place) in FORMATS.items():
        result, remark = (place.rpartition(".")[2] for place in (result_place, remark_place))
        wanted = {f"tool_results@{result}:kind", f"history@{remark}:kind"}
        for model in ("report", "shadow"):
            request = request_to(model, form(RUDE, RUDE))
            await ask(guard, path, request)
            assert set((await headers_of(guard, path, request))["x-aligner-incoming"].split(",")) == wanted
            fine = request_to(model, form(FINE, ASKED))
            await ask(guard, path, fine)
            assert "x-aligner-incoming" not in await headers_of(guard, path, fine)


async def test_a_stream_names_them_in_its_comment(guard: AlignerGuardrail) -> None:
    path = "/v1/chat/completions"
    request = request_to("report", chat(RUDE, ASKED))
    await ask(guard, path, request)
    assert (await guard.async_post_call_response_headers_hook(request, user(path), flow(chat_items([FINE]))) or {})[
        "x-aligner-incoming"
    ] == "tool_results@3:kind"
    got = [
        item
        async for item in guard.async_post_call_streaming_iterator_hook(user(path), flow(chat_items([FINE])), request)
    ]
    assert b"incoming=tool_results@3:kind" in got[-1]


async def test_report_costs_the_request_no_time(guard: AlignerGuardrail, engine: CountingEngine) -> None:
    request = request_to("report", chat(RUDE, ASKED))
    await ask(guard, "/v1/chat/completions", request)
    assert engine.asked == []
    # LiteLLM copies metadata
    assert copy.deepcopy(ledger_of(request)).incoming is ledger_of(request).incoming
    await headers_of(guard, "/v1/chat/completions", request)
    assert sorted(engine.asked) == sorted([ASKED, RUDE, FINE])


async def test_nothing_is_read_where_nothing_is_asked_for(guard: AlignerGuardrail, engine: CountingEngine) -> None:
    for model in ("pass", "off"):
        request = request_to(model, chat(RUDE, RUDE))
        await ask(guard, "/v1/chat/completions", request)
        assert (ledger_of(request).incoming, engine.asked) == (None, [])


async def test_a_message_is_judged_once_for_a_tenant(
    guard: AlignerGuardrail, engine: CountingEngine, tmp_path: Path
) -> None:
    cache = CorrectionCache(tmp_path / "cache", ttl_s=60, max_mb=1)
    guard.pipeline = Pipeline(engine, cache, extensions=guard.pipeline.extensions)
    path = "/v1/chat/completions"
    await ask(guard, path, request_to("block", chat(FINE, ASKED)))
    assert sorted(engine.asked) == sorted([ASKED, FINE])
    longer = chat(FINE, ASKED)
    longer["messages"] += [{"role": "assistant", "content": "At nine o'clock, every workday."}]
    await ask(guard, path, request_to("block", longer))
    assert engine.asked[2:] == ["At nine o'clock, every workday."]
    await guard.async_pre_call_hook(
        user(path, team_id="other"), None, request_to("block", chat(FINE, ASKED)), "acompletion"
    )
    assert sorted(engine.asked[3:]) == sorted([ASKED, FINE])
    await cache.aclose()


async def test_only_the_last_messages_are_read(guard: AlignerGuardrail, engine: CountingEngine) -> None:
    turns = [{"role": "user", "content": f"Berth {number} is free today, is it?"} for number in range(40)]
    await ask(guard, "/v1/chat/completions", request_to("block", {"messages": turns}))
    assert engine.asked == [turn["content"] for turn in turns[-16:]]


async def test_what_cannot_be_judged_is_refused_where_the_policy_blocks_that(
    guard: AlignerGuardrail, engine: CountingEngine
) -> None:
    engine.fails_for = FINE
    path = "/v1/chat/completions"
    with pytest.raises(ProxyException, match=r"messages.3 of the request \(tool_results\) could not be judged"):
        await ask(guard, path, request_to("strict", chat(FINE, ASKED)))
    request = request_to("block", chat(FINE, ASKED))
    await ask(guard, path, request)
    assert ledger_of(request).headers()["x-aligner-incoming"].startswith("tool_results@3:unjudged/")


async def test_texts_of_a_client_that_has_left_are_not_judged_on(
    guard: AlignerGuardrail, engine: CountingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They once were, and then LiteLLM asked the upstream, too."""
    engine.delay_s = 60

    async def left() -> None:
        while not engine.seen:
            await asyncio.sleep(0)

    monkeypatch.setattr(incoming_texts, "client_gone_waiter", lambda: left)
    request = request_to("block", chat(FINE, FINE))
    async with asyncio.timeout(10):
        with pytest.raises(ProxyException, match="the client left"):
            await ask(guard, "/v1/chat/completions", request)
    assert engine.cancelled
    assert ledger_of(request).headers()["x-aligner-reason"] == "cancelled"


async def test_each_message_has_a_record_of_its_own(guard: AlignerGuardrail) -> None:
    kept: list[AuditEvent] = []

    class Auditor:
        required = False

        def note(self, event: AuditEvent) -> None:
            kept.append(event)

    guard._auditor = Auditor()  # type: ignore[assignment]
    path = "/v1/chat/completions"
    with pytest.raises(ProxyException):
        await ask(guard, path, request_to("block", chat(RUDE, ASKED)))
    (record,) = [event for event in kept if event.endpoint == f"{path}#incoming_tool_results"]
    assert (record.exchange.index, record.exchange.answer, record.exchange.turns) == (3, RUDE, ())
    assert (record.outcome.status, record.outcome.violated_objectives) == (Status.SHADOW, ["kind"])
    assert record.outcome.policy.name == "block/incoming_tool_results"
