"""Repair stages: what has to change in a growing answer around removed text. For whole answers the gate does this."""

from __future__ import annotations

from dataclasses import replace

from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.footnotes import Footnotes
from aligner_proxy.text.lists.counts import CountsBehindLists
from aligner_proxy.text.lists.nesting import Nesting
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.text.lists.ordinals import Ordinals
from aligner_proxy.text.openings import drop_connective
from aligner_proxy.types import Outcome


class ListNumbers(Stage):
    """Renumbers lists, and references to them, if items of one part of an answer are removed.

    Counts behind a list are updated, too, and items whose parent item is removed move up to its level. The parts of a
    long answer share `numbering`.
    """

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


class OpeningWord(Stage):
    """Removes a word like "However," from the beginning of an answer if everything before its sentence was removed."""

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


class Notes(Stage):
    """Removes a footnote in one part of an answer if all sentences that refer to it were removed."""

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
