"""Reasoning through the hooks: passed on, taken out, or scored for the record; never edited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import httpx
import pytest
from litellm.types.utils import ModelResponse

from aligner_proxy.audit.entry import AuditEvent
from aligner_proxy.concurrency import TimeSlice
from aligner_proxy.formats import sse
from aligner_proxy.gateway import reasoning
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.request_state import RequestState, find_state
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.formats.test_reasoning import BLOCK, CHUNKS, THOUGHT, WITH, WITHOUT, chunk
from tests.gateway.test_guardrail import build, data, user
from tests.support.rounds import count_items, rounds
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import broken_flow, chat_text, flow, message_items, read_into

INSULT = "The reader is a fool."
RUDE = "So it is. You fool."


def route(name: str, **settings: Any) -> dict[str, Any]:
    return {"match": {"model": name}, "name": name, "objectives": ["kind"], **settings}


POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        route("drop", reasoning="drop"),
        route("drop-strict", reasoning="drop", on_error="block"),
        route("drop-nothing-else", reasoning="drop", objectives=[]),
        route("drop-shadow", reasoning="drop", mode="shadow"),
        route("drop-off", reasoning="drop", mode="off"),
        route("judge", reasoning="judge"),
        route("judge-sentences", reasoning="judge", stream="sentence"),
        route("judge-off", reasoning="judge", mode="off"),
        {"match": {"model": "*"}, "objectives": ["kind"]},
    ],
}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    made = build(tmp_path, monkeypatch, POLICIES)
    made.pipeline = Pipeline(SegmentEngine(lambda text: 4.0 if "fool" in text else -4.0))
    return made


def answer(*, n: int = 1) -> ModelResponse:
    message = {"role": "assistant", "content": RUDE, "reasoning_content": THOUGHT}
    return ModelResponse(choices=[{"index": i, "finish_reason": "stop", "message": message} for i in range(n)])


async def whole(guard: AlignerGuardrail, model: str, response: Any, path: str = "/v1/chat/completions") -> Any:
    request = data(model)
    edited = await guard.async_post_call_success_hook(request, user(path), response)
    return (response if edited is None else edited), stated(request)


def stated(request: dict[str, Any]) -> RequestState:
    state = find_state(request)
    assert state is not None
    return state


async def streamed(guard: AlignerGuardrail, model: str, items: Iterable[Any] = CHUNKS) -> tuple[list[Any], str]:
    """What goes out, and the closing comment."""
    request = data(model)
    told = [item async for item in guard.async_post_call_streaming_iterator_hook(user(), flow(items), request)]
    comment = told.pop()
    assert isinstance(comment, bytes)
    return told, comment.decode()


def thought(message: Any) -> str:
    return getattr(message, "reasoning_content", None) or ""


async def test_by_default_it_stays(guard: AlignerGuardrail) -> None:
    response, state = await whole(guard, "gpt", answer())
    assert (response.choices[0].message.content, thought(response.choices[0].message)) == ("So it is.", THOUGHT)
    assert "x-aligner-reasoning" not in state.headers()


async def test_drop_takes_it_out_and_corrects_the_answer(guard: AlignerGuardrail) -> None:
    given = answer(n=2)
    response, state = await whole(guard, "drop", given)
    for choice in response.choices:
        assert (choice.message.content, thought(choice.message)) == ("So it is.", "")
    assert thought(given.choices[0].message) == THOUGHT
    assert state.headers()["x-aligner-status"] == "corrected"


async def test_drop_holds_where_nothing_is_corrected(guard: AlignerGuardrail) -> None:
    response, state = await whole(guard, "drop-nothing-else", answer())
    assert (response.choices[0].message.content, thought(response.choices[0].message)) == (RUDE, "")
    assert state.reason == "no_objectives"


@pytest.mark.parametrize("model", ["drop-shadow", "drop-off"])
async def test_shadow_and_off_deliver_what_came(guard: AlignerGuardrail, model: str) -> None:
    response, _ = await whole(guard, model, answer())
    assert thought(response.choices[0].message) == THOUGHT


async def test_drop_of_a_message(guard: AlignerGuardrail) -> None:
    response, _ = await whole(guard, "drop", WITH, "/v1/messages")
    assert response == WITHOUT


async def test_judge_scores_it_and_edits_nothing(guard: AlignerGuardrail) -> None:
    response, state = await whole(guard, "judge", answer(n=2))
    for choice in response.choices:
        assert (choice.message.content, thought(choice.message)) == ("So it is.", THOUGHT)
    assert state.headers()["x-aligner-reasoning"] == "1/2:kind,1/2:kind"
    assert (state.status.value, len(state.outcomes)) == ("corrected", 2)


async def test_judge_skips_reasoning_of_a_form_that_answers_are_skipped_for(guard: AlignerGuardrail) -> None:
    note = '{"note": "You are a fool."}'
    message = {"role": "assistant", "content": RUDE, "reasoning_content": note}
    _, state = await whole(guard, "judge", ModelResponse(choices=[{"finish_reason": "stop", "message": message}]))
    assert state.headers()["x-aligner-reasoning"] == "skipped/structured_output"
    for model in ("judge", "judge-sentences"):
        items = [chunk(reasoning_content=note), chunk(content="So it is."), chunk("stop")]
        assert "reasoning=skipped/structured_output" in (await streamed(guard, model, items))[1]


async def test_judge_keeps_a_record_of_its_own(guard: AlignerGuardrail) -> None:
    kept: list[AuditEvent] = []

    class Writers:
        required = False

        def note(self, event: AuditEvent) -> None:
            kept.append(event)

    guard._auditor = Writers()  # type: ignore[assignment]
    await whole(guard, "judge", answer())
    by_endpoint = {event.endpoint: event for event in kept}
    assert set(by_endpoint) == {"/v1/chat/completions", "/v1/chat/completions#reasoning"}
    record = by_endpoint["/v1/chat/completions#reasoning"]
    assert (record.exchange.answer, record.outcome.status.value) == (THOUGHT, "shadow")
    assert (record.outcome.policy.name, record.outcome.flagged_count) == ("judge/reasoning", 1)


async def test_an_answer_without_reasoning_has_no_header(guard: AlignerGuardrail) -> None:
    response = ModelResponse(choices=[{"index": 0, "finish_reason": "stop", "message": {"content": RUDE}}])
    _, state = await whole(guard, "judge", response)
    assert "x-aligner-reasoning" not in state.headers()


async def test_what_is_off_is_not_judged(guard: AlignerGuardrail) -> None:
    _, state = await whole(guard, "judge-off", answer())
    assert state.reasoning == []


@pytest.mark.parametrize(("model", "reported"), [("judge", True), ("judge-sentences", True), ("gpt", False)])
async def test_streams_pass_it_on_and_say_what_was_found(guard: AlignerGuardrail, model: str, reported: bool) -> None:
    told, comment = await streamed(guard, model)
    assert "".join(thought(item.choices[0].delta) for item in told) == THOUGHT
    assert chat_text(told) == "So."
    assert ("reasoning=1/2:kind" in comment) is reported


async def test_other_tasks_run_while_long_reasoning_is_taken_out(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimeSlice, "LONGEST_S", -1.0)  # each pause gives the loop away
    items = [*(chunk(reasoning_content="So. ") for _ in range(20)), *CHUNKS]
    async with rounds() as items_by_round:
        told, _ = await streamed(guard, "drop", count_items(items, items_by_round))
    assert chat_text(told) == "So."
    assert max(items_by_round) < 4


async def test_a_stream_without_it(guard: AlignerGuardrail) -> None:
    told, comment = await streamed(guard, "drop")
    assert [thought(item.choices[0].delta) for item in told] == [""] * 3
    assert chat_text(told) == "So."
    assert comment.startswith(": aligner status=unchanged")
    skipped, _ = await streamed(guard, "drop-nothing-else")
    assert len(skipped) == 3


async def test_what_cannot_be_taken_out_is_the_policys_to_decide(guard: AlignerGuardrail) -> None:
    broken: Any = SimpleNamespace(choices=7)
    with pytest.raises(Blocked):
        await streamed(guard, "drop-strict", [CHUNKS[0], broken, *CHUNKS[1:]])


async def test_a_stream_in_which_reasoning_can_no_longer_be_found(guard: AlignerGuardrail) -> None:
    """What waited for the rest of a tag goes out first, and what follows as it came."""
    broken = chunk(content="So it is.")
    broken.choices[0].index = "first"  # type: ignore[assignment]
    items = [chunk(content="\n"), chunk(content="<thi"), broken, chunk(content="nk>So."), chunk("stop")]
    sent, comment = await streamed(guard, "drop", items)
    assert [id(item) for item in sent] == [id(item) for item in items]
    assert "status=failed" in comment
    with pytest.raises(Blocked, match="internal_error"):
        await streamed(guard, "drop-strict", items)


async def test_a_break_loses_nothing_that_waited_for_the_rest_of_a_tag(guard: AlignerGuardrail) -> None:
    items = [chunk(content="\n"), chunk(content="<thi")]
    upstream = broken_flow(items, httpx.ReadError("gone"))
    source = guard.async_post_call_streaming_iterator_hook(user(), upstream, data("drop"))
    sent: list[Any] = []
    with pytest.raises(httpx.ReadError):
        await read_into(sent, source)
    assert [id(item) for item in sent[:-1]] == [id(item) for item in items]


@pytest.mark.parametrize("size", [40, 300, 900])
async def test_an_event_that_is_too_long_goes_on_byte_for_byte(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(sse, "_LONGEST_EVENT", 1_000)
    raw = b"".join(message_items(["So it is.", " " + "so" * 1_000]))
    items = [raw[start : start + size] for start in range(0, len(raw), size)]
    source = guard.async_post_call_streaming_iterator_hook(user("/v1/messages"), flow(items), data("drop"))
    assert b"".join([item async for item in source if not item.startswith(b": aligner")]) == raw


class UnstoredStream:
    """A stream whose headers, which LiteLLM stores only with the stream, forbid to store it."""

    _hidden_params: ClassVar = {"additional_headers": {"llm_provider-cache-control": "no-store"}}

    def __aiter__(self) -> AsyncIterator[Any]:
        return flow(CHUNKS)


async def test_reasoning_of_a_stream_is_not_stored_if_its_headers_forbid_that(guard: AlignerGuardrail) -> None:
    kept: list[AuditEvent] = []
    guard._auditor = cast("Any", SimpleNamespace(required=False, note=kept.append))
    await read_into([], guard.async_post_call_streaming_iterator_hook(user(), UnstoredStream(), data("judge")))
    assert {event.endpoint: event.exchange.no_store for event in kept} == {
        "/v1/chat/completions": True,
        "/v1/chat/completions#reasoning": True,
    }


async def test_a_client_that_leaves_ends_the_scoring(guard: AlignerGuardrail) -> None:
    request = data("judge")
    source = guard.async_post_call_streaming_iterator_hook(user(), flow(CHUNKS), request)
    await anext(source)
    await source.aclose()


def test_signed_thinking_is_not_touched_for_tools() -> None:
    form = reasoning.formats.reasoning("/v1/messages")
    assert form is not None
    whole = {"content": [BLOCK]}
    assert form.remove_reasoning({"tools": [{"name": "look_up"}]}, whole) is whole
