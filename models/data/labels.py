"""Label of a defect under a theme: it has to go, it stays, or nobody could say.

Labels follow from this alone; the detector learns it for every segment and every objective, also for objectives that
stood in another prompt.
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
MIXED = "mixed"
# The place behind the last segment: what goes against an objective there is that something is missing.
END = "end"
# What stands there because an objective asks for it, or as if one did.
CLOSING = "closing"
# Whether a sentence of another answer offends against these is a matter of opinion.
OFF_TOPIC_THEMES = frozenset({"relevance", "direct", "concise", "specific", "instruction-following"})
# Sentences that look like those of a concept and are fine carry its name with this after it.
ALIKE = "~"
# An objective of two wishes has both themes, with this between them.
AND = " & "
# What no neutral sentence offends against, wherever it stands.
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
    """1 the objective asks for a change, 0 it does not, -1 unclear; kind "" is a segment with nothing wrong."""
    if kind == END:  # of how other answers should end nothing is known about this one
        return UNKNOWN if any(wish in theme for wish in WISHES) else STAYS
    return combine_labels({_single_relation(kind, one) for one in theme.split(AND)})


def joint_relation(kind: str, themes: Iterable[str]) -> int:
    """The same for several objectives at once."""
    return combine_labels({relation(kind, theme) for theme in themes})


def _single_relation(kind: str, theme: str) -> int:
    if not kind or theme.startswith(WISHES):
        return STAYS
    if kind in (MIXED, INNOCENT, CLOSING):
        return _relation_by_origin(kind, theme)
    if kind in MARKED:
        asks, spares = MARKED[kind]
        return CHANGES if theme in asks else STAYS if theme in spares else UNKNOWN
    if kind in FAULTS or theme in FAULTS:
        return _natural_fault_relation(kind, theme)
    if kind.endswith(ALIKE):
        return _lookalike_relation(kind.removesuffix(ALIKE), theme)
    objective = ObjectiveWording("", theme)
    if BY_NAME[kind].is_removed_by(objective):
        return CHANGES
    nearby = theme in BY_NAME and (kind in BY_NAME[theme].unclear or _may_overlap(BY_NAME[kind], BY_NAME[theme]))
    return UNKNOWN if nearby or BY_NAME[kind].is_unclear_under(objective, FAMILY_OF) else STAYS


@lru_cache(maxsize=1 << 18)
def relation_in_text(kind: str, theme: str, doubts: frozenset[str]) -> int:
    """The same where the segment's text is known: `doubts` are kinds, as themes, of which something in it speaks.

    A neutral sentence, wherever it stands, is spared by an objective against one kind of thing of which nothing speaks
    in it; of broad wishes nobody could say where they are those of another question.
    """
    single = set(theme.split(AND))
    speaks = bool(single & set(doubts) - {kind, kind.removesuffix(ALIKE)})
    if kind in ("", INNOCENT) and all(one in _SPECIFIC or one.startswith(WISHES) for one in single):
        return UNKNOWN if speaks else STAYS
    label = relation(kind, theme) if kind else UNKNOWN
    return UNKNOWN if label == STAYS and speaks else label


def _relation_by_origin(kind: str, theme: str) -> int:
    """A segment that is known by where it comes from, and not by what is wrong with it."""
    if kind == INNOCENT:
        doubtful = theme in OFF_TOPIC_THEMES or theme in _MATTERS
        return CHANGES if theme == "relevance" else UNKNOWN if doubtful else STAYS
    return UNKNOWN if kind == MIXED or theme in AGAINST_CLOSINGS else STAYS


def _lookalike_relation(like: str, theme: str) -> int:
    """A sentence that only looks like one of a kind: also what such a kind is not against spares it."""
    if theme in _SPARED_BY_ALL or theme == like:
        return STAYS
    return STAYS if theme in _SPECIFIC and relation(like, theme) == STAYS else UNKNOWN


def _natural_fault_relation(kind: str, theme: str) -> int:
    """A fault that was written in its place: only its own objectives and the broad themes are known."""
    if kind == theme:
        return CHANGES
    if kind not in FAULTS or theme not in THEMES:
        return UNKNOWN
    asks, unclear = FAULTS[kind]
    return CHANGES if theme in asks else UNKNOWN if theme in unclear else STAYS


def _may_overlap(one: DefectKind, other: DefectKind) -> bool:
    """Whether one of them is written out, the other is not, and they may mean the same."""
    if bool(one.area) == bool(other.area):
        return {one.area, other.area} == {"hostility", "harm"}
    written_kind, older_kind = (one, other) if one.area else (other, one)
    return older_kind.name in _SUBJECTS or written_kind.area in _AREAS.get(older_kind.family, set())
