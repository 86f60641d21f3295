"""Opening word stage: drops "However," from the first sentence of a growing answer that lost all before it.

The gate does this for whole answers (gate/judge.py).
"""

from __future__ import annotations

from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.openings import drop_connective


class OpeningWord(Stage):
    """Watches the beginning of one answer."""

    order = 11

    def __init__(self) -> None:
        self._has_text = False
        """Whether any text has gone out."""
        self._has_lost_text = False
        """Whether text was removed before that."""

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """The outgoing text; without its opening word if it is the first text, and all before it was removed."""
        # from a whole answer the gate has dropped the word; before a further part of a long one other text went out
        if outgoing.is_whole or answer.is_part or self._has_text:
            return outgoing
        if not outgoing.text.strip():
            self._has_lost_text |= bool(outgoing.removed_segments)
            return outgoing
        self._has_text = True
        # replaced text was written for this place, so only the upstream's own text may refer to what was removed
        if not (self._has_lost_text and outgoing.is_original):
            return outgoing
        return outgoing.with_text(drop_connective(outgoing.text))
