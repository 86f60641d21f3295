"""Streams that are released segment by segment: nothing lost, in order, as soon as it is decided, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import anyio
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aligner_proxy.audit.writer import AuditWriters
from aligner_proxy.errors import CorrectionError, EngineFault, EngineOverloaded, EngineUnavailable, SessionLost
from aligner_proxy.formats import chat, messages, responses
from aligner_proxy.formats.safe import SafeDecoder
from aligner_proxy.formats.stream_events import StreamEvent
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.streaming.delivery import KEEPALIVE, StreamRequest
from aligner_proxy.gateway.streaming.held import HeldStream
from aligner_proxy.gateway.streaming.released import ReleasedStream
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    Exchange,
    FailurePolicy,
    JsonStrings,
    Objective,
    OnError,
    OnSkip,
    Outcome,
    Policy,
    SkipPolicy,
    Status,
    StreamMode,
    Turn,
    join_surrogates,
)
from tests.support.comments import take_comment, without_id
from tests.support.sampling import examples
from tests.support.scripted import ScriptedEngine, SegmentEngine
from tests.support.stream_fixtures import (
    FORMATS,
    Format,
    chat_items,
    chat_text,
    chunk,
    kind,
    message_items,
    message_text,
    response_items,
    response_text,
)

POLICY = Policy("p", (Objective("kind", "Kind: the response should never insult"),), stream=StreamMode.SENTENCE)
DATA = {"messages": [{"role": "user", "content": "When?"}], "prompt": "When?", "input": "When?"}
# an item without an end mark may be the title of the text below it, which a stream has sent when that text goes
PIECES = ["It is so. ", "You fool. ", "Bring a coat!\n\n", "fools all: ", "You fool!\n\n\n", "- item.\n", " ",
          "Well, see Dr. A. ", "```\nfool\n```\n", "\u4f60\u597d\u3002", "\u00e9\U0001f600! "]  # fmt: skip


def score(text: str) -> float:
    return 2.0 if "fool" in text else -2.0


def milder(text: str) -> str:
    return text.replace("fool", "friend") if text.endswith("!") else ""


def stream(
    engine: ScriptedEngine, wire: Any = chat, policy: Policy = POLICY, blocked: Sequence[Status] = ()
) -> tuple[ReleasedStream, RequestState]:
    ledger = RequestState("call-1", policy, "m")

    class Corrector(ChoiceCorrector):
        def raise_if_blocked(self, outcome: Outcome) -> None:
            if outcome.status in blocked:
                raise PermissionError(outcome.reason)

    corrector = Corrector(Pipeline(engine), ledger, ShadowCorrections(1, 1), AuditWriters([]), lambda _: None)
    return ReleasedStream(StreamRequest(wire, DATA, ledger, corrector)), ledger


async def flow(items: Sequence[object], error: BaseException | None = None) -> AsyncIterator[object]:
    for item in items:
        await asyncio.sleep(0)
        yield item
    if error is not None:
        raise error


async def calm(items: Sequence[object]) -> AsyncIterator[object]:
    """Slow enough for an engine that takes no time."""
    for item in items:
        for _ in range(60):
            await asyncio.sleep(0)
        yield item


async def played(made: ReleasedStream, source: AsyncIterator[object]) -> list[Any]:
    return [item async for item in made.deliver(source)]


async def into(got: list[object], source: AsyncIterator[object]) -> None:
    async for item in source:
        got.append(item)


def cut(seed: int, answer: str) -> list[str]:
    rng = random.Random(seed)
    places = sorted(rng.choices(range(len(answer) + 1), k=rng.randrange(20)))
    return [answer[a:b] for a, b in itertools.pairwise([0, *places, len(answer)]) if a < b]


async def held(answer: str) -> Outcome:
    return await Pipeline(SegmentEngine(score, milder)).align(
        Exchange("c", 0, (Turn("user", "When?"),), answer), POLICY
    )


@settings(max_examples=examples(80), deadline=None)
@example(["\u4f60\u597d\u3002", "You fool. ", "It is so. "], 0, FORMATS[0])
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8), st.integers(0, 10**6), st.sampled_from(FORMATS))
def test_any_cutting_comes_out_as_the_whole_answer_would(pieces: list[str], seed: int, form: Format) -> None:
    answer = "".join(pieces)
    expected = asyncio.run(held(answer))
    items = form.tell(cut(seed, answer))
    made, ledger = stream(SegmentEngine(score, milder), form.wire)
    got = asyncio.run(played(made, flow(items)))
    assert take_comment(got) is made.client.comment
    if expected.dropped or ledger.outcomes[0].dropped:  # the gate saw another beginning of the answer each time
        return in_order([s.text for s in split(answer) if score(s.text) < 0], form.read(got))
    assert form.read(got).rstrip() == (expected.text or "").rstrip()
    if expected.status is Status.CORRECTED:
        trailing = answer[len(answer.rstrip()) :] if not split(answer)[-1].text.isspace() else ""
        assert form.read(got).endswith(trailing)
    elif form.name == "messages":
        assert b"".join(got) == b"".join(items)
    else:
        assert all(a is b for a, b in zip(got, items, strict=True))
    assert ledger.status is expected.status
    return None


def halve(answer: str, size: int) -> list[str]:
    """Pieces of so many UTF-16 units, as some upstreams count; letters of two units are cut in half."""
    units = answer.encode("utf-16-le")
    return [units[i : i + 2 * size].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2 * size)]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("rude", ["You fool. ", ""])
async def test_letters_cut_in_half_come_out_whole(form: Format, size: int, rude: str) -> None:
    answer = f"It is \U0001f600\U0001f600 so. {rude}Bring a \U0001f9e5 coat! \U0001f600"
    made, ledger = stream(SegmentEngine(score, milder), form.wire)
    got = await played(made, flow(form.tell(halve(answer, size))))
    assert take_comment(got) is made.client.comment
    assert join_surrogates(form.read(got)) == answer.replace(rude, "")
    assert ledger.status is (Status.CORRECTED if rude else Status.UNCHANGED)


async def test_half_a_letter_alone_is_replaced_or_left_out() -> None:
    made, _ = stream(SegmentEngine(score, milder))
    got = await played(made, flow(chat_items(["It is \ud83d", " so. You fool. Bye", "\ude00! Yes.\ud83d"])))
    assert chat_text(got[:-1]) == "It is \ufffd so. Bye\ufffd! Yes."


def in_order(kept: list[str], text: str) -> None:
    at = 0
    for piece in kept:
        at = text.index(piece, at) + len(piece)


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(FORMATS), st.integers(0, 6), st.sampled_from(["score", "write"]))
def test_whatever_fails_no_byte_is_lost(seed: int, form: Format, good: int, where: str) -> None:
    """From the failure on the original goes out; what went out before stands."""
    answer = "".join(random.Random(seed).choices(PIECES, k=8))
    left = [good]

    def fails() -> bool:
        left[0] -= 1
        return left[0] < 0

    def scores(text: str) -> float:
        if where == "score" and fails():
            raise RuntimeError("secret")
        return score(text)

    def writes(text: str) -> str | CorrectionError:
        return EngineFault("broken") if where == "write" and fails() else milder(text)

    made, ledger = stream(SegmentEngine(scores, writes), form.wire)
    got = asyncio.run(played(made, flow(form.tell(cut(seed, answer)))))
    (outcome,) = ledger.outcomes
    assert form.read(got) == outcome.text
    if outcome.status is Status.FAILED:
        kept = [s.text for s in split(answer) if score(s.text) < 0]
        in_order(kept, form.read(got))
    if not (made.client.served_items.has_any and outcome.status in (Status.CORRECTED, Status.FAILED)):
        assert form.read(got) == answer


async def test_a_segment_goes_out_when_the_next_one_has_begun() -> None:
    told = ["It", "is", "so.", "It", "stays", "so.", "You", "fool.", "Go", "home."]
    words = [" " + word if n else word for n, word in enumerate(told)]
    items, gate = chat_items(words), asyncio.Semaphore(0)

    async def slow() -> AsyncIterator[object]:
        for item in items:
            await gate.acquire()
            yield item

    made, _ = stream(SegmentEngine(score, milder))
    got: list[Any] = []
    task = asyncio.create_task(into(got, made.deliver(slow())))
    behind = []
    for sent in range(len(items)):
        gate.release()
        for _ in range(60):
            await asyncio.sleep(0)
        behind.append((sent + 1, chat_text(got)))
    await task
    said = dict(behind)
    assert said[4] == "", "role and three words: the first segment is not followed by anything yet"
    assert said[5] == "It is so."
    assert said[8] == "It is so. It stays so."
    assert said[10] == "It is so. It stays so.", "what follows a flagged segment is not known"
    assert chat_text(got) == "It is so. It stays so. Go home."


async def test_the_stretch_is_replaced_behind_what_went_out() -> None:
    engine = SegmentEngine(score, milder)
    made, _ = stream(engine)
    answer = "You fool! It is so. You fool! A fool. Bring a coat. And more."
    assert chat_text(await played(made, flow(chat_items(cut(3, answer))))).startswith("You friend! It is so.")
    first, second = engine.sessions[0].spans
    assert (first.first, first.stop, first.before, answer[: first.end]) == (0, 1, "", "You fool! It is so.")
    assert (second.first, second.stop, second.before) == (2, 4, "You friend! It is so.")
    assert answer[: second.end] == "You fool! It is so. You fool! A fool. Bring a coat."
    assert engine.sessions[0].closed


async def test_an_edit_that_the_gate_refuses_goes_out_as_it_was() -> None:
    """A number that is lost; the edit behind it is delivered all the same."""
    made, ledger = stream(SegmentEngine(score, lambda text: "Dear friend." if "7" in text else ""))
    got = await played(made, flow(chat_items(cut(1, "At 7 you fool. It is so. You fool. Bring a coat."))))
    assert chat_text(got) == "At 7 you fool. It is so. Bring a coat."
    assert (ledger.status, ledger.reason) == (Status.CORRECTED, "gate_partly:lost_number")


async def test_an_edit_that_the_gate_refuses_may_end_the_stream() -> None:
    blocking = replace(POLICY, on_error=FailurePolicy(gate=OnError.BLOCK))
    made, ledger = stream(SegmentEngine(score, lambda _: "Dear friend."), policy=blocking, blocked=[Status.FAILED])
    with pytest.raises(PermissionError, match="gate_lost_number"):
        await played(made, calm(chat_items(["It is so.", " At 7", " you fool.", " Go on."])))
    assert chat_text(made.client.served_items.items) == "It is so."
    assert ledger.status is Status.FAILED


async def test_choices_are_released_each_by_itself() -> None:
    made, ledger = stream(SegmentEngine(score, milder))
    items = [
        chunk("You fool. ", 0),
        chunk("All ", 1),
        chunk("Go.", 0),
        chunk("is well.", 1),
        chunk(index=0, why="stop"),
    ]
    got = await played(made, flow([*items, chunk(index=1, why="stop")]))
    assert [chat_text(got, index) for index in (0, 1)] == ["Go.", "All is well."]
    assert [outcome.status for outcome in ledger.outcomes] == [Status.CORRECTED, Status.UNCHANGED]


TOOL = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


async def test_where_tool_calls_pass_one_lets_the_rest_pass_at_once() -> None:
    passing = replace(POLICY, on_skip=SkipPolicy(tool_calls=OnSkip.PASSTHROUGH))
    made, ledger = stream(SegmentEngine(score, milder), policy=passing)
    forever = asyncio.Event()

    async def endless() -> AsyncIterator[object]:
        for item in (chunk("You fool. It is so."), chunk(" You fool."), chunk(**TOOL)):
            yield item
        await forever.wait()
        yield chunk(why="tool_calls")

    got: list[Any] = []
    task = asyncio.create_task(into(got, made.deliver(endless())))
    async with asyncio.timeout(10):
        while len(got) < 3:
            await asyncio.sleep(0)
    assert chat_text(got) in ("It is so. You fool.", "You fool. It is so. You fool.")
    forever.set()
    await task
    assert ledger.reason == "tool_calls"


async def test_text_beside_a_tool_call_is_judged() -> None:
    made, ledger = stream(SegmentEngine(score, milder))
    items = [chunk("It is so. "), chunk(**TOOL), chunk("You fool."), chunk(why="tool_calls")]
    got = await played(made, flow(items))
    assert chat_text(got).strip() == "It is so."
    assert sum(item is items[1] for item in got) == 1
    assert (ledger.status, ledger.reason) == (Status.CORRECTED, None)


@pytest.mark.parametrize(
    ("more", "items", "reason"),
    [
        ({"response_format": {"type": "json_object"}}, chat_items(["You fool. Go."]), "structured_output"),
        ({}, [chunk("You fool. Go."), chunk(why="length")], "truncated"),
        ({}, [chunk("I'm sorry, but I can't help with that, fool."), chunk(why="stop")], None),
        ({}, [chunk(" \n"), chunk(why="stop")], "empty"),
        ({}, [chunk(**TOOL), chunk(why="tool_calls")], "tool_calls"),
        ({}, [b"data: x\n\n"], "empty"),
    ],
)
async def test_what_may_not_be_edited_passes(more: dict[str, Any], items: list[Any], reason: str | None) -> None:
    made, ledger = stream(SegmentEngine(score, lambda _: "Sorry."))
    made._decoder = SafeDecoder(chat.decoder({**DATA, **more}), DATA)
    got = await played(made, flow(items))
    if reason is not None:
        assert all(a is b for a, b in zip(got, items, strict=False))
        assert (ledger.status, ledger.reason) == (Status.SKIPPED, reason)


async def test_an_answer_that_grows_too_long_goes_on_in_parts() -> None:
    made, ledger = stream(SegmentEngine(score, milder), policy=replace(POLICY, max_answer_chars=30))
    got = await played(made, calm(chat_items(["You fool. ", "Go. ", "It ", "goes on and on. ", "You fool."])))
    assert chat_text(got).rstrip() == "Go. It goes on and on."
    assert (ledger.status, ledger.reason) == (Status.CORRECTED, None)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_an_engine_that_reads_nothing_ahead_is_waited_for(form: Format) -> None:
    made, ledger = stream(ScriptedEngine(lambda request: "You friend. Go."), form.wire)
    got = await played(made, flow(form.tell(["You fool. ", "Go."])))
    assert form.read(got) == "You friend. Go."
    assert ledger.status is Status.CORRECTED


@pytest.mark.parametrize("answer", ['{"a": "Go. You fool. So be it."}', '[\n "You fool. Go."\n]'])
async def test_what_may_become_json_is_looked_at_as_a_whole(answer: str) -> None:
    made, ledger = stream(SegmentEngine(score, milder))
    items = chat_items(cut(4, answer))
    got = await played(made, calm(items))
    assert all(a is b for a, b in zip(got, items, strict=False))
    assert (ledger.status, ledger.reason) == (Status.SKIPPED, "structured_output")


async def test_texts_inside_json_are_edited_as_a_whole_where_the_route_says_so() -> None:
    policy = replace(POLICY, json_strings=JsonStrings.CORRECT)
    made, ledger = stream(SegmentEngine(score, lambda _: "You friend."), policy=policy)
    made._decoder = SafeDecoder(chat.decoder({**DATA, "response_format": {"type": "json_object"}}), DATA)
    answer = '{"said": "It is so, and well it is. You fool. Go on."}'
    text = chat_text(await played(made, calm(chat_items(cut(2, answer)))))
    assert json.loads(text) == {"said": "It is so, and well it is. You friend. Go on."}
    assert ledger.status is Status.CORRECTED


async def test_a_text_that_comes_as_a_whole_before_its_pieces_waits_until_it_is_decided() -> None:
    """LiteLLM makes such streams of whole responses: nothing that is flagged may go out with the first events."""
    answer = "It is so. You fool. Go on."
    items = response_items([answer])
    for item in items:
        if kind(item) == "response.content_part.added":
            item.part.text = answer
    made, ledger = stream(SegmentEngine(score, milder), responses)
    got = await played(made, calm(items))
    assert response_text(got) == "It is so. Go on."
    assert "fool" not in "".join(item.model_dump_json() for item in got if not isinstance(item, bytes))
    assert ledger.status is Status.CORRECTED


class Full(SegmentEngine):
    """Has no place for an answer that is only read; `whole` says what becomes of whole ones."""

    def __init__(self, whole: CorrectionError | None = None) -> None:
        super().__init__(score, milder)
        self.whole = whole

    async def read(self, request: Any) -> Any:
        raise EngineOverloaded("full", 0.01)

    async def align(self, request: Any) -> Any:
        if self.whole is not None:
            raise self.whole
        return await super().align(request)


async def test_what_a_full_engine_does_not_read_is_held_and_sent_whole() -> None:
    made, ledger = stream(Full())
    got: list[Any] = []
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[object]:
        yield chunk("It is so. You fool. G")
        await gate.wait()
        yield chunk("o.")
        yield chunk(why="stop")

    task = asyncio.create_task(into(got, made.deliver(slow())))
    await asyncio.sleep(0.05)
    assert not chat_text(got)
    gate.set()
    await task
    assert chat_text(got) == "It is so. Go."
    assert ledger.status is Status.CORRECTED


async def test_an_engine_that_is_full_to_the_end_costs_nothing() -> None:
    made, ledger = stream(Full(EngineOverloaded("full")))
    assert chat_text(await played(made, flow(chat_items(["You fool. ", "Go."])))) == "You fool. Go."
    assert (ledger.status, ledger.reason) == (Status.FAILED, "overloaded")


class Losing(SegmentEngine):
    """Loses its first readings when they know so many verdicts; `asking` is the question that is not answered."""

    def __init__(self, asking: str, known: int, error: CorrectionError, times: int = 1) -> None:
        super().__init__(score, milder)
        self.asking = asking
        self.known = known
        self.error = error
        self.times = times
        self.whole = 0

    async def read(self, request: Any) -> Any:
        reading = await super().read(request)
        if len(self.sessions) <= self.times:
            setattr(reading, self.asking, self._losing(getattr(reading, self.asking)))
        return reading

    async def align(self, request: Any) -> Any:
        self.whole += 1
        return await super().align(request)

    def _losing(self, ask: Any) -> Any:
        async def lost(asked: Any) -> Any:
            if self.asking == "replace" or asked >= self.known:
                raise self.error
            return await ask(asked)

        return lost


GONE = [SessionLost("forgotten"), EngineUnavailable("killed"), EngineOverloaded("full", 0.01)]


@pytest.mark.parametrize("error", GONE, ids=lambda error: error.reason)
@pytest.mark.parametrize(("asking", "known"), [("wait_for_verdicts", 1), ("wait_for_verdicts", 2), ("replace", 0)])
async def test_a_reading_that_is_lost_is_begun_again(asking: str, known: int, error: CorrectionError) -> None:
    engine = Losing(asking, known, error)
    made, ledger = stream(engine)
    assert chat_text(await played(made, calm(chat_items(["It is so.", " You fool!", " Go", " home."])))) == (
        "It is so. You friend! Go home."
    )
    assert ledger.status is Status.CORRECTED
    first, second = engine.sessions
    assert first.closed
    assert second.closed
    assert engine.whole == 0


@pytest.mark.parametrize("error", GONE, ids=lambda error: error.reason)
@pytest.mark.parametrize("asking", ["wait_for_verdicts", "replace"])
async def test_a_reading_that_is_lost_before_anything_went_out_is_of_no_account(
    asking: str, error: CorrectionError
) -> None:
    engine = Losing(asking, 0, error)
    made, ledger = stream(engine)
    assert chat_text(await played(made, calm(chat_items(["You fool!", " It is so.", " Go."])))) == (
        "You friend! It is so. Go."
    )
    assert ledger.status is Status.CORRECTED
    assert engine.whole == 1


async def test_one_that_is_lost_again_and_again_lets_the_rest_pass_within_the_deadline() -> None:
    engine = Losing("wait_for_verdicts", 1, EngineOverloaded("full", 0.01), times=10**6)
    made, ledger = stream(engine, policy=replace(POLICY, deadline_s=0.2))
    async with asyncio.timeout(5):
        got = chat_text(await played(made, calm(chat_items(["It is so.", " You fool!", " Go."]))))
    assert got == "It is so. You fool! Go."
    assert ledger.status is Status.FAILED
    assert ledger.reason in ("overloaded", "timeout")
    assert all(reading.closed for reading in engine.sessions)


async def test_an_engine_that_is_too_slow_is_not_waited_for() -> None:
    made, ledger = stream(SegmentEngine(score, lag_s=30), policy=replace(POLICY, deadline_s=0.05))
    assert chat_text(await played(made, flow(chat_items(["You fool. ", "Go."])))) == "You fool. Go."
    assert (ledger.status, ledger.reason) == (Status.FAILED, "timeout")


async def test_a_failure_may_end_the_stream() -> None:
    made, ledger = stream(SegmentEngine(score, lambda _: EngineFault("broken")), blocked=[Status.FAILED])
    got: list[Any] = []
    with pytest.raises(PermissionError, match="engine_error"):
        await into(got, made.deliver(calm(chat_items(["It is so.", " You fool.", " Go on."]))))
    assert chat_text(got) == "It is so."
    assert ledger.status is Status.FAILED


async def test_a_broken_upstream_is_delivered_as_far_as_it_came() -> None:
    made, ledger = stream(SegmentEngine(score, milder))
    got: list[Any] = []
    error = httpx.ReadError("gone")
    with pytest.raises(httpx.ReadError) as caught:
        await into(got, made.deliver(flow([chunk("It is so. You fool. An"), chunk("d")], error)))
    assert caught.value is error
    assert chat_text(got) == "It is so. You fool. And"
    assert got[-1] == b": aligner status=skipped reason=upstream_error\n\n"
    assert ledger.reason == "upstream_error"


async def test_a_messages_stream_that_ends_inside_an_event_gets_no_comment() -> None:
    made, _ = stream(SegmentEngine(score, milder), messages)
    whole = b"".join(message_items(["You fool. ", "Go. ", "On."]))
    raw = whole[: whole.rindex(b'"text": "On.') + 9]
    got: list[Any] = []
    with pytest.raises(httpx.ReadError):
        await into(got, made.deliver(flow([raw], httpx.ReadError("gone"))))
    assert b"".join(got) == raw
    assert message_text([raw[: raw.rindex(b"event:")]]) == "You fool. Go. "


@pytest.mark.parametrize("limit", [None, 20])
async def test_what_the_headers_of_a_stream_forbid_to_store_is_not_recorded(limit: int | None) -> None:
    """LiteLLM may store the upstream's headers only with the stream; also of one that was too long to be held."""

    class Source:
        _hidden_params: ClassVar = {"additional_headers": {"llm_provider-cache-control": "no-store"}}

        def __aiter__(self) -> AsyncIterator[object]:
            return calm(message_items(["It is so. ", "You fool. ", "Go on."]))

    made, ledger = stream(SegmentEngine(score, milder), messages)
    kind: type[Any] = ReleasedStream
    if limit is not None:
        ledger.policy = replace(ledger.policy, stream=StreamMode.HOLD, max_answer_chars=limit)
        kind = HeldStream
    kept: list[bool] = []
    made._request.corrector.record_outcomes = (  # type: ignore[method-assign]
        lambda outcomes: kept.extend(exchange.no_store for exchange, _ in outcomes)
    )
    await played(kind(StreamRequest(messages, DATA, ledger, made._request.corrector)), cast("Any", Source()))
    assert kept == [True]


