"""Label of a segment under an objective: it has to change, it stays, or that is unknown.

The label follows from the segment's kind of defect and the objective's theme alone. So the detector also learns labels
of segments under objectives of other prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache

from models.defects import ALL_KINDS, BY_NAME, FAMILY_OF, SUBJECTS, DefectKind, ObjectiveWording
from models.defects.endings import ENDING
from models.defects.natural import FAULTS, THEMES
from models.defects.wanted import WANTED

from .pairs import CHANGES, STAYS, UNKNOWN, combine_labels

INNOCENT = "innocent"
"""Kind of a sentence of another answer."""
MIXED = "mixed"
"""Kind of a segment of which only a part is a defect, or that has several kinds."""
END = "end"
"""Kind of the end of the answer, which goes against an objective if something is missing there."""
CLOSING = "closing"
"""Kind of a closing remark that an objective asks for, or that looks as if one did."""
OFF_TOPIC_THEMES = frozenset({"relevance", "direct", "concise", "specific", "instruction-following"})
"""Whether a sentence of another answer goes against these is a matter of opinion."""
ALIKE = "~"
"""The kind of a sentence that only looks like an insult is "insult~"."""
AND = " & "
"""The theme of an objective with two wishes is "insult & boasting"."""
# themes against which no sentence of these kinds goes, wherever it stands
_SPARED_BY_ALL = frozenset({"", "harmless", "safe", "inclusive", "single-reply", "non-repetitive"})
_SUBJECTS = frozenset(kind.name for kind in SUBJECTS)
# Themes that a sentence of another answer may touch by what it speaks of.
_MATTERS = _SUBJECTS | {kind.name for kind in ALL_KINDS if kind.area}
_SPECIFIC = frozenset(BY_NAME)
# Themes that begin so ask for something to be there, so that nothing has to go on their account.
WISHES = (ENDING, WANTED)
# Under these a closing remark may itself be a fault, so that nobody could say what is wanted.
_BROAD = {"direct", "concise", "modest", "relevance", "specific", "instruction-following", "formal", "trustworthy"}
_NO_CLOSINGS = {"chatter", "commerce", "claims", "self", "values", "commercial", "style", "leak", "topic", "language"}
AGAINST_CLOSINGS = frozenset(
    {*_BROAD, "professional", "no-marketing", "neutral"}
    | {kind.name for kind in ALL_KINDS if {kind.area, kind.family} & _NO_CLOSINGS}
)
# Where the older families of defects and the areas of the written ones say the same in other words.
_AREAS = {
    "hostile": {"hostility", "harm"},
    "danger": {"harm", "commerce", "claims"},
    "chatter": {"chatter"},
    "self": {"chatter", "claims", "commerce"},
    "values": {"chatter", "commerce", "hostility", "claims"},
    "claims": {"claims"},
    "style": {"chatter", "hostility"},
    "commercial": {"commerce"},
    "privacy": {"commerce"},
    "topic": {"chatter", "claims", "subjects_a", "subjects_b"},
    "language": {"chatter"},
    "leak": {"commerce", "chatter"},
    "turns": {"chatter", "claims"},
}
# What people marked in real answers: the themes that ask for a change, and those that surely do not.
MARKED: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "marked-irrelevant": (
        frozenset({"relevance", "specific", "concise"}),
        frozenset({"harmless", "safe", "polite", "inclusive", "single-reply"}),
    ),
    "marked-unverified": (
        frozenset({"factual", "truthful", "correct", "trustworthy"}),
        frozenset({"harmless", "safe", "polite", "inclusive", "single-reply", "non-repetitive"}),
    ),
    "marked-redundant": (
        frozenset({"non-repetitive", "concise"}),
        frozenset({"harmless", "safe", "polite", "inclusive", "single-reply", "factual", "truthful", "correct"}),
    ),
}


@cache
def relation(kind: str, theme: str) -> int:
    """The label of a segment of this kind ("" for no defect) under an objective of this theme, wherever both are.

    `("insult", "insult")` -> `CHANGES`, `("insult~", "insult")` -> `STAYS`.
    """
    if kind == END:  # of how other answers should end nothing is known about this one
        return UNKNOWN if any(wish in theme for wish in WISHES) else STAYS
    return combine_labels({_single_relation(kind, wish) for wish in theme.split(AND)})


def joint_relation(kind: str, themes: Iterable[str]) -> int:
    """The label of a segment of this kind under several objectives together."""
    return combine_labels({relation(kind, theme) for theme in themes})


def _single_relation(kind: str, theme: str) -> int:
    """The label under a theme of a single wish."""
    if not kind or theme.startswith(WISHES):
        return STAYS
    if kind in (MIXED, INNOCENT, CLOSING):
        return _relation_by_origin(kind, theme)
    if kind in MARKED:
        asking_themes, sparing_themes = MARKED[kind]
        if theme in asking_themes:
            return CHANGES
        return STAYS if theme in sparing_themes else UNKNOWN
    if kind in FAULTS or theme in FAULTS:
        return _natural_fault_relation(kind, theme)
    if kind.endswith(ALIKE):
        return _lookalike_relation(kind.removesuffix(ALIKE), theme)
    objective = ObjectiveWording("", theme)
    if BY_NAME[kind].is_removed_by(objective):
        return CHANGES
    is_near = theme in BY_NAME and (kind in BY_NAME[theme].unclear or _may_overlap(BY_NAME[kind], BY_NAME[theme]))
    return UNKNOWN if is_near or BY_NAME[kind].is_unclear_under(objective, FAMILY_OF) else STAYS


@lru_cache(maxsize=1 << 18)
def relation_in_text(kind: str, theme: str, doubts: frozenset[str]) -> int:
    """The label of a segment whose words are known; `doubts` are the kinds of defect that it may have by its words.

    A segment without a defect stays under an objective against one kind of thing, if its words do not touch that kind.
    Under a broad objective of another prompt its label is unknown.
    """
    single_themes = set(theme.split(AND))
    is_doubtful = bool(single_themes & set(doubts) - {kind, kind.removesuffix(ALIKE)})
    if kind in ("", INNOCENT) and all(wish in _SPECIFIC or wish.startswith(WISHES) for wish in single_themes):
        return UNKNOWN if is_doubtful else STAYS
    label = relation(kind, theme) if kind else UNKNOWN
    return UNKNOWN if label == STAYS and is_doubtful else label


def _relation_by_origin(kind: str, theme: str) -> int:
    """The label of a segment whose kind says where it comes from, and not which defect it has."""
    if kind == INNOCENT:
        if theme == "relevance":
            return CHANGES
        return UNKNOWN if theme in OFF_TOPIC_THEMES or theme in _MATTERS else STAYS
    return UNKNOWN if kind == MIXED or theme in AGAINST_CLOSINGS else STAYS


def _lookalike_relation(like: str, theme: str) -> int:
    """The label of a sentence that only looks like the kind `like`: it stays wherever that kind stays, and under it."""
    if theme in _SPARED_BY_ALL or theme == like:
        return STAYS
    return STAYS if theme in _SPECIFIC and relation(like, theme) == STAYS else UNKNOWN


def _natural_fault_relation(kind: str, theme: str) -> int:
    """The label of a fault that was written for its place: known only under its own objectives and broad themes."""
    if kind == theme:
        return CHANGES
    if kind not in FAULTS or theme not in THEMES:
        return UNKNOWN
    asking_themes, unclear_themes = FAULTS[kind]
    if theme in asking_themes:
        return CHANGES
    return UNKNOWN if theme in unclear_themes else STAYS


def _may_overlap(one: DefectKind, other: DefectKind) -> bool:
    """Whether two kinds may mean the same: a written one and one with a grammar, or written ones of close areas."""
    if bool(one.area) == bool(other.area):
        return {one.area, other.area} == {"hostility", "harm"}
    written_kind, older_kind = (one, other) if one.area else (other, one)
    return older_kind.name in _SUBJECTS or written_kind.area in _AREAS.get(older_kind.family, set())
