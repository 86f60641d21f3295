"""List numbers stage: renumbers lists, and references to them, when items of a growing answer are removed.

Counts behind a list are updated, too, and items whose parent item is removed move up to its level. For whole answers
the gate does all this (gate/judge.py).
"""

from __future__ import annotations

from dataclasses import replace

from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.lists.counts import CountsBehindLists
from aligner_proxy.text.lists.nesting import Nesting
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.text.lists.ordinals import Ordinals
from aligner_proxy.types import Outcome


class ListNumbers(Stage):
    """Renumbers the lists in one part of an answer. The parts of a long answer share `numbering`."""

    order = 10

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self._changed_before = numbering.changed
        """Number of list markers that were changed in the parts before this one."""
        self._nesting = Nesting()
        """Moves nested items up."""
        self._counts = CountsBehindLists()
        """Updates counts such as "These three tips" behind a list."""
        self._ordinals = Ordinals()
        """Renumbers items that are counted in words ("Second, ...")."""

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """The outgoing text with its lists renumbered; unchanged for a whole answer, whose lists the gate renumbers."""
        if not outgoing.is_whole:
            segments = outgoing.segments
            removed_segments = outgoing.removed_segments
            text = self._counts.update(segments, removed_segments, outgoing.text)
            text = self._numbering.renumber(segments, removed_segments, text, ends=False)
            text = self._ordinals.renumber(segments, removed_segments, text)
            text = self._nesting.move_up(segments, removed_segments, text)
        elif answer.is_part:
            # This is a whole part of a longer answer: its lists may continue those of the part before.
            text = self._numbering.continue_lists(answer.text, outgoing.text)
        else:
            return outgoing
        return outgoing.with_text(text)

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with the number of list markers and references that were changed in this part added."""
        changed_count = self._numbering.changed - self._changed_before + self._ordinals.changed + self._counts.changed
        return replace(outcome, renumbered=outcome.renumbered + changed_count)
