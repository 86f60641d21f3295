"""`tool_arguments: correct` through the hooks: prose in the calls of every format, whole and streamed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse

from aligner_proxy.audit.entry import AuditEvent
from aligner_proxy.concurrency import TimeSlice
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.formats.copies import RemovedText
from aligner_proxy.gateway import call_arguments
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.second_copies import StreamCopies
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, Status
from tests.gateway.test_guardrail import build, data, ledger_of, user
from tests.support.rounds import count_items, rounds
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import chat_text, chunk, events, flow, kind, response_event

FINE = "The harbour opens at nine on workdays."
RUDE = "Only a perfect fool would ask for more than that."
ID = "fool-4711-9"
ARGUMENTS = (
    '{"id":  "fool-4711-9", "to": "Anna Fool", '
    '"text": "The harbour opens at nine on workdays. RUDE\\nIt is near.", "n": 1.50}'
)
GIVEN = ARGUMENTS.replace("RUDE", RUDE)
WANTED = ARGUMENTS.replace(" RUDE", "")
TEXT_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
MODELS = ("hold", "sentence")


def route(name: str, **settings: Any) -> dict[str, Any]:
    return {"match": {"model": name}, "name": name, "objectives": ["kind"], "tool_arguments": "correct", **settings}


FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        route("hold", on_error="block"),
        route("sentence", on_error="block", stream="sentence"),
        route("lax"),
        route("lax-sentence", stream="sentence"),
        route("live", stream="passthrough"),
        route("shadow", mode="shadow"),
        route("judge", on_error="block", tool_arguments="judge"),
        route("notes", on_error="block", other_text="pass", reasoning="pass"),
        route("notes-sentence", on_error="block", stream="sentence", other_text="pass", reasoning="pass"),
    ],
}


class ReadingEngine(SegmentEngine):
    """Flags what calls somebody a fool, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda text: 4.0 if "fool" in text.lower() else -4.0)
        self.asked: list[str] = []

    async def align(self, request: AlignRequest) -> Correction:
        self.asked.append(request.answer)
        return await super().align(request)


@pytest.fixture
def engine() -> ReadingEngine:
    return ReadingEngine()


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: ReadingEngine) -> AlignerGuardrail:
    made = build(tmp_path, monkeypatch, FILE)
    made.pipeline = Pipeline(engine, extensions=made.pipeline.extensions)
    return made


def cut(text: str, size: int = 7) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def chat_body(arguments: str, **extra: Any) -> ModelResponse:
    call = {"id": ID, "type": "function", "function": {"name": "send_fool", "arguments": arguments}}
    message = {"role": "assistant", "content": FINE, "tool_calls": [call], **extra}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return ModelResponse(id="1", created=1, model="m", choices=[choice])


def call_delta(arguments: str, **first: Any) -> dict[str, Any]:
    return {"index": 0, "function": {"arguments": arguments, **first.pop("function", {})}, "type": "function", **first}


def chat_stream(arguments: str) -> list[Any]:
    opening = call_delta("", id=ID, function={"name": "send_fool"})
    return [
        chunk("", role="assistant"),
        *(chunk(piece) for piece in cut(FINE)),
        chunk(tool_calls=[opening]),
        *(chunk(tool_calls=[call_delta(piece)]) for piece in cut(arguments)),
        chunk(why="tool_calls"),
    ]


def chat_calls(items: list[Any]) -> list[str]:
    calls: dict[int, str] = {}
    for item in items:
        for choice in item.choices:
            for call in choice.delta.tool_calls or ():
                calls[call.index] = calls.get(call.index, "") + (call.function.arguments or "")
    return list(calls.values())


def old_chat_body(arguments: str) -> ModelResponse:
    message = {"role": "assistant", "content": FINE, "function_call": {"name": "send_fool", "arguments": arguments}}
    choice = {"index": 0, "finish_reason": "function_call", "message": message}
    return ModelResponse(id="1", created=1, model="m", choices=[choice])


def old_chat_stream(arguments: str) -> list[Any]:
    pieces = [{"name": "send_fool", "arguments": ""}, *({"arguments": piece} for piece in cut(arguments))]
    return [
        chunk("", role="assistant"),
        *(chunk(piece) for piece in cut(FINE)),
        *(chunk(function_call=piece) for piece in pieces),
        chunk(why="function_call"),
    ]


