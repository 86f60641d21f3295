"""Text beside an answer: which strings count, of what kind, and what a delivered text covers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litellm.types.utils import ModelResponse

from aligner_proxy.errors import Unreadable
from aligner_proxy.formats.safe import call_or_raise
from aligner_proxy.formats.side_text import SideTextReader, is_prose, remove_prose
from aligner_proxy.formats.think_tags import DividedText
from aligner_proxy.types import SideKind

RUDE = "Only a fool would ask that."
PLAIN = "The harbour opens at nine."


def left(value: object, *delivered: str, streamed: bool = False) -> dict[SideKind, str]:
    """What is not covered, by kind."""
    reader = SideTextReader(streamed=streamed)
    reader.read(value)
    texts = ((text.kind, reader.uncovered_text(text, delivered)) for text in reader.pending_texts())
    return {kind: text for kind, text in texts if text}


def grown(events: list[object], *delivered: str) -> list[str]:
    """What of a stream is not covered."""
    reader = SideTextReader(streamed=True)
    for event in events:
        reader.read(event)
    return [text for side in reader.pending_texts() if (text := reader.uncovered_text(side, delivered))]


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        (RUDE, True),
        ("chatcmpl-8f14e45fceea167a5a36dedd4bea2543", False),
        ("2026-11-26 10:00:00 +0100", False),
        ("Too short a text", False),
        ("\u4f60\u662f\u4e00\u4e2a\u50bb\u74dc" * 4, True),
        ("data:image/png;base64," + "QUJD" * 40, False),
        (" " * 40 + "word", False),
    ],
)
def test_prose_is_known_by_its_form(text: str, prose: bool) -> None:
    assert is_prose(text) is prose


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"reasoning_content": RUDE}, SideKind.REASONING),
        ({"content": [{"type": "thinking", "thinking": RUDE}]}, SideKind.REASONING),
        ({"output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": RUDE}]}]}, SideKind.REASONING),
        ({"tool_calls": [{"function": {"arguments": json.dumps({"q": RUDE})}}]}, SideKind.TOOL_ARGUMENTS),
        ({"content": [{"type": "tool_use", "input": {"q": [RUDE]}}]}, SideKind.TOOL_ARGUMENTS),
        ({"output": [{"type": "mcp_call", "arguments": "{}", "output": RUDE}]}, SideKind.TOOL_OUTPUT),
        ({"content": [{"type": "web_search_tool_result", "content": [{"title": RUDE}]}]}, SideKind.TOOL_OUTPUT),
        ({"output": [{"type": "code_interpreter_call", "outputs": [{"logs": RUDE}]}]}, SideKind.TOOL_OUTPUT),
        ({"audio": {"id": "a", "transcript": RUDE}}, SideKind.TRANSCRIPTS),
        ({"annotations": [{"title": RUDE}]}, SideKind.OTHER_TEXT),
        ({"error": {"message": RUDE}}, SideKind.OTHER_TEXT),
        ({"unknown": {"deeper": [[RUDE]]}}, SideKind.OTHER_TEXT),
        ({RUDE: 1}, SideKind.OTHER_TEXT),
        ({"note": RUDE.replace(" ", "%20")}, SideKind.OTHER_TEXT),
        ({"message": f"litellm.Error: {json.dumps({'error': RUDE})}"}, SideKind.OTHER_TEXT),
    ],
)
def test_every_string_has_a_kind(body: dict[str, Any], kind: SideKind) -> None:
    assert {found: RUDE in text for found, text in left(body).items()} == {kind: True}


def test_what_is_part_of_a_delivered_text_is_covered() -> None:
    body = {"copy": PLAIN, "other": RUDE, "id": "resp_0123456789abcdef01234567"}
    assert left(body, f"Well. {PLAIN} So it is.") == {SideKind.OTHER_TEXT: RUDE}
    assert left(body, PLAIN, RUDE) == {}


def test_tokens_that_spell_a_text_are_read_together() -> None:
    tokens = [RUDE[at : at + 4] for at in range(0, len(RUDE), 4)]
    listed = {"logprobs": {"content": [{"token": token, "logprob": -0.1} for token in tokens]}}
    named = {"logprobs": {"top_logprobs": [{token: -0.1} for token in tokens]}}
    assert left(listed) == {SideKind.OTHER_TEXT: RUDE}
    assert "fool" in left(named)[SideKind.OTHER_TEXT]
    assert left(listed, RUDE) == {}


def test_pieces_of_a_stream_are_one_text() -> None:
    events: list[object] = [
        {"type": "x.delta", "item_id": "i", "delta": RUDE[at : at + 5]} for at in range(0, len(RUDE), 5)
    ]
    assert grown(events) == [RUDE]
    assert grown(events, RUDE) == []


def test_places_of_a_stream_are_told_apart() -> None:
    events: list[object] = [
        event
        for at in range(0, len(RUDE), 5)
        for event in (
            {"type": "x", "index": 0, "delta": RUDE[at : at + 5]},
            {"type": "x", "index": 1, "delta": PLAIN[at : at + 5]},
        )
    ]
    assert grown(events, PLAIN) == [RUDE]


def test_a_string_that_begins_with_reasoning_is_two_texts() -> None:
    reader = SideTextReader(streamed=True)
    pieces = [
        DividedText("<think>The reader asks for ", "The reader asks for ", ""),
        DividedText("the time.</think>", "the time.", "It is nine."),
    ]
    for piece in pieces:
        body = {"choices": [{"index": 0, "delta": {"content": piece.whole}}]}
        assert reader.read(body, [piece.answer], [piece]) == {SideKind.REASONING}
    (pending,) = reader.pending_texts()
    assert (pending.kind, "".join(pending.pieces)) == (SideKind.REASONING, "The reader asks for the time.")
    # without the answer among the texts that are skipped, it is read as any other
    assert reader.read(body, (), pieces) == {SideKind.REASONING, SideKind.OTHER_TEXT}


def test_what_a_stream_says_again_and_again_is_one_text() -> None:
    event = {"system_fingerprint": "a fingerprint of words"}
    assert grown([event] * 500) == ["a fingerprint of words"]


@pytest.mark.parametrize(
    "raw",
    [
        f": {RUDE}\n\n",
        f"event: {RUDE}\ndata: {{}}\n\n",
        f"{RUDE}\n\n",
        f"DATA: {json.dumps({'note': RUDE})}\n\n",
        f"data : {json.dumps({'note': RUDE})}\n\n",
        f"data: {json.dumps({'note': 'x'})} {RUDE}\n\n",
        f'data: {{"note": "{RUDE}", "note": "x"}}\n\n',
    ],
    ids=["comment", "name", "no field", "capitals", "space", "behind", "twice"],
)
def test_every_line_of_an_event_is_read(raw: str) -> None:
    assert any("fool" in text for text in grown([raw.encode()]))


def test_ordinary_events_have_nothing_beside_them() -> None:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": PLAIN}}
    raw = f"event: content_block_delta\ndata: {json.dumps(event)}\n\n".encode()
    reader = SideTextReader(streamed=True)
    reader.read(raw, [PLAIN])
    assert reader.pending_texts() == []


def test_a_text_without_gaps_is_not_kept_for_ever() -> None:
    reader = SideTextReader(streamed=True)
    for number in range(3_000):
        reader.read({"obfuscation": f"aB{number:06d}"})
    assert reader.pending_texts() == []
    (text,) = reader._texts.values()
    assert sum(map(len, text.pieces)) < 20_000


def test_a_body_that_is_too_deep_is_unreadable() -> None:
    body: dict[str, Any] = {}
    inner = body
    for _ in range(5_000):
        inner["x"] = {}
        inner = inner["x"]
    with pytest.raises(Unreadable):
        call_or_raise(Unreadable, SideTextReader(streamed=False).read, body)


def test_without_empties_only_what_is_dropped() -> None:
    message = {
        "role": "assistant",
        "content": PLAIN,
        "audio": {"id": "a", "transcript": RUDE, "data": "AA==", "expires_at": 1},
    }
    given = ModelResponse(choices=[{"index": 0, "finish_reason": "stop", "message": message}])
    emptied = remove_prose(given, [SideKind.TRANSCRIPTS])
    body = emptied.model_dump()["choices"][0]["message"]
    assert body["content"] == PLAIN
    assert RUDE not in json.dumps(emptied.model_dump())
    assert RUDE in json.dumps(given.model_dump())
    assert remove_prose(given, [SideKind.TOOL_OUTPUT]) is given
