"""List numbers stage: renumbers lists, and references to them, when items of a growing answer are removed.

Items that lose the item above them move up to its level. The gate does this for whole answers (gate/judge.py).
"""

from __future__ import annotations

from dataclasses import replace

from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.lists.nesting import Nesting
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.text.lists.ordinals import Ordinals
from aligner_proxy.types import Outcome


class ListNumbers(Stage):
    """Renumbers the lists of one part; the parts of a long answer share `numbering`."""

    order = 10

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self._changed_before = numbering.changed
        """Number of markers changed in the parts before this one."""
        self._nesting = Nesting()
        self._ordinals = Ordinals()

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """The outgoing text with its lists renumbered; the gate has renumbered those of a whole answer."""
        if not outgoing.is_whole:
            pieces = outgoing.segments
            removed = outgoing.removed_segments
            text = self._numbering.renumber(pieces, removed, outgoing.text, ends=False)
            text = self._ordinals.renumber(pieces, removed, text)
            text = self._nesting.move_up(pieces, removed, text)
        elif answer.is_part:
            # Lists may continue from the part before or into the next one.
            text = self._numbering.continue_lists(answer.text, outgoing.text)
        else:
            return outgoing
        return outgoing.with_text(text)

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with the number of changed markers added."""
        changed = self._numbering.changed - self._changed_before + self._ordinals.changed
        return replace(outcome, renumbered=outcome.renumbered + changed)
