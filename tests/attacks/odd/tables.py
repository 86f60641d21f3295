"""All odd answers by their ids, and the sentence that they carry."""

from __future__ import annotations

import re

from tests.attacks.odd.beside import beside
from tests.attacks.odd.endings import endings, timeouts
from tests.attacks.odd.form import Form
from tests.attacks.odd.shapes import shapes

INSULT = "Only a blockhead like you would ask such a thing."
HARMLESS = "Only a traveller like you would ask such a thing."
MARK = "blockhead"
LITELLM_DROPS = frozenset(
    {
        "beside-chat-choice-error-stream",
        "beside-chat-choice-extra-stream",
        "beside-chat-extra-stream",
        "beside-chat-filter-stream",
        "beside-chat-finish-stream",
        "beside-chat-id-stream",
        "beside-chat-message-extra-deep-stream",
        "beside-chat-message-extra-stream",
        "beside-chat-message-name-stream",
        "beside-chat-model-stream",
        "beside-chat-model-whole",
        "beside-chat-reasoning-details-stream",
        "beside-chat-refusal-alone-stream",
        "beside-chat-refusal-stream",
        "beside-chat-search-stream",
        "beside-chat-stream-extra-stream",
        "beside-chat-thinking-stream",
        "beside-chat-usage-stream",
        "beside-messages-model-stream",
        "beside-messages-model-whole",
        "beside-text-choice-extra-stream",
        "beside-text-extra-stream",
        "beside-text-fingerprint-stream",
        "beside-text-finish-stream",
        "beside-text-finish-whole",
        "beside-text-logprobs-stream",
        "beside-text-logprobs-top-stream",
        "beside-text-reasoning-stream",
        "end-chat-again-stream",
        "shape-chat-content-nested-whole",
        "shape-chat-content-output-whole",
        "shape-chat-content-part-whole",
        "shape-chat-content-parts-whole",
        "shape-chat-content-strings-whole",
        "shape-chat-stream-body-stream",
        "shape-chat-stream-capitals-stream",
        "shape-chat-stream-comment-stream",
        "shape-chat-stream-content-object-stream",
        "shape-chat-stream-content-parts-stream",
        "shape-chat-stream-data-text-stream",
        "shape-chat-stream-delta-events-stream",
        "shape-chat-stream-delta-none-stream",
        "shape-chat-stream-delta-string-stream",
        "shape-chat-stream-delta-text-stream",
        "shape-chat-stream-json-lines-stream",
        "shape-chat-stream-message-events-stream",
        "shape-chat-stream-message-stream",
        "shape-chat-stream-space-stream",
        "shape-chat-stream-text-beside-stream",
        "shape-chat-stream-text-stream",
        "shape-responses-stream-body-stream",
        "shape-responses-stream-capitals-stream",
        "shape-responses-stream-chunks-stream",
        "shape-responses-stream-no-type-stream",
        "shape-responses-stream-space-stream",
        "shape-text-stream-body-stream",
        "shape-text-stream-capitals-stream",
        "shape-text-stream-delta-beside-stream",
        "shape-text-stream-delta-stream",
        "shape-text-stream-message-stream",
        "shape-text-stream-text-list-stream",
    }
)
"""Forms of which LiteLLM lets no sentence through, whole or as a stream: nothing is left to try there."""


def table(sentence: str) -> dict[str, Form]:
    """Every form by its id."""
    made = [*endings(sentence), *timeouts(sentence), *shapes(sentence), *beside(sentence)]
    return {form.id: form for form in made}


def title(form: Form, stream: bool) -> str:
    """The name of one way of a form."""
    return f"{form.id}-{'stream' if stream else 'whole'}"


def ways(form: Form) -> list[bool]:
    """Whether it is had as a stream, and otherwise, of the ways that get through LiteLLM."""
    return [stream for stream in form.ways if title(form, stream) not in LITELLM_DROPS]


def insults(text: str) -> bool:
    """Whether the insult is in a text, whatever stands between its letters."""
    return MARK in re.sub(r"[^a-z]", "", text.casefold())
