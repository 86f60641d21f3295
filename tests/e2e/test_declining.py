"""Answers through the real proxy of which nothing remains but a tool call or another text: no refusal beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.attacks.attack import Attack, rows
from tests.e2e.scripted_answers import GOOD
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED
SCRIPTS = {
    "insult_tools": "an insult beside a tool call",
    "insult_parts": "an insult in one of two texts",
    "insult_all": "nothing but insults in two texts",
}
ENDPOINTS = {
    "chat": "a chat completion",
    "responses": "a response",
    "messages": "a message",
    "translated": "a message that LiteLLM makes of a chat completion",
}
REFUSALS = rows(
    *(
        (
            f"live-declined-{endpoint}-{script.removeprefix('insult_')}-{mode}",
            "upstream",
            f"answers with {what}, in {form}, whole and as a stream (`stream: {mode}`)",
            "a refusal only where nothing else remains; the call or the other text is there, and no insult",
            (endpoint, script, mode),
        )
        for endpoint, form in ENDPOINTS.items()
        for script, what in SCRIPTS.items()
        for mode in ("hold", "sentence")
        # a chat completion has one text
        if (endpoint, script) != ("chat", "insult_all")
    )
)
REMAINING = {"insult_tools": [""], "insult_parts": ["", GOOD], "insult_all": ["No.", ""]}
"""The texts that remain of each script."""


def part_texts(output: list[dict[str, Any]]) -> list[str]:
    """The texts of an answer of the Responses API."""
    return [part["text"] for item in output if item["type"] == "message" for part in item["content"]]


def block_texts(content: list[dict[str, Any]]) -> list[str]:
    """The texts of a message."""
    return [block["text"] for block in content if block["type"] == "text"]


def check_chat(gateway: Any, script: str, mode: str) -> None:
    model = f"declining-{mode}"
    got = gateway.chat(script, model=model)
    (choice,) = got.json()["choices"]
    if script == "insult_parts":
        assert choice["message"]["content"] == GOOD
        return
    assert (choice["message"]["content"], len(choice["message"]["tool_calls"])) == ("", 1)
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("corrected", "emptied")
    stream = gateway.chat_stream(script, model=model)
    assert (stream.text(), '"look_up"' in stream.raw) == ("", True)
    assert stream.comments == [": aligner status=corrected reason=emptied"]


def check_responses(gateway: Any, script: str, mode: str) -> None:
    model = f"declining-{mode}"
    texts = REMAINING[script]
    output = gateway.respond(script, model=model).json()["output"]
    assert part_texts(output) == texts
    stream = gateway.respond_stream(script, model=model)
    assert part_texts(stream.chunks[-1]["response"]["output"]) == texts
    assert stream.parts("response.output_text.delta", "output_index", "delta") == texts
    assert "idiot" not in str([chunk for chunk in stream.chunks if "output_text" in chunk["type"]])
    calls = [item for item in output if item["type"] == "function_call"]
    assert ["function_call" in stream.raw, len(calls)] == [script == "insult_tools", script == "insult_tools"]


def check_messages(gateway: Any, script: str, mode: str) -> None:
    model = f"declining-{mode}-claude"
    content = gateway.message(script, model=model).json()["content"]
    # an empty text could not be sent back
    remaining = [text for text in REMAINING[script] if text]
    assert block_texts(content) == remaining
    stream = gateway.message_stream(script, model=model)
    opened = [chunk for chunk in stream.chunks if chunk["type"] == "content_block_start"]
    kinds = [block["type"] for block in content]
    assert [chunk["content_block"]["type"] for chunk in opened] == kinds
    assert [chunk["index"] for chunk in opened] == list(range(len(kinds)))
    assert stream.parts("content_block_delta", "index", "text") == remaining
    assert "tool_use" in kinds or script != "insult_tools"


def check_translated_messages(gateway: Any, script: str, mode: str) -> None:
    content = gateway.message(script, model=f"declining-{mode}").json()["content"]
    stream = gateway.message_stream(script, model=f"declining-{mode}")
    opened = [chunk["content_block"] for chunk in stream.chunks if chunk["type"] == "content_block_start"]
    assert [block["type"] for block in content] == [block["type"] for block in opened]
    texts = [part for part in stream.parts("content_block_delta", "index", "text") if part]
    assert texts == block_texts(content)
    assert "idiot" not in stream.raw.replace("You are an idiot, I think.", "")


CHECKS: dict[str, Callable[[Any, str, str], None]] = {
    "chat": check_chat,
    "responses": check_responses,
    "messages": check_messages,
    "translated": check_translated_messages,
}


@pytest.mark.parametrize("attack", REFUSALS)
def test_no_refusal_stands_beside_an_answer(gateway: Any, attack: Attack) -> None:
    endpoint, script, mode = attack.payload
    CHECKS[endpoint](gateway, script, mode)
