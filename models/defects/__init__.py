"""Defects that can be put into a good answer, and the objectives that ask for their removal.

Every phrase in this package was written for it; nothing was copied from a data set.
"""

from __future__ import annotations

from . import chatter, more, subjects, turns, written
from .kind import DefectKind, load_kinds
from .objectives import ObjectiveWording

TRAINING_KINDS: tuple[DefectKind, ...] = more.widen_kinds(
    (*load_kinds("hostile"), *chatter.KINDS, *load_kinds("foreign_matter"), *turns.KINDS)
)
SUBJECTS: tuple[DefectKind, ...] = subjects.KINDS
UNSEEN_KINDS: tuple[DefectKind, ...] = load_kinds("unseen")
WRITTEN: tuple[DefectKind, ...] = tuple(kind for kind in written.CONCEPTS if not written.is_unseen(kind.name))
UNSEEN_WRITTEN: tuple[DefectKind, ...] = tuple(kind for kind in written.CONCEPTS if written.is_unseen(kind.name))
ALL_KINDS: tuple[DefectKind, ...] = (*TRAINING_KINDS, *SUBJECTS, *UNSEEN_KINDS, *WRITTEN, *UNSEEN_WRITTEN)
BY_NAME: dict[str, DefectKind] = {kind.name: kind for kind in ALL_KINDS}
FAMILY_OF: dict[str, str] = {kind.name: kind.family for kind in ALL_KINDS}

__all__ = [
    "ALL_KINDS",
    "BY_NAME",
    "FAMILY_OF",
    "SUBJECTS",
    "TRAINING_KINDS",
    "UNSEEN_KINDS",
    "UNSEEN_WRITTEN",
    "WRITTEN",
    "DefectKind",
    "ObjectiveWording",
]