async def test_a_client_that_leaves_ends_the_reading_and_is_recorded() -> None:
    engine = SegmentEngine(score, milder)
    made, ledger = stream(engine)

    async def endless() -> AsyncIterator[object]:
        yield chunk("It is so. And")
        await asyncio.sleep(60)

    task = asyncio.create_task(played(made, endless()))
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.sessions[0].closed
    assert (ledger.status, ledger.reason) == (Status.FAILED, "cancelled")
    assert len(asyncio.all_tasks()) == 1


async def test_a_stream_that_waits_keeps_the_connection_alive() -> None:
    made, _ = stream(SegmentEngine(score, milder), policy=replace(POLICY, keepalive_s=0.01))

    async def slow() -> AsyncIterator[object]:
        yield chunk("It is so.")
        await asyncio.sleep(0.1)
        yield chunk(why="stop")

    got = await played(made, slow())
    beats = [item for item in got[:-1] if item.choices[0].delta.content == ""]
    assert len(beats) >= 2
    assert KEEPALIVE not in got
    assert chat_text(got) == "It is so."


async def test_the_trail_tells_what_was_flagged_and_never_text() -> None:
    made, _ = stream(SegmentEngine(score, milder), policy=replace(POLICY, debug_trailer=True))
    *_, last = await played(made, flow(chat_items(["It is so. ", "You fool. ", "Go."])))
    trail, status, _ = last.decode().split("\n\n")
    assert without_id(status) == ": aligner status=corrected"
    told = json.loads(trail.removeprefix(": aligner-trail "))
    assert told["choices"] == [{"index": 0, "flagged": [{"segment": 1, "score": 2.0, "objective": "kind"}]}]
    assert told["first_token_ms"] >= told["first_token_added_ms"] >= 0
    assert "fool" not in trail


