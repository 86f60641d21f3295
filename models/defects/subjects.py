"""Kinds of defect that are subjects: an objective asks to leave one unmentioned, and a sentence mentions it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .grammar import Grammar
from .kind import DefectKind
from .phrases import read_table

TABLE = read_table("subjects")


def _make_kind(name: str, row: Mapping[str, Any]) -> DefectKind:
    """The kind of one subject; close subjects are unclear under each other's objectives."""
    close = {other for group in TABLE["close"] if name in group for other in group} - {name}
    also = [theme for theme, subjects in TABLE["also"].items() if name in subjects]
    return DefectKind(
        name=name,
        family=name,
        names=row["names"],
        things=row["things"],
        train=Grammar(row["train"]),
        held_out=Grammar(row["held_out"]),
        unclear=(*TABLE["broad"], *also, *sorted(close)),
        natural=rf"(?i)\b({'|'.join(row['stems'])})",
    )


KINDS: tuple[DefectKind, ...] = tuple(_make_kind(name, row) for name, row in TABLE["subjects"].items())
