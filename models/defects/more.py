"""Further wordings of the older kinds, besides those of their grammars.

A grammar makes thousands of sentences of seven moulds, and a head that has learned the moulds misses the next one. The
file `more.yaml` has some four hundred sentences of as many moulds, and some that only look like them.
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
"""By the name of a kind: sentences that look like it and stay. For training only, none of them is held out."""


def widen_kinds(kinds: Iterable[DefectKind]) -> tuple[DefectKind, ...]:
    """The kinds with what the file adds to the wordings that training sees; those of the test are what they were."""
    return tuple(_widen_kind(kind) for kind in kinds)


def _widen_kind(kind: DefectKind) -> DefectKind:
    added = _ROWS.get(kind.name, {}).get("goes")
    if not added:
        return kind
    # A mould makes many sentences: it is drawn twice as often as a sentence that stands for itself.
    templates = (*kind.train.templates, *kind.train.templates, *map(_make_template, added))
    return replace(kind, train=Grammar(templates, kind.train.slots))


def _make_template(text: str) -> str:
    """A sentence of the file as a template; what would be a choice there cannot stand in it."""
    if "[" in text and "|" in text:
        raise ValueError(f"{FILE.name}: a bracket with a bar in it would be a choice: {text!r}")
    return text