def old_chat_calls(items: list[Any]) -> list[str]:
    deltas = [item.choices[0].delta.function_call for item in items]
    return ["".join(delta.arguments or "" for delta in deltas if delta)]


def message_body(arguments: str) -> dict[str, Any]:
    block = {"type": "tool_use", "id": ID, "name": "send_fool", "input": json.loads(arguments)}
    content = [{"type": "text", "text": FINE}, block]
    return {"type": "message", "role": "assistant", "content": content, "stop_reason": "tool_use", "usage": {}}


def message_block(index: int, arguments: str) -> list[dict[str, Any]]:
    block = {"type": "tool_use", "id": ID, "name": "send_fool", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(arguments)]
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def message_stream(*calls: str) -> list[Any]:
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"type": "message", "role": "assistant", "content": [], "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in cut(FINE)),
        {"type": "content_block_stop", "index": 0},
        *(event for index, arguments in enumerate(calls, 1) for event in message_block(index, arguments)),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}},
        {"type": "message_stop"},
    ]
    raw = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in told).encode()
    return [raw[at : at + 97] for at in range(0, len(raw), 97)]


def message_calls(items: list[Any]) -> list[str]:
    deltas = [event["delta"] for event in events(items) if event["type"] == "content_block_delta"]
    return ["".join(delta.get("partial_json", "") for delta in deltas)]


def response_output(arguments: str, *, is_free: bool = False) -> list[dict[str, Any]]:
    part = {"type": "output_text", "text": FINE, "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    call = {"id": ID, "call_id": ID, "name": "send_fool", "status": "completed"}
    field = (
        {"type": "custom_tool_call", "input": arguments}
        if is_free
        else {"type": "function_call", "arguments": arguments}
    )
    return [message, call | field]


def response_body(arguments: str, *, is_free: bool = False) -> ResponsesAPIResponse:
    output = response_output(arguments, is_free=is_free)
    return ResponsesAPIResponse(id="resp_1", created_at=1, status="completed", output=output)


def response_stream(arguments: str, *, is_free: bool = False) -> list[Any]:
    message, call = response_output(arguments, is_free=is_free)
    field = "input" if is_free else "arguments"
    of_call = "response.custom_tool_call_input" if is_free else "response.function_call_arguments"
    text = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    at = {"item_id": ID, "output_index": 1}
    body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": [message, call]}
    told: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "output_index": 0, "item": message | {"content": []}},
        *({"type": "response.output_text.delta", "delta": piece, **text} for piece in cut(FINE)),
        {"type": "response.output_text.done", "text": FINE, **text},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.output_item.added", "output_index": 1, "item": call | {field: ""}},
        *({"type": f"{of_call}.delta", "delta": piece, **at} for piece in cut(arguments)),
        {"type": f"{of_call}.done", field: arguments, **at},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.completed", "response": body},
    ]
    return [response_event(event | {"sequence_number": number}) for number, event in enumerate(told)]


def response_calls(items: list[Any]) -> list[str]:
    """The pieces as one, and every whole that follows them."""
    pieces = ""
    wholes = []
    for item in items:
        match kind(item):
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                pieces += item.delta
            case "response.function_call_arguments.done":
                wholes.append(item.arguments)
            case "response.custom_tool_call_input.done":
                wholes.append(item.input)
            case "response.output_item.done":
                wholes += arguments_of([item.item])
            case "response.completed":
                wholes += arguments_of(item.response.output)
    return [pieces, *wholes]


def arguments_of(output: Any) -> list[str]:
    items = [item if isinstance(item, dict) else item.model_dump() for item in output]
    return [str(item.get("arguments") or item.get("input")) for item in items if item["type"].endswith("_call")]


@dataclass(frozen=True)
class Format:
    """`tell` makes a whole answer that calls, `stream` its stream; the others find the arguments again."""

    name: str
    path: str
    tell: Callable[[str], Any]
    read: Callable[[Any], list[str]]
    stream: Callable[[str], list[Any]]
    put_together: Callable[[list[Any]], list[str]]


