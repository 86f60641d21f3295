"""Streams without a bound: what is held stays bounded, upstreams wait, and what does not fit is refused by share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx
import pytest
from litellm.types.utils import ModelResponseStream
from prometheus_client import REGISTRY

from aligner_proxy.errors import EngineFault
from aligner_proxy.formats.packing import PackedChunk, Packer
from aligner_proxy.formats.safe import MAX_TEXTS, SafeDecoder
from aligner_proxy.formats.stream_events import StreamEvent
from aligner_proxy.gateway import litellm_internals
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.comment_lines import KEEPALIVE
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.streaming.budget import StreamBudget, estimate_event_bytes
from aligner_proxy.gateway.streaming.delivery import StreamRequest
from aligner_proxy.gateway.streaming.held import HeldStream
from aligner_proxy.gateway.streaming.released import ReleasedStream
from aligner_proxy.pipeline import part_splitter
from aligner_proxy.pipeline.answer_part import AnswerPart
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import FailurePolicy, Objective, OnError, Policy, Status, StreamMode
from tests.support.counting import growth
from tests.support.sampling import examples, spread
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import FORMATS, Format, chunk

OBJECTIVES = (Objective("kind", "Kind: the response should never insult"),)
DATA = {"messages": [{"role": "user", "content": "When?"}], "prompt": "When?", "input": "When?"}
SENTENCE = "It is so. You fool. Bring a coat! "


def engine() -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0)


def policy(**more: Any) -> Policy:
    return Policy("p", OBJECTIVES, **{"max_answer_chars": 1_000, **more})


def stream(
    form: Format, rules: Policy, budget: StreamBudget | None = None, asked: SegmentEngine | None = None
) -> tuple[HeldStream | ReleasedStream, RequestState]:
    ledger = RequestState("call-1", rules, "m")
    keeper: Any = type("Keeper", (), {"note": lambda *_: None})()
    corrector = ChoiceCorrector(Pipeline(asked or engine()), ledger, ShadowCorrections(1, 0), keeper, lambda _: None)
    kind = ReleasedStream if rules.stream is StreamMode.SENTENCE else HeldStream
    account = (budget or StreamBudget()).open(rules.tenant)
    return kind(StreamRequest(form.wire, DATA, ledger, corrector), account), ledger


async def flow(items: list[Any]) -> AsyncIterator[object]:
    for item in items:
        await asyncio.sleep(0)
        yield item


class Endless:
    """An upstream that writes on until it is ended, and how many chunks of it were taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.ended = False

    async def items(self) -> AsyncIterator[object]:
        """Its chunks."""
        while not self.ended:
            self.taken += 1
            await asyncio.sleep(0)
            yield chunk(SENTENCE)


async def into(sent: list[Any], source: AsyncIterator[Any]) -> None:
    async for item in source:
        sent.append(item)


async def played(made: HeldStream | ReleasedStream, items: list[Any]) -> list[Any]:
    return [item async for item in made.deliver(flow(items)) if item != KEEPALIVE]


@pytest.mark.some(4)
@pytest.mark.slow
@pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_a_stream_longer_than_what_is_corrected_at_once_is_corrected(form: Format, mode: StreamMode) -> None:
    answer = SENTENCE * 200
    made, ledger = stream(form, policy(stream=mode))
    got = await played(made, form.tell([answer[at : at + 20] for at in range(0, len(answer), 20)]))
    text = form.read(got[:-1])
    assert "fool" not in text
    assert text.split() == answer.replace("You fool.", "").split()
    assert ledger.status is Status.CORRECTED


async def test_a_held_stream_begins_before_its_upstream_ends() -> None:
    """The first event of a held stream of two million characters once came after all of them."""
    form = FORMATS[0]
    made, _ = stream(form, policy())
    got: list[Any] = []
    upstream = Endless()
    async with asyncio.timeout(30):
        async for item in made.deliver(upstream.items()):
            got.append(item)
            upstream.ended = True
    assert "fool" not in form.read(got[:-1])


