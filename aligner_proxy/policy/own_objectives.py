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
    """Return the requested names, and those of configured `objectives` whose text is one of `own_texts`."""
    if not own_texts:
        return tuple(dict.fromkeys(requested))
    name_by_text = {normalise_words(objective.text): name for name, objective in objectives.items()}
    names = list(requested)
    for text in own_texts:
        name = name_by_text.get(normalise_words(text))
        if name:
            names.append(name)
    return tuple(dict.fromkeys(names))


def own_objectives(
    texts: Sequence[str], objectives: Mapping[str, Objective], *, allowed: bool
) -> tuple[Objective, ...]:
    """Return an objective for each text in a request's own words, without those that repeat one of `objectives`.

    Raises `ForbiddenError` if there are any and the request may not bring them (`allowed`).
    """
    if not texts:
        return ()
    configured_texts = {normalise_words(objective.text) for objective in objectives.values()}
    new_texts = dict.fromkeys(text for text in texts if normalise_words(text) not in configured_texts)
    if new_texts and not allowed:
        raise ForbiddenError(REFUSAL)
    return tuple(Objective(f"{PREFIX}{number}", text, Allowance()) for number, text in enumerate(new_texts, 1))


def client_names(objectives: Iterable[Objective]) -> dict[str, str]:
    """The client's names of its own objectives, by the names that the gateway gave them (own:1, own:2, ...)."""
    return {entry.name: entry.text.partition(":")[0] for entry in objectives if entry.name.startswith(PREFIX)}


def normalise_words(text: str) -> str:
    """The text as it is compared: in lower case, with single spaces."""
    return " ".join(text.split()).casefold()
