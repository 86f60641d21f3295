"""The answers of streams whose texts begin with reasoning, in each wire format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from litellm.types.utils import ModelResponseStream

from aligner_proxy.formats import chat
from aligner_proxy.formats.answer_decoder import AnswerDecoder
from aligner_proxy.formats.stream_events import StreamEvent
from aligner_proxy.formats.think_tags import ThinkTagReader
from tests.formats.test_think_tags import TEXTS, some_cuts
from tests.support.stream_fixtures import FORMATS, Format, Items, chunk, kind

THINK = "<think>The reader is a fool.</think>"
BY_NAME = {form.name: form for form in FORMATS}


def decode(form: Format, items: Items, *, drop: bool = False) -> tuple[AnswerDecoder, list[StreamEvent]]:
    decoder = AnswerDecoder(form.wire.decoder({}), {}, drop=drop)
    decoded = [event for item in items for event in decoder.feed(item)] + decoder.flush()
    assert decoder.fault is None
    return decoder, decoded


def join_items(items: Sequence[object]) -> Any:
    """Items as they are, or all bytes of a stream, since frames may be cut anew."""
    return b"".join(items) if items and isinstance(items[0], bytes) else list(items)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_reasoning_stays_where_it_is_and_the_answer_is_read(form: Format) -> None:
    failures = []
    for before, reasoning, answer in TEXTS:
        for pieces in some_cuts(before + answer):
            items = form.tell(pieces)
            decoder, events = decode(form, items)
            read = "".join(piece for event in events for _, piece in event.pieces)
            of_pieces = [text for event in events if not event.repeated_texts for text in event.divided_texts]
            (exchange,) = decoder.exchanges()
            if (
                read != answer
                or (exchange.answer, exchange.tagged_reasoning) != (answer, before)
                or "".join(text.reasoning for text in of_pieces) != reasoning
                or join_items([event.original for event in events]) != join_items(items)
            ):
                failures.append(pieces)
    assert failures == []


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_correction_goes_in_behind_the_reasoning(form: Format) -> None:
    failures = []
    for before, _, answer in TEXTS:
        for pieces in some_cuts(before + answer) if answer else ():
            _, events = decode(form, form.tell(pieces))
            first = True
            items = []
            for event in events:
                new = [("XYZ" if first and number == 0 else "") for number, _ in enumerate(event.pieces)]
                first = first and not event.pieces
                items.append(event.with_texts(new, dict.fromkeys(event.repeated_texts, "XYZ")))
            if form.read(items) != before + "XYZ":
                failures.append(pieces)
    assert failures == []


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_drop_leaves_the_answer_alone(form: Format) -> None:
    failures = []
    for before, _, answer in TEXTS:
        for pieces in some_cuts(before + answer) if before else ():
            _, events = decode(form, form.tell(pieces), drop=True)
            items = [event.original for event in events]
            read = "".join(piece for event in events for _, piece in event.pieces)
            again, _ = decode(form, items)
            if (form.read(items), read) != (answer, answer) or any(e.tagged_reasoning for e in again.exchanges()):
                failures.append(pieces)
    assert failures == []


def test_each_choice_has_a_reasoning_of_its_own() -> None:
    items = [
        chunk("<thi"),
        chunk("So it", index=1),
        chunk("nk>No.</think>", index=0),
        chunk(" is.", index=1),
        chunk("<think>", index=2),
        chunk("Fine.", index=0),
        chunk("Maybe.", index=2),
        *(chunk(index=index, why="stop") for index in range(3)),
    ]
    decoder, events = decode(BY_NAME["chat"], items)
    assert [(e.answer, e.tagged_reasoning) for e in decoder.exchanges()] == [
        ("Fine.", "<think>No.</think>"),
        ("So it is.", ""),
        ("", "<think>Maybe."),
    ]
    assert [id(event.original) for event in events] == [id(item) for item in items]


def test_one_chunk_with_several_choices() -> None:
    said = ["<think>No.</think>Fine.", "Yes.", "<think>Maybe."]
    item = ModelResponseStream(
        choices=[{"index": i, "delta": {"content": text}, "finish_reason": None} for i, text in enumerate(said)]
    )
    decoder = AnswerDecoder(chat.decoder({}), {})
    (event,) = decoder.feed(item)
    assert event.pieces == [(0, "Fine."), (1, "Yes.")]
    edited: Any = event.with_texts(["Good.", "No."], {})
    assert [c.delta.content for c in edited.choices] == ["<think>No.</think>Good.", "No.", "<think>Maybe."]


def test_an_event_waits_only_while_it_may_begin_a_tag() -> None:
    decoder = AnswerDecoder(chat.decoder({}), {})
    (role,) = decoder.feed(chunk("", role="assistant"))
    assert not role.pieces
    assert decoder.feed(chunk("\n")) == []
    assert decoder.feed(b": ping\n\n") == []
    assert decoder.is_waiting
    assert [event.pieces for event in decoder.feed(chunk("So."))] == [[(0, "\n")], [], [(0, "So.")]]
    assert len(decoder.feed(chunk("\n<think>"))) == 1
    assert not decoder.is_waiting


def test_the_end_of_a_text_decides_it() -> None:
    decoder = AnswerDecoder(chat.decoder({}), {})
    assert decoder.feed(chunk("<thin")) == []
    assert len(decoder.feed(chunk(why="stop"))) == 2
    assert decoder.exchanges()[0].answer == "<thin"


def test_no_text_waits_for_ever() -> None:
    decoder = AnswerDecoder(chat.decoder({}), {})
    items = [chunk("\n"), *(chunk(reasoning_content="So.") for _ in range(64))]
    passed = [event for item in items for event in decoder.feed(item)]
    assert [id(event.original) for event in passed] == [id(item) for item in items]
    # what was decided stays decided, or an edit would have no place
    decoder.feed(chunk("<think>No.</think>"))
    assert decoder.exchanges()[0].answer == "\n<think>No.</think>"


def test_an_answer_that_has_begun_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = AnswerDecoder(chat.decoder({}), {})
    decoder.feed(chunk("So "))
    monkeypatch.delattr(ThinkTagReader, "feed")
    for piece in ("<think>", "", "No.</think>"):
        (event,) = decoder.feed(chunk(piece))
        assert (event.pieces, event.divided_texts) == ([(0, piece)] if piece else [], ())


def test_texts_that_come_only_as_a_whole() -> None:
    items = [item for item in BY_NAME["responses"].tell([f"{THINK}So it is."]) if not kind(item).endswith("delta")]
    _, events = decode(BY_NAME["responses"], items)
    edited = [event.with_texts([], dict.fromkeys(event.repeated_texts, "XYZ")) for event in events]
    (body,) = [item for item in edited if kind(item) == "response.completed"]
    assert f'"text":"{THINK}XYZ"' in body.model_dump_json()  # type: ignore[attr-defined]
    _, events = decode(BY_NAME["responses"], items, drop=True)
    assert all("fool" not in event.original.model_dump_json() for event in events)  # type: ignore[attr-defined]


def test_what_cannot_be_dropped_is_a_fault_and_passes() -> None:
    decoder = AnswerDecoder(chat.decoder({}), {}, drop=True)
    item = chunk(THINK)
    inner = decoder._decoder.feed

    def fail(*_: object) -> object:
        raise RuntimeError(THINK)

    decoder._decoder.feed = lambda given: [  # type: ignore[method-assign]
        StreamEvent(event.item, event.pieces, rewrite=fail) for event in inner(given)
    ]
    passed = [*decoder.feed(item), *decoder.flush()]
    assert [event.original for event in passed] == [item]
    assert decoder.fault == "RuntimeError"