async def test_a_policy_may_block_a_held_stream_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_splitter.outcomes, "blocks", lambda outcome: outcome.reason == "too_long")
    made, ledger = stream(FORMATS[0], policy())
    upstream = Endless()
    with pytest.raises(Blocked, match="too_long"):
        await anext(made.deliver(upstream.items()))
    assert upstream.taken < 40
    assert (ledger.status, ledger.reason) == (Status.SKIPPED, "too_long")


async def test_a_stream_that_was_too_long_to_be_held_may_break_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not been decided when the upstream breaks off passes unjudged, as in a stream that was never held."""
    monkeypatch.setattr(part_splitter, "PART_CHARS", 200)

    async def upstream() -> AsyncIterator[object]:
        async for item in flow([chunk(SENTENCE) for _ in range(20)] + [chunk("You fool")]):
            yield item
        raise httpx.ReadError("gone")

    made, ledger = stream(FORMATS[0], policy())
    sent: list[Any] = []
    with pytest.raises(httpx.ReadError):
        await into(sent, made.deliver(upstream()))
    assert (ledger.status, ledger.reason) == (Status.CORRECTED, "upstream_error")
    assert FORMATS[0].read(sent[:-1]).endswith("You fool")


async def test_what_is_only_too_long_to_be_held_is_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_splitter, "PART_CHARS", 200)
    monkeypatch.setattr(part_splitter.outcomes, "blocks", lambda outcome: outcome.reason == "too_long")
    made, ledger = stream(FORMATS[0], policy())
    got = await played(made, [chunk(SENTENCE) for _ in range(20)] + [chunk(why="stop")])
    assert FORMATS[0].read(got[:-1]).count("Bring a coat!") == 20
    assert "fool" not in FORMATS[0].read(got[:-1])
    assert ledger.status is Status.CORRECTED


@pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
async def test_a_part_that_fails_does_not_pass_while_it_is_let_go(
    monkeypatch: pytest.MonkeyPatch, mode: StreamMode
) -> None:
    close = AnswerPart.aclose

    async def slowly(part: AnswerPart) -> None:
        await asyncio.sleep(0.01)
        await close(part)

    monkeypatch.setattr(AnswerPart, "aclose", slowly)
    failing = engine()
    failing.write = lambda _: EngineFault("scripted")
    strict = policy(stream=mode, on_error=FailurePolicy(bug=OnError.BLOCK), keepalive_s=0.001)
    made, ledger = stream(FORMATS[0], strict, asked=failing)
    sent: list[Any] = []
    with pytest.raises(Blocked, match="engine_error"):
        await into(sent, made.deliver(flow([chunk("You fool! ") for _ in range(400)])))
    assert "fool" not in FORMATS[0].read(sent)
    assert (ledger.status, ledger.reason) == (Status.FAILED, "engine_error")


@pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
async def test_an_upstream_waits_for_a_client_that_does_not_read(mode: StreamMode) -> None:
    budget = StreamBudget(max_mb=512, stream_mb=1)
    made, _ = stream(FORMATS[0], policy(stream=mode), budget)
    upstream = Endless()
    source = made.deliver(upstream.items())
    await anext(source)
    for _ in range(5_000):  # the client does not read
        await asyncio.sleep(0)
    stopped_at = upstream.taken
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert upstream.taken == stopped_at
    assert budget.held_bytes < 2 * budget.max_stream_bytes
    await source.aclose()
    assert budget.held_bytes == 0


@pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
async def test_no_sentence_is_torn_for_lack_of_room(mode: StreamMode) -> None:
    """A part was once ended in the middle of a word when a stream took too much room.

    So "You fo" and "ol." were judged, and went out as unchanged. White space before an answer fills the room unseen: a
    text that begins with it was delivered or corrected by where the room happened to end. A message that began so once
    waited forever, since the event that begins its block waited for more than white space.
    """
    asked = SegmentEngine(engine().score, lambda text: text.replace("fool", "friend"))
    answer = "You fool, take a coat. It is so. You fool."
    torn = []
    for form in FORMATS:
        for count in spread(range(0, 40, 3), examples(28)):
            budget = StreamBudget()
            budget.max_stream_bytes = 30_000
            made, ledger = stream(form, policy(stream=mode), budget, asked)
            async with asyncio.timeout(30):
                got = await played(made, form.tell(["\n"] * count + list(answer)))
            text = form.read(got[:-1])
            if text.strip() != answer.replace("fool", "friend") or ledger.status is not Status.CORRECTED:
                torn.append((form.name, count, ledger.status, text))
    assert torn == []


def test_chunks_in_line_are_kept_as_what_tells_them_apart() -> None:
    packer = Packer()
    chunks = [chunk(f"word {number} ") for number in range(50)]
    packed = [packer.pack(one) for one in chunks]
    assert all(isinstance(one, PackedChunk) for one in packed[1:])
    assert [one.unpack() if isinstance(one, PackedChunk) else one for one in packed] == chunks
    assert estimate_event_bytes(StreamEvent(packed[1])) < estimate_event_bytes(StreamEvent(chunks[1])) / 4


async def test_a_held_stream_packs_what_waits() -> None:
    budget = StreamBudget()
    made, _ = stream(FORMATS[0], policy(max_answer_chars=20_000), budget)
    count = 2_000
    for _ in range(count):
        await made.take_item(chunk("word "))
    assert budget.held_bytes < count * estimate_event_bytes(StreamEvent(chunk("word "))) / 2
    await made.finalize_outcomes(is_complete=False)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_is_packed_comes_out_as_it_was(form: Format) -> None:
    packer = Packer()
    for item in form.tell([SENTENCE[at : at + 3] for at in range(0, len(SENTENCE), 3)]):
        packed = packer.pack(item)
        again = packed.unpack() if isinstance(packed, PackedChunk) else packed
        assert again == item
        assert not hasattr(item, "model_dump_json") or again.model_dump_json() == item.model_dump_json()


async def test_a_tenant_beyond_its_share_is_shed_and_others_are_not() -> None:
    budget = StreamBudget(max_mb=1, stream_mb=1)
    small = budget.open("small")
    small.add_queued_bytes(1_000)
    strict = FailurePolicy(overload=OnError.BLOCK)
    made, ledger = stream(FORMATS[0], policy(tenant="large", stream=StreamMode.SENTENCE, on_error=strict), budget)
    elsewhere = budget.open("large")
    elsewhere.add_queued_bytes(budget.max_bytes)
    before = REGISTRY.get_sample_value("aligner_streams_shed_total", {"policy": "p"}) or 0.0
    source = made.deliver(flow([chunk(SENTENCE) for _ in range(300)]))
    sent = [await anext(source)]
    for _ in range(2_000):  # the client does not read
        await asyncio.sleep(0)
    with pytest.raises(Blocked, match="shed"):
        await into(sent, source)
    assert "fool" not in FORMATS[0].read(sent)
    assert (ledger.status, ledger.reason) == (Status.FAILED, "shed")
    assert REGISTRY.get_sample_value("aligner_streams_shed_total", {"policy": "p"}) == before + 1
    assert not small.is_over_share
    assert elsewhere.is_over_share


async def test_what_is_given_up_between_two_items_does_not_pass_as_decided() -> None:
    slow = engine()
    slow.lag_s = 3600.0
    strict = FailurePolicy(overload=OnError.BLOCK)
    made, _ = stream(FORMATS[0], policy(stream=StreamMode.SENTENCE, on_error=strict), asked=slow)
    await made.take_item(chunk("It is so.", 0))
    await made.take_item(chunk("You fool.", 1))
    texts: Any = made._texts
    texts[0].close(Status.SKIPPED, "refusal")
    ready = made.take_ready_items()
    next(ready)
    texts[1].close(Status.FAILED, "shed")
    with pytest.raises(Blocked, match="shed"):
        next(ready)
    await made.finalize_outcomes(is_complete=False)


async def test_a_stream_within_its_share_waits_for_room() -> None:
    budget = StreamBudget(max_mb=1, stream_mb=1)
    large = budget.open("large")
    large.add_queued_bytes(budget.max_bytes)
    elsewhere = budget.open("fair")
    elsewhere.add_queued_bytes(int(budget.max_bytes * 0.4))
    made, ledger = stream(FORMATS[0], policy(tenant="fair"), budget)
    playing = asyncio.create_task(played(made, [chunk(SENTENCE), chunk("Go."), chunk(why="stop")]))
    for _ in range(500):
        await asyncio.sleep(0)
    assert not playing.done()
    large.close()
    async with asyncio.timeout(20):
        got = await playing
    assert "fool" not in FORMATS[0].read(got[:-1])
    assert ledger.status is Status.CORRECTED


async def test_a_small_tenant_is_not_held_up_by_a_large_one() -> None:
    budget = StreamBudget(max_mb=1, stream_mb=1)
    budget.open("large").add_queued_bytes(2 * budget.max_bytes)
    made, ledger = stream(FORMATS[0], policy(tenant="small"), budget)
    async with asyncio.timeout(20):
        await played(made, [chunk(SENTENCE), chunk("Go."), chunk(why="stop")])
    assert ledger.status is Status.CORRECTED


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_stream_is_decoded_in_linear_time(form: Format) -> None:
    """With each event a look at what is known of the text, as eligibility takes it."""
    items = {size: form.tell(["word "] * size) for size in (200, 400)}

    def decode(size: int) -> None:
        decoder = form.wire.decoder(DATA)
        for item in items[size]:
            for event in decoder.feed(item):
                for index, _ in event.pieces:
                    decoder.exchange_without_text(index)
        decoder.exchanges()

    assert growth(decode, 200) < 2.2


def test_an_event_in_many_small_pieces_is_cut_out_in_linear_time() -> None:
    form = next(form for form in FORMATS if form.name == "messages")

    def decode(size: int) -> None:
        decoder = form.wire.decoder(DATA)
        for _ in range(size):
            decoder.feed(b"data: x")

    assert growth(decode, 200) < 2.2


def chat_chunks(count: int) -> Iterator[ModelResponseStream]:
    yield chunk("It")
    yield from (chunk(" is") for _ in range(count))
    yield chunk(why="stop")


@pytest.mark.parametrize("watched", [False, True])
def test_what_litellm_keeps_of_a_stream_stays_short(watched: bool) -> None:
    """Also of a stream whose items we read or change before they are queued, such as its reasoning."""

    class Stream:
        chunks: list[object]

    kept = Stream()
    kept.chunks = []
    source: Any = litellm_internals.WatchedStream(cast("Any", None), cast("Any", kept)) if watched else kept
    merging = litellm_internals.stream_chunks(source)
    whole = list(chat_chunks(5_000))
    for one in whole:
        kept.chunks.append(one)
        merging.merge()
        assert len(kept.chunks) <= 600
    texts = [one.choices[0].delta.content or "" for one in kept.chunks]  # type: ignore[attr-defined]
    assert "".join(texts) == "It" + " is" * 5_000
    assert kept.chunks[-1] is whole[-1]


def test_what_was_served_is_logged_as_it_went_out() -> None:
    served = litellm_internals.ServedItems()
    whole = list(chat_chunks(3_000))
    for one in whole:
        served.append(one)
    details: dict[str, Any] = {}
    data: dict[str, Any] = {"litellm_logging_obj": type("Logging", (), {"model_call_details": details})()}
    litellm_internals.log_served_texts(data, served.items)
    assert len(served.items) <= 600
    assert details["served_output_texts"] == ("It" + " is" * 3_000,)


def test_a_stream_of_too_many_texts_is_not_read() -> None:
    decoder = SafeDecoder(FORMATS[0].wire.decoder(DATA), DATA)
    for index in range(MAX_TEXTS + 1):
        decoder.feed(chunk("Hm.", index))
    assert decoder.fault == "OverflowError"
