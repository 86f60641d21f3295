"""Notes stage: removes a footnote of a growing answer if all sentences that refer to it were removed.

For whole answers the gate does this (gate/judge.py).
"""

from __future__ import annotations

from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.footnotes import Footnotes


class Notes(Stage):
    """Removes the footnotes in one part of an answer to which nothing refers any more."""

    order = 12

    def __init__(self) -> None:
        self._footnotes = Footnotes()

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """The outgoing text without such footnotes; unchanged for a whole answer, from which the gate removes them."""
        if outgoing.is_whole:
            return outgoing
        segments = outgoing.segments
        # The indexes of the edited segments: outgoing text is either an edit of all its segments, or of none.
        edited_segments = range(0) if outgoing.is_original else range(len(segments))
        is_end = answer.has_ended and bool(segments) and segments[-1].end == answer.segments[-1].end
        text = self._footnotes.settle(segments, edited_segments, outgoing.text, ends=is_end)
        return outgoing.with_text(text)
