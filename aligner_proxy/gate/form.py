"""Is it still the same kind of text? Not empty, in the same languages and scripts, of about the same length.

The lower band counts what had to stay: flagged segments that were removed are not missed. What the edits put in is
judged alone, so that one foreign sentence in a long answer is noticed.
"""

from __future__ import annotations

from aligner_proxy.fate import Fate
from aligner_proxy.gate.asked import brevity, overcut
from aligner_proxy.gate.candidate import Candidate
from aligner_proxy.gate.languages import foreign, languages, odd_letters, passages, scripts, written_in

MAX_GROWTH, SLACK_CHARS = 2.0, 200
"""Upper band: twice the original and 200 characters."""
MIN_SHARE, MIN_SHARE_BRIEF = 0.5, 0.2
"""Lower band: half of what was to stay, a fifth where brevity is asked for."""


def empty(candidate: Candidate) -> bool:
    """Nothing but white space."""
    return not candidate.after.text.strip()


def changed_script(candidate: Candidate) -> bool:
    """A word in a script of which the original has no letter."""
    return any(written_in(text) - candidate.before.of(scripts) for text in candidate.new)


def changed_language(candidate: Candidate) -> bool:
    """A sentence that is in no language of the original, where these are clear."""
    known = candidate.before.of(languages) if candidate.new else set()
    letters = set(candidate.before.of(odd_letters)) if known else set()
    found = (passage for text in candidate.new for passage in passages(text))
    return bool(known) and any(foreign(passage, known, letters) for passage in found)


def too_short(candidate: Candidate) -> bool:
    """Below the lower band, or below half of what a wish for brevity leaves room for."""
    if overcut(candidate.objectives, candidate.before.text, candidate.after.text):
        return True
    removed = sum(len(part.text) for part in candidate.parts(Fate.REMOVED))
    due = sum(len(piece.text) for piece in candidate.pieces) - removed
    return len(candidate.after.text) < due * (MIN_SHARE_BRIEF if brevity(candidate.objectives) else MIN_SHARE)


def too_long(candidate: Candidate) -> bool:
    """Above the upper band."""
    return len(candidate.after.text) > len(candidate.before.text) * MAX_GROWTH + SLACK_CHARS
