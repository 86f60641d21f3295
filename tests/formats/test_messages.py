"""Messages: blocks are read as eligibility needs them, and a corrected stream differs in its texts alone."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.formats import messages
from aligner_proxy.formats.safe import SafeFormat
from aligner_proxy.types import Outcome, Policy, Status, Turn
from tests.e2e.event_streams import frames, message_events
from tests.support.stream_fixtures import decoded, replayed

POLICY = Policy("p")
ASKED = {"litellm_call_id": "call-1", "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
THOUGHT = {"type": "thinking", "thinking": "think", "signature": "s"}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
CITED = {"type": "char_location", "cited_text": "x", "document_index": 0, "start_char_index": 0, "end_char_index": 1}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def whole(*content: dict[str, Any], stop: str | None = "end_turn") -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [*content]}
    return {**head, "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 2}}


def stream(*content: dict[str, Any], stop: str | None = "end_turn") -> list[bytes]:
    return [frame.encode() for frame in frames(message_events(whole(*content, stop=stop)))]


def outcome(index: int, said: str, status: Status = Status.CORRECTED) -> Outcome:
    return Outcome(status, None, said, POLICY, index)


def events(items: Sequence[Any]) -> list[Any]:
    """What a client reads."""
    raw = b"".join(items).decode()
    return [json.loads(line.removeprefix("data: ")) for line in raw.splitlines() if line.startswith("data: ")]


def both(*content: dict[str, Any], data: dict[str, Any] | None = None, stop: str | None = "end_turn") -> Any:
    """The exchanges of a whole message, which are those of its stream."""
    asked = {**ASKED, **(data or {})}
    found = messages.exchanges(asked, whole(*content, stop=stop))
    assert decoded(messages, asked, stream(*content, stop=stop)) == found
    return found


def test_a_plain_answer() -> None:
    (exchange,) = both(text(" A\u200b\n"))
    assert (exchange.call_id, exchange.index, exchange.answer) == ("call-1", 0, " A\u200b\n")
    assert (exchange.turns, exchange.finish_reason) == ((Turn("user", "Hi"),), "end_turn")
    flags = ("tool_calls", "structured", "refusal", "non_text", "logprobs", "annotations", "inconsistent", "no_store")
    assert not any(getattr(exchange, flag) for flag in flags)


def test_each_text_block_is_an_answer_of_its_own() -> None:
    found = both(text("A"), THOUGHT, text(""), text("B"))
    assert [(e.index, e.answer, e.inner) for e in found] == [(0, "A", True), (1, "B", False)]


@pytest.mark.parametrize("content", [[], [text("")], [THOUGHT]])
def test_a_message_that_says_nothing(content: list[dict[str, Any]]) -> None:
    (exchange,) = both(*content)
    assert exchange.answer is None


@pytest.mark.parametrize(
    ("flag", "content"),
    [
        ("tool_calls", [text("A"), TOOL]),
        ("tool_calls", [TOOL]),
        ("annotations", [text("A "), text("B", citations=[CITED]), text(".")]),
        ("non_text", [{"type": "hologram"}, text("A")]),
        ("non_text", [{"type": "image", "source": {}}, text("A")]),
    ],
)
def test_flags_hold_for_every_block(flag: str, content: list[dict[str, Any]]) -> None:
    found = both(*content)
    assert found
    assert all(getattr(exchange, flag) is True for exchange in found)


def test_what_the_upstream_did_by_itself_may_stand_beside_an_answer() -> None:
    redacted = {"type": "redacted_thinking", "data": "x"}
    (exchange,) = both(THOUGHT, redacted, SEARCH, FOUND, text("A", citations=None))
    assert (exchange.non_text, exchange.tool_calls, exchange.annotations) == (False, False, False)


@pytest.mark.parametrize("stop", ["end_turn", "stop_sequence", "max_tokens", "tool_use", "refusal", "pause_turn"])
def test_stop_reasons_are_told_as_they_are(stop: str) -> None:
    assert both(text("A"), stop=stop)[0].finish_reason == stop


def test_the_conversation() -> None:
    said = [
        {"role": "user", "content": [text("One"), {"type": "image", "source": {}}]},
        {"role": "assistant", "content": [text("Two"), TOOL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [text("42")]}]},
        {"role": "user", "content": "Three"},
    ]
    (exchange,) = both(text("A"), data={"messages": said, "system": [text("Be"), text("brief")]})
    turns = [("system", "Be\nbrief"), ("user", "One"), ("assistant", "Two"), ("user", ""), ("user", "Three")]
    assert [(turn.role, turn.content) for turn in exchange.turns] == turns


@pytest.mark.parametrize(
    "data",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
        {"output_format": {"type": "json_schema", "schema": {}}},
    ],
)
def test_structured_output(data: dict[str, Any]) -> None:
    assert both(text("A"), data=data)[0].structured is True
    assert both(text("A"), data={"output_config": {"effort": "low"}})[0].structured is False


def test_the_upstream_may_forbid_storing() -> None:
    class Logging:
        def __init__(self) -> None:
            self.model_call_details = {"response_headers": {"cache-control": "private, No-Store"}}

    assert both(text("A"), data={"litellm_logging_obj": Logging()})[0].no_store is True


def test_nothing_corrected_is_the_same_object() -> None:
    response = whole(text("A"))
    items = stream(text("A"))
    for status in (Status.UNCHANGED, Status.SKIPPED, Status.SHADOW, Status.FAILED):
        assert messages.apply(response, [outcome(0, "X", status)]) is response
        played = replayed(messages, items, [outcome(0, "X", status)])
        assert [id(item) for item in played] == [id(item) for item in items]


def test_a_correction_touches_the_text_alone() -> None:
    response = whole(text("A", citations=None), THOUGHT, text(""), text("B"))
    before = copy.deepcopy(response)
    edited = messages.apply(response, [outcome(0, "A", Status.UNCHANGED), outcome(1, "X")])
    assert response == before
    assert edited == {**before, "content": [*before["content"][:3], text("X")]}
    assert edited["content"][0] is response["content"][0]


CONTENT = [text("abcdefgh"), THOUGHT, text("keep"), text("ijklm")]
EDITS = [outcome(0, "XYZ"), outcome(1, "keep", Status.UNCHANGED), outcome(2, "Q!")]


def blanked(sent: Sequence[Any]) -> list[Any]:
    """Events without the texts of the corrected blocks."""
    kept = copy.deepcopy(list(sent))
    for event in kept:
        if event["type"] == "content_block_delta" and event["index"] in (0, 3):
            event["delta"]["text"] = ""
    return kept


def test_a_corrected_stream_differs_in_its_texts_alone() -> None:
    items = stream(*CONTENT)
    played = replayed(messages, items, EDITS)
    assert blanked(events(played)) == blanked(events(items))
    deltas = [event for event in events(played) if event["type"] == "content_block_delta"]
    for index, said in ((0, "XYZ"), (2, "keep"), (3, "Q!")):
        assert "".join(d["delta"]["text"] for d in deltas if d["index"] == index) == said
    assert sum(new == old for new, old in zip(played, items, strict=True)) == len(items) - 4


@given(st.lists(st.integers(1, 2000), max_size=12), st.booleans())
def test_any_chunking_gives_the_same_answer(cuts: list[int], as_text: bool) -> None:
    raw = b"".join(stream(*CONTENT))
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    items: list[Any] = [raw[a:b] for a, b in itertools.pairwise(edges)]
    if as_text:  # LiteLLM's own streams are ASCII; `str` items come in whole characters
        items = [item.decode() for item in items]
    assert decoded(messages, ASKED, items) == decoded(messages, ASKED, stream(*CONTENT))
    assert replayed(messages, items, []) == items
    played: Any = replayed(messages, items, EDITS)
    assert b"".join(played) == b"".join(replayed(messages, stream(*CONTENT), EDITS))  # type: ignore[arg-type]


def test_events_that_litellm_made_itself_stay_dicts() -> None:
    items = message_events(whole(*CONTENT))
    before = copy.deepcopy(items)
    assert [e.answer for e in decoded(messages, ASKED, items)] == ["abcdefgh", "keep", "ijklm"]
    played: Any = replayed(messages, items, EDITS)
    assert items == before
    assert blanked(played) == blanked(items)


def test_a_block_may_begin_with_text() -> None:
    told = message_events(whole(text("efgh")))
    start = next(event for event in told if event["type"] == "content_block_start")
    start["content_block"] = text("abcd")
    (exchange,) = decoded(messages, ASKED, told)
    assert exchange.answer == "abcdefgh"
    played: Any = replayed(messages, told, [outcome(0, "XYZW")])
    assert [e["content_block"]["text"] for e in played if e["type"] == "content_block_start"] == ["XY"]


@pytest.mark.parametrize("broken", [b"data: {\n\n", b"data: \xff\n\n", b'event: content_block_delta\ndata: {"type"'])
def test_a_stream_that_cannot_be_read_is_left_alone(broken: bytes) -> None:
    assert decoded(messages, ASKED, [*stream(text("A")), broken])[0].inconsistent is True


def test_a_stream_that_begins_twice_is_left_alone() -> None:
    assert decoded(messages, ASKED, [*stream(text("A")), *stream(text("B"))])[0].inconsistent is True
    told = message_events(whole(text("A")))
    told[0] = {"type": "message_start", "message": {**whole(text("A"))}}
    assert decoded(messages, ASKED, told)[0].inconsistent is True


def test_a_stream_that_does_not_come_to_an_end() -> None:
    assert decoded(messages, ASKED, stream(text("A"))[:-2])[0].finish_reason == "error"
    error = b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}\n\n'
    assert decoded(messages, ASKED, [*stream(text("A")), error])[0].finish_reason == "error"


def test_foreign_objects_are_no_exchanges() -> None:
    assert messages.exchanges(ASKED, object()) == []
    assert messages.exchanges(ASKED, {"type": "error"}) == []
    assert decoded(messages, ASKED, [b": ping\n\n", object(), None]) == []


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "text", "text_delta", "tool_use", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "content", "stop_reason", "delta"]), inner, max_size=4)
    ),
    max_leaves=8,
)
KINDS = sorted({event["type"] for event in message_events(whole(text("a")))} | {"error"})
EVENT = st.dictionaries(st.sampled_from(["index", "delta", "content_block", "message", "usage"]), JUNK)


@given(st.lists(st.tuples(st.sampled_from(KINDS), EVENT), max_size=6), st.booleans())
def test_events_of_any_shape_do_no_harm(sent: list[Any], as_bytes: bool) -> None:
    items: list[Any] = [{"type": kind, **fields} for kind, fields in sent]
    before = copy.deepcopy(items)
    played_as = [frame.encode() for frame in frames(items)] if as_bytes else items
    found = decoded(messages, {}, played_as)
    played = replayed(messages, played_as, [outcome(e.index, "new") for e in found if e.answer])
    assert len(played) == len(items)
    assert items == before


@given(JUNK)
def test_messages_of_any_shape_do_no_harm(content: Any) -> None:
    response = {"content": content}
    before = copy.deepcopy(response)
    found = messages.exchanges({}, response)
    messages.apply(response, [outcome(e.index, "new") for e in found if e.answer])
    assert response == before


def pieces_by_choice(items: Sequence[object]) -> dict[int, str]:
    """What the pieces of a stream make together, by choice."""
    decoder = messages.decoder(ASKED)
    found: dict[int, str] = {}
    for event in (event for item in items for event in decoder.feed(item)):
        for index, piece in event.pieces:
            found[index] = found.get(index, "") + piece
    return found


@given(st.integers(1, 90))
def test_the_pieces_make_the_answers_however_the_bytes_are_cut(size: int) -> None:
    content = (THOUGHT, text("Bring a coät. "), SEARCH, FOUND, text(""), text("It is cold."))
    raw = b"".join(stream(*content))
    cut = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert pieces_by_choice(cut) == {e.index: e.answer for e in decoded(messages, ASKED, cut)}


def test_what_is_known_before_an_answer() -> None:
    opening = SafeFormat(messages).first_exchange({**ASKED, "system": "Be brief."})
    assert (opening.index, opening.answer, opening.finish_reason) == (0, None, None)
    assert opening.turns == (Turn("system", "Be brief."), Turn("user", "Hi"))
