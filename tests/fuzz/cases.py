"""What is one fuzzed case? Who asks what, what the upstream sends, how engine and client fail: all of it by a seed.

The answers are those of the scripted upstreams of tests/e2e, wrecked. What LiteLLM's own types refuse is drawn again
without the damage, because such an answer ends in LiteLLM and never gets to a guardrail.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import httpx
import openai
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse, ModelResponseStream, TextCompletionResponse

from tests.e2e import upstream_messages, upstream_responses, upstreams
from tests.e2e.event_streams import frames
from tests.e2e.scripted_answers import answer
from tests.fuzz import wreck

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
MODELS = [*["gpt"] * 8, "shadow", "strict", "strict", "off"]
ENGINES = ["leave", "fail", "bug", "too long", "empty", "correct", "correct", "correct", "cut", "odd", "deaf", "torn"]
SCRIPTS = [*["rude", "good"] * 4, "tools", "refusal_field", "reasoning", "cited", "length", "filter", "refuse", "empty"]
TYPED_SCRIPTS = [
    *SCRIPTS,
    "call",
    "search",
    "parts",
    "parts",
    "novel",
    "image",
    "messages",
    "logprobs",
    "pause",
    "none",
]
BREAKS: list[Callable[[], Exception]] = [
    lambda: httpx.ReadError("gone"),
    lambda: ConnectionResetError("gone"),
    lambda: openai.APIConnectionError(request=httpx.Request("POST", "http://up")),
    lambda: ValueError("not JSON"),
    lambda: KeyError("choices"),
    lambda: RuntimeError("stopped"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
]
REQUEST: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Why?"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
    ],
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}],
    "prompt": ["Why?", "How?"],
    "instructions": "Be brief.",
    "system": [{"type": "text", "text": "Be brief."}],
    "n": 2,
    "text": {"format": {"type": "text"}},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "response_format": {"type": "text"},
    "cache": {"use-cache": False},
    "extra_body": {"made_up": 1},
    "proxy_server_request": {"headers": {"user-agent": "x"}},
}


@dataclass
class Case:
    """One response on its way through."""

    seed: int
    route: str
    request: dict[str, Any]
    engine: str
    response: Any = None
    items: list[Any] | None = None
    """Of a stream."""
    error: Exception | None = None
    """How the upstream breaks off after the last item."""
    leaves: int | None = None
    """After how many items the client goes."""

    @property
    def kind(self) -> str:
        """Endpoint and stream, for counting."""
        return f"{self.route} {'whole' if self.items is None else 'stream'}"


def case(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    route = ROUTES[seed % 4]
    made = Case(seed, route, _request(rng), rng.choice(ENGINES))
    if seed // 4 % 2:
        made.items = _STREAMS[route](rng)
        made.error = rng.choice(BREAKS)() if rng.random() < 0.1 else None
        made.leaves = rng.randrange(1, 7) if rng.random() < 0.05 else None
    else:
        made.response = _WHOLES[route](rng)
    return made


def _request(rng: random.Random) -> dict[str, Any]:
    asked = {name: value for name, value in REQUEST.items() if rng.random() < 0.7}
    return {**wreck.wrecked(rng, asked, most=2), "model": rng.choice(MODELS)}


def _built(rng: random.Random, make: Callable[[Any], Any], told: Any) -> Any:
    """`make` of wrecked JSON, or of whole JSON where LiteLLM refuses that; now and then mistreated afterwards."""
    try:
        made = make(wreck.wrecked(rng, told))
    except Exception:  # noqa: BLE001 - whatever LiteLLM says to it
        made = make(copy.deepcopy(told))
    return wreck.mistreated(rng, made) if rng.random() < 0.1 else made


def _chat(rng: random.Random) -> Any:
    body = {"n": rng.choice([1, 1, 2, 3]), "logprobs": rng.random() < 0.1}
    name = rng.choice(SCRIPTS)
    choices = [upstreams.choice(name, i, body) for i in range(body["n"])]
    told = {"id": "c", "created": 1, "model": "up", "choices": choices, "usage": upstreams.USAGE}
    return _built(rng, lambda told: ModelResponse(**told), told)


def _chat_stream(rng: random.Random) -> list[Any]:
    body = {"model": "up", "n": rng.choice([1, 1, 2, 3]), "stream_options": {"include_usage": rng.random() < 0.5}}
    chunks = wreck.reordered(rng, upstreams.chat_chunks(rng.choice(SCRIPTS), body))
    items = [_chunk(rng, lambda told: ModelResponseStream(**told), chunk) for chunk in chunks]
    return _with_strangers(rng, items)


def _chunk(rng: random.Random, make: Callable[[Any], Any], told: Any) -> Any:
    """Most chunks of a stream are whole, or hardly a stream would get anywhere."""
    return _built(rng, make, told) if rng.random() < 0.05 else make(copy.deepcopy(told))


def _with_strangers(rng: random.Random, items: list[Any]) -> list[Any]:
    """Things that are no chunks stand in a stream, too: comments as bytes, strings, nothing."""
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        items.insert(
            rng.randrange(len(items) + 1), rng.choice([b": ping\n\n", ": ping\n\n", None, {"x": 1}, b"\xff", "\ud800"])
        )
    return items


def _texts(rng: random.Random) -> Any:
    name = rng.choice(SCRIPTS)
    choices = [{"index": i, "text": answer(name, i), "finish_reason": "stop"} for i in range(rng.choice([1, 2, 4]))]
    told = {"id": "t", "created": 1, "model": "up", "choices": choices, "usage": upstreams.USAGE}
    return _built(rng, lambda told: TextCompletionResponse(**told), told)


def _text_stream(rng: random.Random) -> list[Any]:
    name = rng.choice(SCRIPTS)
    size = rng.choice([1, 4, 30])
    n = rng.choice([1, 1, 3])
    said = [(i, answer(name, i)[at : at + size], None) for i in range(n) for at in range(0, len(answer(name, i)), size)]
    told = [
        {"id": "t", "created": 1, "model": "up", "choices": [{"index": i, "text": text, "finish_reason": why}]}
        for i, text, why in [*said, *((i, "", "stop") for i in range(n))]
    ]
    items = [_chunk(rng, lambda told: TextCompletionResponse(**told), one) for one in wreck.reordered(rng, told)]
    return _with_strangers(rng, items)


def _responses(rng: random.Random) -> Any:
    told = upstream_responses.body_of(rng.choice(TYPED_SCRIPTS), "up")
    return _built(rng, lambda told: ResponsesAPIResponse(**told), told)


def _responses_stream(rng: random.Random) -> list[Any]:
    config = OpenAIResponsesAPIConfig()

    def make(event: Any) -> Any:
        return config.transform_streaming_response("m", event, cast("Any", None))

    events = wreck.reordered(rng, upstream_responses.stream(rng.choice(TYPED_SCRIPTS), "up"))
    return _with_strangers(rng, [_chunk(rng, make, event) for event in events])


def _message(rng: random.Random) -> Any:
    return wreck.wrecked(rng, upstream_messages.body_of(rng.choice(TYPED_SCRIPTS), "up"))


def _message_stream(rng: random.Random) -> list[Any]:
    events = wreck.reordered(rng, upstream_messages.stream(rng.choice(TYPED_SCRIPTS), "up"))
    events = [wreck.wrecked(rng, event, most=2) if rng.random() < 0.05 else event for event in events]
    if rng.random() < 0.2:
        return _with_strangers(rng, copy.deepcopy(events))  # LiteLLM's translations may hand over dicts
    raw = wreck.disturbed(
        rng, "".join(frames([e for e in events if isinstance(e.get("type"), str)])).encode(errors="surrogatepass")
    )
    return _with_strangers(rng, (wreck.event_pieces if rng.random() < 0.3 else wreck.pieces)(rng, raw))


_WHOLES = dict(zip(ROUTES, (_chat, _texts, _responses, _message), strict=True))
_STREAMS = dict(zip(ROUTES, (_chat_stream, _text_stream, _responses_stream, _message_stream), strict=True))
