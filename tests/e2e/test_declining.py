"""Answers through the real proxy of which nothing remains but a tool call or another text: no refusal beside them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.scripted_answers import GOOD
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED
MODES = ("hold", "sentence")
PARTED = [("insult_parts", ["", GOOD]), ("insult_all", ["No.", ""])]


def part_texts(output: list[dict[str, Any]]) -> list[str]:
    """The texts of an answer of the Responses API."""
    return [part["text"] for item in output if item["type"] == "message" for part in item["content"]]


def block_texts(content: list[dict[str, Any]]) -> list[str]:
    """The texts of a message."""
    return [block["text"] for block in content if block["type"] == "text"]


@pytest.mark.parametrize("mode", MODES)
def test_chat(gateway: Any, mode: str) -> None:
    model = f"declining-{mode}"
    got = gateway.chat("insult_tools", model=model)
    (choice,) = got.json()["choices"]
    assert (choice["message"]["content"], len(choice["message"]["tool_calls"])) == ("", 1)
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("corrected", "emptied")
    stream = gateway.chat_stream("insult_tools", model=model)
    assert (stream.text(), '"look_up"' in stream.raw) == ("", True)
    assert stream.comments == [": aligner status=corrected reason=emptied"]
    assert gateway.chat("insult_parts", model=model).json()["choices"][0]["message"]["content"] == GOOD


@pytest.mark.parametrize("mode", MODES)
def test_responses(gateway: Any, mode: str) -> None:
    model = f"declining-{mode}"
    for script, texts in [("insult_tools", [""]), *PARTED]:
        output = gateway.respond(script, model=model).json()["output"]
        assert part_texts(output) == texts
        stream = gateway.respond_stream(script, model=model)
        assert part_texts(stream.chunks[-1]["response"]["output"]) == texts
        assert stream.parts("response.output_text.delta", "output_index", "delta") == texts
        assert "idiot" not in str([chunk for chunk in stream.chunks if "output_text" in chunk["type"]])
        calls = [item for item in output if item["type"] == "function_call"]
        assert ["function_call" in stream.raw, len(calls)] == [script == "insult_tools", script == "insult_tools"]


@pytest.mark.parametrize("mode", MODES)
def test_messages(gateway: Any, mode: str) -> None:
    model = f"declining-{mode}-claude"
    for script, texts in [("insult_tools", [""]), *PARTED]:
        content = gateway.message(script, model=model).json()["content"]
        # an empty text could not be sent back
        remaining = [text for text in texts if text]
        assert block_texts(content) == remaining
        stream = gateway.message_stream(script, model=model)
        started = [chunk for chunk in stream.chunks if chunk["type"] == "content_block_start"]
        kinds = [block["type"] for block in content]
        assert [chunk["content_block"]["type"] for chunk in started] == kinds
        assert [chunk["index"] for chunk in started] == list(range(len(kinds)))
        assert stream.parts("content_block_delta", "index", "text") == remaining
        assert "tool_use" in kinds or script != "insult_tools"


@pytest.mark.parametrize("script", ["insult_tools", "insult_parts", "insult_all"])
def test_what_was_translated_into_messages_is_declined_alike(gateway: Any, script: str) -> None:
    for mode in MODES:
        content = gateway.message(script, model=f"declining-{mode}").json()["content"]
        stream = gateway.message_stream(script, model=f"declining-{mode}")
        started = [chunk["content_block"] for chunk in stream.chunks if chunk["type"] == "content_block_start"]
        assert [block["type"] for block in content] == [block["type"] for block in started]
        texts = [part for part in stream.parts("content_block_delta", "index", "text") if part]
        assert texts == block_texts(content)
        assert "idiot" not in stream.raw.replace("You are an idiot, I think.", "")
