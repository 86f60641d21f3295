"""Opening word stage: removes a word like "However," from the beginning of a growing answer.

The word goes if everything before its sentence was removed. For whole answers the gate does this (gate/judge.py).
"""

from __future__ import annotations

from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.openings import drop_connective


class OpeningWord(Stage):
    """Removes the connective at the beginning of one answer whose first sentences were removed."""

    order = 11

    def __init__(self) -> None:
        self._has_text = False
        """Whether any text has gone out."""
        self._has_lost_text = False
        """Whether segments were removed before any text went out."""

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """The outgoing text, without its connective if it is the first text and all segments before it were removed."""
        # From a whole answer the gate has removed the word. A further part of a long answer does not begin the answer.
        if outgoing.is_whole or answer.is_part or self._has_text:
            return outgoing
        if not outgoing.text.strip():
            self._has_lost_text |= bool(outgoing.removed_segments)
            return outgoing
        self._has_text = True
        # a replacement was written for this place, so only the upstream's own text may refer to what was removed
        if not (self._has_lost_text and outgoing.is_original):
            return outgoing
        return outgoing.with_text(drop_connective(outgoing.text))