def chat_read(body: Any) -> list[str]:
    return [str(call.function.arguments) for call in body.choices[0].message.tool_calls]


FORMATS = [
    Format("chat", "/v1/chat/completions", chat_body, chat_read, chat_stream, chat_calls),
    Format(
        "function_call",
        "/v1/chat/completions",
        old_chat_body,
        lambda body: [body.choices[0].message.function_call.arguments],
        old_chat_stream,
        old_chat_calls,
    ),
    Format(
        "messages",
        "/v1/messages",
        message_body,
        lambda body: [json.dumps(body["content"][1]["input"])],
        message_stream,
        message_calls,
    ),
    Format(
        "responses",
        "/v1/responses",
        response_body,
        lambda body: arguments_of(body.output),
        response_stream,
        response_calls,
    ),
]


def request_for(form: Format, model: str, **fields: Any) -> dict[str, Any]:
    request = data(model) | fields
    if form.name == "responses":
        request["input"] = request.pop("messages")
    return request


async def whole(
    guard: AlignerGuardrail, form: Format, model: str, body: Any, **fields: Any
) -> tuple[Any, dict[str, Any]]:
    request = request_for(form, model, **fields)
    edited = await guard.async_post_call_success_hook(request, user(form.path), body)
    return (body if edited is None else edited), request


async def streamed(
    guard: AlignerGuardrail, form: Format, model: str, items: Iterable[Any], **fields: Any
) -> tuple[list[Any], dict[str, Any], str]:
    """The items that go out, the request, and the closing comment."""
    request = request_for(form, model, **fields)
    stream = guard.async_post_call_streaming_iterator_hook(user(form.path), flow(items), request)
    got = [item async for item in stream]
    comments = [item for item in got if isinstance(item, bytes) and item.startswith(b": aligner")]
    return [item for item in got if item not in comments], request, b"".join(comments).decode()


def same(text: str, wanted: str, form: Format) -> bool:
    """Byte for byte, or, where a whole answer holds an object in place of a text, the same values."""
    return json.loads(text) == json.loads(wanted) if form.name == "messages" else text == wanted


async def test_flagged_prose_in_a_call_is_corrected_in_every_format_whole_and_streamed(guard: AlignerGuardrail) -> None:
    wrong: list[tuple[object, ...]] = []
    for form in FORMATS:
        for model in MODELS:
            body, request = await whole(guard, form, model, form.tell(GIVEN))
            found = form.read(body)
            if not all(same(text, WANTED, form) for text in found):
                wrong.append((form.name, model, "whole", found))
            if ledger_of(request).headers().get("x-aligner-tool-arguments") != "corrected":
                wrong.append((form.name, model, "header", ledger_of(request).headers()))
            items, _, comment = await streamed(guard, form, model, form.stream(GIVEN))
            found = form.put_together(items)
            if found != [WANTED] * len(found):
                wrong.append((form.name, model, "stream", found))
            if "tool_arguments=corrected" not in comment:
                wrong.append((form.name, model, "comment", comment))
            if "fool would" in repr(items) or FINE[:7] not in repr(items):
                wrong.append((form.name, model, "items", items))
    assert not wrong


async def test_calls_without_a_flag_go_out_as_they_came(guard: AlignerGuardrail, engine: ReadingEngine) -> None:
    wrong: list[tuple[object, ...]] = []
    for form in FORMATS:
        for model in MODELS:
            given = form.tell(WANTED)
            body, _ = await whole(guard, form, model, given)
            if body is not given:
                wrong.append((form.name, model, "whole"))
            given = form.stream(WANTED)
            items, _, _ = await streamed(guard, form, model, given)
            if form.path == "/v1/messages":
                given, items = [b"".join(given)], [b"".join(items)]
            if items != given:
                wrong.append((form.name, model, "stream", items))
    assert not wrong
    # an id or a name that holds the word is not even read
    assert not any(ID in text for text in engine.asked)


async def test_calls_are_judged_once(guard: AlignerGuardrail, engine: ReadingEngine) -> None:
    for form in FORMATS:
        engine.asked.clear()
        await whole(guard, form, "hold", form.tell(WANTED))
        held = [text for text in engine.asked if "It is near." in text]
        engine.asked.clear()
        await streamed(guard, form, "hold", form.stream(WANTED))
        assert (len(held), len([text for text in engine.asked if "It is near." in text])) == (1, 1), form.name


