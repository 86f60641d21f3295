"""Defects that can be put into a good answer, and the objectives that ask for their removal.

Every phrase in this package was written for it; nothing was copied from a data set.
"""

from __future__ import annotations

from . import chatter, more, subjects, turns, written
from .kind import Kind, load
from .objectives import Objective

TRAINING_KINDS: tuple[Kind, ...] = more.widened(
    (*load("hostile"), *chatter.KINDS, *load("foreign_matter"), *turns.KINDS)
)
SUBJECTS: tuple[Kind, ...] = subjects.KINDS
UNSEEN_KINDS: tuple[Kind, ...] = load("unseen")
WRITTEN: tuple[Kind, ...] = tuple(kind for kind in written.CONCEPTS if not written.unseen(kind.name))
UNSEEN_WRITTEN: tuple[Kind, ...] = tuple(kind for kind in written.CONCEPTS if written.unseen(kind.name))
ALL_KINDS: tuple[Kind, ...] = (*TRAINING_KINDS, *SUBJECTS, *UNSEEN_KINDS, *WRITTEN, *UNSEEN_WRITTEN)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in ALL_KINDS}
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
    "Kind",
    "Objective",
]