@pytest.mark.parametrize("reads", [True, False])
async def test_only_what_is_aligned_as_a_whole_goes_through_the_cache(tmp_path: Path, reads: bool) -> None:
    """An edit made in mid-stream is not what a whole answer would get, and comes too late to be looked up."""
    cache = CorrectionCache(tmp_path / "store", 60, 8)
    whole = ScriptedEngine(lambda request: request.answer.replace("You fool. ", ""))
    engine = SegmentEngine(score, milder) if reads else whole
    for times in (1, 2):
        made, ledger = stream(engine)
        made._request.corrector.pipeline.cache = cache
        assert chat_text(await played(made, calm(chat_items(["It is so. ", "You fool. ", "Go."])))) == "It is so. Go."
        assert ledger.outcomes[0].cache_hit is (None if reads else times == 2)
    exchange = Exchange("c", 0, (Turn("user", "When?"),), "It is so. You fool. Go.")
    outcome = await Pipeline(engine, cache).align(exchange, POLICY)
    assert outcome.cache_hit is not reads
    assert len(engine.seen) == 1
    await cache.aclose()


class Brittle:
    """A decoder that stumbles over an item, or over an edit."""

    is_one_answer = False

    def __init__(self, over: str) -> None:
        self.decoder = chat.decoder(DATA)
        self.over = over
        self.taken = 0

    def feed(self, item: object) -> list[StreamEvent]:
        self.taken += 1
        if self.over == "item" and self.taken == 3:
            raise KeyError("secret")
        events = self.decoder.feed(item)
        return [replace(event, rewrite=self.rewrite) for event in events] if self.over == "edit" else events

    def rewrite(self, item: object, pieces: Sequence[str], whole_texts: Any) -> object:
        raise AttributeError("secret")

    def flush(self) -> list[StreamEvent]:
        return []

    @property
    def has_refusal(self) -> bool:
        return self.decoder.has_refusal

    @property
    def contradicts_itself(self) -> bool:
        return self.decoder.contradicts_itself

    def exchange(self, index: int) -> Exchange:
        return self.decoder.exchange(index)

    def exchange_without_text(self, index: int) -> Exchange:
        return self.decoder.exchange_without_text(index)

    def exchanges(self) -> list[Exchange]:
        return self.decoder.exchanges()


