"""Further wordings of the older kinds, besides those of their grammars.

A grammar makes thousands of sentences from seven templates, and a head that has learned these templates misses
sentences of another form. The file `more.yaml` has some four hundred different sentences, and some that only look like
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .grammar import Grammar
from .kind import DefectKind
from .phrases import read_yaml

FILE = Path(__file__).parent / "more.yaml"
_ROWS: dict[str, dict[str, tuple[str, ...]]] = read_yaml(FILE)
LOOKS: dict[str, tuple[str, ...]] = {name: row["stays"] for name, row in _ROWS.items()}
"""By the name of a kind: sentences that only look like it. All of them are for training."""


def widen_kinds(kinds: Iterable[DefectKind]) -> tuple[DefectKind, ...]:
    """The kinds with the wordings that the file adds for training; those for tests are unchanged."""
    return tuple(_widen_kind(kind) for kind in kinds)


def _widen_kind(kind: DefectKind) -> DefectKind:
    """The kind with the further sentences of this file among those that train."""
    added = _ROWS.get(kind.name, {}).get("goes")
    if not added:
        return kind
    # A template makes many sentences, so it is drawn twice as often as a single sentence.
    templates = (*kind.train.templates, *kind.train.templates, *map(_make_template, added))
    return replace(kind, train=Grammar(templates, kind.train.slots))


def _make_template(text: str) -> str:
    """A sentence of the file as a template; raises ValueError if a part of it would be a choice."""
    if "[" in text and "|" in text:
        raise ValueError(f"{FILE.name}: a bracket with a bar in it would be a choice: {text!r}")
    return text
