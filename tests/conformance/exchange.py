"""What does a client get for one cell, with the guardrail and without, and how do the two differ?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from tests.conformance.features import CHAT, MESSAGES, MODE_OFF, RESPONSES, TEXT, THOUGHTS_DROPPED, Cell
from tests.e2e.clients import Gateway, Streamed, made_up
from tests.e2e.scripted_engine import INSULT
from tests.fuzz.observed import events, frozen, only_texts_differ
from tests.support.comments import drop_comments, events_without_data

BYTES = "byte for byte LiteLLM's"
TEXT_ONLY = "only the text differs"
SAME_ERROR = "LiteLLM's own error"
WITHOUT_THOUGHTS = "the text differs, and the reasoning is gone"


def ask(who: Gateway, cell: Cell) -> httpx.Response:
    """One request."""
    calls = {CHAT: who.chat, TEXT: who.complete, RESPONSES: who.respond, MESSAGES: who.message}
    more = {"stream": True} if cell.stream else {}
    script = cell.body.get("prompt", cell.feature.script)
    body = {name: value for name, value in cell.body.items() if name != "prompt"}
    return calls[cell.endpoint](script, **{"model": cell.model, **body, **more})


def became(got: httpx.Response, cell: Cell) -> str:
    """Status and reason, as the client is told: by headers, or in a stream by the last comment."""
    # with `mode: off`, a stream is LiteLLM's byte for byte, so it has no comment
    is_off = got.headers.get("x-aligner-reason") == "mode_off" and ": aligner" not in got.text
    if not cell.stream or is_off or got.status_code != httpx.codes.OK:
        told = [got.headers.get("x-aligner-status", "-"), got.headers.get("x-aligner-reason", "")]
        return " ".join(word for word in told if word)
    comments = Streamed(got.status_code, got.headers, got.text).comments
    words = comments[-1].removeprefix(": aligner ").split() if len(comments) == 1 else [f"{len(comments)} comments"]
    return " ".join(word.split("=")[-1] for word in words if not word.startswith("choices="))


def compared(ours: httpx.Response, theirs: httpx.Response, cell: Cell) -> str:
    """How the response differs from that of LiteLLM alone; raises if it does so in anything that it must not."""
    assert ours.status_code == theirs.status_code
    if ours.status_code != httpx.codes.OK:
        assert made_up(ours.text) == made_up(theirs.text)
        return SAME_ERROR
    if cell.stream:
        assert events_without_data(ours.text) == [], "a strict reader takes a comment for an event"
    if _untouched(ours, cell) == _untouched(theirs, cell):
        return BYTES
    mine = _told(ours, cell)
    other = _told(theirs, cell)
    if cell.expect == THOUGHTS_DROPPED:
        assert texts(mine, cell) == [text.replace(INSULT, "") for text in texts(other, cell)]
        assert _thinks(other)
        assert not _thinks(mine)
        return WITHOUT_THOUGHTS
    only_texts_differ(frozen(mine), frozen(other))
    before = texts(other, cell)
    after = texts(mine, cell)
    assert after == [text.replace(INSULT, "") for text in before]
    assert INSULT.strip() not in made_up(ours.text), "said in another place of the response"
    return TEXT_ONLY


def _untouched(got: httpx.Response, cell: Cell) -> str:
    """The response without what LiteLLM makes up anew, a stream without comments; off, there must be none."""
    has_comments = cell.stream and cell.expect != MODE_OFF
    return made_up(drop_comments(got.text) if has_comments else got.text)


def _told(got: httpx.Response, cell: Cell) -> Any:
    """The JSON of a response, or of every event of a stream with the lines around it."""
    return events([_untouched(got, cell).encode()]) if cell.stream else json.loads(made_up(got.text))


def _thinks(told: Any) -> bool:
    """Whether anything of a response, or of its events, is reasoning."""
    words = ("reasoning_content", "thinking", "'type': 'reasoning'", "response.reasoning")
    return any(word in str(told) for word in words)


def texts(told: Any, cell: Cell) -> list[str]:
    """The texts of an answer: of a stream joined from its pieces."""
    if not cell.stream:
        return [text for text in _whole(told) if text]
    joined: dict[Any, str] = {}
    for frame in told:
        for place, piece in _pieces(frame[1]) if isinstance(frame, list) else ():
            joined[place] = joined.get(place, "") + piece
    return [text for _, text in sorted(joined.items()) if text]


def _whole(body: dict[str, Any]) -> Iterator[str]:
    for choice in body.get("choices", ()):
        yield choice["text"] if "text" in choice else choice["message"]["content"] or ""
    for item in body.get("output", ()):
        yield from (part.get("text", "") for part in item.get("content") or () if item["type"] == "message")
    yield from (block["text"] for block in body.get("content", ()) if block["type"] == "text")


def _pieces(event: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    for choice in event.get("choices", ()):
        yield choice["index"], choice.get("text") or choice.get("delta", {}).get("content") or ""
    if event.get("type") == "response.output_text.delta":
        yield (event["output_index"], event["content_index"]), event["delta"]
    if event.get("type") == "content_block_delta" and event["delta"]["type"] == "text_delta":
        yield event["index"], event["delta"]["text"]
