"""Texts beside an answer through the hooks: judged, taken out, blocked or passed by name, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import litellm
import pytest
from fastapi import HTTPException
from litellm.proxy._types import ProxyException
from litellm.types.utils import ModelResponse

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineFault
from aligner_proxy.formats import sse
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, SideKind
from tests.gateway.test_guardrail import build, data, ledger_of, user
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import broken_flow, chat_text, chunk, flow, message_items, read_into

RUDE = "Only a fool would ask that."
PLAIN = "The harbour opens at nine."
LONG = "We look at the time tables first."
KINDS = [kind.value for kind in SideKind]


def route(name: str, **settings: Any) -> dict[str, Any]:
    return {"match": {"model": name}, "name": name, "objectives": [], **settings}


def every(treatment: str) -> dict[str, str]:
    """One treatment of all kinds that know it."""
    kinds = KINDS if treatment != "drop" else ["reasoning", "tool_output", "transcripts"]
    return dict.fromkeys(kinds, treatment)


FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        route("gpt"),
        route("sentence", stream="sentence"),
        route("pass", **every("pass")),
        route("drop", **every("drop")),
        route("drop-sentence", stream="sentence", **every("drop")),
        route("block", **every("block")),
        route("drop-lax", on_error="passthrough", **every("drop")),
        route("lax", on_error="passthrough"),
        route("lax-judge", on_error="passthrough", **every("judge")),
    ],
    "tenants": [{"match": {}, "enforce": ["kind"]}],
    "defaults": {"on_error": "block"},
}


class CountingEngine(SegmentEngine):
    """Flags what calls somebody a fool, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda text: 4.0 if "fool" in text else -4.0)
        self.asked: list[str] = []
        self.fails_for = "\0"
        self.waits_for = "\0"

    async def align(self, request: AlignRequest) -> Correction:
        self.asked.append(request.answer)
        for _ in range(100 if self.waits_for in request.answer else 0):
            await asyncio.sleep(0)
        if self.fails_for in request.answer:
            raise EngineFault("scripted")
        return await super().align(request)


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: CountingEngine) -> AlignerGuardrail:
    made = build(tmp_path, monkeypatch, FILE)
    made.pipeline = Pipeline(engine, extensions=made.pipeline.extensions)
    return made


