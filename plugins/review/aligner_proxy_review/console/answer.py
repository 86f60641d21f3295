"""View of one answer for a page: what changed and why, the gate's verdict, and the outcome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aligner_proxy.pipeline.outcomes import GATE
from aligner_proxy.plugins.api import Content, Entry, Flagged
from aligner_proxy.text.word_diff import WordChange, word_diff
from aligner_proxy.types import Status
from aligner_proxy_review.console.answer_queries import answer_handle, flagged_objectives, route_name
from aligner_proxy_review.evidence import mark_contradictions
from aligner_proxy_review.reviews import Review, ReviewVerdict

Passage = tuple[str, str]
"""A part of the word diff: "kept", "removed" or "added" (`WordChange`), and its text."""
_MAX_COMPARED_CHARS = 3000
"""Longer texts are not compared word by word, but shown as removed and added as a whole."""
_MAX_EDITS = 200
"""At most this many changes of an answer are shown."""
_CONTEXT_CHARS = 60
"""In a list, this many characters of unchanged text are shown on each side of a change."""
_ELLIPSIS = " … "
_MAX_EXCERPT_CHARS = 1500
"""In a list, about this many characters of an answer are shown."""


@dataclass(frozen=True, slots=True)
class ShownEdit:
    """One change of an answer."""

    passages: tuple[Passage, ...]
    """The word diff of the replaced text."""
    objective: str | None
    """The objective of the worst flagged segment in the edit; None if no segment is known to be in it."""
    score: float | None
    """The score of this segment; None if it has none."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """One person's review of an answer, compared with other people's reviews and the aligner."""

    review: Review
    is_contradicted: bool
    """Whether another person gave a different verdict on the same place."""

    @property
    def is_against_aligner(self) -> bool:
        """Whether this person says that the aligner was wrong, with an edit or without one."""
        return self.review.verdict is not ReviewVerdict.RIGHT


def list_opinions(reviews: Sequence[Review]) -> list[Opinion]:
    """Make an opinion of each review of one answer, in the order of `reviews`."""
    return [
        Opinion(review, is_contradicted)
        for review, is_contradicted in zip(reviews, mark_contradictions(reviews), strict=True)
    ]


class AnswerView:
    """A recorded answer (audit entry) with the values that pages show; a passage of it is (how it changed, text)."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.handle = answer_handle(entry)
        """The answer's id in URLs."""
        self.route = route_name(entry)
        self.objectives = flagged_objectives(entry)
        """The objectives that flagged segments violate."""

    @property
    def content(self) -> Content | None:
        """The texts; None if client or upstream forbade storing them."""
        return self.entry.content

    @property
    def answer(self) -> str:
        """The original answer; empty without stored text."""
        return (self.content and self.content.exchange.answer) or ""

    @property
    def question(self) -> str:
        """The user's last turn; empty without one."""
        return self.content.exchange.question if self.content else ""

    @property
    def worst_score(self) -> float | None:
        """The highest score of any flagged segment; None if no flagged segment has a score."""
        scores = [segment.score for segment in self._flagged_segments if segment.score is not None]
        return max(scores, default=None)

    @property
    def gate_verdict(self) -> str:
        """What the gate, which checks edits, did with the correction, as a word to show; "-" if nothing was judged."""
        content = self.content
        if self.entry.status in (Status.FAILED, Status.NOT_JUDGED):
            return "-"
        if content is None:
            return "refused" if (self.entry.reason or "").startswith(GATE) else "no text kept"
        # the aligner's text is stored beside the edited one only if the gate changed or refused it
        if content.proposed is not None:
            return "changed" if content.edited not in (None, content.exchange.answer) else "refused"
        return "passed" if content.edits else "nothing to pass"

    @cached_property
    def edits(self) -> tuple[ShownEdit, ...]:
        """The changes, at most the first `_MAX_EDITS`."""
        return tuple(self._show_edit(start, end, text) for start, end, text in self._all_edits[:_MAX_EDITS])

    @property
    def more_edits(self) -> int:
        """The number of changes not included in `edits`."""
        return max(0, len(self._all_edits) - _MAX_EDITS)

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The whole answer, split into kept, removed and added passages; empty without stored text."""
        if self.content is None:
            return ()
        answer = self.answer
        passages: list[Passage] = []
        last_end = 0
        # `edits` may be shorter, because at most `_MAX_EDITS` changes are shown
        for (start, end, _), edit in zip(self._all_edits, self.edits, strict=False):
            passages += [(WordChange.KEPT.value, answer[last_end:start]), *edit.passages]
            last_end = end
        return (*passages, (WordChange.KEPT.value, answer[last_end:]))

    @cached_property
    def excerpt(self) -> tuple[Passage, ...]:
        """The changes with a little text around each, for a list; without changes, the beginning of the answer."""
        if not self.edits:
            return ((WordChange.KEPT.value, self.answer[:_MAX_EXCERPT_CHARS]),)
        excerpt: list[Passage] = []
        remaining_chars = _MAX_EXCERPT_CHARS
        last_index = len(self.passages) - 1
        for index, (change, text) in enumerate(self.passages):
            if change == WordChange.KEPT.value:
                text = _shorten_kept(text, is_first=index == 0, is_last=index == last_index)
            shown_text = text if len(text) <= remaining_chars else text[:remaining_chars] + _ELLIPSIS
            excerpt.append((change, shown_text))
            remaining_chars -= len(text)
            if remaining_chars <= 0:
                break
        return tuple(excerpt)

    @property
    def reports(self) -> tuple[tuple[str, Any], ...]:
        """(name, value) of the reports of extensions and of the fields that plugins recorded."""
        content = self.content
        return () if content is None else tuple((content.reports | content.record).items())

    @property
    def _all_edits(self) -> Sequence[tuple[int, int, str]]:
        """(start of the replaced text in the answer, its end, new text) of each change."""
        return self.content.edits if self.content else ()

    @property
    def is_harmful_whole(self) -> bool:
        """Whether the page has to explain why several segments are flagged although no score exceeds the threshold.

        This happens if the answer is harmful as a whole, or if a judge flagged them.
        """
        content = self.content
        scores = [segment.score for segment in self._flagged_segments if segment.score is not None]
        return content is not None and len(scores) > 1 and max(scores) <= content.threshold

    @property
    def _flagged_segments(self) -> Sequence[Flagged]:
        """The flagged segments; empty without stored text."""
        return self.content.segments if self.content else ()

    def _show_edit(self, start: int, end: int, new_text: str) -> ShownEdit:
        """Make the view of a change, with its word diff and the flagged segment with the highest score in it."""
        old_text = self.answer[start:end]
        segments = [
            segment
            for segment in self._flagged_segments
            if segment.text and _contains_or_is_in(segment.text.strip(), old_text.strip())
        ]
        # a segment without a score counts as 0
        worst_segment = max(segments, key=lambda segment: segment.score or 0.0, default=None)
        passages = tuple((change.value, text) for change, text in _compare_texts(old_text, new_text))
        if worst_segment is None:
            return ShownEdit(passages, None, None)
        return ShownEdit(passages, worst_segment.objective, worst_segment.score)


def _contains_or_is_in(one: str, other: str) -> bool:
    """Whether one of two texts contains the other; False if one is empty."""
    return bool(one and other) and (one in other or other in one)


def _compare_texts(old_text: str, new_text: str) -> Iterator[tuple[WordChange, str]]:
    """Yield the word diff of two texts, or the whole texts as removed and added if one of them is long."""
    if max(len(old_text), len(new_text)) <= _MAX_COMPARED_CHARS:
        yield from word_diff(old_text, new_text)
        return
    if old_text:
        yield WordChange.REMOVED, old_text
    if new_text:
        yield WordChange.ADDED, new_text


def _shorten_kept(text: str, *, is_first: bool, is_last: bool) -> str:
    """Shorten an unchanged passage to its ends next to changes; the first and the last have only one such end."""
    if len(text) <= 2 * _CONTEXT_CHARS:
        return text
    text_after_change = "" if is_first else text[:_CONTEXT_CHARS]
    text_before_change = "" if is_last else text[-_CONTEXT_CHARS:]
    return text_after_change + _ELLIPSIS + text_before_change
