"""/v1/chat/completions: between LiteLLM's responses, whole and streamed, and exchanges.

A choice is read by its form, not by its class: with LiteLLM's response cache an endpoint gives chunks of the other one,
and some upstreams write `text` where a message belongs. So `text.py` reads its choices by what stands here. Only the
text is ever replaced; reasoning, tool calls, refusals, audio and provider fields are carried as they are. An edited
text loses its annotations, citations and token probabilities: they describe the old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aligner_proxy.formats import base
from aligner_proxy.formats.base import CITATIONS, ChoiceBuilder, ChunkDecoder, RequestedForm, has_citations, has_content
from aligner_proxy.types import Exchange, Outcome

_BODIES = ("message", "delta")


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per choice, numbered by position (some upstreams number all choices 0)."""
    turns = base.turns(data.get("messages"))
    form = RequestedForm.from_request(data)
    return [
        build_choice(choice).exchange(data, index, turns, response, form)
        for index, choice in enumerate(choices_of(response) or ())
    ]


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same response if nothing is corrected, else a copy with new texts in it."""
    return base.replace_choice_texts(response, outcomes, with_choice_text)


def decoder(data: Mapping[str, Any]) -> ChunkDecoder:
    """A decoder for one stream of chunks."""
    turns = base.turns(data.get("messages"))
    form = RequestedForm.from_request(data)
    return ChunkDecoder(
        text=choice_text,
        with_text=with_choice_text,
        absorb=absorb_choice,
        exchange=lambda builder, index, first: builder.exchange(data, index, turns, first, form),
    )


def choices_of(response: object) -> Any:
    """The choices of a response or chunk, whatever stands in their place; None where it has none."""
    return getattr(response, "choices", None)


def choice_text(choice: Any) -> str:
    """The text of a choice, or the piece that it adds."""
    content = _content(choice)
    return content if isinstance(content, str) else ""


def with_choice_text(choice: Any, text: str) -> Any:
    """A copy of the choice with another text in its place, without what describes or points into the old one."""
    name = _body_name(choice)
    edited = choice.model_copy()
    if name is None:
        edited.text = text
    else:
        setattr(edited, name, _with_content(getattr(choice, name), text))
    if has_content(getattr(edited, "logprobs", None)):
        edited.logprobs = None
    return edited


def build_choice(choice: Any) -> ChoiceBuilder:
    """A whole choice."""
    builder = ChoiceBuilder()
    absorb_choice(builder, choice)
    return builder


def absorb_choice(builder: ChoiceBuilder, choice: Any) -> None:
    """Gather a choice, or a piece of one."""
    body = next((body for name in _BODIES if (body := getattr(choice, name, None)) is not None), None)
    content = _content(choice)
    if isinstance(content, str):
        builder.pieces.append(content)
    elif content is not None:
        builder.non_text = True
    builder.finish_reason = getattr(choice, "finish_reason", None) or builder.finish_reason
    builder.tool_calls |= any(has_content(getattr(body, name, None)) for name in ("tool_calls", "function_call"))
    builder.decline(_refusal(body), piece=getattr(choice, "message", None) is None)
    builder.non_text |= any(has_content(getattr(body, name, None)) for name in ("audio", "images"))
    builder.annotations |= _points_into_text(body)
    builder.logprobs |= has_content(getattr(choice, "logprobs", None))


def _body_name(choice: Any) -> str | None:
    """The body that holds the text of a choice; None where the choice holds it itself."""
    for name in _BODIES:
        if getattr(getattr(choice, name, None), "content", None) is not None:
            return name
    return None


def _content(choice: Any) -> object:
    name = _body_name(choice)
    return getattr(choice, "text", None) if name is None else getattr(choice, name).content


def _with_content(body: Any, text: str) -> Any:
    copy = body.model_copy()
    copy.content = text
    if has_content(getattr(copy, "annotations", None)):
        copy.annotations = None
    fields = getattr(copy, "provider_specific_fields", None) or {}
    if has_citations(fields):
        copy.provider_specific_fields = {k: v for k, v in fields.items() if k not in CITATIONS}
    return copy


def _refusal(body: Any) -> object:
    """OpenAI puts a refusal beside the content; LiteLLM keeps it as an attribute or among the provider's fields."""
    fields = getattr(body, "provider_specific_fields", None)
    inner = fields.get("refusal") if isinstance(fields, Mapping) else None
    own = getattr(body, "refusal", None)
    return own if has_content(own) else inner


def _points_into_text(body: Any) -> bool:
    """Citations that give offsets into the answer, or quote it, would point to the wrong words after an edit."""
    for note in getattr(body, "annotations", None) or ():
        citation = note.get("url_citation") if isinstance(note, Mapping) else getattr(note, "url_citation", None)
        if citation is not None:
            return True
    return has_citations(getattr(body, "provider_specific_fields", None))
