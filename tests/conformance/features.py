"""Which cells are there? Endpoint x upstream x feature, each whole and as a stream, and what must become of each.

`corrected` and `unchanged` are statuses; any other word is the reason of a skip. An upstream that makes something else
of a feature, because LiteLLM translates it, stands under `but`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CORRECTED = "corrected"
UNCHANGED = "unchanged"
SHADOW = "shadow"
NOT_JUDGED = "not_judged"
THOUGHTS_JUDGED = "corrected, reasoning judged"
THOUGHTS_DROPPED = "corrected, reasoning dropped"
PARTLY_JUDGED = "corrected, the rest not judged"
ERROR = "error"
MODE_OFF = "mode_off"
FAMILIES = {
    "gpt": "OpenAI",
    "claude": "Anthropic",
    "vllm": "OpenAI-compatible (vLLM)",
    "chatonly": "OpenAI, chat only",
    "instruct": "OpenAI, text completions",
}
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
UPSTREAMS = {
    CHAT: ("gpt", "claude", "vllm"),
    TEXT: ("instruct", "gpt", "claude"),
    RESPONSES: ("gpt", "claude", "chatonly"),
    MESSAGES: ("claude", "gpt", "vllm"),
}
Body = Mapping[str, Any]

FUNCTION = {"name": "look_up", "description": "Look up a place.", "parameters": {"type": "object", "properties": {}}}
SCHEMA: Body = {"type": "object", "properties": {"you": {"type": "string"}}, "additionalProperties": True}
TOOLS: dict[str, Body] = {
    CHAT: {"tools": [{"type": "function", "function": FUNCTION}]},
    RESPONSES: {"tools": [{"type": "function", **FUNCTION}]},
    MESSAGES: {"tools": [{"name": "look_up", "input_schema": FUNCTION["parameters"]}]},
}
CALL = {"id": "call_0", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
CALLED: dict[str, Body] = {
    CHAT: {
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_0", "content": "42"},
            {"role": "user", "content": "rude"},
        ],
        **TOOLS[CHAT],
    },
    RESPONSES: {
        "input": [
            {"type": "function_call", "call_id": "call_0", "name": "look_up", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_0", "output": "42"},
            {"role": "user", "content": "rude"},
        ],
        **TOOLS[RESPONSES],
    },
    MESSAGES: {
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "call_0", "name": "look_up", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_0", "content": "42"},
                    {"type": "text", "text": "rude"},
                ],
            },
        ],
        **TOOLS[MESSAGES],
    },
}
SYSTEM: dict[str, Body] = {
    CHAT: {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "rude"}]},
    RESPONSES: {"instructions": "Be brief."},
    MESSAGES: {"system": "Be brief."},
}
JSON_MODE: dict[str, Body] = {
    CHAT: {"response_format": {"type": "json_object"}},
    RESPONSES: {"text": {"format": {"type": "json_object"}}},
}
JSON_SCHEMA: dict[str, Body] = {
    CHAT: {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    RESPONSES: {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}},
    MESSAGES: {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
}


@dataclass(frozen=True)
class Feature:
    """One thing that an answer may have. `only` and `but` speak of upstreams by the names of their models."""

    name: str
    script: str
    expect: str
    bodies: Mapping[str, Body] = field(default_factory=dict)
    """What a request says besides, by endpoint; `*` for all."""
    only: Mapping[str, tuple[str, ...]] | None = None
    """Where there is such a thing; None: everywhere."""
    but: Mapping[tuple[str, str], str] = field(default_factory=dict)
    streams: tuple[bool, ...] = (False, True)
    model: str | None = None
    """Another route to the same upstream."""


def _only(**upstreams: str) -> dict[str, tuple[str, ...]]:
    endpoints = {"chat": CHAT, "text": TEXT, "responses": RESPONSES, "messages": MESSAGES}
    return {endpoints[name]: tuple(models.split()) for name, models in upstreams.items()}


WHOLE = (False,)
STREAMED = (True,)
ROUTE = dict.fromkeys(UPSTREAMS, ("gpt",))
"""What a policy decides is tried on one upstream."""
NOT_TEXT = {endpoint: UPSTREAMS[endpoint] for endpoint in (CHAT, RESPONSES, MESSAGES)}

FEATURES = (
    Feature("an answer with a defect", "rude", CORRECTED),
    Feature("a good answer", "good", UNCHANGED),
    Feature("unicode", "unicode", CORRECTED),
    Feature("system prompt", "rude", CORRECTED, SYSTEM, NOT_TEXT),
    Feature("n > 1", "rude", CORRECTED, {"*": {"n": 3}}, _only(chat="gpt vllm", text="instruct gpt")),
    Feature(
        "several prompts", "rude", CORRECTED, {"*": {"prompt": ["rude", "rude"]}}, _only(text="instruct"), streams=WHOLE
    ),
    Feature("several texts", "parts", CORRECTED, only=_only(responses="gpt", messages="claude")),
    Feature("several messages", "messages", CORRECTED, only=_only(responses="gpt", messages="gpt")),
    Feature("tools offered, none called", "rude", CORRECTED, TOOLS, NOT_TEXT),
    Feature("tools called beside text", "tools", CORRECTED, TOOLS, NOT_TEXT),
    Feature("tools called, no text", "call", "tool_calls", TOOLS, NOT_TEXT),
    Feature("tool result in the conversation", "rude", CORRECTED, CALLED, NOT_TEXT),
    Feature("the upstream's own search", "search", CORRECTED, only=_only(responses="gpt", messages="claude")),
    Feature(
        "json mode", "json", "structured_output", JSON_MODE, _only(chat="gpt claude vllm", responses="gpt chatonly")
    ),
    Feature("json schema", "json", "structured_output", JSON_SCHEMA, NOT_TEXT),
    Feature("json nobody asked for", "json", "structured_output"),
    Feature(
        "usage asked for",
        "rude",
        CORRECTED,
        {"*": {"stream_options": {"include_usage": True}}},
        _only(chat="gpt claude vllm", text="instruct gpt claude"),
        streams=STREAMED,
    ),
    Feature("logprobs", "rude", "logprobs", {"*": {"logprobs": True}}, _only(chat="gpt vllm")),
    Feature("logprobs", "rude", "logprobs", {"*": {"logprobs": 1}}, _only(text="instruct"), streams=WHOLE),
    Feature(
        "logprobs, which LiteLLM drops here",
        "rude",
        CORRECTED,
        {"*": {"logprobs": 1}},
        _only(text="instruct"),
        streams=STREAMED,
    ),
    Feature(
        "logprobs", "logprobs", "logprobs", {"*": {"include": ["message.output_text.logprobs"]}}, _only(responses="gpt")
    ),
    Feature("refusal in its own field", "refusal_field", "refusal", only=_only(responses="gpt", messages="gpt")),
    Feature("refusal in its own field", "refusal_field", "refusal", only=_only(chat="gpt vllm"), streams=WHOLE),
    Feature(
        "refusal in its own field, which LiteLLM drops here",
        "refusal_field",
        "empty",
        only=_only(chat="gpt vllm"),
        streams=STREAMED,
    ),
    # Anthropic has a stop reason for it, which LiteLLM tells to others as a content filter.
    Feature(
        "refusal in words",
        "refuse",
        "refusal",
        but={(endpoint, "claude"): "filtered" for endpoint in (CHAT, TEXT, RESPONSES)},
    ),
    Feature("length", "length", "truncated"),
    Feature(
        "content filter", "filter", "filtered", only=_only(chat="gpt vllm", text="instruct", responses="gpt chatonly")
    ),
    Feature(
        "stop sequence", "rude", CORRECTED, {"*": {"stop": ["never"]}}, _only(chat="gpt claude vllm", text="instruct")
    ),
    Feature("stop sequence", "stop", CORRECTED, {"*": {"stop_sequences": ["never"]}}, _only(messages="claude")),
    Feature("paused turn", "pause", "truncated", only=_only(messages="claude")),
    Feature(
        "citations",
        "cited",
        "annotations",
        only=_only(chat="gpt claude", responses="gpt claude chatonly", messages="claude"),
    ),
    Feature("reasoning beside the answer", "reasoning", CORRECTED, only=NOT_TEXT),
    Feature("reasoning between tags in the text", "thinks", CORRECTED),
    Feature("a language that the aligner does not know", "foreign", NOT_JUDGED),
    Feature("a defect in a language that it does not know", "foreign_rude", PARTLY_JUDGED),
    Feature(
        "reasoning: judge",
        "reasoning",
        THOUGHTS_JUDGED,
        only=_only(chat="gpt", responses="gpt"),
        model="thoughts-judged",
    ),
    Feature(
        "reasoning: judge", "reasoning", THOUGHTS_JUDGED, only=_only(messages="claude"), model="thoughts-judged-claude"
    ),
    Feature(
        "reasoning: drop",
        "reasoning",
        THOUGHTS_DROPPED,
        only=_only(chat="gpt", responses="gpt"),
        model="thoughts-dropped",
    ),
    Feature(
        "reasoning: drop", "reasoning", THOUGHTS_DROPPED, only=_only(messages="claude"), model="thoughts-dropped-claude"
    ),
    Feature(
        "reasoning: drop, tools offered",
        "reasoning",
        CORRECTED,
        TOOLS,
        _only(messages="claude"),
        model="thoughts-dropped-claude",
    ),
    Feature("empty", "empty", "empty"),
    Feature("no content at all", "none", "empty", only=_only(messages="claude")),
    Feature("generated image", "image", "non_text", only=_only(responses="gpt")),
    Feature("a kind of output nobody knows yet", "novel", "non_text", only=_only(responses="gpt", messages="claude")),
    Feature("suffix (fill in the middle)", "rude", "non_text", {"*": {"suffix": " and more"}}, _only(text="instruct")),
    Feature("echo of the prompt", "rude", "non_text", {"*": {"echo": True}}, _only(text="instruct")),
    Feature("grammar", "rude", "structured_output", {"*": {"guided_regex": ".*"}}, _only(chat="vllm", text="instruct")),
    Feature("too long for the route", "huge", "too_long", only=ROUTE, streams=WHOLE, model="brief"),
    Feature("too long to be held as a whole", "huge", UNCHANGED, only=ROUTE, streams=STREAMED, model="brief"),
    Feature("frames cut anywhere", "torn", CORRECTED, streams=STREAMED),
    Feature("mode: off", "rude", MODE_OFF, only=dict.fromkeys(UPSTREAMS, ("gpt",)), model="off"),
    Feature("mode: shadow", "rude", SHADOW, only=dict.fromkeys(UPSTREAMS, ("gpt",)), model="shadowed"),
    Feature("upstream answers 500", "fail", ERROR),
    Feature("upstream breaks off", "break", "upstream_error", streams=STREAMED),
    Feature(
        "error inside the stream",
        "error",
        "upstream_error",
        only=_only(responses="gpt", messages="claude"),
        streams=STREAMED,
    ),
)


@dataclass(frozen=True)
class Cell:
    """One row of docs/reference/conformance.md before anything has been seen."""

    endpoint: str
    stream: bool
    upstream: str
    feature: Feature
    released: bool = False
    """Segment by segment (`stream: sentence`); other streams are held."""

    @property
    def model(self) -> str:
        """What the request names."""
        return f"released-{self.upstream}" if self.released else self.feature.model or self.upstream

    @property
    def expect(self) -> str:
        """What must become of it."""
        return self.feature.but.get((self.endpoint, self.upstream), self.feature.expect)

    @property
    def body(self) -> Body:
        """What the request says besides model and script."""
        return self.feature.bodies.get(self.endpoint) or self.feature.bodies.get("*") or {}

    @property
    def kind(self) -> str:
        """Of the response."""
        return "stream, released" if self.released else "stream" if self.stream else "whole"

    def __str__(self) -> str:
        return f"{self.endpoint} {self.kind} {self.upstream} {self.feature.name}"


CELLS = [
    Cell(endpoint, stream, upstream, feature)
    for endpoint, upstreams in UPSTREAMS.items()
    for feature in FEATURES
    for upstream in (upstreams if feature.only is None else feature.only.get(endpoint, ()))
    for stream in feature.streams
] + [
    Cell(endpoint, True, upstreams[0], feature, released=True)
    for endpoint, upstreams in UPSTREAMS.items()
    for feature in FEATURES
    if True in feature.streams and feature.model is None
    if feature.only is None or upstreams[0] in feature.only.get(endpoint, ())
]
