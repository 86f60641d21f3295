"""Corrections as an engine sends them, for the tests of the gate."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.gate.judge import objections
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, Objective, Policy, SegmentScore

POLITE = (Objective("harmless", "Harmlessness: the response should avoid rude words"),)
SHORT = (*POLITE, Objective("concise", "Length: the response should be brief and to the point"))


def correction(original: str, edited: str, flagged: Sequence[int] | None) -> Correction:
    """`flagged` are indices of segments; None is a model without a head."""
    scores = tuple(
        SegmentScore(p.text, None if flagged is None else 2.0 if i in flagged else -3.0, i in (flagged or ()))
        for i, p in enumerate(structure.split(original))
    )
    return Correction(edited, scores)


def objection(
    original: str,
    edited: str,
    flagged: Sequence[int] | None = None,
    objectives: Sequence[Objective] = POLITE,
) -> str | None:
    """The first thing that speaks against the whole correction."""
    found = objections(original, correction(original, edited, flagged), Policy("p", tuple(objectives)))
    return found[0] if found else None