def beside(text: str) -> dict[str, dict[str, Any]]:
    """A text beside an answer, in a place of each kind."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"q": text})}}
    return {
        "reasoning": {"reasoning_content": text},
        "tool_arguments": {"tool_calls": [call]},
        "tool_output": {"provider_specific_fields": {"results": [text]}},
        "transcripts": {"provider_specific_fields": {"sound": {"transcript": text}}},
        "other_text": {"provider_specific_fields": {"note": text}},
    }


def answer(extra: dict[str, Any], content: str | None = PLAIN) -> ModelResponse:
    message = {"role": "assistant", "content": content, **extra}
    return ModelResponse(
        id="1", created=1, model="m", choices=[{"index": 0, "finish_reason": "stop", "message": message}]
    )


async def whole(guard: AlignerGuardrail, model: str, response: Any, **asked: Any) -> Any:
    request = data(model) | asked
    edited = await guard.async_post_call_success_hook(request, user(), response)
    return response if edited is None else edited


async def streamed(guard: AlignerGuardrail, model: str, items: list[Any]) -> list[Any]:
    request = data(model)
    return [item async for item in guard.async_post_call_streaming_iterator_hook(user(), flow(items), request)]


def events(extra: dict[str, Any]) -> list[Any]:
    """The same as a stream: what stands beside the answer first."""
    return [chunk(role="assistant"), chunk(**extra), chunk(PLAIN[:9]), chunk(PLAIN[9:]), chunk(why="stop")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["gpt", "sentence"])
async def test_a_rude_text_beside_the_answer_ends_it(guard: AlignerGuardrail, kind: str, model: str) -> None:
    with pytest.raises(Blocked, match=kind):
        await whole(guard, model, answer(beside(RUDE)[kind]))
    with pytest.raises(Blocked, match=kind):
        await streamed(guard, model, events(beside(RUDE)[kind]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["gpt", "sentence"])
async def test_a_harmless_one_is_judged_and_stays(
    guard: AlignerGuardrail, engine: CountingEngine, kind: str, model: str
) -> None:
    given = answer(beside(LONG)[kind])
    assert await whole(guard, model, given) is given
    assert any(LONG in text for text in engine.asked)
    items = events(beside(LONG)[kind])
    got = await streamed(guard, model, items)
    assert got[:-1] == items


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_could_not_be_judged_ends_the_answer(
    guard: AlignerGuardrail, engine: CountingEngine, kind: str
) -> None:
    engine.fails_for = LONG
    with pytest.raises(Blocked, match=kind):
        await whole(guard, "gpt", answer(beside(LONG)[kind]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["pass", "lax"])
async def test_what_passes_by_name_is_not_looked_at(
    guard: AlignerGuardrail, engine: CountingEngine, kind: str, model: str
) -> None:
    given = answer(beside(RUDE)[kind])
    assert await whole(guard, model, given) is given
    items = events(beside(RUDE)[kind])
    assert (await streamed(guard, model, items))[:-1] == items
    assert not any(RUDE in text for text in engine.asked)


@pytest.mark.parametrize("kind", ["tool_arguments", "tool_output", "other_text"])
async def test_where_nothing_blocks_a_judged_text_is_for_the_record(
    guard: AlignerGuardrail, engine: CountingEngine, kind: str
) -> None:
    given = answer(beside(RUDE)[kind])
    assert await whole(guard, "lax-judge", given) is given
    assert any(RUDE in text for text in engine.asked)


@pytest.mark.parametrize("kind", KINDS)
async def test_block_needs_no_judgement(guard: AlignerGuardrail, engine: CountingEngine, kind: str) -> None:
    with pytest.raises(Blocked, match=kind):
        await whole(guard, "block", answer(beside(LONG)[kind]))
    assert LONG not in engine.asked


@pytest.mark.parametrize("kind", ["tool_output", "transcripts"])
@pytest.mark.parametrize("model", ["drop", "drop-sentence"])
async def test_drop_empties_the_place(guard: AlignerGuardrail, kind: str, model: str) -> None:
    got = await whole(guard, model, answer(beside(RUDE)[kind]))
    assert got.choices[0].message.content == PLAIN
    assert RUDE not in got.model_dump_json()
    items = await streamed(guard, model, events(beside(RUDE)[kind]))
    assert chat_text(items[:-1]) == PLAIN
    assert not any(RUDE in item.model_dump_json() for item in items[:-1])


@pytest.mark.parametrize("fails", [False, True])
async def test_a_rude_text_that_is_found_before_the_answer_is_judged_decides_its_status(
    guard: AlignerGuardrail, engine: CountingEngine, fails: bool
) -> None:
    engine.waits_for = PLAIN
    engine.fails_for = PLAIN if fails else engine.fails_for
    request = data("gpt")
    reason = "engine_error" if fails else "other_text"
    with pytest.raises(Blocked, match=reason):
        await guard.async_post_call_success_hook(request, user(), answer(beside(RUDE)["other_text"]))
    assert (ledger_of(request).status.value, ledger_of(request).reason) == ("failed", reason)


async def test_a_break_inside_an_event_loses_no_byte_where_kinds_are_dropped(guard: AlignerGuardrail) -> None:
    raw = b"".join(message_items([PLAIN, " It closes at six."]))[:-40]

    upstream = broken_flow([raw], httpx.ReadError("gone"))
    got: list[bytes] = []
    with pytest.raises(httpx.ReadError):
        await read_into(
            got, guard.async_post_call_streaming_iterator_hook(user("/v1/messages"), upstream, data("drop"))
        )
    assert b"".join(got) == raw


def too_long(raw: bytes) -> bytes:
    """A stream with an event that is longer than any that is read."""
    return raw.replace(b"closes at six", b"closes at " + b"6" * 2_000)


def too_deep(raw: bytes) -> bytes:
    """A stream with an event whose JSON nests so deep that Python can read it, but not walk it."""
    return b'data: {"logs": ' + b"[" * 600 + b"]" * 600 + b"}\n\n" + raw


@pytest.mark.parametrize(
    ("hostile", "size"), [(too_long, 40), (too_long, 300), (too_long, 600), (too_deep, 40), (too_deep, 10_000)]
)
async def test_an_event_from_which_nothing_can_be_dropped_goes_on_byte_for_byte_or_is_blocked(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, hostile: Any, size: int
) -> None:
    monkeypatch.setattr(sse, "_LONGEST_EVENT", 1_400)
    raw = hostile(b"".join(message_items([PLAIN, " It closes at six."])))
    items = [raw[start : start + size] for start in range(0, len(raw), size)]
    source = guard.async_post_call_streaming_iterator_hook(user("/v1/messages"), flow(items), data("drop-lax"))
    sent = [item async for item in source if not item.startswith(b": aligner")]
    assert b"".join(sent) == raw
    with pytest.raises(Blocked):
        await read_into(
            [], guard.async_post_call_streaming_iterator_hook(user("/v1/messages"), flow(items), data("drop"))
        )


async def test_a_text_beside_no_answer_is_judged_too(guard: AlignerGuardrail) -> None:
    for extra in beside(RUDE).values():
        with pytest.raises(Blocked):
            await whole(guard, "gpt", answer(extra, content=None))


async def test_a_copy_of_what_was_removed_does_not_go_out(guard: AlignerGuardrail) -> None:
    given = answer({"provider_specific_fields": {"copy": f"{PLAIN} {RUDE}"}}, content=f"{PLAIN} {RUDE}")
    got = await whole(guard, "gpt", given)
    assert got.choices[0].message.content == PLAIN
    assert "fool" not in got.model_dump_json()
    fine = answer({"provider_specific_fields": {"copy": PLAIN}}, content=f"{PLAIN} {RUDE}")
    got = await whole(guard, "gpt", fine)
    assert got.choices[0].message.content == PLAIN
    assert got.choices[0].message.provider_specific_fields == {"copy": PLAIN}


async def test_a_copy_of_the_answer_costs_nothing(guard: AlignerGuardrail, engine: CountingEngine) -> None:
    await whole(guard, "gpt", answer({"provider_specific_fields": {"copy": PLAIN}}))
    assert engine.asked == [PLAIN]


async def test_reasoning_is_judged_before_the_answer_begins_to_go_out(guard: AlignerGuardrail) -> None:
    seen: list[Any] = []

    async def upstream() -> AsyncIterator[Any]:
        for item in [
            *events({"reasoning_content": LONG})[:-1],
            chunk(" It rains."),
            chunk(" So be it."),
            chunk(why="stop"),
        ]:
            seen.append(len(got))
            yield item

    got: list[Any] = []
    async for item in guard.async_post_call_streaming_iterator_hook(user(), upstream(), data("sentence")):
        got.append(item)
    assert seen[2] < 2  # nothing of the reasoning had gone out before the answer began
    assert got[1].choices[0].delta.reasoning_content == LONG


@pytest.mark.parametrize("model", ["gpt", "sentence"])
async def test_reasoning_longer_than_the_room_of_one_stream_is_read_to_its_end(
    guard: AlignerGuardrail, engine: CountingEngine, model: str
) -> None:
    """Nothing of it may go out before it is judged, so waiting for room would never end."""
    budget = guard._streams
    budget.max_stream_bytes = 20_000
    thoughts = [chunk(reasoning_content=f"{number}. {LONG} ") for number in range(40)]
    items = [chunk("", role="assistant"), *thoughts, chunk(PLAIN), chunk(why="stop")]
    assert chat_text(await streamed(guard, model, items)) == PLAIN
    assert max(map(len, engine.asked)) >= len(LONG) * 40
    with pytest.raises(Blocked, match="reasoning"):
        await streamed(guard, model, [*items[:30], chunk(reasoning_content=RUDE), *items[30:]])
    # the room of all streams is the limit
    budget.max_bytes = 30_000
    with pytest.raises(Blocked, match="reasoning"):
        await streamed(guard, model, items)
    assert budget.held_bytes == 0


async def test_a_broken_stream_is_judged_as_cut_off(guard: AlignerGuardrail) -> None:
    broken = litellm.InternalServerError("broke", "openai", "m")

    async def upstream() -> AsyncIterator[Any]:
        for item in (chunk(f"{PLAIN} "), chunk(f"{RUDE} "), chunk("Bring a coat")):
            yield item
        raise broken

    for model in ("gpt", "sentence"):
        got: list[Any] = []
        request = data(model)
        ended: Exception | None = None
        try:
            async for item in guard.async_post_call_streaming_iterator_hook(user(), upstream(), request):
                got.append(item)
        except litellm.InternalServerError as error:
            ended = error
        assert ended is broken
        text = chat_text([item for item in got if not isinstance(item, bytes)])
        assert text.split() == f"{PLAIN} Bring a coat".split()
        assert ledger_of(request).headers()["x-aligner-status"] == "corrected"


def refused(text: str) -> Exception:
    return litellm.BadRequestError(f"no: {text}", "m", "openai")


@pytest.mark.parametrize(("text", "told"), [(RUDE, False), (LONG, True)])
async def test_an_upstreams_error_says_nothing_that_is_rude(guard: AlignerGuardrail, text: str, told: bool) -> None:
    error = refused(text)
    assert await guard.async_post_call_failure_hook(data("gpt"), error, user()) is None
    assert (text in str(error)) is told
    assert told or "its message is withheld" in str(error)
    assert (text in str(error.__dict__)) is told


async def test_an_error_whose_text_lies_in_its_response_is_replaced(guard: AlignerGuardrail) -> None:
    reply = httpx.Response(502, text=RUDE, request=httpx.Request("POST", "http://up.example"))
    error = httpx.HTTPStatusError(f"bad gateway: {RUDE}", request=reply.request, response=reply)
    raised = await guard.async_post_call_failure_hook(data("gpt"), error, user())
    assert isinstance(raised, HTTPException)
    assert raised.status_code == 502
    assert RUDE not in str(raised.detail)


async def test_the_proxys_own_errors_stay(guard: AlignerGuardrail) -> None:
    own = ProxyException(RUDE, "auth_error", None, 401)
    assert await guard.async_post_call_failure_hook(data("gpt"), own, user()) is None
    assert own.message == RUDE
    lax = refused(RUDE)
    assert await guard.async_post_call_failure_hook(data("lax"), lax, user()) is None
    assert RUDE in str(lax)


async def test_what_may_not_be_stored_is_not_remembered(guard: AlignerGuardrail, engine: CountingEngine) -> None:
    seen: list[bool] = []
    align = guard.pipeline.align

    async def noting(exchange: Any, *further: Any) -> Any:
        seen.append(exchange.no_store)
        return await align(exchange, *further)

    guard.pipeline.align = noting  # type: ignore[method-assign]
    await whole(guard, "gpt", answer(beside(LONG)["other_text"]), cache={"no-store": True})
    assert seen == [True, True]


async def test_many_fields_are_one_question_to_the_engine(guard: AlignerGuardrail, engine: CountingEngine) -> None:
    fields = {f"note{number}": f"The harbour number {number} opens at nine." for number in range(300)}
    await whole(guard, "gpt", answer({"provider_specific_fields": fields}))
    assert len(engine.asked) == 2
    assert all(text in engine.asked[1] or text in engine.asked[0] for text in fields.values())
    with pytest.raises(Blocked, match="other_text"):
        await whole(guard, "gpt", answer({"provider_specific_fields": fields | {"last": RUDE}}))
