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
    """One exchange per choice, numbered by position."""
    form = RequestedForm.from_request(data)
    builders = chat.build_choices(response)
    return [_make_exchange(builder, data, index, response, form) for index, builder in enumerate(builders)]


def decoder(data: Mapping[str, Any]) -> chat.ChunkDecoder:
    """A decoder for one stream of chunks."""
    form = RequestedForm.from_request(data)
    return chat.ChunkDecoder(lambda builder, index, first: _make_exchange(builder, data, index, first, form))


apply = chat.apply
opens_answer = chat.opens_answer


def _make_exchange(
    builder: ChoiceBuilder, data: Mapping[str, Any], index: int, response: object, form: RequestedForm
) -> Exchange:
    """The exchange of the choice at `index`; one without a usable prompt counts as non-text."""
    prompt = _prompt(data, index)
    if prompt is None or data.get("echo") or data.get("suffix"):
        builder.non_text = True
    turns = () if prompt is None else (make_turn("user", prompt),)
    return builder.make_exchange(data, index, turns, response, form)


def _prompt(data: Mapping[str, Any], index: int) -> str | None:
    """The prompt of one choice, or None if it is not text; in a list of prompts, each has `n` consecutive choices."""
    prompt = data.get("prompt")
    if isinstance(prompt, list):
        count = data.get("n")
        choices_per_prompt = max(count, 1) if isinstance(count, int) else 1
        # the upstream numbers the choices of all prompts in one sequence
        position = index // choices_per_prompt
        prompt = prompt[position] if position < len(prompt) else None
    return prompt if isinstance(prompt, str) else None
