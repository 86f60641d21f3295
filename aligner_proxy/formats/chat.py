"""/v1/chat/completions: between `ModelResponse` / `ModelResponseStream` and exchanges.

Only `message.content` and `delta.content` are ever replaced; reasoning, tool calls, refusals, audio and provider fields
are carried as they are. An edited text loses its annotations, citations and token probabilities: they describe the old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy.formats import base
from aligner_proxy.formats.base import CITATIONS, ChoiceBuilder, ChunkDecoder, RequestedForm, carries, cites
from aligner_proxy.types import Exchange, Outcome


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per choice, numbered by position (some upstreams number all choices 0)."""
    if not isinstance(response, ModelResponse):
        return []
    turns = base.turns(data.get("messages"))
    form = RequestedForm.of(data)
    return [
        _built(choice, getattr(choice, "message", None)).exchange(data, index, turns, response, form)
        for index, choice in enumerate(response.choices)
    ]


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same response if nothing is corrected, else a copy with new texts in it."""
    return base.with_new_texts(response, outcomes, lambda choice, text: _with_content(choice, "message", text))


def decoder(data: Mapping[str, Any]) -> ChunkDecoder:
    """A decoder for one stream of chunks."""
    turns = base.turns(data.get("messages"))
    form = RequestedForm.of(data)
    return ChunkDecoder(
        ModelResponseStream,
        text=_delta,
        with_text=lambda choice, text: _with_content(choice, "delta", text),
        absorb=lambda builder, choice: _absorb(builder, choice, choice.delta),
        exchange=lambda builder, index, first: builder.exchange(data, index, turns, first, form),
    )


def _delta(choice: Any) -> str:
    content = getattr(choice.delta, "content", None)
    return content if isinstance(content, str) else ""


def _with_content(choice: Any, body: str, text: str) -> Any:
    """A copy of the choice and its body with another content, without what describes or points into the old one."""
    holder = getattr(choice, body).model_copy()
    holder.content = text
    if carries(getattr(holder, "annotations", None)):
        holder.annotations = None
    fields = getattr(holder, "provider_specific_fields", None) or {}
    if cites(fields):
        holder.provider_specific_fields = {k: v for k, v in fields.items() if k not in CITATIONS}
    edited = choice.model_copy()
    setattr(edited, body, holder)
    if carries(getattr(edited, "logprobs", None)):
        edited.logprobs = None
    return edited


def _built(choice: Any, body: Any) -> ChoiceBuilder:
    builder = ChoiceBuilder()
    _absorb(builder, choice, body)
    return builder


def _absorb(builder: ChoiceBuilder, choice: Any, body: Any) -> None:
    content = getattr(body, "content", None)
    if isinstance(content, str):
        builder.pieces.append(content)
    elif content is not None:
        builder.non_text = True
    builder.finish_reason = getattr(choice, "finish_reason", None) or builder.finish_reason
    builder.tool_calls |= any(carries(getattr(body, name, None)) for name in ("tool_calls", "function_call"))
    builder.decline(_refusal(body), piece=not hasattr(choice, "message"))
    builder.non_text |= any(carries(getattr(body, name, None)) for name in ("audio", "images"))
    builder.annotations |= _points_into_text(body)
    builder.logprobs |= carries(getattr(choice, "logprobs", None))


def _refusal(body: Any) -> object:
    """OpenAI puts a refusal beside the content; LiteLLM keeps it as an attribute or among the provider's fields."""
    fields = getattr(body, "provider_specific_fields", None)
    inner = fields.get("refusal") if isinstance(fields, Mapping) else None
    own = getattr(body, "refusal", None)
    return own if carries(own) else inner


def _points_into_text(body: Any) -> bool:
    """Citations that give offsets into the answer, or quote it, would point to the wrong words after an edit."""
    for note in getattr(body, "annotations", None) or ():
        citation = note.get("url_citation") if isinstance(note, Mapping) else getattr(note, "url_citation", None)
        if citation is not None:
            return True
    return cites(getattr(body, "provider_specific_fields", None))
