"""/v1/chat/completions: between LiteLLM's responses, whole and streamed, and exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aligner_proxy.formats import base, choices
from aligner_proxy.formats.base import ChunkDecoder, RequestedForm
from aligner_proxy.types import Exchange, Outcome


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per choice, numbered by position (some upstreams number all choices 0)."""
    turns = base.turns(data.get("messages"))
    form = RequestedForm.of(data)
    return [
        choices.built(choice).exchange(data, index, turns, response, form)
        for index, choice in enumerate(choices.listed(response) or ())
    ]


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same response if nothing is corrected, else a copy with new texts in it."""
    return base.with_new_texts(response, outcomes, choices.with_text)


def decoder(data: Mapping[str, Any]) -> ChunkDecoder:
    """A decoder for one stream of chunks."""
    turns = base.turns(data.get("messages"))
    form = RequestedForm.of(data)
    return ChunkDecoder(
        text=choices.text_of,
        with_text=choices.with_text,
        absorb=choices.absorb,
        exchange=lambda builder, index, first: builder.exchange(data, index, turns, first, form),
    )
