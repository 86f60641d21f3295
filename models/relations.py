"""Does a segment with this defect go against an objective of this theme? Yes, no, or nobody could say.

Labels follow from this alone; the detector learns it for every segment and every objective, also for objectives that
stood in another prompt.
"""

from __future__ import annotations

from functools import cache

from .defects import ALL_KINDS, FAMILY_OF, Objective
from .pairs import CHANGES, STAYS, UNKNOWN

INNOCENT = "innocent"
MIXED = "mixed"
# Whether a sentence of another answer offends against these is a matter of opinion.
OFF_TOPIC_THEMES = frozenset({"relevance", "direct", "concise", "specific", "instruction-following"})
_KINDS = {kind.name: kind for kind in ALL_KINDS}
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
    if not kind:
        return STAYS
    if kind == MIXED:
        return UNKNOWN
    if kind == INNOCENT:
        return CHANGES if theme == "relevance" else UNKNOWN if theme in OFF_TOPIC_THEMES else STAYS
    if kind in MARKED:
        asks, spares = MARKED[kind]
        return CHANGES if theme in asks else STAYS if theme in spares else UNKNOWN
    objective = Objective("", theme)
    if _KINDS[kind].asked_by(objective):
        return CHANGES
    nearby = theme in _KINDS and kind in _KINDS[theme].unclear
    return UNKNOWN if nearby or _KINDS[kind].unclear_under(objective, FAMILY_OF) else STAYS
