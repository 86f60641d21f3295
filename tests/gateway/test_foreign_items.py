"""Items of another class or form than their route's are read by their form, or refused; never taken as empty."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litellm.proxy._types import UserAPIKeyAuth
from pydantic import BaseModel, ConfigDict

from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Status
from tests.gateway.test_guardrail import build, ledger_of
from tests.support.planted_copies import ROUTES
from tests.support.scripted import SegmentEngine

PIECES = ["The harbour opens at nine. ", "You are a fool of ", "the first order. ", "Bring your papers."]
TEXT = "".join(PIECES)
RUDE = "the first order"
HEAD = {"id": "1", "created": 1, "model": "m"}
MESSAGE = {"id": "1", "type": "message", "role": "assistant", "model": "m", "usage": {"input_tokens": 1}}
RESPONSE = {"id": "1", "object": "response", "created_at": 1, "model": "m", "tools": [], "error": None}
PLACE = {"item_id": "m1", "output_index": 0, "content_index": 0}


def output(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [part]}


WHOLE: dict[str, dict[str, Any]] = {
    "chat": {**HEAD, "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": TEXT}}]},
    "text": {**HEAD, "choices": [{"index": 0, "finish_reason": "stop", "text": TEXT}]},
    "messages": {**MESSAGE, "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"},
    "responses": {**RESPONSE, "status": "completed", "output": [output(TEXT)]},
}
END = {"index": 0, "finish_reason": "stop"}
STREAMED: dict[str, list[dict[str, Any]]] = {
    "chat": [
        *({**HEAD, "choices": [{"index": 0, "finish_reason": None, "delta": {"content": one}}]} for one in PIECES),
        {**HEAD, "choices": [{**END, "delta": {}}]},
    ],
    "text": [
        *({**HEAD, "choices": [{"index": 0, "finish_reason": None, "text": one}]} for one in PIECES),
        {**HEAD, "choices": [{**END, "text": ""}]},
    ],
    "messages": [
        {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": one}} for one in PIECES),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ],
    "responses": [
        {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "output": []}},
        *({"type": "response.output_text.delta", **PLACE, "delta": one} for one in PIECES),
        {"type": "response.completed", "response": WHOLE["responses"]},
    ],
}


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")


def as_model(value: Any) -> Any:
    if isinstance(value, dict):
        return Model(**{name: as_model(inner) for name, inner in value.items()})
    return [as_model(inner) for inner in value] if isinstance(value, list) else value


def as_object(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(inner) for name, inner in value.items()})
    return [as_object(inner) for inner in value] if isinstance(value, list) else value


def as_event(value: Mapping[str, Any]) -> str:
    return f"event: {value.get('type', 'message')}\ndata: {json.dumps(value)}\n\n"


SHAPES: dict[str, Callable[[Any], Any]] = {
    "dict": lambda value: value,
    "model": as_model,
    "object": as_object,
    "bytes": lambda value: as_event(value).encode(),
    "str": as_event,
    "json": json.dumps,
    "list": lambda value: [value],
}
READ = {
    *((route, form, "model") for route in ("chat", "text") for form in ("chat", "text")),
    *(("responses", "responses", shape) for shape in ("dict", "model")),
    ("messages", "messages", "dict"),
}
"""Route, form of the item and its shape, where both wholes and streams are read."""
READ_STREAMS = READ | {("messages", "messages", "bytes"), ("messages", "messages", "str")}


def build_guard(folder: Path, monkeypatch: pytest.MonkeyPatch, on_error: str, stream: str) -> AlignerGuardrail:
    route = {"match": {}, "name": "r", "objectives": ["kind"], "on_error": on_error, "stream": stream}
    objectives = {"kind": "Kindness: the response should never insult the reader"}
    guardrail = build(folder, monkeypatch, {"objectives": objectives, "routes": [route]})
    engine = SegmentEngine(lambda text: 4.0 if "fool" in text else -4.0)
    guardrail.pipeline = Pipeline(engine, extensions=guardrail.pipeline.extensions)
    return guardrail


async def play(items: Sequence[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def deliver(guardrail: AlignerGuardrail, route: str, item: Any, *, streamed: bool) -> tuple[str, Status]:
    """What the client gets (nothing if the answer is blocked), and the status."""
    request = {"model": "m", "litellm_call_id": "1", "metadata": {}, "prompt": "When?", "input": "When?"}
    request["messages"] = [{"role": "user", "content": "When?"}]
    user = UserAPIKeyAuth(request_route=ROUTES[route])
    try:
        if streamed:
            source = guardrail.async_post_call_streaming_iterator_hook(user, play(item), request)
            content = repr([one async for one in source])
        else:
            edited = await guardrail.async_post_call_success_hook(request, user, item)
            content = repr(item if edited is None else edited)
    except Blocked:
        content = ""
    return content, ledger_of(request).status


@pytest.mark.parametrize("stream", ["hold", "sentence"])
@pytest.mark.parametrize("on_error", ["passthrough", "block"])
async def test_an_answer_of_any_form_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: str, stream: str
) -> None:
    guardrail = build_guard(tmp_path, monkeypatch, on_error, stream)
    wrong = []
    for route in WHOLE:
        for form in WHOLE:
            for shape, change in SHAPES.items():
                for streamed in (False, True):
                    item = list(map(change, STREAMED[form])) if streamed else change(WHOLE[form])
                    content, status = await deliver(guardrail, route, item, streamed=streamed)
                    is_read = (route, form, shape) in (READ_STREAMS if streamed else READ)
                    expected = Status.CORRECTED if is_read else Status.FAILED
                    goes_out = RUDE in content
                    if status is not expected or goes_out != (not is_read and on_error == "passthrough"):
                        wrong.append((route, form, shape, streamed, status, goes_out))
    assert not wrong, (len(wrong), wrong[:20])


@pytest.mark.parametrize("route", ["chat", "text", "responses"])
async def test_what_holds_no_answer_is_refused_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """Comments, the end mark, and errors, among the events of a route."""
    guardrail = build_guard(tmp_path, monkeypatch, "block", "hold")
    further: list[Any] = [b": ping\n\n", "data: [DONE]\n\n", {"error": {"code": 500}}, object()]
    items = [as_model(item) for item in STREAMED[route]]
    content, status = await deliver(guardrail, route, [*further[:2], *items, *further[2:]], streamed=True)
    assert status is Status.CORRECTED
    assert RUDE not in content
    assert "papers" in content
