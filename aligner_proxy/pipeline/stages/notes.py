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
        if outgoing.is_whole:
            return outgoing
        text = self._footnotes.settle(outgoing.segments, outgoing.removed_segments, outgoing.text)
        return outgoing.with_text(text)
