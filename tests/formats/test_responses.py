"""Responses: every place of a stream that tells a text tells the same one, and nothing but the text is ever touched."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ResponsesAPIResponse

from aligner_proxy.formats import responses
from aligner_proxy.types import Outcome, Policy, Status, Turn
from tests.e2e.event_streams import response_events
from tests.support.stream_fixtures import decoded, replayed

POLICY = Policy("p")
ASKED = {"litellm_call_id": "call-1", "input": "Hi"}
CITED = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "u", "title": "t"}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "think"}]}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": [], **more}


def message(*parts: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": [*parts]}


def body(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "usage": usage}
    return {**head, "output": [*output], "metadata": {}, **more}


def whole(*output: dict[str, Any], **more: Any) -> ResponsesAPIResponse:
    return ResponsesAPIResponse(**body(*output, **more))


def typed(events: Sequence[dict[str, Any]]) -> list[Any]:
    """Events as LiteLLM reads them off the wire."""
    config = OpenAIResponsesAPIConfig()
    logging: Any = None
    return [config.transform_streaming_response("m", copy.deepcopy(event), logging) for event in events]


def stream(*output: dict[str, Any], **more: Any) -> list[Any]:
    return typed(response_events(body(*output, **more)))


def outcome(index: int, said: str, status: Status = Status.CORRECTED) -> Outcome:
    return Outcome(status, None, said, POLICY, index)


def sent(event: Any) -> Any:
    """The event as LiteLLM puts it on the wire."""
    return json.loads(event.model_dump_json(exclude_none=True, exclude_unset=True))


def both(*output: dict[str, Any], data: dict[str, Any] | None = None, **more: Any) -> Any:
    """The exchanges of a whole response, which are those of its stream."""
    asked = {**ASKED, **(data or {})}
    found = responses.exchanges(asked, whole(*output, **more))
    assert decoded(responses, asked, stream(*output, **more)) == found
    return found


def test_a_plain_answer() -> None:
    (exchange,) = both(message(text(" A\u200b\n")))
    assert (exchange.call_id, exchange.index, exchange.answer) == ("call-1", 0, " A\u200b\n")
    assert (exchange.turns, exchange.finish_reason) == ((Turn("user", "Hi"),), "completed")
    flags = ("tool_calls", "structured", "refusal", "non_text", "logprobs", "annotations", "inconsistent", "no_store")
    assert not any(getattr(exchange, flag) for flag in flags)


def test_each_text_part_is_an_answer_of_its_own() -> None:
    found = both(message(text("A"), text(""), text("B")), THOUGHT, message(text("C"), number=2))
    assert [(e.index, e.answer, e.inner) for e in found] == [(0, "A", True), (1, "B", True), (2, "C", False)]


@pytest.mark.parametrize("output", [[], [message(text(""))], [message()], [THOUGHT]])
def test_a_response_that_says_nothing(output: list[dict[str, Any]]) -> None:
    (exchange,) = both(*output)
    assert (exchange.answer, exchange.tool_calls) == (None, False)


@pytest.mark.parametrize(
    ("flag", "output"),
    [
        ("tool_calls", [message(text("A")), CALL]),
        ("tool_calls", [CALL]),
        ("tool_calls", [{**CALL, "type": "custom_tool_call", "input": "x"}, message(text("A"))]),
        ("refusal", [message({"type": "refusal", "refusal": "No."})]),
        ("refusal", [message(text("A"), {"type": "refusal", "refusal": "No."})]),
        ("annotations", [message(text("A", annotations=[CITED]))]),
        ("annotations", [message(text("A", annotations=[CITED])), message(text("B"), number=2)]),
        ("logprobs", [message(text("A", logprobs=[{"token": "A", "logprob": -0.1, "bytes": [], "top_logprobs": []}]))]),
        ("non_text", [{"id": "x", "type": "hologram_call"}, message(text("A"))]),
        ("non_text", [{"id": "x", "type": "image_generation_call", "status": "completed"}, message(text("A"))]),
    ],
)
def test_flags_hold_for_every_part(flag: str, output: list[dict[str, Any]]) -> None:
    found = both(*output)
    assert found
    assert all(getattr(exchange, flag) is True for exchange in found)


def test_what_the_upstream_did_by_itself_may_stand_beside_an_answer() -> None:
    (exchange,) = both(THOUGHT, SEARCH, message(text("A")))
    assert (exchange.non_text, exchange.tool_calls) == (False, False)


def test_citations_that_litellm_keeps_apart() -> None:
    fields = {"citations": [[{"cited_text": "x", "supported_text": "A"}]]}
    assert both(message(text("A")), provider_specific_fields=fields)[0].annotations
    assert not both(message(text("A")), provider_specific_fields={"citations": None})[0].annotations


@pytest.mark.parametrize(
    ("status", "details", "reason"),
    [
        ("completed", None, "completed"),
        ("incomplete", {"reason": "max_output_tokens"}, "max_output_tokens"),
        ("incomplete", {"reason": "content_filter"}, "content_filter"),
        ("incomplete", None, "incomplete"),
        ("failed", None, "failed"),
    ],
)
def test_states(status: str, details: Any, reason: str) -> None:
    (exchange,) = both(message(text("A")), status=status, incomplete_details=details)
    assert exchange.finish_reason == reason


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_states_of_a_response_in_the_background(status: str) -> None:
    (exchange,) = responses.exchanges(ASKED, whole(status=status))
    assert (exchange.finish_reason, exchange.answer) == (status, None)


def test_the_conversation_is_what_the_request_tells() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "One"}, {"type": "input_image", "image_url": "x"}]},
        {"type": "reasoning", "id": "rs_0", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Two"}]},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"role": "user", "content": "Three"},
    ]
    data = {"input": items, "instructions": "Be brief", "previous_response_id": "resp_0"}
    (exchange,) = both(message(text("A")), data=data)
    turns = [("system", "Be brief"), ("user", "One"), ("assistant", "Two"), ("user", "Three")]
    assert [(turn.role, turn.content) for turn in exchange.turns] == turns


@pytest.mark.parametrize("said", [None, [], [{"type": "function_call_output", "call_id": "c", "output": "42"}], 7])
def test_a_conversation_that_is_not_visible_is_empty(said: Any) -> None:
    (exchange,) = both(message(text("A")), data={"input": said, "previous_response_id": "resp_0"})
    assert exchange.turns == ()


@pytest.mark.parametrize(
    ("structured", "data"),
    [
        (True, {"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}),
        (True, {"text": {"format": {"type": "json_object"}}}),
        (False, {"text": {"format": {"type": "text"}, "verbosity": "low"}}),
        (False, {"text": {}}),
    ],
)
def test_structured_output(structured: bool, data: dict[str, Any]) -> None:
    assert both(message(text("A")), data=data)[0].structured is structured


def test_the_upstream_may_forbid_storing() -> None:
    response = whole(message(text("A")))
    response._hidden_params = {"additional_headers": {"llm_provider-cache-control": "no-store"}}
    assert responses.exchanges(ASKED, response)[0].no_store is True


def test_nothing_corrected_is_the_same_object() -> None:
    response = whole(message(text("A")))
    items = stream(message(text("A")))
    for status in (Status.UNCHANGED, Status.SKIPPED, Status.SHADOW, Status.FAILED):
        assert responses.apply(response, [outcome(0, "X", status)]) is response
        played = replayed(responses, items, [outcome(0, "X", status)])
        assert [id(item) for item in played] == [id(item) for item in items]


def test_a_correction_touches_the_text_alone() -> None:
    response = whole(THOUGHT, message(text("A"), text("B")), {"id": "x", "type": "hologram_call", "text": "B"})
    before = response.model_dump_json()
    edited = responses.apply(response, [outcome(0, "A", Status.UNCHANGED), outcome(1, "X")])
    assert response.model_dump_json() == before
    assert edited.model_dump_json() == before.replace(
        '"text":"B","type":"output_text"', '"text":"X","type":"output_text"'
    )
    assert edited.output[0] is response.output[0]
    assert edited._hidden_params == response._hidden_params


def test_reasoning_that_litellm_gives_as_text_is_no_answer() -> None:
    thought = {
        "id": "rs_1",
        "type": "reasoning",
        "status": "completed",
        "content": [text("think")],
        "role": "assistant",
    }
    response = whole(thought, message(text("A")))
    assert [e.answer for e in responses.exchanges(ASKED, response)] == ["A"]
    edited = responses.apply(response, [outcome(0, "X")])
    assert edited.output[0] is response.output[0]


def test_all_events_of_a_corrected_stream_agree() -> None:
    items = stream(THOUGHT, message(text("abcdefgh"), text("keep")), message(text("ijklm"), number=2))
    before = [sent(item) for item in items]
    played = replayed(responses, items, [outcome(0, "XYZ"), outcome(1, "keep", Status.UNCHANGED), outcome(2, "Q!")])
    assert [sent(item) for item in items] == before
    expected = json.dumps(before)
    for old, new in (("abcdefgh", "XYZ"), ("ijklm", "Q!")):
        expected = expected.replace(f'"text": "{old}"', f'"text": "{new}"')
    for old, new in (("abcd", "X"), ("efgh", "YZ"), ("ijkl", "Q"), ('"delta": "m"', '"delta": "!"')):
        expected = expected.replace(old, new)
    assert [sent(item) for item in played] == json.loads(expected)
    assert [event["sequence_number"] for event in map(sent, played)] == list(range(len(items)))


def test_only_events_that_tell_a_corrected_text_are_copies() -> None:
    items = stream(message(text("abcd"), text("keep")))
    played = replayed(responses, items, [outcome(0, "X"), outcome(1, "keep", Status.UNCHANGED)])
    same = [str(old.type.value) for new, old in zip(played, items, strict=True) if new is old]
    assert "response.output_text.delta" in same  # that of the second part
    assert "response.content_part.done" in same
    assert "response.completed" not in same


def test_what_litellm_sets_beside_the_fields_stays() -> None:
    items = stream(message(text("abcd")))
    delta = next(item for item in items if item.type == "response.output_text.delta")
    delta.__dict__["stamp"] = 7  # as LiteLLM does with the sequence numbers of the streams it translates
    played: Any = replayed(responses, items, [outcome(0, "X")])
    (edited,) = [item for item in played if item.type == "response.output_text.delta"]
    assert (edited.delta, edited.__dict__["stamp"]) == ("X", 7)
    assert sent(edited) == {**sent(delta), "delta": "X"}


def synthetic() -> list[Any]:
    """A stream that LiteLLM makes of a whole response: its first events hold the whole text already."""
    events = response_events(body(message(text("abcdefgh"))))
    for event in events:
        if event["type"] == "response.output_item.added":
            event["item"] = message(text("abcdefgh"))
        if event["type"] == "response.content_part.added":
            event["part"] = text("abcdefgh")
    return typed(events)


def test_a_text_that_is_told_too_early_is_replaced_there_too() -> None:
    items = synthetic()
    assert [e.answer for e in decoded(responses, ASKED, items)] == ["abcdefgh"]
    played = replayed(responses, items, [outcome(0, "XYZ")])
    assert "abcd" not in json.dumps([sent(item) for item in played])


def test_a_stream_without_pieces() -> None:
    items = [item for item in stream(message(text("abcd"))) if item.type != "response.output_text.delta"]
    assert [e.answer for e in decoded(responses, ASKED, items)] == ["abcd"]
    played = replayed(responses, items, [outcome(0, "X")])
    assert "abcd" not in json.dumps([sent(item) for item in played])


def test_a_last_event_without_output_says_nothing_against_the_others() -> None:
    events = response_events(body(message(text("abcd"))))
    events[-1]["response"] = {**events[-1]["response"], "output": []}
    (exchange,) = decoded(responses, ASKED, typed(events))
    assert (exchange.answer, exchange.inconsistent) == ("abcd", False)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("response.output_text.delta", ["delta"]),
        ("response.output_text.done", ["text"]),
        ("response.content_part.added", ["part", "text"]),
        ("response.content_part.done", ["part", "text"]),
        ("response.output_item.done", ["item", "content", 0, "text"]),
        ("response.completed", ["response", "output", 0, "content", 0, "text"]),
        ("response.in_progress", ["response", "output"]),
    ],
)
def test_events_that_disagree(kind: str, path: list[Any]) -> None:
    events = copy.deepcopy(response_events(body(message(text("abcdefgh")))))
    place: Any = next(event for event in events if event["type"] == kind)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = [message(text("other"))] if path[-1] == "output" else "other"
    (exchange,) = decoded(responses, ASKED, typed(events))
    assert exchange.inconsistent is True


def test_a_second_copy_of_the_text_is_not_ours_to_edit() -> None:
    assert both(message(text("A")), output_text="A")[0].inconsistent is True


def test_a_stream_that_does_not_come_to_an_end() -> None:
    (exchange,) = decoded(responses, ASKED, stream(message(text("abcd")))[:-1])
    assert exchange.finish_reason == "error"
    events = [*response_events(body(message(text("abcd")))), {"type": "error", "error": {"type": "e", "message": "m"}}]
    (exchange,) = decoded(responses, ASKED, typed([{**e, "sequence_number": 1} for e in events]))
    assert exchange.finish_reason == "error"


def test_foreign_objects_are_no_exchanges() -> None:
    assert responses.exchanges(ASKED, {"items": []}) == []
    assert decoded(responses, ASKED, [b": ping\n\n", "x", None]) == []


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "message", "output_text", "refusal", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "content", "output", "status", "part"]), inner, max_size=4)
    ),
    max_leaves=8,
)
KINDS = sorted(
    {event["type"] for event in response_events(body(message(text("a"))))} | {"error", "response.refusal.delta"}
)
FIELDS = ["item", "part", "response", "delta", "text", "output_index", "content_index", "logprobs"]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), JUNK)), max_size=6))
def test_events_of_any_shape_do_no_harm(events: list[Any]) -> None:
    items = typed([{"type": kind, **fields} for kind, fields in events])
    before = [repr(item) for item in items]
    found = decoded(responses, {}, items)
    played = replayed(responses, items, [outcome(e.index, "new") for e in found if e.answer])
    assert len(played) == len(items)
    assert [repr(item) for item in items] == before


def test_the_pieces_make_every_part_once() -> None:
    events = typed(
        response_events(
            body(THOUGHT, message(text("Bring a coat. "), text("")), SEARCH, message(text("Go."), number=2))
        )
    )
    decoder = responses.decoder(ASKED)
    found = dict[int, str]()
    for event in (event for item in events for event in decoder.feed(item)):
        for index, piece in event.pieces:
            found[index] = found.get(index, "") + piece
    assert found == {e.index: e.answer for e in decoded(responses, ASKED, events)}
    assert found == {0: "Bring a coat. ", 1: "Go."}
