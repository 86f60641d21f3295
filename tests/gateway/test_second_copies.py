"""Second copies of removed text through the hooks: whatever field holds one, no `corrected` response delivers it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import ModelResponse

from aligner_proxy.errors import CopyStays
from aligner_proxy.formats import copies
from aligner_proxy.formats.copies import RemovedText
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.request_state import find_state
from aligner_proxy.gateway.second_copies import StreamCopies
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Status
from tests.e2e.event_streams import frames, message_events, response_events
from tests.gateway.test_guardrail import build
from tests.support.comments import take_comment
from tests.support.outcome_log import withdrawals
from tests.support.planted_copies import FIRST, LAST, REMOVED, ROUTES, Case, cut_text, holds_copy, make_case
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import chat_text, chunk, events, flow, kind, read, response_event

BLOCK = 250
"""Cases of one test."""
JUDGED = {"annotations": "judge", "non_text": "judge", "logprobs": "judge"}


def route(name: str, **settings: Any) -> dict[str, Any]:
    return {"match": {"model": name}, "name": name, "objectives": ["kind"], **settings}


FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        route("hold"),
        route("hold-judge", on_skip=JUDGED),
        route("sentence", stream="sentence"),
        route("sentence-judge", stream="sentence", on_skip=JUDGED),
    ],
}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    guardrail = build(tmp_path, monkeypatch, FILE)
    engine = SegmentEngine(lambda text: 4.0 if "fool" in text else -4.0)
    guardrail.pipeline = Pipeline(engine, extensions=guardrail.pipeline.extensions)
    return guardrail


def request(case: Case, model: str) -> dict[str, Any]:
    return {"model": model, "litellm_call_id": str(case.seed), "metadata": {}, "messages": []}


def status_of(data: dict[str, Any]) -> Status:
    state = find_state(data)
    assert state is not None
    return state.status


async def deliver_whole(guard: AlignerGuardrail, case: Case, model: str) -> tuple[Status, list[Any]]:
    data = request(case, model)
    user = UserAPIKeyAuth(request_route=ROUTES[case.format])
    edited = await guard.async_post_call_success_hook(data, user, case.whole)
    return status_of(data), [case.whole if edited is None else edited]


async def deliver_stream(guard: AlignerGuardrail, case: Case, model: str) -> tuple[Status, list[Any]]:
    data = request(case, model)
    user = UserAPIKeyAuth(request_route=ROUTES[case.format])

    items = [item async for item in guard.async_post_call_streaming_iterator_hook(user, flow(case.items), data)]
    take_comment(items)
    return status_of(data), items


@pytest.mark.some(1)
@pytest.mark.parametrize("block", range(20))
async def test_removed_text_goes_out_in_no_field(guard: AlignerGuardrail, block: int) -> None:
    leaks = []
    seen: Counter[str] = Counter()
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        case = make_case(seed)
        model = ("hold", "hold-judge", "sentence", "sentence-judge")[seed % 4]
        for deliver in (deliver_whole, deliver_stream):
            status, values = await deliver(guard, case, model)
            seen[f"{deliver.__name__} {model} {status.value}"] += 1
            if status is Status.CORRECTED and holds_copy(values):
                leaks.append((seed, case.format, model, deliver.__name__))
    assert not leaks, (len(leaks), leaks[:40])
    corrected = sum(count for name, count in seen.items() if "judge" in name and "corrected" in name)
    assert corrected > BLOCK * 0.7, seen  # of as many deliveries, whole and streamed


async def test_reasoning_in_the_same_text_is_taken_out_if_it_quotes_what_was_removed(
    guard: AlignerGuardrail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aligner_proxy.outcome")
    tagged = f"<think>They ask. {REMOVED} I will say so.</think>{FIRST} {REMOVED} {LAST}"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": tagged}}
    whole = ModelResponse(id="1", created=1, model="m", choices=[choice])
    case = Case(0, "chat", whole, [chunk("", role="assistant"), *map(chunk, cut_text(tagged)), chunk(why="stop")])
    for deliver in (deliver_whole, deliver_stream):
        status, values = await deliver(guard, case, "hold")
        assert status is Status.CORRECTED
        assert not holds_copy(values)
        text = chat_text(values) if deliver is deliver_stream else values[0].choices[0].message.content
        assert text == f"{FIRST} {LAST}"
    status, values = await deliver_stream(guard, case, "sentence")
    # the reasoning went out before the answer was judged
    assert status is Status.SKIPPED
    assert withdrawals(caplog) == [([0], "skipped", "annotations")]
    assert chat_text(values).endswith(f"</think>{FIRST} {LAST}")


def test_what_an_edit_removes_is_found_in_earlier_events_however_they_were_cut() -> None:
    removed = 'Only a "perfect" fool would ask\n for a second coat at the harbour.'
    missed = []
    for name in ("note", "reasoning_content"):
        for size in (1, 3, 10, 30, 100):
            for escaped in (False, True):
                text = f"Some say so. {removed} Others do not."
                text = text.replace("\n", "\\n").replace('"', "&quot;") if escaped else text
                copies = StreamCopies({})
                for at in range(0, len(text), size):
                    copies.remove_copies(
                        {"choices": [{"delta": {name: text[at : at + size]}}], "other": f"A word {at}."}, [], []
                    )
                    copies.check_past_events()
                copies.add_removed(removed, "")
                try:
                    copies.check_past_events()
                    missed.append((name, size, escaped))
                except CopyStays:
                    pass
    assert missed == []


def test_an_edit_is_looked_for_once_in_what_went_out() -> None:
    """Each edit once had every earlier event read again: two thousand events with 200 edits took five seconds."""

    def seconds(count: int) -> float:
        copies = StreamCopies({})
        began = time.process_time()
        for number in range(count):
            if number % 10 == 0:
                copies.add_removed(f"You fool at the harbour number {number} today.", "")
            name = f"extra{number}"
            copies.remove_copies(
                {"note": f"Page {number} of many pages.", name: f"Book {number}, by Anna Maria."}, [], []
            )
            copies.check_past_events()
        return time.process_time() - began

    seconds(50)
    assert min(seconds(1_200) for _ in range(2)) < 7 * max(seconds(300), 0.02)


def searched_chars(monkeypatch: pytest.MonkeyPatch, events: int, sentence: str, *, edits: int) -> int:
    """Characters of texts beside an answer that are searched, with one field of a new name for each event."""
    count = 0
    contains_any = copies._contains_any

    def counted(text: str, stretches: Any, length: int) -> bool:
        nonlocal count
        count += len(text) if stretches else 0
        return contains_any(text, stretches, length)

    stream = StreamCopies({})
    with monkeypatch.context() as patch:
        patch.setattr(copies, "_contains_any", counted)
        for number in range(events):
            field = {f"note_{number}": f"The lantern of keeper {number} hangs beside the northern bridge."}
            stream.remove_copies({"choices": [{"delta": {"content": "The "}}], **field}, ["The "], ())
            if number % (events // edits) == 0:
                stream.add_removed(f"You fool number {number}, {sentence}", "")
            stream.check_past_events()
    return count


def test_what_is_searched_for_copies_grows_with_the_events_and_not_with_the_edits_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each edit was looked for in all earlier events: 8,000 of them with 800 edits took four seconds."""
    few, many = (searched_chars(monkeypatch, n, "take a coat.", edits=n // 10) for n in (200, 800))
    assert many < 5 * few
    # nor is a long stretch of each text searched again with each event because a long sentence was removed
    short, long = (searched_chars(monkeypatch, 20, "take a coat, " * n, edits=1) for n in (400, 4_000))
    assert long < 2 * short


@pytest.mark.parametrize("count", [1, 40])
async def test_what_a_long_answer_lost_is_looked_for_in_a_thread(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """1,000 characters take a millisecond, in which no other request would be served."""
    on_loop: list[bool] = []
    add = RemovedText.add

    def note_thread(self: RemovedText, original: str, corrected: str) -> None:
        on_loop.append(threading.current_thread() is threading.main_thread())
        add(self, original, corrected)

    monkeypatch.setattr(RemovedText, "add", note_thread)
    told = "The harbour opens at nine. " * count
    message = {
        "role": "assistant",
        "content": f"{told}You fool.",
        "provider_specific_fields": {"note": "The night watch has seen all."},
    }
    response = ModelResponse(choices=[{"index": 0, "finish_reason": "stop", "message": message}])
    user = UserAPIKeyAuth(request_route="/v1/chat/completions")
    data = {"model": "hold", "litellm_call_id": "c", "metadata": {}, "messages": []}
    edited = await guard.async_post_call_success_hook(dict(data, metadata={}), user, response)
    assert "fool" not in edited.choices[0].message.content
    items = flow([chunk(f"{told}You fool."), chunk(why="stop")])
    data = dict(data, metadata={})
    sent = [item async for item in guard.async_post_call_streaming_iterator_hook(user, items, data)]
    take_comment(sent)
    assert "fool" not in chat_text(sent)
    assert on_loop == [count == 1] * 2


def make_cited_block(text: str) -> dict[str, Any]:
    """A text block of Messages with two citations behind it, the second without offsets."""
    notes = [
        {"type": "char_location", "cited_text": "Section 4", "document_index": 0, "start_char_index": 4},
        {"type": "web_search_result_location", "cited_text": "Section 4", "url": "https://example.org", "title": "A"},
    ]
    return {"type": "text", "text": text, "citations": notes}


async def send_stream(guard: AlignerGuardrail, path: str, items: list[Any], model: str) -> list[Any]:
    """What goes out, without the closing comment."""
    user = UserAPIKeyAuth(request_route=path)
    data = {"model": model, "litellm_call_id": "c", "metadata": {}, "messages": []}
    sent = [item async for item in guard.async_post_call_streaming_iterator_hook(user, flow(items), data)]
    assert b"corrected" in take_comment(sent)
    return sent


@pytest.mark.parametrize("model", ["hold-judge", "sentence-judge"])
async def test_a_citation_goes_with_the_text_that_was_edited_and_stays_beside_others(
    guard: AlignerGuardrail, model: str
) -> None:
    blocks = [
        make_cited_block("The harbour opens at nine."),
        make_cited_block("It is near. You fool."),
        make_cited_block("It closes at six."),
    ]
    body = {"type": "message", "content": blocks, "usage": {}, "stop_reason": "end_turn", "stop_sequence": None}
    raw = "".join(frames(message_events(body, lambda text: [text]))).encode()
    told = events(await send_stream(guard, "/v1/messages", [raw], model))
    notes = [event for event in told if event.get("delta", {}).get("type") == "citations_delta"]
    # an empty citation breaks clients
    assert [(event["index"], event["delta"].get("citation")) for event in notes] == [
        (index, note) for index, block in enumerate(blocks) if index != 1 for note in block["citations"]
    ]


@pytest.mark.parametrize("model", ["hold-judge", "sentence-judge"])
async def test_annotations_go_with_the_text_that_was_edited_and_stay_beside_others(
    guard: AlignerGuardrail, model: str
) -> None:
    """With offsets and without, in every event of the stream alike."""
    notes = [
        {"type": "url_citation", "start_index": 4, "end_index": 11, "url": "https://example.org", "title": "A"},
        {"type": "file_citation", "index": 20, "file_id": "file_1", "filename": "a.txt"},
    ]
    cited = {"type": "output_text", "annotations": notes, "logprobs": []}
    parts = [{**cited, "text": text} for text in ("It opens at nine. You fool.", "It closes at six.")]
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": parts}
    body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": [item]}
    items = [response_event(event) for event in response_events(body, lambda text: [text])]
    told = await send_stream(guard, "/v1/responses", items, model)
    added = [event for event in told if kind(event) == "response.output_text.annotation.added"]
    assert [event.content_index for event in added] == [1, 1]
    assert [dict(event.annotation) for event in added] == notes
    (done,) = [event.item for event in told if kind(event) == "response.output_item.done"]
    for message in (done, told[-1].response.output[0]):
        kept = [list(read(part, "annotations")) for part in read(message, "content")]
        assert [len(of_part) for of_part in kept] == [0, 2]
    # strict clients fail where a number is missing
    assert [event.sequence_number for event in told] == list(range(len(items)))
    assert joined_deltas(told) == ["It opens at nine.", "It closes at six."]


@pytest.mark.parametrize("model", ["hold-judge", "sentence-judge"])
async def test_an_annotation_behind_the_end_of_its_edited_text_leaves_no_delta_there(
    guard: AlignerGuardrail, model: str
) -> None:
    """Some clients fail on a delta of a text that has ended, so that the number of the annotation is missing."""
    note = {"type": "url_citation", "start_index": 4, "end_index": 11, "url": "https://example.org", "title": "A"}
    part = {"type": "output_text", "annotations": [note], "logprobs": [], "text": "It opens at nine. You fool."}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": [item]}
    sent = response_events(body, lambda text: [text])
    (late,) = [event for event in sent if event["type"] == "response.output_text.annotation.added"]
    sent.remove(late)
    sent.insert(1 + next(at for at, event in enumerate(sent) if event["type"] == "response.output_text.done"), late)
    told = await send_stream(guard, "/v1/responses", [*map(response_event, sent)], model)
    kinds = [*map(kind, told)]
    assert "response.output_text.annotation.added" not in kinds
    assert "response.output_text.delta" not in kinds[kinds.index("response.output_text.done") :]
    assert joined_deltas(told) == ["It opens at nine."]


def joined_deltas(told: list[Any]) -> list[str]:
    """The texts of all parts, in order, joined from their deltas."""
    pieces: dict[int, list[str]] = {}
    for event in told:
        if kind(event) == "response.output_text.delta":
            pieces.setdefault(event.content_index, []).append(event.delta)
    return ["".join(pieces[index]).rstrip() for index in sorted(pieces)]


@pytest.mark.parametrize("model", ["hold-judge", "sentence-judge"])
async def test_a_choice_keeps_its_annotations_if_another_choice_was_edited(guard: AlignerGuardrail, model: str) -> None:
    note = {"start_index": 4, "end_index": 11, "url": "https://example.org", "title": "A"}
    cited = {"annotations": [{"type": "url_citation", "url_citation": note}]}
    texts = [chunk("It opens at nine."), chunk("It opens at nine. You fool.", index=1)]
    items = [
        *texts,
        chunk(None, 0, None, **cited),
        chunk(None, 1, None, **cited),
        chunk(why="stop"),
        chunk(None, 1, "stop"),
    ]
    told = await send_stream(guard, "/v1/chat/completions", items, model)
    kept = [choice.index for item in told for choice in item.choices if getattr(choice.delta, "annotations", None)]
    assert kept == [0]