@pytest.mark.parametrize("over", ["item", "edit"])
async def test_what_cannot_be_read_or_said_goes_out_as_it_came(over: str) -> None:
    made, ledger = stream(SegmentEngine(score, milder))
    made._decoder = SafeDecoder(Brittle(over), DATA)
    items = [chunk("You fool. "), chunk("It is "), chunk("so. "), chunk("You fool."), chunk(why="stop")]
    got = await played(made, calm(items))
    assert all(a is b for a, b in zip(got, items, strict=False))
    assert (ledger.status, ledger.reason) == (Status.FAILED, "internal_error")


@pytest.mark.parametrize("before", ["You fool. ", ""])
async def test_what_cannot_be_read_may_end_the_stream(before: str) -> None:
    made, _ = stream(SegmentEngine(score, milder), blocked=[Status.FAILED])
    made._decoder = SafeDecoder(Brittle("item"), DATA)
    with pytest.raises(PermissionError, match="internal_error"):
        await played(made, calm([chunk(before), chunk(before), chunk("You fool.")]))


async def test_an_edit_that_does_not_go_into_its_event_may_end_the_stream() -> None:
    made, _ = stream(SegmentEngine(score, milder), blocked=[Status.FAILED])
    made._decoder = SafeDecoder(Brittle("edit"), DATA)
    got: list[object] = []
    with pytest.raises(PermissionError, match="internal_error"):
        got += [
            item async for item in made.deliver(calm([chunk("It is so. "), chunk("You fool. "), chunk(why="stop")]))
        ]
    assert "fool" not in chat_text([item for item in got if not isinstance(item, bytes)])


