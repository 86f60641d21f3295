"""Bodies as JSON: read as LiteLLM's own objects are, and written back with nothing lost or added."""

from __future__ import annotations

import json
from typing import Any

from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse, TextCompletionResponse

from aligner_proxy.formats import json_body, reasoning, wire
from aligner_proxy.formats.side_text import side_strings
from aligner_proxy.types import Outcome, Policy, Status

ANSWER = "The harbour opens at six, and the ferry leaves at seven."
NOTE = "Somebody wrote this beside the answer."
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CITATION = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 3, "url": "u", "title": "t"}}
LOGPROBS = {"content": [{"token": "The", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
IMAGE = {"type": "image_url", "index": 0, "image_url": {"url": "data:"}}


def chat(finish: str = "stop", choice: dict[str, Any] | None = None, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": ANSWER, **message}
    return {
        "zone": 1,
        "id": "1",
        "created": 1,
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": finish, "message": said, **(choice or {})}],
    }


def text_completion(finish: str = "stop", **choice: Any) -> dict[str, Any]:
    return {"object": "text_completion", "choices": [{"text": ANSWER, "index": 0, "finish_reason": finish, **choice}]}


def response(part: dict[str, Any] | None = None, *items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    said = {"type": "output_text", "text": ANSWER, "annotations": [], **(part or {})}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [said]}
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "output": [*items, message],
        **fields,
    }


BODIES: dict[str, list[dict[str, Any]]] = {
    json_body.CHAT: [
        chat(),
        chat("length"),
        chat("content_filter"),
        chat("tool_calls", tool_calls=[CALL]),
        chat(tool_calls=[]),
        chat(function_call=CALL["function"]),
        chat(content=None, refusal="I cannot help with that."),
        chat(refusal=NOTE),
        chat(annotations=[CITATION]),
        chat(annotations=None, audio=None),
        chat(images=[IMAGE]),
        chat(choice={"logprobs": LOGPROBS}),
        chat(reasoning_content=NOTE),
        chat(reasoning=NOTE),
        chat(content=""),
        chat() | {"choices": []},
    ],
    json_body.TEXT: [text_completion(), text_completion("length"), text_completion(text="")],
    json_body.RESPONSES: [
        response(),
        response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        response({"annotations": [CITATION]}),
        response(None, {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": NOTE}]}),
        response(None, {"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": "{}"}),
        response(output_text=ANSWER),
    ],
    json_body.MESSAGES: [
        {"type": "message", "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn"},
        {"type": "message", "content": ANSWER, "stop_reason": "max_tokens"},
    ],
}
OWN = {
    json_body.CHAT: ModelResponse,
    json_body.TEXT: TextCompletionResponse,
    json_body.RESPONSES: ResponsesAPIResponse,
    json_body.MESSAGES: dict,
}
REQUEST = {"messages": [{"role": "user", "content": "When?"}], "prompt": "When?", "input": "When?"}
ODD: list[Any] = [
    {},
    {"choices": None},
    {"choices": "a"},
    {"choices": ["a", None, {"message": "a"}, {"message": {"_fields_set": 1, "self": 2, "model_copy": 3, "json": 4}}]},
    {
        "choices": [{"index": 0, "cls": 1, "message": {"content": [{"type": "text", "text": ANSWER}]}}],
        "_hidden_params": 1,
    },
    {"output": {"type": "message"}},
    {"output": ["a", None], "model_fields_set": 1},
    {"object": "text_completion", "choices": [None, {"text": None}]},
    {"content": 5},
]


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return (
        [text for one in value for text in strings(one)]
        if isinstance(value, list)
        else [value] * isinstance(value, str)
    )


def test_bodies_are_read_as_the_objects_of_litellm_are() -> None:
    faults = []
    for route, bodies in BODIES.items():
        form = wire(route)
        assert form is not None
        for body in bodies:
            ours = form.exchanges(REQUEST, json_body.read_body(body))
            own: Any = OWN[route](**body)
            if json_body.find_route(body, REQUEST) != route or ours != form.exchanges(REQUEST, own):
                faults.append((route, body, ours))
            if (thoughts := reasoning(route)) and thoughts.texts(json_body.read_body(body)) != thoughts.texts(own):
                faults.append((route, body, "reasoning"))
    assert not faults


def test_an_unedited_body_is_written_as_it_was() -> None:
    faults = []
    for body in [*(body for bodies in BODIES.values() for body in bodies), *ODD]:
        before = json.dumps(body)
        written = json_body.write_body(json_body.read_body(body), body)
        if json.dumps(written) != before or json.dumps(body) != before:
            faults.append((body, written))
    assert not faults


def test_no_text_of_a_body_is_hidden_from_who_reads_the_texts_beside_the_answer() -> None:
    faults = []
    for body in [*(body for bodies in BODIES.values() for body in bodies), *ODD]:
        seen = [text for _, _, text in side_strings(json_body.read_body(body))]
        faults += [(body, text) for text in strings(body) if text not in seen]
    assert not faults


def test_an_edited_body_differs_in_the_text_alone() -> None:
    faults = []
    for route, bodies in BODIES.items():
        form = wire(route)
        assert form is not None
        for body in (body for body in bodies[:1] if ANSWER in json.dumps(body)):
            outcome = Outcome(Status.CORRECTED, None, "At six.", Policy("p"))
            read = json_body.read_body(body)
            edited = form.apply(read, [outcome], form.exchanges({}, read))
            if json.dumps(json_body.write_body(edited, body)) != json.dumps(body).replace(ANSWER, "At six."):
                faults.append((route, body))
    assert not faults


def test_bodies_without_answers_are_known() -> None:
    assert [json_body.holds_answers(body) for body in (chat(), text_completion(), response(), {"content": "a"})] == [
        True
    ] * 4
    assert not any(map(json_body.holds_answers, ({}, {"error": {"message": NOTE}}, {"data": [1]}, {"choices": []})))


def test_a_text_completion_without_its_prompt_has_no_conversation() -> None:
    route = json_body.find_route(text_completion(), {})
    form = wire(route)
    assert form is not None
    (exchange,) = form.exchanges({}, json_body.read_body(text_completion()))
    assert (route, exchange.answer, exchange.turns, exchange.non_text) == (json_body.CHAT, ANSWER, (), False)
