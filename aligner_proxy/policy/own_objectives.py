"""Objectives that a request brings in its own words, "Name: description".

Their names come from the client, so headers, logs and metrics show a number instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aligner_proxy.errors import ForbiddenError
from aligner_proxy.types import Allowance, Objective

PREFIX = "own:"
"""Prefix of the names given to them; no configured name contains a colon, so they cannot collide."""
REFUSAL = 'this key may not bring objectives in its own words; its tenant needs allow: ["*"]'


def match_known_names(
    requested: Sequence[str], own: Sequence[str], objectives: Mapping[str, Objective]
) -> tuple[str, ...]:
    """The requested names, plus the names of configured objectives whose text appears in `own`."""
    names = {fold_words(objective.text): name for name, objective in objectives.items()} if own else {}
    return tuple(dict.fromkeys((*requested, *(names[fold_words(text)] for text in own if fold_words(text) in names))))


def own_objectives(own: Sequence[str], objectives: Mapping[str, Objective], *, allowed: bool) -> tuple[Objective, ...]:
    """The objectives of a request that are not configured; raises `ForbiddenError` if it has some and may not."""
    configured = {fold_words(objective.text) for objective in objectives.values()} if own else set()
    texts = dict.fromkeys(text for text in own if fold_words(text) not in configured)
    if texts and not allowed:
        raise ForbiddenError(REFUSAL)
    return tuple(Objective(f"{PREFIX}{n}", text, Allowance()) for n, text in enumerate(texts, 1))


def client_names(objectives: Iterable[Objective]) -> dict[str, str]:
    """The client's names of its own objectives, by the names that we gave them."""
    return {entry.name: entry.text.partition(":")[0] for entry in objectives if entry.name.startswith(PREFIX)}


def fold_words(text: str) -> str:
    """A text as it is compared: whatever its white space and its capitals."""
    return " ".join(text.split()).casefold()