async def test_live_and_shadowed_calls_stay(guard: AlignerGuardrail) -> None:
    for form in FORMATS:
        for model in ("live", "shadow"):
            given = form.stream(GIVEN)
            items, _, _ = await streamed(guard, form, model, given)
            if form.path == "/v1/messages":
                given, items = [b"".join(given)], [b"".join(items)]
            assert items == given, (form.name, model)
        given = form.tell(GIVEN)
        assert (await whole(guard, form, "shadow", given))[0] is given


UNCORRECTABLE = {
    "a key": ('{"Only a perfect fool would ask for more.": 1}', {}),
    "no JSON": (GIVEN[:-1], {}),
    "all of a string": (json.dumps({"text": RUDE}), {}),
    "a schema": (GIVEN, {"text": {"type": "string", "enum": [json.loads(GIVEN)["text"]]}}),
}


async def test_what_cannot_be_corrected_is_treated_as_by_judge(guard: AlignerGuardrail) -> None:
    wrong: list[tuple[object, ...]] = []
    for name, (arguments, properties) in UNCORRECTABLE.items():
        form = FORMATS[0]
        schema = {"type": "object", "properties": properties}
        tools = [{"type": "function", "function": {"name": "send_fool", "parameters": schema}}]
        for model in MODELS:
            with pytest.raises(Blocked, match="tool_arguments"):
                await whole(guard, form, model, form.tell(arguments), tools=tools)
            with pytest.raises(Blocked, match="tool_arguments"):
                await streamed(guard, form, model, form.stream(arguments), tools=tools)
        for model in ("lax", "lax-sentence"):
            body, _ = await whole(guard, form, model, form.tell(arguments), tools=tools)
            items, _, _ = await streamed(guard, form, model, form.stream(arguments), tools=tools)
            if (form.read(body), form.put_together(items)) != ([arguments], [arguments]):
                wrong.append((name, model))
    assert not wrong


async def test_events_that_wait_for_a_call_count_as_held_and_go_on_uncorrected_without_room(
    guard: AlignerGuardrail,
) -> None:
    form = FORMATS[0]
    budget = guard._streams
    held_bytes: list[int] = []

    async def arrive(items: list[Any]) -> AsyncIterator[Any]:
        for item in items:
            yield item
            held_bytes.append(budget.held_bytes)

    items = chat_stream(GIVEN)
    for model in MODELS:
        held_bytes.clear()
        stream = guard.async_post_call_streaming_iterator_hook(user(form.path), arrive(items), request_for(form, model))
        assert form.put_together([item async for item in stream if not isinstance(item, bytes)]) == [WANTED]
        # a chunk of LiteLLM is counted with more than 3,000 bytes
        assert max(held_bytes) > 3_000 * len(cut(GIVEN)), model
        assert budget.held_bytes == 0
    budget.max_stream_bytes = 10_000
    for model in MODELS:
        with pytest.raises(Blocked, match="tool_arguments"):
            await streamed(guard, form, model, items)
        delivered, _, _ = await streamed(guard, form, "lax" if model == "hold" else "lax-sentence", items)
        assert form.put_together(delivered) == [GIVEN], model
        assert budget.held_bytes == 0


async def test_arguments_keep_to_the_schema_of_their_tool_in_every_format(guard: AlignerGuardrail) -> None:
    tools = {
        "chat": {"tools": [{"type": "function", "function": {"name": "send_fool", "parameters": TEXT_SCHEMA}}]},
        "function_call": {"functions": [{"name": "send_fool", "parameters": TEXT_SCHEMA}]},
        "messages": {"tools": [{"name": "send_fool", "input_schema": TEXT_SCHEMA}]},
        "responses": {"tools": [{"type": "function", "name": "send_fool", "parameters": TEXT_SCHEMA}]},
    }
    short = json.loads(json.dumps(tools).replace('{"type": "string"}', '{"type": "string", "minLength": 80}'))
    for form in FORMATS:
        body, _ = await whole(guard, form, "hold", form.tell(GIVEN), **tools[form.name])
        assert same(form.read(body)[0], WANTED, form), form.name
        items, _, _ = await streamed(guard, form, "hold", form.stream(GIVEN), **tools[form.name])
        assert form.put_together(items)[0] == WANTED, form.name
        with pytest.raises(Blocked, match="tool_arguments"):
            await whole(guard, form, "hold", form.tell(GIVEN), **short[form.name])
        with pytest.raises(Blocked, match="tool_arguments"):
            await streamed(guard, form, "hold", form.stream(GIVEN), **short[form.name])


