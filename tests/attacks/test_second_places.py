"""A sentence of the answer in a second place of a body or stream, as providers quote it, point to it or encode it."""

from __future__ import annotations

from typing import Any

import pytest
from litellm.types.utils import ModelResponse, ModelResponseStream
from pydantic import BaseModel

from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.types import Status
from tests.attacks.attack import Attack, rows
from tests.e2e.event_streams import pieces
from tests.gateway.test_second_copies import deliver_stream, deliver_whole, guard
from tests.support.planted_copies import ANSWER, FIRST, LAST, REMOVED, Case, holds_copy
from tests.support.stream_fixtures import chat_text

__all__ = ["guard"]
START = len(FIRST) + 1
END = START + len(REMOVED)
CITED = {"start": START, "end": END, "text": REMOVED, "sources": [{"id": "doc_1"}]}
SUPPORT = {"segment": {"startIndex": START, "endIndex": END, "text": REMOVED}, "groundingChunkIndices": [0]}
SPELT = [{"token": piece, "logprob": -0.1, "bytes": [*piece.encode()], "top_logprobs": []} for piece in pieces(ANSWER)]
# (name, what it is, where it stands, its field, the value)
PLACES: list[tuple[str, str, str, str, Any]] = [
    (
        "gemini",
        "supports of Gemini's grounding",
        "body",
        "vertex_ai_grounding_metadata",
        [{"groundingSupports": [SUPPORT]}],
    ),
    ("gemini-pointer", "the same without the text", "body", "groundingSupports", [{"segment": {"endIndex": END}}]),
    ("bedrock", "citations of Bedrock", "provider", "citationsContent", [{"sourceContent": [{"text": REMOVED}]}]),
    ("cohere", "citations of Cohere", "message", "citations", [CITED]),
    ("guard", "the trace of a guard", "body", "trace", {"guardrail": {"modelOutput": [ANSWER]}}),
    ("provider", "fields of a provider", "provider", "raw_output", ANSWER),
    ("ids", "the ids of its tokens", "choice", "token_ids", [*range(900, 930)]),
    ("logprobs", "the probabilities of its tokens", "choice", "logprobs", {"content": SPELT, "refusal": None}),
    (
        "transcript",
        "the transcript of its audio",
        "message",
        "audio",
        {"id": "a", "transcript": ANSWER, "data": "", "expires_at": 1},
    ),
    ("thoughts", "reasoning that quotes it", "message", "reasoning_content", f"I will say: {REMOVED} That is it."),
]
REPEATED = rows(
    *(
        (
            f"second-{name}",
            "upstream",
            f"says an insult in the text of a chat answer and once more in another place: {what}; whole and streamed",
            "what is corrected has the insult nowhere, nor what points into the text or encodes it",
            (place, field, value),
        )
        for name, what, place, field, value in PLACES
    )
)


def put(place: str, field: str, value: Any, body: dict[str, Any], message: str) -> dict[str, Any]:
    """The body, or the chunk, with the field in its place."""
    choice = body["choices"][0]
    holder = {"body": body, "choice": choice, "message": choice[message]}.get(place)
    if holder is None:
        holder = choice[message].setdefault("provider_specific_fields", {})
    holder[field] = value
    return body


def case_of(place: str, field: str, value: Any) -> Case:
    """The answer with the field, whole and as a stream: behind the text, or beside each of its pieces."""
    said = {"role": "assistant", "content": ANSWER}
    head = {"id": "1", "created": 1, "model": "m"}
    whole = {**head, "choices": [{"index": 0, "finish_reason": "stop", "message": said}]}
    texts = pieces(ANSWER)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts), {}]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if field == "logprobs":
        for chunk, token in zip(chunks[1:-1], SPELT, strict=True):
            put(place, field, {"content": [token], "refusal": None}, chunk, "delta")
    else:
        put(place, field, value, chunks[-1], "delta")
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    items = [ModelResponseStream(**chunk) for chunk in [*chunks, end]]
    return Case(1, "chat", ModelResponse(**put(place, field, value, whole, "message")), items)


def values_of(field: str, value: Any) -> list[Any]:
    """What stands in a field, wherever it is; not where it is empty."""
    if isinstance(value, BaseModel):
        return values_of(field, value.model_dump())
    if isinstance(value, list):
        return [found for part in value for found in values_of(field, part)]
    if not isinstance(value, dict):
        return []
    here = [value[field]] if value.get(field) else []
    return here + [found for part in value.values() for found in values_of(field, part)]


@pytest.mark.parametrize("attack", REPEATED)
async def test_an_insult_that_was_removed_stands_nowhere(guard: AlignerGuardrail, attack: Attack) -> None:
    place, field, value = attack.payload
    for deliver in (deliver_whole, deliver_stream):
        # reasoning that went out before the text was judged cannot be taken back
        for model in ("hold-judge", "sentence-judge") if field != "reasoning_content" else ("hold-judge",):
            status, values = await deliver(guard, case_of(place, field, value), model)
            assert status is Status.CORRECTED, (deliver.__name__, model)
            assert not holds_copy(values)
            text = chat_text(values) if deliver is deliver_stream else values[0].choices[0].message.content
            assert text == f"{FIRST} {LAST}"
            # a piece of a stream that goes out as it came keeps its probabilities
            spelt = "".join(piece for found in values_of(field, values) for piece in values_of("token", found))
            assert spelt in text if deliver is deliver_stream else not spelt
            assert field == "logprobs" or values_of(field, values) == []
