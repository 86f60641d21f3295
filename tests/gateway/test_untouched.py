"""Untouched means untouched: generated responses through the real hooks, and not one byte moved.

Eight properties: chat, text, Responses and Messages, whole and streamed. The scripted engine leaves, fails, refuses or
corrects; whenever no choice is corrected the very same objects come back and dump to the same bytes. When one is, the
original object is still as it was and the rest of the copy is equal. `make fuzz` (the hypothesis profile `fuzz`) tries
2,500 examples of each in place of 200. Responses that no upstream should send are in tests/fuzz.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse, ModelResponseStream, TextCompletionResponse

from tests.e2e.event_streams import frames, message_events, response_events
from tests.support.harness import SCRIPTS, Rig, rigged
from tests.support.sampling import examples

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.slow, pytest.mark.timeout(600)]

MANY = settings.get_current_profile_name() == "fuzz"
# The same few examples in every run, so that the last test here cannot fail by chance; `make fuzz` tries others.
EXAMPLES = settings(
    max_examples=2500 if MANY else examples(200),
    derandomize=not MANY,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ODD = [
    "",
    " ",
    "\n",
    "\t\r\n",
    "\u00a0\u2028\u200b",
    "e\u0301",
    "\ud7ff",
    "😀👩‍👩‍👧",
    '{"a": 1}',
    "| Edit: ",
    "a\x00b",
    "你好。",
    "عربي",
    "<think>",
    "</think>",
]
TEXT = st.one_of(
    st.sampled_from(["Plain words. More of them.", *ODD]),
    st.text(max_size=24),
    st.lists(st.sampled_from(ODD), max_size=4).map(" ".join),
)
MAYBE_TEXT = st.none() | TEXT
FINISH = st.sampled_from([*["stop"] * 12, "length", "content_filter", "tool_calls", None])
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NOTE = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "url": "u", "title": "t"}}
EXTRA = st.dictionaries(st.sampled_from(["x", "citations"]), MAYBE_TEXT, max_size=2)
PROBABILITIES = {"content": [{"token": "A", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
LOGPROBS = st.sampled_from([*[None] * 12, PROBABILITIES])
# What makes an answer ineligible is rare, or hardly any example would get as far as the engine.
BLOCKERS: list[dict[str, Any]] = [
    {"tool_calls": [CALL]},
    {"function_call": {"name": "f", "arguments": "{}"}},
    {"refusal": "No."},
    {"annotations": [NOTE]},
    {"content": None},
]
MESSAGE = st.builds(
    lambda plain, blocker: {**plain, **blocker},
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": TEXT},
        optional={
            "reasoning_content": TEXT,
            "refusal": st.none(),
            "thinking_blocks": st.just([{"type": "thinking", "thinking": "t", "signature": "s"}]),
            "provider_specific_fields": EXTRA,
            "made_up": TEXT,
        },
    ),
    st.sampled_from([*[{}] * 20, *BLOCKERS]),
)
HEAD = st.fixed_dictionaries(
    {"id": TEXT, "created": st.just(1), "model": TEXT},
    optional={
        "system_fingerprint": TEXT,
        "service_tier": TEXT,
        "usage": st.just({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
    },
)
REQUEST = st.fixed_dictionaries(
    {
        "prompt": TEXT | st.lists(TEXT, min_size=3, max_size=3),
        "model": st.sampled_from([*["gpt"] * 8, *["shadow"] * 3, "off", "unsampled", "bare"]),
    },
    optional={
        "n": st.integers(1, 3),
        "response_format": st.sampled_from([*[{"type": "text"}] * 8, {"type": "json_object"}]),
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "echo": st.sampled_from([*[False] * 8, True]),
        "messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": MAYBE_TEXT}), max_size=2),
        "input": TEXT | st.just([{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]),
        "system": TEXT | st.just([{"type": "text", "text": "Be brief."}]),
        "previous_response_id": st.just("resp_0"),
        "text": st.sampled_from([*[{"format": {"type": "text"}}] * 8, {"format": {"type": "json_object"}}]),
        "made_up": TEXT,
    },
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rigged(tmp_path_factory.mktemp("untouched")) as made:
        yield made


SCRIPT = st.sampled_from(sorted(SCRIPTS))
CHAT_CHOICES = st.lists(
    st.fixed_dictionaries({"message": MESSAGE, "finish_reason": FINISH, "logprobs": LOGPROBS}), min_size=1, max_size=3
)
CHAT_CHUNKS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "delta": MESSAGE, "finish_reason": FINISH, "logprobs": LOGPROBS}
    ),
    max_size=5,
)
TEXT_CHOICES = st.lists(
    st.fixed_dictionaries({"text": MAYBE_TEXT, "finish_reason": FINISH}, optional={"made_up": TEXT}),
    min_size=1,
    max_size=3,
)
TEXT_CHUNKS = st.lists(
    st.fixed_dictionaries({"index": st.integers(0, 2), "text": MAYBE_TEXT, "finish_reason": FINISH}), max_size=5
)


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, CHAT_CHOICES)
def test_chat(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], choices: list[Any]) -> None:
    response = ModelResponse(**head, choices=[{"index": i, **c} for i, c in enumerate(choices)])
    before = response.model_dump_json()
    result, statuses = rig.whole(script, request_, "/v1/chat/completions", response)
    assert response.model_dump_json() == before
    if "corrected" not in statuses:
        assert result is None or result is response
    else:
        for ours, theirs in zip(result.choices, response.choices, strict=True):
            ours.message.content = theirs.message.content
        assert result.model_dump_json() == before


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, TEXT_CHOICES)
def test_text(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], choices: list[Any]) -> None:
    response = TextCompletionResponse(**head, choices=[{"index": i, **c} for i, c in enumerate(choices)])
    before = response.model_dump_json()
    result, statuses = rig.whole(script, request_, "/v1/completions", response)
    assert response.model_dump_json() == before
    if "corrected" not in statuses:
        assert result is None or result is response
    else:
        for ours, theirs in zip(result.choices, response.choices, strict=True):
            ours.text = theirs.text
        assert result.model_dump_json() == before


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, CHAT_CHUNKS)
def test_chat_stream(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], chunks: list[Any]) -> None:
    items = [ModelResponseStream(**head, choices=[chunk]) for chunk in chunks]
    before = [item.model_dump_json() for item in items]
    played, statuses = rig.stream(script, request_, "/v1/chat/completions", items)
    assert [item.model_dump_json() for item in items] == before
    if "corrected" not in statuses:
        assert [id(item) for item in played] == [id(item) for item in items]
    else:
        for ours, theirs in zip(played, items, strict=True):
            ours.choices[0].delta.content = theirs.choices[0].delta.content
        assert [item.model_dump_json() for item in played] == before


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, TEXT_CHUNKS)
def test_text_stream(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], chunks: list[Any]) -> None:
    items = [TextCompletionResponse(**head, choices=[chunk]) for chunk in chunks]
    before = [item.model_dump_json() for item in items]
    played, statuses = rig.stream(script, request_, "/v1/completions", items)
    assert [item.model_dump_json() for item in items] == before
    if "corrected" not in statuses:
        assert [id(item) for item in played] == [id(item) for item in items]
    else:
        for ours, theirs in zip(played, items, strict=True):
            ours.choices[0].text = theirs.choices[0].text
        assert [item.model_dump_json() for item in played] == before


# A Responses answer: messages of parts, rarely one that must not be edited, with reasoning and calls around them.
CITED = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "u", "title": "t"}
PART_BLOCKERS: list[dict[str, Any]] = [
    {"annotations": [CITED]},
    {"logprobs": [{"token": "A", "logprob": -0.1, "bytes": [], "top_logprobs": []}]},
    {"type": "refusal", "refusal": "No."},
]
PART = st.builds(
    lambda text, blocker: {"type": "output_text", "text": text, "annotations": [], "logprobs": [], **blocker},
    TEXT,
    st.sampled_from([*[{}] * 30, *PART_BLOCKERS]),
)
BESIDE: list[dict[str, Any]] = [
    *[{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}] * 8,
    *[{"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}] * 4,
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
    {"type": "hologram_call"},
]
ITEMS = st.lists(
    st.lists(PART, max_size=2).map(lambda parts: {"type": "message", "role": "assistant", "content": parts})
    | st.sampled_from(BESIDE),
    min_size=1,
    max_size=3,
).map(lambda items: [{"status": "completed", **item, "id": f"i_{n}"} for n, item in enumerate(items)])
STATUS = st.sampled_from([*["completed"] * 12, "incomplete", "failed"])
CUT = st.integers(1, 9).map(lambda size: lambda text: [text[i : i + size] for i in range(0, len(text), size)])


def responses_body(output: list[Any], status: str) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "usage": usage}
    return {**head, "status": status, "output": output, "metadata": {}}


def without_texts(told: Any) -> Any:
    """Responses bodies and events, dumped, with every text of an answer blanked."""
    if isinstance(told, list):
        return [without_texts(one) for one in told]
    if not isinstance(told, dict):
        return told
    kept = {name: without_texts(value) for name, value in told.items()}
    if kept.get("type") in ("output_text", "response.output_text.done"):
        kept["text"] = ""
    if kept.get("type") == "response.output_text.delta":
        kept["delta"] = ""
    return kept


@EXAMPLES
@given(SCRIPT, REQUEST, ITEMS, STATUS)
def test_responses(rig: Rig, script: str, request_: dict[str, Any], output: list[Any], status: str) -> None:
    response = ResponsesAPIResponse(**responses_body(output, status))
    before = response.model_dump_json()
    result, statuses = rig.whole(script, request_, "/v1/responses", response)
    assert response.model_dump_json() == before
    if "corrected" not in statuses:
        assert result is None or result is response
    else:
        assert without_texts(json.loads(result.model_dump_json())) == without_texts(json.loads(before))


@EXAMPLES
@given(SCRIPT, REQUEST, ITEMS, STATUS, CUT)
def test_responses_stream(
    rig: Rig, script: str, request_: dict[str, Any], output: list[Any], status: str, cut: Any
) -> None:
    config = OpenAIResponsesAPIConfig()
    logging = cast("Any", None)
    told = response_events(responses_body(output, status), cut)
    items = [config.transform_streaming_response("m", copy.deepcopy(event), logging) for event in told]
    before = [item.model_dump_json() for item in items]
    played, statuses = rig.stream(script, request_, "/v1/responses", items)
    assert [item.model_dump_json() for item in items] == before
    if "corrected" not in statuses:
        assert [id(item) for item in played] == [id(item) for item in items]
        return
    after = [json.loads(item.model_dump_json()) for item in played]
    assert without_texts(after) == without_texts([json.loads(item) for item in before])
    pieces: dict[tuple[int, int], str] = {}
    for event in after:
        place = (event.get("output_index"), event.get("content_index"))
        if event["type"] == "response.output_text.delta":
            pieces[place] = pieces.get(place, "") + event["delta"]
        elif event["type"] == "response.output_text.done":
            assert event["text"] == pieces.get(place, "")
    texts = [part["text"] for item in after[-1]["response"]["output"] for part in item.get("content") or ()]
    assert [text for text in texts if text] == [pieces[place] for place in sorted(pieces) if pieces[place]]


# A Messages answer, in the same proportions.
BLOCK = st.builds(
    lambda text, more: {"type": "text", "text": text, **more},
    TEXT,
    st.sampled_from([*[{}] * 20, *[{"citations": None}] * 4, {"citations": [{"type": "char_location"}]}]),
)
BLOCKS_BESIDE: list[dict[str, Any]] = [
    *[{"type": "thinking", "thinking": "Hm.", "signature": "s"}] * 8,
    *[{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}] * 4,
    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    {"type": "hologram", "made_up": 1.5},
]
CONTENT = st.lists(BLOCK | BLOCK | st.sampled_from(BLOCKS_BESIDE), min_size=1, max_size=4)
STOP = st.sampled_from([*["end_turn"] * 10, "stop_sequence", "max_tokens", "refusal", "pause_turn"])


def message_of(content: list[Any], stop: str) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content}
    return {**head, "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 2}}


def without_block_texts(told: Any) -> Any:
    """Messages and events with every text of an answer blanked."""
    if isinstance(told, list):
        return [without_block_texts(one) for one in told]
    if not isinstance(told, dict):
        return told
    kept = {name: without_block_texts(value) for name, value in told.items()}
    return {**kept, "text": ""} if kept.get("type") in ("text", "text_delta") else kept


@EXAMPLES
@given(SCRIPT, REQUEST, CONTENT, STOP)
def test_messages(rig: Rig, script: str, request_: dict[str, Any], content: list[Any], stop: str) -> None:
    response = message_of(content, stop)
    before = json.dumps(response)
    result, statuses = rig.whole(script, request_, "/v1/messages", response)
    assert json.dumps(response) == before
    if "corrected" not in statuses:
        assert result is None or result is response
    else:
        assert list(result) == list(response)
        assert without_block_texts(result) == without_block_texts(response)


@EXAMPLES
@given(SCRIPT, REQUEST, CONTENT, STOP, CUT, st.lists(st.integers(0, 4000), max_size=6))
def test_messages_stream(
    rig: Rig, script: str, request_: dict[str, Any], content: list[Any], stop: str, cut: Any, cuts: list[int]
) -> None:
    raw = "".join(frames(message_events(message_of(content, stop), cut))).encode()
    edges = [0, *sorted(min(edge, len(raw)) for edge in cuts), len(raw)]
    items = [raw[a:b] for a, b in itertools.pairwise(edges)]
    played, statuses = rig.stream(script, request_, "/v1/messages", items)
    assert b"".join(items) == raw
    if "corrected" not in statuses:
        assert [id(item) for item in played] == [id(item) for item in items]
        return
    before, after = (
        [json.loads(line[6:]) for line in b"".join(stream).decode().split("\n") if line.startswith("data: ")]
        for stream in (items, played)
    )
    assert without_block_texts(after) == without_block_texts(before)


def test_the_examples_were_not_all_of_one_kind(rig: Rig) -> None:
    """Runs last: every status and most reasons must have occurred, or the properties above prove little."""
    kinds = {kind for kind, count in rig.seen.items() if count >= (20 if MANY else 1)}
    assert {"corrected None", "unchanged None", "unchanged gate_empty", "failed engine_error"} <= kinds
    assert {"shadow None", "skipped too_long", "skipped truncated"} <= kinds
    skips = (
        "mode_off",
        "not_sampled",
        "no_objectives",
        "tool_calls",
        "structured_output",
        "non_text",
        "empty",
        "refusal",
        "annotations",
        "logprobs",
        "upstream_error",
    )
    assert {f"skipped {reason}" for reason in skips} <= kinds
