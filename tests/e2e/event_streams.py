"""How do OpenAI and Anthropic tell a finished answer as a stream? From a whole body to the events that say the same.

The order, the numbering and the repetitions are those of the real services. `cut` says in which pieces a text comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Event = dict[str, Any]
Cut = Callable[[str], Sequence[str]]


MANY_PIECES = 500
"""Each piece of a stream costs LiteLLM a millisecond."""


def pieces(text: str) -> list[str]:
    """A text in pieces of four characters, as tokens come; a very long text in many that are longer."""
    size = max(4, len(text) // MANY_PIECES)
    return [text[i : i + size] for i in range(0, len(text), size)]


def frames(events: Sequence[Event]) -> list[str]:
    """Typed events as SSE frames."""
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


def response_events(whole: Event, cut: Cut = pieces, failure: Sequence[Event] = ()) -> list[Event]:
    """A Responses stream, numbered without a gap; `failure` comes before the last event."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[Event] = [{"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")]
    for index, item in enumerate(whole["output"]):
        events += [{**event, "output_index": index} for event in _item(item, cut)]
    events += [*failure, {"type": f"response.{whole['status']}", "response": whole}]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _item(item: Event, cut: Cut) -> Iterator[Event]:
    blank: Event = {"content": [], "arguments": "", "summary": []}
    begun = {name: blank.get(name, value) for name, value in item.items()}
    yield {"type": "response.output_item.added", "item": {**begun, "status": "in_progress"}}
    for number, part in enumerate(item.get("content", ())):
        yield from ({**event, "item_id": item["id"], "content_index": number} for event in _part(part, cut))
    for number, part in enumerate(item.get("summary", ())):
        yield from ({**event, "item_id": item["id"], "summary_index": number} for event in _summary(part, cut))
    if "arguments" in item:
        arguments = {"item_id": item["id"], "arguments": item["arguments"]}
        for piece in cut(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", "item_id": item["id"], "delta": piece}
        yield {"type": "response.function_call_arguments.done", **arguments}
    yield {"type": "response.output_item.done", "item": item}


def _part(part: Event, cut: Cut) -> Iterator[Event]:
    name = f"response.{part['type']}"
    kind = part["type"].removeprefix("output_")
    kind = kind if kind in part else "text"
    extra = {"logprobs": part.get("logprobs", [])} if kind == "text" else {}
    yield {"type": "response.content_part.added", "part": {**part, kind: "", **({"annotations": []} if extra else {})}}
    for piece in cut(part[kind]):
        yield {"type": f"{name}.delta", "delta": piece, "obfuscation": "x" * 8, **extra}
    for number, note in enumerate(part.get("annotations", ())):
        yield {"type": "response.output_text.annotation.added", "annotation_index": number, "annotation": note}
    yield {"type": f"{name}.done", kind: part[kind], **extra}
    yield {"type": "response.content_part.done", "part": part}


def _summary(part: Event, cut: Cut) -> Iterator[Event]:
    yield {"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}}
    for piece in cut(part["text"]):
        yield {"type": "response.reasoning_summary_text.delta", "delta": piece}
    yield {"type": "response.reasoning_summary_text.done", "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", "part": part}


def message_events(whole: Event, cut: Cut = pieces) -> list[Event]:
    """A Messages stream with a ping in it."""
    begun = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9}}
    events: list[Event] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(whole["content"]):
        events += [{**event, "index": index} for event in _block(block, cut)]
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    events += [{"type": "message_delta", "delta": ending, "usage": whole["usage"]}, {"type": "message_stop"}]
    return events


def _block(block: Event, cut: Cut) -> Iterator[Event]:
    kind = block["type"]
    blank: Event = {"text": "", "thinking": "", "signature": "", "input": {}, "citations": []}
    yield {
        "type": "content_block_start",
        "content_block": {name: blank.get(name, value) for name, value in block.items()},
    }
    deltas: list[Event] = []
    if kind in ("text", "thinking"):
        deltas += [{"type": f"{kind}_delta", kind: piece} for piece in cut(block[kind])]
    if "signature" in block:
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    if "input" in block:
        deltas += [{"type": "input_json_delta", "partial_json": piece} for piece in cut(json.dumps(block["input"]))]
    deltas += [{"type": "citations_delta", "citation": note} for note in block.get("citations") or ()]
    for delta in deltas:
        yield {"type": "content_block_delta", "delta": delta}
    yield {"type": "content_block_stop"}
