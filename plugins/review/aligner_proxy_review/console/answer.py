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
"""Largest passage that is compared word by word; longer ones are shown whole, before and after."""
_MAX_EDITS = 200
"""Limit on the changes shown of one answer."""
_CONTEXT_CHARS = 60
"""Characters of unchanged text shown next to a change in a list."""
_ELLIPSIS = " … "
_MAX_EXCERPT_CHARS = 1500
"""Characters of an answer shown in a list."""


@dataclass(frozen=True, slots=True)
class ShownEdit:
    """One change of an answer."""

    passages: tuple[Passage, ...]
    """The word diff of the replaced text."""
    objective: str | None
    """The objective of the worst flagged segment in the edit; None if no segment is known to be in it."""
    score: float | None
    """That segment's score."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """One person's review of an answer, compared with other people's reviews and the aligner."""

    review: Review
    contradicted: bool
    """Whether another person gave a different verdict on the same place."""

    @property
    def is_against_aligner(self) -> bool:
        """Whether this person says that the aligner was wrong, with an edit or without one."""
        return self.review.verdict is not ReviewVerdict.RIGHT


def list_opinions(reviews: Sequence[Review]) -> list[Opinion]:
    """Each review with its contradictions, in the order of arrival."""
    return [
        Opinion(review, is_contradicted)
        for review, is_contradicted in zip(reviews, mark_contradictions(reviews), strict=True)
    ]


class AnswerView:
    """An audit entry with the values that pages show."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.handle = answer_handle(entry)
        """Its id in URLs."""
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
        """The highest score of any flagged segment; None without one."""
        scores = [segment.score for segment in self._flagged if segment.score is not None]
        return max(scores, default=None)

    @property
    def gate_verdict(self) -> str:
        """What the gate did with the correction, in words for the page, such as "passed"; "-" if nothing was judged."""
        content = self.content
        if self.entry.status in (Status.FAILED, Status.NOT_JUDGED):
            return "-"
        if content is None:
            return "refused" if (self.entry.reason or "").startswith(GATE) else "no text kept"
        # the aligner's text is stored apart only if the gate changed or refused it
        if content.proposed is not None:
            return "changed" if content.edited not in (None, content.exchange.answer) else "refused"
        return "passed" if content.edits else "nothing to pass"

    @cached_property
    def edits(self) -> tuple[ShownEdit, ...]:
        """The changes, at most the first `_MAX_EDITS`."""
        return tuple(self._make_edit(self.answer, *edit) for edit in self._all_edits[:_MAX_EDITS])

    @property
    def more_edits(self) -> int:
        """The number of changes not included in `edits`."""
        return max(0, len(self._all_edits) - _MAX_EDITS)

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The whole answer, split into kept, removed and added passages."""
        if self.content is None:
            return ()
        answer = self.answer
        passages: list[Passage] = []
        end = 0
        for (start, stop, _), edit in zip(self._all_edits, self.edits, strict=False):
            passages += [(WordChange.KEPT.value, answer[end:start]), *edit.passages]
            end = stop
        return (*passages, (WordChange.KEPT.value, answer[end:]))

    @cached_property
    def excerpt(self) -> tuple[Passage, ...]:
        """The changes with a little text around each, for a list; without changes, the beginning of the answer."""
        if not self.edits:
            return ((WordChange.KEPT.value, self.answer[:_MAX_EXCERPT_CHARS]),)
        excerpt: list[Passage] = []
        # how many characters may still be shown
        room = _MAX_EXCERPT_CHARS
        last_number = len(self.passages) - 1
        for number, (change, text) in enumerate(self.passages):
            is_kept = change == WordChange.KEPT.value
            text = _shorten_kept(text, is_first=number == 0, is_last=number == last_number) if is_kept else text
            excerpt.append((change, text if len(text) <= room else text[:room] + _ELLIPSIS))
            room -= len(text)
            if room <= 0:
                break
        return tuple(excerpt)

    @property
    def reports(self) -> tuple[tuple[str, Any], ...]:
        """The reports of extensions and the fields that plugins recorded, each by its name."""
        content = self.content
        return () if content is None else tuple((content.reports | content.record).items())

    @property
    def _all_edits(self) -> Sequence[tuple[int, int, str]]:
        """Each change: where the replaced text starts and ends in the answer, and the new text."""
        return self.content.edits if self.content else ()

    @property
    def is_harmful_whole(self) -> bool:
        """Whether all segments count as flagged because the answer is harmful as a whole, and none by its own score."""
        content = self.content
        scores = [segment.score for segment in self._flagged if segment.score is not None]
        return content is not None and bool(scores) and len(scores) > 1 and max(scores) <= content.threshold

    @property
    def _flagged(self) -> Sequence[Flagged]:
        """The flagged segments; empty without stored text."""
        return self.content.segments if self.content else ()

    def _make_edit(self, answer: str, start: int, end: int, text: str) -> ShownEdit:
        """One change with its word diff, and the flagged segment with the highest score in it."""
        before = answer[start:end]
        touched = [segment for segment in self._flagged if segment.text and _overlap(segment.text.strip(), before)]
        # a segment without a score counts as 0
        worst = max(touched, key=lambda segment: segment.score or 0.0, default=None)
        passages = tuple((change.value, part) for change, part in _compare_passages(before, text))
        return ShownEdit(passages, worst.objective if worst else None, worst.score if worst else None)


def _overlap(segment: str, passage: str) -> bool:
    """Whether a flagged segment contains the replaced passage, or is contained in it."""
    passage = passage.strip()
    return bool(segment and passage) and (segment in passage or passage in segment)


def _compare_passages(before: str, after: str) -> Iterator[tuple[WordChange, str]]:
    """The word diff of two texts; in place of a long text, the whole old text as removed and the new one as added."""
    if max(len(before), len(after)) <= _MAX_COMPARED_CHARS:
        yield from word_diff(before, after)
        return
    if before:
        yield WordChange.REMOVED, before
    if after:
        yield WordChange.ADDED, after


def _shorten_kept(text: str, is_first: bool, is_last: bool) -> str:
    """Shorten unchanged text between changes to its two ends; the first passage keeps its end, the last its start."""
    if len(text) <= 2 * _CONTEXT_CHARS:
        return text
    head = "" if is_first else text[:_CONTEXT_CHARS]
    tail = "" if is_last else text[-_CONTEXT_CHARS:]
    return head + _ELLIPSIS + tail
