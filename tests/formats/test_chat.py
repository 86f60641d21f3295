"""Chat: every optional field is read as eligibility needs it, and nothing but the text is ever touched."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy.formats import chat, is_stored_answer, wire
from aligner_proxy.types import Outcome, Policy, Status, Turn
from tests.support.stream_fixtures import decoded, replayed

POLICY = Policy("p")
ASKED = {"litellm_call_id": "call-1", "messages": [{"role": "user", "content": "Hi"}]}


def outcome(index: int, text: str, status: Status = Status.CORRECTED) -> Outcome:
    return Outcome(status, None, text, POLICY, index)


def whole(*messages: dict[str, Any], **choice: Any) -> ModelResponse:
    choices = [{"index": i, "finish_reason": "stop", "message": m, **choice} for i, m in enumerate(messages)]
    return ModelResponse(id="1", created=1, model="m", choices=choices, usage={"prompt_tokens": 1})


def chunk(index: int = 0, why: str | None = None, **delta: Any) -> ModelResponseStream:
    return ModelResponseStream(id="1", created=1, choices=[{"index": index, "delta": delta, "finish_reason": why}])


def one(data: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, **message: Any) -> Any:
    (exchange,) = chat.exchanges({**ASKED, **(data or {})}, whole({"role": "assistant", **message}, **(choice or {})))
    return exchange


def test_a_plain_answer() -> None:
    exchange = one(content=" A\u200b\n")
    assert (exchange.call_id, exchange.index, exchange.answer, exchange.finish_reason) == (
        "call-1",
        0,
        " A\u200b\n",
        "stop",
    )
    assert exchange.turns == (Turn("user", "Hi"),)
    flags = ("tool_calls", "structured", "refusal", "non_text", "logprobs", "annotations", "inconsistent", "no_store")
    assert not any(getattr(exchange, flag) for flag in flags)


def test_text_parts_of_a_turn_are_joined() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "b"},
    ]
    exchange = one({"messages": [{"role": "system", "content": None}, {"role": "user", "content": parts}]}, content="A")
    assert exchange.turns == (Turn("system", ""), Turn("user", "a\nb"))


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NOTE = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "url": "u", "title": "t"}}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("tool_calls", {"content": "A", "tool_calls": [CALL]}),
        ("tool_calls", {"content": None, "function_call": {"name": "f", "arguments": "{}"}}),
        ("refusal", {"content": None, "refusal": "No."}),
        ("non_text", {"content": "A", "images": [{"type": "image_url", "image_url": {"url": "x"}, "index": 0}]}),
        ("annotations", {"content": "A", "annotations": [NOTE]}),
        ("annotations", {"content": "A", "provider_specific_fields": {"citations": [[{"supported_text": "A"}]]}}),
    ],
)
def test_flags_of_a_message(flag: str, message: dict[str, Any]) -> None:
    assert getattr(one(**message), flag) is True


def test_content_that_is_no_text() -> None:
    response = whole({"role": "assistant", "content": "x"})
    response.choices[0].message.content = [{"type": "text", "text": "x"}]  # type: ignore[assignment,union-attr]
    (exchange,) = chat.exchanges(ASKED, response)
    assert (exchange.non_text, exchange.answer) == (True, None)


@pytest.mark.parametrize(
    ("flag", "data"),
    [
        ("structured", {"response_format": {"type": "json_object"}}),
        ("structured", {"response_format": {"type": "json_schema", "json_schema": {}}}),
        ("structured", {"guided_regex": "a+"}),
        ("structured", {"extra_body": {"guided_json": {"type": "object"}}}),
        ("no_store", {"cache": {"no-store": True}}),
        ("no_store", {"proxy_server_request": {"headers": {"Cache-Control": "no-cache, No-Store"}}}),
    ],
)
def test_flags_of_a_request(flag: str, data: dict[str, Any]) -> None:
    assert getattr(one(data, content="A"), flag) is True


@pytest.mark.parametrize(
    ("wanted", "schema", "constrained"),
    [
        ({}, None, False),
        ({"response_format": {"type": "json_object"}}, None, False),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}}}, '{"a": 1}', False),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "true", False),
        ({"response_format": {"type": "json_schema"}}, "false", False),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": object()}}}, "false", False),
        ({"response_format": {"type": "grammar"}}, None, True),
        ({"guided_json": {"type": "object"}}, None, True),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"a": 1}}}}, '{"a": 1}', False),
        ({"text": {"format": {"type": "json_schema"}}}, "false", False),
        ({"text": {"format": {"type": "grammar"}}}, None, True),
        ({"output_format": {"type": "json_schema", "schema": {"a": 1}}}, '{"a": 1}', False),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"a": 1}}}}, '{"a": 1}', False),
        (
            {
                "output_format": {"type": "json_schema", "schema": {"a": 1}},
                "output_config": {"format": {"type": "json_schema", "schema": {"a": 2}}},
            },
            "false",
            False,
        ),
    ],
)
def test_what_binds_the_answer(wanted: dict[str, Any], schema: str | None, constrained: bool) -> None:
    exchange = one(wanted, content="{}")
    assert (exchange.json_schema, exchange.constrained) == (schema, constrained)


def test_a_text_format_is_not_structured() -> None:
    assert one({"response_format": {"type": "text"}}, content="A").structured is False


def test_logprobs_that_are_there() -> None:
    logprobs = {"content": [{"token": "A", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    assert one(choice={"logprobs": logprobs}, content="A").logprobs is True


def test_choices_are_numbered_by_position() -> None:
    response = whole({"content": "A"}, {"content": "B"}, {"content": "C"})
    for choice in response.choices:
        choice.index = 0
    assert [exchange.index for exchange in chat.exchanges(ASKED, response)] == [0, 1, 2]
    edited = chat.apply(response, [outcome(1, "X")])
    assert [choice.message.content for choice in edited.choices] == ["A", "X", "C"]


def test_nothing_corrected_is_the_same_object() -> None:
    response = whole({"content": "A"})
    for status in (Status.UNCHANGED, Status.SKIPPED, Status.SHADOW, Status.FAILED):
        assert chat.apply(response, [outcome(0, "X", status)]) is response


def test_a_correction_touches_the_text_alone() -> None:
    response = whole(
        {"content": "A", "reasoning_content": "think", "provider_specific_fields": {"x": 1}}, {"content": "B"}
    )
    before = response.model_dump_json()
    edited = chat.apply(response, [outcome(0, "X")])
    assert response.model_dump_json() == before
    assert edited.model_dump_json() == before.replace('"content":"A"', '"content":"X"')
    assert edited.choices[1] is response.choices[1]
    assert edited._hidden_params == response._hidden_params


def test_a_stream_reads_like_a_whole_response() -> None:
    items = [
        chunk(role="assistant", content=""),
        chunk(1, role="assistant", content=""),
        chunk(content="A b"),
        chunk(1, content="C"),
        chunk(content=" c"),
        chunk(why="stop"),
        chunk(1, why="length"),
        ModelResponseStream(id="1", created=1, choices=[]),
        b": ping\n\n",
    ]
    exchanges = decoded(chat, ASKED, items)
    assert [(e.index, e.answer, e.finish_reason) for e in exchanges] == [(0, "A b c", "stop"), (1, "C", "length")]


def test_citations_of_a_stream() -> None:
    quoting = chunk(content="", provider_specific_fields={"citation": {"cited_text": "x"}})
    assert decoded(chat, ASKED, [chunk(content="A"), quoting])[0].annotations is True


def test_citations_that_say_nothing() -> None:
    assert one(content="A", provider_specific_fields={"citations": [[], []]}).annotations is False
    assert one(content="A", provider_specific_fields={"citations": None}).annotations is False


def test_flags_of_a_stream() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    (exchange,) = decoded(chat, ASKED, [chunk(tool_calls=[call]), chunk(content="A", why="tool_calls")])
    assert (exchange.tool_calls, exchange.answer) == (True, "A")


def test_a_corrected_stream_keeps_its_shapes() -> None:
    items = [
        chunk(role="assistant", content=""),
        chunk(content="abcd"),
        chunk(1, content="zz"),
        chunk(content="ef"),
        chunk(why="stop"),
    ]
    before = [item.model_dump_json() for item in items]
    edited: Any = replayed(chat, items, [outcome(0, "XYZ"), outcome(1, "zz", Status.UNCHANGED)])
    assert [item.model_dump_json() for item in items] == before
    assert [e is i for e, i in zip(edited, items, strict=True)] == [True, False, True, False, True]
    assert [edited[n].choices[0].delta.content for n in (1, 3)] == ["XY", "Z"]
    assert edited[1].model_dump_json() == before[1].replace("abcd", "XY")


def test_a_chunk_with_several_choices() -> None:
    both = ModelResponseStream(
        id="1", created=1, choices=[{"index": i, "delta": {"content": text}} for i, text in enumerate(("A", "B"))]
    )
    (edited,) = replayed(chat, [both], [outcome(1, "X")])
    assert [choice.delta.content for choice in edited.choices] == ["A", "X"]  # type: ignore[attr-defined]


def test_foreign_objects_are_no_exchanges() -> None:
    assert chat.exchanges(ASKED, {"choices": []}) == []
    assert decoded(chat, ASKED, [b"data: x\n\n", "y", None]) == []


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("/v1/chat/completions", "chat"),
        ("/chat/completions", "chat"),
        ("/openai/deployments/a/b/chat/completions", "chat"),
        ("/engines/x/chat/completions", "chat"),
        ("/v1/completions", "text"),
        ("/openai/deployments/a/completions", "text"),
        ("/v1/responses", "responses"),
        ("/responses", "responses"),
        ("/openai/v1/responses", "responses"),
        ("/v1/responses/{response_id}", "responses"),
        ("/v1/messages", "messages"),
        ("/v1/responses/compact", None),
        ("/v1/responses/input_tokens", None),
        ("/v1/responses/{response_id}/cancel", None),
        ("/v1/messages/count_tokens", None),
        ("/anthropic/v1/messages", None),
        ("/cursor/chat/completions", None),
        ("/v1/embeddings", None),
        ("/anthropic/v1/chat/completions", None),
        (None, None),
    ],
)
def test_routes(route: str | None, name: str | None) -> None:
    found: Any = wire(route)
    assert (found.__name__.rsplit(".", 1)[-1] if found else None) == name


def test_a_stored_answer_is_known_by_its_route() -> None:
    assert is_stored_answer("/v1/responses/{response_id}") is True
    assert not any(is_stored_answer(route) for route in ("/v1/responses", "/v1/responses/compact", None))


def test_a_chunk_is_read_without_asking_for_fields_that_it_lacks() -> None:
    """Such a question takes pydantic ten times as long as any other, and a chunk lacks most fields."""
    decoder = chat.decoder(ASKED)
    piece = chunk(content="Hi")
    names: list[str] = []

    def note_question(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_code.co_name == "__getattr__":
            names.append(str(frame.f_locals.get("item")))

    sys.setprofile(note_question)
    try:
        decoder.feed(piece)
    finally:
        sys.setprofile(None)
    assert set(names) <= {"index", "finish_reason"}
