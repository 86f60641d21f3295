"""Objectives that a request brings in its own words, "Name: description".

Their names come from the client, so headers, logs and metrics show a number instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aligner_proxy.errors import ForbiddenError
from aligner_proxy.types import Allowance, Objective

PREFIX = "own:"
"""Prefix of the names of own objectives; no configured name contains a colon, so the two cannot collide."""
REFUSAL = 'this key may not bring objectives in its own words; its tenant needs allow: ["*"]'


def match_known_names(
    requested: Sequence[str], own_texts: Sequence[str], objectives: Mapping[str, Objective]
) -> tuple[str, ...]:
    """The requested names, plus the names of configured objectives whose text is among the request's own texts."""
    names_by_text = (
        {normalise_words(objective.text): name for name, objective in objectives.items()} if own_texts else {}
    )
    own_names = (names_by_text.get(normalise_words(text)) for text in own_texts)
    return tuple(dict.fromkeys((*requested, *filter(None, own_names))))


def own_objectives(
    texts: Sequence[str], objectives: Mapping[str, Objective], *, allowed: bool
) -> tuple[Objective, ...]:
    """The objectives in a request's own words that are not configured; raises `ForbiddenError` if not `allowed`."""
    configured = {normalise_words(objective.text) for objective in objectives.values()} if texts else set()
    new_texts = dict.fromkeys(text for text in texts if normalise_words(text) not in configured)
    if new_texts and not allowed:
        raise ForbiddenError(REFUSAL)
    return tuple(Objective(f"{PREFIX}{n}", text, Allowance()) for n, text in enumerate(new_texts, 1))


def client_names(objectives: Iterable[Objective]) -> dict[str, str]:
    """The client's names of its own objectives, by the names that we gave them."""
    return {entry.name: entry.text.partition(":")[0] for entry in objectives if entry.name.startswith(PREFIX)}


def normalise_words(text: str) -> str:
    """The text as it is compared: in lower case, with single spaces."""
    return " ".join(text.split()).casefold()