async def test_equal_arguments_of_two_tools_each_keep_to_their_own_schema(guard: AlignerGuardrail) -> None:
    """They once shared one correction, so that a call went out which its tool refuses."""
    long = json.loads(json.dumps(TEXT_SCHEMA).replace('{"type": "string"}', '{"type": "string", "minLength": 80}'))
    schemas = {"send_long": long, "send": TEXT_SCHEMA, "send_other": TEXT_SCHEMA}
    tools = [{"type": "function", "function": {"name": name, "parameters": schemas[name]}} for name in schemas]
    wanted = {
        ("send", "send_other"): [WANTED, WANTED],
        ("send", "send"): [WANTED, WANTED],
        # what one call loses stays in the other
        ("send_long", "send"): [GIVEN, GIVEN],
        ("send", "send_long"): [GIVEN, GIVEN],
    }
    found: dict[tuple[str, ...], list[str]] = {}
    for names in wanted:
        functions = [{"name": name, "arguments": GIVEN} for name in names]
        calls = [{"index": at, "type": "function", "function": function} for at, function in enumerate(functions)]
        body, _ = await whole(guard, FORMATS[0], "lax", chat_body(GIVEN, tool_calls=calls), tools=tools)
        pieces = [
            call | {"function": function | {"arguments": piece}}
            for call, function in zip(calls, functions, strict=True)
            for piece in cut(GIVEN)
        ]
        items = [chunk("", role="assistant"), *(chunk(tool_calls=[piece]) for piece in pieces), chunk(why="tool_calls")]
        got, request, _ = await streamed(guard, FORMATS[0], "lax", items, tools=tools)
        found[names] = chat_read(body)
        assert chat_calls(got) == found[names]
        assert len(ledger_of(request).arguments) == len(set(names))
        if GIVEN in wanted[names]:
            with pytest.raises(Blocked, match="tool_arguments"):
                await streamed(guard, FORMATS[0], "hold", items, tools=tools)
    assert found == wanted


async def test_free_input_is_corrected_unless_a_grammar_binds_it(guard: AlignerGuardrail) -> None:
    form = FORMATS[-1]
    free = f"{FINE} {RUDE} It is near the old bridge."
    bound = {
        "type": "custom",
        "name": "send_fool",
        "format": {"type": "grammar", "syntax": "regex", "definition": ".*"},
    }
    for model in MODELS:
        body, _ = await whole(guard, form, model, response_body(free, is_free=True))
        assert form.read(body) == [f"{FINE} It is near the old bridge."]
        items, _, _ = await streamed(guard, form, model, response_stream(free, is_free=True))
        assert set(form.put_together(items)) == {f"{FINE} It is near the old bridge."}
        with pytest.raises(Blocked, match="tool_arguments"):
            await whole(guard, form, model, response_body(free, is_free=True), tools=[bound])
        with pytest.raises(Blocked, match="tool_arguments"):
            await streamed(guard, form, model, response_stream(free, is_free=True), tools=[bound])


