"""Arguments of tool calls through the real proxy (`tool_arguments: correct`), in each format and across formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.scripted_answers import INSULT, RUDE, RUDE_ARGUMENTS
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED
WANTED = RUDE_ARGUMENTS | {"note": RUDE.replace(f"{INSULT} ", "")}


@pytest.mark.parametrize("model", ["calls-hold", "calls-sentence", "calls-hold-claude", "calls-sentence-claude"])
def test_flagged_prose_in_a_call_is_corrected(gateway: Any, model: str) -> None:
    got = gateway.chat("rude_call", model=model)
    (call,) = got.json()["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("look_up", WANTED)
    assert got.headers["x-aligner-tool-arguments"] == "corrected"
    stream = gateway.chat_stream("rude_call", model=model)
    calls = [call for chunk in stream.chunks for call in chunk["choices"][0]["delta"].get("tool_calls") or ()]
    assert json.loads("".join(call["function"]["arguments"] or "" for call in calls)) == WANTED
    assert "tool_arguments=corrected" in stream.comments[0]

    (block,) = gateway.message("rude_call", model=model).json()["content"]
    assert (block["name"], block["input"]) == ("look_up", WANTED)
    stream = gateway.message_stream("rude_call", model=model)
    assert json.loads("".join(stream.parts("content_block_delta", "index", "partial_json"))) == WANTED
    assert "tool_arguments=corrected" in stream.comments[-1]


@pytest.mark.parametrize("model", ["calls-hold", "calls-sentence"])
def test_every_event_of_responses_says_the_same(gateway: Any, model: str) -> None:
    (item,) = gateway.respond("rude_call", model=model).json()["output"]
    assert (item["call_id"], json.loads(item["arguments"])) == ("call_1", WANTED)
    stream = gateway.respond_stream("rude_call", model=model)
    assert stream.parts("response.function_call_arguments.delta", "output_index", "delta") == [json.dumps(WANTED)]
    by_type = {chunk["type"]: chunk for chunk in stream.chunks}
    assert by_type["response.function_call_arguments.done"]["arguments"] == json.dumps(WANTED)
    assert by_type["response.output_item.done"]["item"]["arguments"] == json.dumps(WANTED)
    assert by_type["response.completed"]["response"]["output"][0]["arguments"] == json.dumps(WANTED)
    assert "idiot" not in stream.raw
