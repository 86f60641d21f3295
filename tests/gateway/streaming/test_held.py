"""The held stream: what is replayed, when, and what happens when the upstream or the client breaks off."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.utils import ModelResponseStream
from prometheus_client import REGISTRY

from aligner_proxy.concurrency import TimeSlice
from aligner_proxy.errors import NotPutIn
from aligner_proxy.formats import Wire, chat, messages, responses, sse
from aligner_proxy.formats.stream_events import StreamDecoder
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.comment_lines import KEEPALIVE
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.streaming.delivery import StreamRequest
from aligner_proxy.gateway.streaming.held import HeldStream, LiveStream
from aligner_proxy.types import Exchange, Mode, Outcome, Policy, Status
from tests.e2e.event_streams import frames, message_events, response_events
from tests.support.comments import take_comment, without_id
from tests.support.outcome_log import withdrawals
from tests.support.stream_fixtures import flow

POLICY = Policy("p")


def chunk(content: str | None = None, index: int = 0, why: str | None = None) -> ModelResponseStream:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": why}
    return ModelResponseStream(id="1", created=1, choices=[choice])


class Corrector:
    """Corrects as `correct` says, and reads nothing ahead."""

    def __init__(self, correct: Any) -> None:
        self._correct = correct
        self.pipeline: Any = self
        self.records_first = False

    async def correct(self, exchanges: Sequence[Exchange], _session_of: object) -> Sequence[Outcome]:
        return cast("Sequence[Outcome]", await self._correct(exchanges))

    async def read(self, _exchange: Exchange, _policy: Policy) -> None:
        return None


def stream_of(wire: Wire, data: dict[str, Any], ledger: RequestState, correct: Any) -> HeldStream:
    kind = LiveStream if ledger.policy.mode is Mode.SHADOW else HeldStream
    return kind(StreamRequest(wire, data, ledger, cast("ChoiceCorrector", Corrector(correct))))


def held(
    status: Status = Status.UNCHANGED, text: str | None = None, wire: Wire = chat
) -> tuple[HeldStream, RequestState, list[Exchange]]:
    ledger, asked = RequestState("call-1", POLICY, "m"), list[Exchange]()

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        asked.extend(exchanges)
        outcomes = [Outcome(status, None, text or e.answer, POLICY, e.index) for e in exchanges]
        ledger.finalize(outcomes)
        return outcomes

    return stream_of(wire, {"messages": []}, ledger, align), ledger, asked


async def played(stream: HeldStream, source: AsyncIterator[object]) -> list[Any]:
    return [item async for item in stream.deliver(source)]


async def into(got: list[object], source: AsyncIterator[object]) -> None:
    async for item in source:
        got.append(item)


async def test_an_unchanged_stream_is_the_same_objects_and_a_comment() -> None:
    stream, _, asked = held()
    items = [chunk("a"), b"raw", chunk("b"), chunk(why="stop")]
    got = await played(stream, flow(items))
    assert all(a is b for a, b in zip(got, items, strict=False))
    assert [without_id(got[4]), len(got)] == [b": aligner status=unchanged\n\n", 5]
    assert [exchange.answer for exchange in asked] == ["ab"]


async def test_a_corrected_stream() -> None:
    stream, _, _ = held(Status.CORRECTED, "xyz")
    got = await played(stream, flow([chunk("ab"), chunk("c"), chunk(why="stop")]))
    assert [item.choices[0].delta.content for item in got[:3]] == ["xy", "z", None]
    assert without_id(got[3]) == b": aligner status=corrected\n\n"


async def test_nothing_is_said_before_the_whole_answer_is_aligned() -> None:
    gate = asyncio.Event()
    stream, ledger, _ = held()

    async def slow() -> AsyncIterator[object]:
        yield chunk("a")
        await gate.wait()
        yield chunk("b")

    replay = stream.deliver(slow())
    first = asyncio.ensure_future(anext(replay))
    await asyncio.sleep(0.01)
    assert not first.done()
    gate.set()
    await first
    assert ledger.is_final


async def test_a_stream_without_choices_is_empty() -> None:
    stream, ledger, asked = held()
    raw = b"data: x\n\n"
    assert await played(stream, flow([raw])) == [raw, b": aligner status=skipped reason=empty\n\n"]
    assert (asked, ledger.status) == ([], Status.SKIPPED)


@pytest.mark.parametrize("error", [httpx.ReadError("gone"), ConnectionResetError("gone"), ValueError("not JSON")])
async def test_a_broken_upstream_delivers_what_came_and_breaks(error: Exception) -> None:
    stream, ledger, asked = held(Status.CORRECTED, "never")
    items = [chunk("a"), chunk("b", 1)]
    got = list[object]()
    with pytest.raises(type(error)) as caught:
        await into(got, stream.deliver(flow(items if error is None else [*items, error])))
    assert caught.value is error
    assert got[:2] == items
    choices = b"choices=skipped/upstream_error,skipped/upstream_error"
    assert got[2:] == [b": aligner status=skipped reason=upstream_error " + choices + b"\n\n"]
    assert asked == []
    assert [outcome.index for outcome in ledger.outcomes] == [0, 1]


async def test_a_stream_that_never_began_is_the_upstreams_error_alone() -> None:
    stream, ledger, _ = held()
    with pytest.raises(httpx.ConnectError):
        await played(stream, flow([httpx.ConnectError("no")]))
    assert (ledger.status, ledger.reason) == (Status.SKIPPED, "upstream_error")


async def test_a_client_that_leaves_cancels_the_alignment() -> None:
    cancelled = asyncio.Event()
    ledger = RequestState("call-1", POLICY, "m")

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return []

    stream = stream_of(chat, {}, ledger, align)
    task = asyncio.create_task(played(stream, flow([chunk("a")])))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_an_alignment_that_is_refused_delivers_nothing() -> None:
    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        raise PermissionError("blocked")

    got: list[object] = []
    with pytest.raises(PermissionError):
        await into(got, stream_of(chat, {}, RequestState("c", POLICY, "m"), align).deliver(flow([chunk("a")])))
    assert got == []


async def test_a_client_that_leaves_while_the_upstream_writes_is_recorded() -> None:
    stream, ledger, asked = held()

    async def endless() -> AsyncIterator[object]:
        yield chunk("a")
        await asyncio.sleep(60)

    task = asyncio.create_task(played(stream, endless()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ledger.status, ledger.reason, asked) == (Status.FAILED, "cancelled", [])


async def test_in_shadow_mode_items_pass_as_they_come() -> None:
    policy = Policy("p", mode=Mode.SHADOW)
    ledger = RequestState("call-1", policy, "m")

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        outcomes = [Outcome(Status.SHADOW, "would_correct", e.answer, policy, e.index) for e in exchanges]
        ledger.finalize(outcomes)
        return outcomes

    items = [chunk("a"), chunk("b")]
    replay = stream_of(chat, {}, ledger, align).deliver(flow(items))
    assert await anext(replay) is items[0]
    assert not ledger.is_final
    rest = [item async for item in replay]
    assert rest[0] is items[1]
    assert [without_id(item) for item in rest[1:]] == [b": aligner status=shadow reason=would_correct\n\n"]


async def test_a_held_stream_says_that_it_is_alive_while_it_waits() -> None:
    ledger = RequestState("call-1", Policy("p", keepalive_s=0.01), "m")

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        await asyncio.sleep(0.05)
        outcomes = [Outcome(Status.UNCHANGED, None, e.answer, POLICY, e.index) for e in exchanges]
        ledger.finalize(outcomes)
        return outcomes

    async def slow() -> AsyncIterator[object]:
        yield TOLD[:-200]
        await asyncio.sleep(0.05)
        yield TOLD[-200:]

    got = await played(stream_of(messages, {}, ledger, align), slow())
    assert got.count(b'event: ping\ndata: {"type": "ping"}\n\n') >= 3  # one is the upstream's own
    got = await played(stream_of(chat, {}, ledger, align), flow([chunk("a")]))
    assert [item.choices[0].delta.content for item in got[:2]] == ["", ""]
    assert {(item.id, item.created, item.model) for item in got[:-1]} == {("1", 1, got[-2].model)}


async def test_a_live_stream_is_kept_alive_only_between_two_events() -> None:
    policy = Policy("p", mode=Mode.SHADOW, keepalive_s=0.01)

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        await asyncio.sleep(0.05)
        return []

    for end, alive in ((len(TOLD), True), (-1, False)):
        made = stream_of(messages, {}, RequestState("call-1", policy, "m"), align)
        got = await played(made, flow([TOLD[:end]]))
        assert (KEEPALIVE in got) is alive
        assert got[0] == TOLD[:end]


async def test_what_comes_in_does_not_put_off_a_heartbeat() -> None:
    stream, ledger, _ = held()
    ledger.policy = Policy("p", keepalive_s=0.05)

    async def steady() -> AsyncIterator[object]:
        for _ in range(20):
            await asyncio.sleep(0.01)
            yield chunk("a")

    *got, _ = await played(stream, steady())
    texts = [item.choices[0].delta.content for item in got]
    assert texts[:2] == ["", ""]
    assert "".join(texts) == "a" * 20


async def test_without_an_interval_a_held_stream_is_silent() -> None:
    stream, ledger, _ = held()
    ledger.policy = Policy("p", keepalive_s=0.0)

    async def slow() -> AsyncIterator[object]:
        await asyncio.sleep(0.03)
        yield chunk("a")

    got = await played(stream, slow())
    assert [item.choices[0].delta.content for item in got[:-1]] == ["a"]


async def test_a_stream_knows_how_late_its_text_went_out() -> None:
    stream, _, _ = held()
    await played(stream, flow([chunk("a"), chunk("b")]))
    times = stream.client.timeline
    assert times.upstream_first is not None
    assert times.upstream_last is not None
    assert times.client_first is not None
    assert times.client_last is not None
    assert times.began <= times.upstream_first <= times.upstream_last <= times.client_first <= times.client_last
    assert times.first_added_s == times.client_first - times.upstream_first
    assert times.last_added_s == times.client_last - times.upstream_last


ANSWER = "It is so. You fool. It stays so."
MESSAGE = {"type": "message", "content": [{"type": "text", "text": ANSWER}], "usage": {"output_tokens": 9}}
TOLD = "".join(frames(message_events({**MESSAGE, "stop_reason": "end_turn", "stop_sequence": None}))).encode()


@given(st.lists(st.integers(0, len(TOLD)), max_size=10), st.sampled_from([Status.UNCHANGED, Status.CORRECTED]))
def test_a_messages_stream_cut_anywhere(cuts: list[int], status: Status) -> None:
    edges = [0, *sorted(cuts), len(TOLD)]
    items = [TOLD[a:b] for a, b in itertools.pairwise(edges)]
    text = "It is so." if status is Status.CORRECTED else None
    stream, _, asked = held(status, text, messages)
    got = asyncio.run(played(stream, flow(items)))
    assert [exchange.answer for exchange in asked] == [ANSWER]
    assert without_id(take_comment(got)) == f": aligner status={status.value}\n\n".encode()
    if status is Status.UNCHANGED:
        assert got == items
    else:
        events = [json.loads(line[6:]) for line in b"".join(got).decode().splitlines() if line.startswith("data: ")]
        assert "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta") == text


async def test_a_responses_stream_in_pieces_of_any_size() -> None:
    part = {"type": "output_text", "text": ANSWER, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": [item]}
    config = OpenAIResponsesAPIConfig()
    logging = cast("Any", None)
    for size in (1, 5, 1000):
        told = response_events(body, lambda text, size=size: [text[i : i + size] for i in range(0, len(text), size)])
        items = [config.transform_streaming_response("m", event, logging) for event in told]
        stream, _, asked = held(Status.CORRECTED, "It is so.", responses)
        got = await played(stream, flow(items))
        assert [exchange.answer for exchange in asked] == [ANSWER]
        # directly before the last event
        assert without_id(got.pop(-2)) == b": aligner status=corrected\n\n"
        deltas = [event.delta for event in got if event.type == "response.output_text.delta"]
        assert "".join(deltas) == "It is so."
        assert got[-1].response.output[0].content[0].text == "It is so."
        assert [event.sequence_number for event in got] == list(range(len(items)))


async def test_a_stream_that_ends_inside_an_event_gets_no_comment() -> None:
    stream, ledger, _ = held(wire=messages)
    got: list[object] = []
    with pytest.raises(httpx.ReadError):
        await into(got, stream.deliver(flow([TOLD[:-300], httpx.ReadError("gone")])))
    assert got == [TOLD[:-300]]
    assert (ledger.status, ledger.reason) == (Status.SKIPPED, "upstream_error")
    stream, _, _ = held(wire=messages)
    assert await played(stream, flow([TOLD[:-1]])) == [TOLD[:-1]]


async def test_what_the_upstream_says_of_the_whole_stream_counts_for_each_part() -> None:
    class Source:
        _hidden_params: ClassVar = {"additional_headers": {"llm_provider-cache-control": "no-store"}}

        def __aiter__(self) -> AsyncIterator[object]:
            return flow([TOLD])

    stream, _, asked = held(wire=messages)
    await into([], stream.deliver(Source()))
    assert [exchange.no_store for exchange in asked] == [True]


async def test_comments_cost_no_walk_over_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [chunk("a") for _ in range(200)]
    walked = [0]
    tail = sse.stream_tail

    def counted(before: bytes, item: object) -> bytes:
        walked[0] += 1
        return tail(before, item)

    monkeypatch.setattr(sse, "stream_tail", counted)
    policy = Policy("p", mode=Mode.SHADOW, keepalive_s=0.001)
    ledger = RequestState("call-1", policy, "m")

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        await asyncio.sleep(0.2)
        outcomes = [Outcome(Status.SHADOW, None, e.answer, policy, e.index) for e in exchanges]
        ledger.finalize(outcomes)
        return outcomes

    got = await played(stream_of(chat, {"messages": []}, ledger, align), flow(items))
    assert got.count(KEEPALIVE) > 5
    assert walked[0] <= 3 * len(items)


async def test_nothing_goes_out_before_the_whole_replay_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long replay gives way to other work, the one that sends included."""

    async def pause(_: TimeSlice) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr(TimeSlice, "pause", pause)
    ledger = RequestState("call-1", replace(POLICY, keepalive_s=0.001), "m")

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        outcomes = [Outcome(Status.CORRECTED, None, "xyzxyz", POLICY, e.index) for e in exchanges]
        ledger.finalize(outcomes)
        return outcomes

    items = [chunk("abc"), chunk("def"), chunk(why="stop")]
    got = await played(stream_of(chat, {"messages": []}, ledger, align), flow(items))
    texts = [item.choices[0].delta.content or "" for item in got if isinstance(item, ModelResponseStream)]
    assert "".join(texts) == "xyzxyz"


class Unwilling:
    """A wire format into which no correction goes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(chat, name)

    def decoder(self, data: Any) -> StreamDecoder:
        made = chat.decoder(data)
        feed = made.feed
        made.feed = lambda item: [replace(event, rewrite=unwilling) for event in feed(item)]  # type: ignore[method-assign]
        return made


def unwilling(_item: object, _pieces: object, _wholes: object) -> object:
    raise NotPutIn("scripted")


async def test_a_correction_that_does_not_go_in_leaves_the_original(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aligner_proxy.outcome")
    before = REGISTRY.get_sample_value("aligner_not_put_in_total") or 0.0
    stream, ledger, _ = held(Status.CORRECTED, "xyz", cast("Wire", Unwilling()))
    items = [chunk("abc"), chunk(why="stop")]
    got = await played(stream, flow(items))
    assert [item for item in got if not isinstance(item, bytes)] == items
    assert (ledger.status, ledger.reason) == (Status.FAILED, "internal_error")
    assert REGISTRY.get_sample_value("aligner_not_put_in_total") == before + 1
    assert withdrawals(caplog) == [([0], "failed", "internal_error")]