@pytest.mark.parametrize("longest", [POLICY.max_answer_chars, 400])
async def test_text_after_the_end_is_recorded_as_unjudged(longest: int) -> None:
    """It was once counted as judged and clean."""
    policy = replace(POLICY, max_answer_chars=longest)
    before = "It is so. " * 90
    for first, wanted, status in ((before, before, "skipped"), (f"{before}You fool. ", before, "corrected")):
        made, ledger = stream(SegmentEngine(score), policy=policy)
        items = [*map(chunk, cut(1, first)), chunk(why="stop"), chunk("You are a fool."), chunk(why="stop")]
        assert chat_text((await played(made, calm(items)))[:-1]) == f"{wanted}You are a fool."
        assert (ledger.status, ledger.reason) == (Status(status), "inconsistent")


@pytest.mark.parametrize("waits", [True, False])
async def test_a_server_that_cancels_again_and_again_leaves_nothing_open(waits: bool) -> None:
    """Starlette does, by anyio, when a client leaves a stream: what waits there does not get done."""
    engine = SegmentEngine(score, milder, lag_s=30.0 if waits else 0.0)
    made, ledger = stream(engine)

    async def endless() -> AsyncIterator[object]:
        yield chunk("It is so. And")
        await asyncio.sleep(60)

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(played, made, endless())
            await asyncio.sleep(0.05)
            scope.cancel()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
    assert engine.sessions[0].closed
    assert (ledger.status, ledger.reason) == (Status.FAILED, "cancelled")


