"""What goes out of a stream before its text: what opens the answer, and heartbeats in the form of the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit import recorder
from aligner_proxy.formats.safe import SafeFormat
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.comment_lines import KEEPALIVE, is_comment
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.streaming import held
from aligner_proxy.gateway.streaming.delivery import StreamRequest
from aligner_proxy.gateway.streaming.held import HeldStream
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, Outcome, Policy, Status
from tests.gateway.test_guardrail import build, data, ledger_of, user
from tests.gateway.test_side_texts import CountingEngine
from tests.support.stream_fixtures import FORMATS, Format, Items, chat_text, chunk, kind, response_items

BEAT_S = 0.02
POLICY = Policy("p", keepalive_s=BEAT_S)
ANSWER = ["It is so. ", "You fool. ", "It stays so."]
THOUGHTS = ["Only a ", "fool would ", "ask that."]
CLEAN_THOUGHTS = ["The harbour ", "opens at ", "nine."]


class Upstream:
    """A stream that waits behind some of its items until it is told to go on."""

    def __init__(self, items: Sequence[Any], waits_behind: int) -> None:
        self._items = items
        self._waits_behind = waits_behind
        self.goes_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for number, item in enumerate(self._items):
            if number == self._waits_behind:
                await self.goes_on.wait()
            yield item


class Corrector:
    """Corrects every answer to a text, or not at all, when it may."""

    records_first = False

    def __init__(self, ledger: RequestState, text: str | None = None) -> None:
        self.pipeline: Any = self
        self._ledger = ledger
        self._text = text

    async def correct(self, exchanges: Sequence[Exchange], _session_of: object) -> list[Outcome]:
        status = Status.CORRECTED if self._text else Status.UNCHANGED
        outcomes = [Outcome(status, None, self._text or one.answer, POLICY, one.index) for one in exchanges]
        self._ledger.finalize(outcomes)
        return outcomes

    async def read(self, _exchange: Exchange, _policy: Policy) -> None:
        return None


def held_stream(form: Format, text: str | None = None) -> HeldStream:
    ledger = RequestState("call-1", POLICY, "m")
    corrector: Any = Corrector(ledger, text)
    return HeldStream(StreamRequest(SafeFormat(form.wire), {"messages": []}, ledger, corrector))


def first_text(form: Format, items: Items) -> int:
    """The number of the item with the first text."""
    decoder = form.wire.decoder({})
    return next(n for n, item in enumerate(items) if any(event.pieces for event in decoder.feed(item)))


async def play(source: AsyncIterator[Any], upstream: Upstream) -> tuple[Items, Items]:
    """What comes before the upstream goes on, and what comes after that."""
    before: Items = []
    rest: Items = []
    got = before

    async def read() -> None:
        async for item in source:
            got.append(item)

    reading = asyncio.create_task(read())
    await asyncio.sleep(8 * BEAT_S)
    got = rest
    upstream.goes_on.set()
    await reading
    return before, rest


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("text", [None, "It is so."])
async def test_what_opens_an_answer_goes_out_while_its_text_is_held(form: Format, text: str | None) -> None:
    items = form.tell(ANSWER)
    upstream = Upstream(items, first_text(form, items) + 1)
    stream = held_stream(form, text)
    before, rest = await play(stream.deliver(aiter(upstream)), upstream)
    whole = [item for item in before + rest if not is_comment(item)]
    assert form.read(before) == ""
    assert form.read(whole) == (text or "".join(ANSWER))
    assert KEEPALIVE not in before
    # heartbeats are no part of what was served
    served = stream.client.served_items.items
    beats = [item for item in whole if not any(item is one for one in served)]
    assert len(beats) >= 3
    assert any(item is one for item in before for one in beats)
    if text is None:
        assert joined_items(form, served) == joined_items(form, items)


def joined_items(form: Format, items: Sequence[Any]) -> object:
    """The items of a stream, in one piece where they are bytes."""
    return b"".join(items) if form.name == "messages" else list(items)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_before_a_heartbeat_is_due_nothing_goes_out(form: Format) -> None:
    """So that an answer that is blocked is an HTTP error, where LiteLLM makes one of it."""
    stream = held_stream(form)
    stream._request.state.policy = Policy("p", keepalive_s=60)  # on a busy machine a short one is due before the end

    async def refuse(_exchanges: object, _session_of: object) -> None:
        raise Blocked("timeout")

    corrector: Any = stream._request.corrector
    corrector.correct = refuse
    got: Items = []

    async def read() -> None:
        async for item in stream.deliver(aiter(Upstream(form.tell(ANSWER), -1))):
            got.append(item)

    with pytest.raises(Blocked):
        await read()
    assert stream.client.served_items.items == []
    # LiteLLM says that a response failed in an event, and clients read no other event before `response.created`
    assert [kind(item) for item in got] == (["response.created"] if form.name == "responses" else [])


async def test_of_what_nothing_has_come_no_event_can_be_made() -> None:
    for form in FORMATS:
        upstream = Upstream(form.tell(ANSWER), 0)
        before, _ = await play(held_stream(form).deliver(aiter(upstream)), upstream)
        assert before == [KEEPALIVE] * len(before) != [], form.name


async def test_what_comes_later_opens_the_answer_at_once() -> None:
    """Once a heartbeat was due, the opening waits for no further one."""
    upstream = Upstream([chunk("", role="assistant"), chunk("a"), chunk(why="stop")], 0)
    stream = held_stream(FORMATS[0])
    stream._request.state.policy = Policy("p", keepalive_s=0.1)
    got: Items = []

    async def read() -> None:
        async for item in stream.deliver(aiter(upstream)):
            got.append(item)
            upstream.goes_on.set()

    await read()
    assert got[0] == KEEPALIVE
    assert got[1].choices[0].delta.role == "assistant"


async def test_behind_the_last_event_there_are_only_comments() -> None:
    form = FORMATS[2]
    stream = held_stream(form)
    for item in form.tell(ANSWER):
        stream.client.note_delivered(item, has_text=True)
        stream.client.last_event_keeper.feed(item)
        is_last = stream.client.last_event_keeper.is_at_end
    assert not is_last  # the items are torn
    stream.client.last_event_keeper.feed(b'event: message_stop\ndata: {"type": "message_stop"}\n\n')
    assert stream.make_heartbeat() == KEEPALIVE


async def test_a_stream_that_grows_too_long_says_its_opening_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in FORMATS:
        items = form.tell([*ANSWER, *ANSWER])
        upstream = Upstream(items, first_text(form, items) + 1)
        monkeypatch.setattr(held, "longest_part", lambda _: 40)
        ledger = RequestState("call-1", POLICY, "m")
        shadows = ShadowCorrections(1, 1)
        corrector = ChoiceCorrector(Pipeline(CountingEngine()), ledger, shadows, None, lambda _: None)
        stream = HeldStream(StreamRequest(SafeFormat(form.wire), {"messages": []}, ledger, corrector))
        before, rest = await play(stream.deliver(aiter(upstream)), upstream)
        assert stream._released is not None
        assert form.read(before + [item for item in rest if not is_comment(item)]) == "".join([*ANSWER, *ANSWER])
        assert joined_items(form, stream.client.served_items.items) == joined_items(form, items)


KINDNESS = "Kindness: the response should never insult the reader"


def route(name: str, **settings: Any) -> dict[str, Any]:
    return {"match": {"model": name}, "name": name, "objectives": [], "keepalive_s": BEAT_S, **settings}


FILE = {
    "objectives": {"kind": KINDNESS},
    "routes": [
        route("judge"),
        route("pass", reasoning="pass"),
        route("drop", reasoning="drop"),
        route("sentence", stream="sentence"),
        route("live", stream="passthrough", on_error="passthrough"),
    ],
    "tenants": [{"match": {}, "enforce": ["kind"]}],
    "defaults": {"on_error": "block"},
}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    return guard_of(tmp_path, monkeypatch)


def guard_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AlignerGuardrail:
    made = build(folder, monkeypatch, {**FILE, **settings})
    made.pipeline = Pipeline(CountingEngine(), extensions=made.pipeline.extensions)
    return made


def thinking(thoughts: Sequence[str], *, waits_behind: int) -> Upstream:
    """A role, reasoning and a text."""
    reasons = [chunk(reasoning_content=thought) for thought in thoughts]
    texts = [chunk(piece) for piece in ("It is so. ", "It stays so.")]
    return Upstream([chunk("", role="assistant"), *reasons, *texts, chunk(why="stop")], waits_behind)


def reasoning_in(items: Items) -> str:
    """The reasoning that a client puts together."""
    deltas = [choice.delta for item in items if not is_comment(item) for choice in item.choices]
    return "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)


async def through(guard: AlignerGuardrail, model: str, upstream: Upstream) -> tuple[Items, Items]:
    source = guard.async_post_call_streaming_iterator_hook(user(), aiter(upstream), data(model))
    return await play(source, upstream)


@pytest.mark.parametrize(
    ("model", "waits_behind", "reasoning"),
    [
        ("judge", 2, ""),
        ("judge", 4, ""),
        ("judge", 6, "".join(CLEAN_THOUGHTS)),
        ("pass", 2, CLEAN_THOUGHTS[0]),
        ("pass", 4, "".join(CLEAN_THOUGHTS)),
        ("drop", 4, ""),
    ],
)
async def test_reasoning_goes_out_where_no_policy_can_still_block_it(
    guard: AlignerGuardrail, model: str, waits_behind: int, reasoning: str
) -> None:
    """It is judged when something else follows it, here the text, the second piece of which comes once it is due."""
    upstream = thinking(CLEAN_THOUGHTS, waits_behind=waits_behind)
    if waits_behind == 6:
        upstream = Slow(upstream._items, 6, behind=5)
    before, rest = await through(guard, model, upstream)
    assert before[0].choices[0].delta.role == "assistant"
    assert (reasoning_in(before), chat_text(before)) == (reasoning, "")
    assert (reasoning_in(before + rest), chat_text(before + rest)) == (
        "" if model == "drop" else "".join(CLEAN_THOUGHTS),
        "It is so. It stays so.",
    )


class Slow(Upstream):
    """Waits for a heartbeat behind an item, too."""

    def __init__(self, items: Sequence[Any], waits_behind: int, behind: int) -> None:
        super().__init__(items, waits_behind)
        self._behind = behind

    async def __aiter__(self) -> AsyncIterator[Any]:
        number = 0
        async for item in super().__aiter__():
            if number == self._behind:
                await asyncio.sleep(2 * BEAT_S)
            number += 1
            yield item


QUOTED = ["They ask. ", "You are a fool of the first order.", " I say so."]


@pytest.mark.parametrize("longest", [10_000, 40])
async def test_a_correction_is_taken_back_if_the_opening_quoted_what_it_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    """Also where the stream grows too long to be held; reasoning that still waits is left out instead."""
    open_route = route("pass", reasoning="pass", objectives=["kind"], on_error="passthrough")
    guard = guard_of(tmp_path, monkeypatch, routes=[open_route], tenants=[])
    monkeypatch.setattr(held, "longest_part", lambda _: longest)
    texts = ["The harbour opens at nine. ", QUOTED[1], " Bring your papers, please."]
    items = [*(chunk(reasoning_content=one) for one in QUOTED), *map(chunk, texts), chunk(why="stop")]
    seen = []
    for waits_behind in (5, 0):
        upstream = Upstream([chunk("", role="assistant"), *items], waits_behind)
        if not waits_behind:
            upstream.goes_on.set()
        request = data("pass")
        source = guard.async_post_call_streaming_iterator_hook(user(), aiter(upstream), request)
        before, rest = await play(source, upstream)
        outcome = ledger_of(request).outcomes[0]
        seen.append((outcome.status, reasoning_in(before), QUOTED[1] in reasoning_in(rest)))
    went_out = "".join(QUOTED)
    is_held = longest > 40
    assert seen[0] == (Status.SKIPPED, went_out, False)
    assert seen[1] == ((Status.CORRECTED, "", False) if is_held else (Status.SKIPPED, went_out, False))


async def test_the_beginning_of_a_text_that_may_be_left_out_waits_for_it() -> None:
    form = FORMATS[2]
    items = form.tell(ANSWER)
    upstream = Upstream(items, first_text(form, items) + 1)
    before, _ = await play(held_stream(form).deliver(aiter(upstream)), upstream)
    events = b"".join(before)
    assert b"message_start" in events
    assert b"content_block_start" not in events


async def test_rude_reasoning_ends_a_stream_that_was_opened(guard: AlignerGuardrail) -> None:
    upstream = thinking(THOUGHTS, waits_behind=4)
    request = data("judge")
    got: Items = []

    async def read() -> None:
        async for item in guard.async_post_call_streaming_iterator_hook(user(), aiter(upstream), request):
            got.append(item)

    reading = asyncio.create_task(read())
    await asyncio.sleep(4 * BEAT_S)
    upstream.goes_on.set()
    with pytest.raises(Blocked, match="reasoning"):
        await reading
    assert got[0].choices[0].delta.role == "assistant"
    assert (reasoning_in(got), chat_text(got)) == ("", "")
    assert [(one.status, one.reason) for one in ledger_of(request).outcomes] == [(Status.FAILED, "reasoning")]


async def test_an_answer_that_is_recorded_first_is_opened_without_reasoning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_WAIT_S", 0.0)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    guard = guard_of(tmp_path, monkeypatch, audit="required")
    upstream = thinking(CLEAN_THOUGHTS, waits_behind=4)
    before, rest = await through(guard, "pass", upstream)
    assert before[0].choices[0].delta.role == "assistant"
    assert (reasoning_in(before), reasoning_in(before + rest)) == ("", "".join(CLEAN_THOUGHTS))
    await guard._audit_writers.aclose()


@pytest.mark.parametrize(("model", "text"), [("judge", ""), ("sentence", "It is so.")])
async def test_what_the_request_says_itself_keeps_no_response_back(
    guard: AlignerGuardrail, model: str, text: str
) -> None:
    instructions = "You are the clerk of a harbour."
    items = response_items(["It is so.", " It stays", " so."])
    for item in items:
        if getattr(item, "response", None) is not None:
            item.response.instructions = instructions
    upstream = Upstream(items, first_text(FORMATS[3], items) + 2)
    request = {"model": model, "input": "When?", "instructions": instructions, "metadata": {}}
    source = guard.async_post_call_streaming_iterator_hook(user("/v1/responses"), aiter(upstream), request)
    before, _ = await play(source, upstream)
    # a heartbeat that is a comment may come between events
    events = [item for item in before if not is_comment(item)]
    assert [kind(event) for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].delta == ""
    assert "".join(event.delta for event in events if kind(event) == "response.output_text.delta") == text


async def test_what_passes_at_once_gets_no_events_of_ours(guard: AlignerGuardrail) -> None:
    upstream = thinking(CLEAN_THOUGHTS, waits_behind=3)
    before, rest = await through(guard, "live", upstream)
    events = [item for item in before + rest if not is_comment(item)]
    assert all(one is other for one, other in zip(events, upstream._items, strict=True))