async def test_text_removed_from_a_call_stands_nowhere_else(guard: AlignerGuardrail) -> None:
    form = FORMATS[0]
    body, _ = await whole(guard, form, "notes", chat_body(GIVEN, provider_specific_fields={"trace": f"Said: {RUDE}"}))
    assert form.read(body) == [WANTED]
    assert "fool would" not in body.model_dump_json()
    for model in ("notes", "notes-sentence"):
        items = chat_stream(GIVEN)
        items[-1] = chunk(why="tool_calls", provider_specific_fields={"trace": f"Said: {RUDE}"})
        got, _, _ = await streamed(guard, form, model, items)
        assert form.put_together(got) == [WANTED]
        assert not any("fool would" in item.model_dump_json() for item in got)
        # what went out before the call cannot be taken back
        items = [chunk("", role="assistant"), chunk(reasoning_content=f"I say: {RUDE}"), *chat_stream(GIVEN)[1:]]
        with pytest.raises(Blocked, match="tool_arguments"):
            await streamed(guard, form, model, items)
        # nor may it come later
        items = [*chat_stream(GIVEN), chunk(reasoning_content=f"I said: {RUDE}")]
        with pytest.raises(Blocked, match="tool_arguments"):
            await streamed(guard, form, model, items)


async def test_an_answer_that_quotes_its_call_is_corrected_beside_it(guard: AlignerGuardrail) -> None:
    form = FORMATS[0]
    for model in MODELS:
        items = [chunk("", role="assistant"), chunk(f"{FINE} {RUDE} "), *chat_stream(GIVEN)[1:]]
        got, request, _ = await streamed(guard, form, model, items)
        assert form.put_together(got) == [WANTED]
        assert "fool would" not in chat_text(got)
        assert ledger_of(request).headers()["x-aligner-status"] == "corrected"


async def test_a_stream_that_breaks_off_in_a_call_delivers_nothing_flagged(guard: AlignerGuardrail) -> None:
    form = FORMATS[0]
    items = chat_stream(GIVEN)
    for model in MODELS:
        with pytest.raises(Blocked, match="tool_arguments"):
            await streamed(guard, form, model, [*items[:-3], RuntimeError("broke")])
        with pytest.raises(RuntimeError, match="broke"):
            await streamed(guard, form, model, [*items[:9], RuntimeError("broke")])


async def test_several_calls_wait_for_their_own_end_only(guard: AlignerGuardrail) -> None:
    form = FORMATS[2]
    items = message_stream(GIVEN, WANTED, GIVEN.replace("harbour", "station"))
    for model in MODELS:
        got, _, comment = await streamed(guard, form, model, items)
        assert form.put_together(got) == [WANTED + WANTED + WANTED.replace("harbour", "station")]
        assert "tool_arguments=corrected,unchanged,corrected" in comment