CLOSING = "Ask a doctor first."


def closing(engine: SegmentEngine) -> SegmentEngine:
    engine.missing = lambda answer: "" if CLOSING in answer else f" {CLOSING}"
    return engine


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.integers(0, 10**6), st.sampled_from(FORMATS))
def test_what_is_missing_goes_out_with_the_end_of_the_answer(pieces: list[str], seed: int, form: Format) -> None:
    answer = "".join(pieces)
    made, ledger = stream(closing(SegmentEngine(lambda _: -2.0)), form.wire)
    got = asyncio.run(played(made, flow(form.tell(cut(seed, answer)))))
    text = form.read(got[:-1])
    if ledger.status is not Status.CORRECTED:
        assert text == answer
        return
    assert text.rstrip() == f"{answer.rstrip()} {CLOSING}"
    assert text[len(text.rstrip()) :] == answer[len(answer.rstrip()) :]
    assert ledger.outcomes[0].correction is not None
    assert [s.text for s in ledger.outcomes[0].correction.segments] == [*(s.text for s in split(answer)), ""]


@pytest.mark.parametrize(
    ("answer", "out"),
    [
        ("It is so. Bring a coat.", f"It is so. Bring a coat. {CLOSING}"),
        ("You fool. Bring a coat.\n", f"Bring a coat. {CLOSING}\n"),
        ("It is so. You fool!", f"It is so. You friend! {CLOSING}"),
        (f"It is so. {CLOSING}", f"It is so. {CLOSING}"),
        ("A", f"A {CLOSING}"),
    ],
)
async def test_streams_and_whole_answers_end_alike(answer: str, out: str) -> None:
    made, _ = stream(closing(SegmentEngine(score, milder)))
    assert chat_text(await played(made, flow(chat_items(cut(1, answer))))) == out
    whole = await Pipeline(closing(SegmentEngine(score, milder))).align(
        Exchange("c", 0, (Turn("user", "When?"),), answer), POLICY
    )
    assert whole.text is not None
    assert whole.text.rstrip() == out.rstrip()


async def test_an_addition_that_the_gate_refuses_is_left_out() -> None:
    engine = SegmentEngine(score)
    engine.missing = lambda _: " It takes 37 days."
    made, ledger = stream(engine)
    assert chat_text(await played(made, flow(chat_items(["It is so. ", "Bring a coat."])))) == "It is so. Bring a coat."
    assert ledger.reason == "gate_invented_fact"
