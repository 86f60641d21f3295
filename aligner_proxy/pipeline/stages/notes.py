"""Notes stage: a note goes when the sentences of a growing answer that refer to it are removed.

The gate does this for whole answers (gate/judge.py).
"""

from __future__ import annotations

from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.footnotes import Footnotes


class Notes(Stage):
    """Drops the notes of one part whose references are gone."""

    order = 12

    def __init__(self) -> None:
        self._footnotes = Footnotes()

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """The outgoing text without notes to which nothing refers any more; the gate does this for a whole answer."""
        if outgoing.is_whole:
            return outgoing
        pieces = outgoing.segments
        # the numbers of the edited segments: none or all
        edited = range(0) if outgoing.is_original else range(len(pieces))
        ends = answer.has_ended and bool(pieces) and pieces[-1].end == answer.segments[-1].end
        text = self._footnotes.settle(pieces, edited, outgoing.text, ends=ends)
        return outgoing.with_text(text)