async def test_a_call_too_long_to_read_does_not_wait(guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aligner_proxy.gateway.streaming.call_stream.LONGEST_JSON", 60)
    form = FORMATS[0]
    items, _, _ = await streamed(guard, form, "lax", form.stream(GIVEN))
    assert form.put_together(items) == [GIVEN]
    with pytest.raises(Blocked, match="tool_arguments"):
        await streamed(guard, form, "hold", form.stream(GIVEN))


async def test_a_long_call_is_put_together_from_packed_events(guard: AlignerGuardrail) -> None:
    form = FORMATS[0]
    long = json.dumps({"text": " ".join([FINE, RUDE, *[f"Berth {number} is free today." for number in range(120)]])})
    for model in MODELS:
        items, _, _ = await streamed(guard, form, model, form.stream(long))
        assert form.put_together(items) == [long.replace(f" {RUDE}", "")]
        given = form.stream(long.replace(f" {RUDE}", ""))
        assert (await streamed(guard, form, model, given))[0] == given


async def test_a_call_that_goes_on_after_its_end_delivers_nothing_flagged(guard: AlignerGuardrail) -> None:
    form = FORMATS[0]
    for model in MODELS:
        items = [*form.stream(GIVEN), chunk(tool_calls=[call_delta(f"{RUDE} And so on.")])]
        with pytest.raises(Blocked, match="tool_arguments"):
            await streamed(guard, form, model, items)


async def test_each_call_has_a_record_of_its_own(guard: AlignerGuardrail) -> None:
    kept: list[AuditEvent] = []

    class Auditor:
        required = False

        def note(self, event: AuditEvent) -> None:
            kept.append(event)

    guard._auditor = Auditor()  # type: ignore[assignment]
    for form in FORMATS:
        kept.clear()
        _, request = await whole(guard, form, "hold", form.tell(GIVEN))
        (call,) = [event for event in kept if event.endpoint == f"{form.path}#tool_arguments"]
        assert (call.outcome.status, call.outcome.policy.name) == (Status.CORRECTED, "hold/tool_arguments")
        assert call.outcome.violated_objectives == ["kind"]
        assert call.aligner_id == f"{ledger_of(request).arrival.aligner_id}-tool_arguments"
    # an answer that only calls is skipped, but its calls have records
    body = chat_body(GIVEN)
    body.choices[0].message.content = None
    _, request = await whole(guard, FORMATS[0], "hold", body)
    headers = ledger_of(request).headers()
    assert (headers["x-aligner-status"], headers["x-aligner-id"]) == ("skipped", ledger_of(request).arrival.aligner_id)


async def test_text_before_a_call_does_not_wait_for_it(guard: AlignerGuardrail) -> None:
    items = [chunk("", role="assistant"), chunk(f"{FINE} "), chunk("It is near. "), *chat_stream(GIVEN)[1:]]
    got: list[Any] = []
    text_at_end = ""

    async def upstream() -> AsyncIterator[Any]:
        nonlocal text_at_end
        for item in items:
            await asyncio.sleep(0)
            if item is items[-1]:
                text_at_end = chat_text(got)
                assert not any(chat_calls([one]) for one in got)
            yield item

    async for item in guard.async_post_call_streaming_iterator_hook(user(), upstream(), data("sentence")):
        got.append(item)
    assert text_at_end.startswith(FINE)
    assert chat_calls(got[:-1]) == [WANTED]


async def test_other_tasks_run_while_a_call_in_many_pieces_is_put_together(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its events were once made anew in one piece: 20,000 of them stalled the loop for a second."""
    monkeypatch.setattr(TimeSlice, "LONGEST_S", -1.0)  # each pause gives the loop away
    events_by_round = [0]
    remove_copies = StreamCopies.remove_copies

    def count_cleaned(*arguments: Any, **keywords: Any) -> Any:
        events_by_round[-1] += 1
        return remove_copies(*arguments, **keywords)

    monkeypatch.setattr(StreamCopies, "remove_copies", count_cleaned)

    async def count_rounds() -> None:
        while True:
            await asyncio.sleep(0)
            events_by_round.append(0)

    counting = asyncio.create_task(count_rounds())
    longest = {}
    for form in FORMATS:
        events_by_round[:] = [0]
        items, _, _ = await streamed(guard, form, "hold", form.stream(GIVEN))
        assert set(form.put_together(items)) == {WANTED}
        longest[form.name] = max(events_by_round)
    counting.cancel()
    assert {name: count for name, count in longest.items() if count > 3} == {}
    assert max(longest.values()) > 0


async def test_other_tasks_run_while_a_call_in_many_pieces_arrives(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream that is faster than we are, as LiteLLM's cache is, never lets the loop go by itself."""
    monkeypatch.setattr(TimeSlice, "LONGEST_S", -1.0)  # each pause gives the loop away
    for form in FORMATS:
        async with rounds() as items_by_round:
            items, _, _ = await streamed(guard, form, "hold", count_items(form.stream(GIVEN), items_by_round))
        assert set(form.put_together(items)) == {WANTED}
        assert max(items_by_round) < 4, form.name


async def test_what_a_long_call_lost_is_looked_for_in_a_thread(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200,000 characters take a quarter of a second, in which no other request would be served."""
    on_loop: list[str] = []

    def note_thread(name: str, function: Any) -> Any:
        def call_noting_thread(*arguments: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                on_loop.append(name)
            return function(*arguments)

        return call_noting_thread

    monkeypatch.setattr(RemovedText, "add", note_thread("add", RemovedText.add))
    for name in ("prose_literals", "has_prose_outside_literals"):
        monkeypatch.setattr(call_arguments, name, note_thread(name, getattr(call_arguments, name)))
    long = FINE + f" {FINE}" * 40
    for form in FORMATS:
        got, _ = await whole(guard, form, "hold", form.tell(GIVEN.replace(FINE, long)))
        items, _, _ = await streamed(guard, form, "hold", form.stream(GIVEN.replace(FINE, long)))
        for arguments in (*form.read(got), *form.put_together(items)):
            assert same(arguments, WANTED.replace(FINE, long), form)
    assert on_loop == []
