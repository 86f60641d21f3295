"""Wire format of /v1/completions: converts LiteLLM's responses, whole and streamed, to exchanges and back.

The prompt is the only user turn. Prompts made of token ids, `echo` (the text begins with the prompt) and `suffix` (the
text must join onto what follows) are not a question with an answer, so they count as non-text and stay unchanged. A
prompt that is a template for the middle of a text counts as one for structured output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aligner_proxy.formats import chat
from aligner_proxy.formats.base import ChoiceBuilder, RequestedForm, make_turn
from aligner_proxy.types import Exchange


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """Return an exchange for each choice, numbered by its position."""
    form = RequestedForm.from_request(data)
    builders = chat.build_choices(response)
    return [_make_exchange(builder, data, index, response, form) for index, builder in enumerate(builders)]


def decoder(data: Mapping[str, Any]) -> chat.ChunkDecoder:
    """Return a decoder for one stream of chunks."""
    form = RequestedForm.from_request(data)
    return chat.ChunkDecoder(lambda builder, index, first_item: _make_exchange(builder, data, index, first_item, form))


apply = chat.apply
opens_answer = chat.opens_answer


def _make_exchange(
    builder: ChoiceBuilder, data: Mapping[str, Any], index: int, response: object, form: RequestedForm
) -> Exchange:
    """Make the exchange of the choice at `index`; a choice without a usable prompt counts as non-text."""
    prompt = _prompt(data, index)
    if prompt is None or data.get("echo") or data.get("suffix"):
        builder.non_text = True
    turns = () if prompt is None else (make_turn("user", prompt),)
    return builder.make_exchange(data, index, turns, response, form)


def _prompt(data: Mapping[str, Any], index: int) -> str | None:
    """The prompt of the choice at `index`; None if it is not text. Each prompt of a list has `n` choices, in order."""
    prompt = data.get("prompt")
    if isinstance(prompt, list):
        requested_count = data.get("n")
        choices_per_prompt = max(requested_count, 1) if isinstance(requested_count, int) else 1
        position = index // choices_per_prompt
        prompt = prompt[position] if position < len(prompt) else None
    return prompt if isinstance(prompt, str) else None
