"""Training rows for models/ from reviews: the answer, the corrected answer, and a label for each segment.

A row uses only what reviewers said. An answer gives no row if reviewers disagree, if a harmful edit has no better text,
or if a missed violation has no segment. The exporter counts these answers by reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aligner_proxy.pipeline.outcomes import DECLINED
from aligner_proxy.plugins.api import Content, Entry
from aligner_proxy.prompts import Template, query_field
from aligner_proxy.text.structure import Segment, split
from aligner_proxy.types import Objective
from aligner_proxy_review.evidence import reviewers_disagree
from aligner_proxy_review.reviews import Review, ReviewVerdict

CHANGES = 1
"""Label of a segment that must change."""
STAYS = 0
"""Label of a segment that must stay."""
UNKNOWN = -1
"""Label of a flagged segment that was not edited, until a review is about it."""
ObjectiveLookup = Callable[[Entry], dict[str, Objective]]
"""Returns the objectives that the tenant of an entry may have, by name."""


class NoRow(Exception):
    """The reviews of an answer give no training row; the message is the reason, without text of the answer."""


@dataclass(slots=True)
class _DraftRow:
    """Draft of a row: the answer, a label for each segment, and edits (start, end, new text)."""

    answer: str
    segments: list[Segment]
    labels: list[int]
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    """(start, end, new text), with positions in the answer."""

    def change_segment(self, index: int, text: str) -> None:
        """Label a segment as changed, and replace it by `text`; an empty text also removes adjacent white space."""
        self.labels[index] = CHANGES
        self._discard_edits(index)
        segment = self.segments[index]
        start = segment.start
        end = segment.end
        if not text and index == len(self.segments) - 1 and index > 0:
            # no white space follows the last segment, so the white space before it is removed
            start = self.segments[index - 1].end
        elif not text:
            end += len(segment.gap)
        self.edits.append((start, end, text))

    def keep_segment(self, index: int) -> None:
        """Label a segment as unchanged, and discard its edits."""
        self.labels[index] = STAYS
        self._discard_edits(index)

    def _discard_edits(self, index: int) -> None:
        segment = self.segments[index]
        self.edits = [
            (start, end, text) for start, end, text in self.edits if end <= segment.start or start >= segment.end
        ]

    @property
    def target(self) -> str:
        """The corrected answer; raises `NoRow` if two edits overlap."""
        text = self.answer
        # the last edit is applied first, so that the positions of the earlier edits stay valid
        next_edit_start = len(text)
        for start, end, replacement in sorted(self.edits, reverse=True):
            # two edits may both remove the white space between their segments
            if end > next_edit_start and self.answer[next_edit_start:end].strip():
                raise NoRow("two edits of the same place")
            text = text[:start] + replacement + text[min(end, next_edit_start) :]
            next_edit_start = start
        return text


def make_training_row(
    entry: Entry, reviews: Sequence[Review], family: Template, lookup: ObjectiveLookup
) -> dict[str, Any]:
    """Return the training row of one answer; raises `NoRow` if its reviews do not say how it should read.

    `family` is the prompt template of the aligners to train, `lookup` finds the objectives of an entry by name.
    """
    content = entry.content
    answer = content.exchange.answer if content else None
    if content is None or not answer:
        raise NoRow("its text was not kept")
    if reviewers_disagree(reviews):
        raise NoRow("reviewers disagree")
    draft = _start_draft(entry, content, answer)
    reviewer_text = None
    # reviews of single segments come last, so that they override the labels of the whole answer
    for review in sorted(reviews, key=lambda review: (review.segment is not None, review.at)):
        if review.segment is not None:
            _apply_segment_review(draft, review)
        elif (whole_text := _apply_whole_review(draft, entry, review)) is not None:
            reviewer_text = whole_text
    return {
        "query": query_field(family, content.exchange.turns),
        "objectives": _objective_texts(entry, reviews, lookup),
        "answer": answer,
        "target": draft.target if reviewer_text is None else reviewer_text,
        "labels": draft.labels,
        "source": _describe_source(entry, reviews),
    }


def _start_draft(entry: Entry, content: Content, answer: str) -> _DraftRow:
    """Create the draft from the recorded result, before any review.

    Raises `NoRow` if the answer is split into other segments than those that were judged.
    """
    segments = split(answer)
    # The end of the answer has a score of its own if something may be missing there.
    if entry.judged not in (len(segments), len(segments) + 1):
        raise NoRow("its segments are not those that were judged")
    labels = [STAYS] * len(segments)
    for flagged_segment in content.segments:
        index = flagged_segment.number
        if index is not None and index < len(labels):
            # In an answer that was declined as a whole, all segments are flagged, also those with a low score.
            is_violation = entry.reason != DECLINED or (flagged_segment.score or 0.0) > content.threshold
            labels[index] = CHANGES if entry.changed and is_violation else UNKNOWN
    return _DraftRow(answer, segments, labels, list(content.edits) if entry.changed else [])


def _apply_whole_review(draft: _DraftRow, entry: Entry, review: Review) -> str | None:
    """Apply a review of the whole answer; return the answer's text as the reviewer wrote it, None if there is none.

    Raises `NoRow` if the review says that the result is bad, but not how it should be.
    """
    if review.edit is not None:
        # the reviewer kept the segments whose text is in the new text
        draft.labels = [STAYS if segment.text in review.edit else CHANGES for segment in draft.segments]
        return review.edit
    if review.verdict is ReviewVerdict.WRONG:
        draft.labels = [STAYS] * len(draft.labels)
        draft.edits = []
    elif review.verdict is ReviewVerdict.HARM and entry.changed:
        raise NoRow("a harmful edit without a better text")
    elif review.verdict is ReviewVerdict.MISSED:
        raise NoRow("something was missed, and nobody said where")
    return None


def _apply_segment_review(draft: _DraftRow, review: Review) -> None:
    """Apply a review of one segment; a segment with a missed violation is removed if the reviewer wrote no new text.

    Raises `NoRow` for a harmful edit without a new text, and if the review is about the end of the answer.
    """
    index = review.segment
    if index is None or index >= len(draft.segments):
        raise NoRow("about the end of the answer, after its last segment")
    if review.verdict is ReviewVerdict.WRONG:
        draft.keep_segment(index)
    elif review.verdict is ReviewVerdict.MISSED or review.edit is not None:
        draft.change_segment(index, review.edit or "")
    elif review.verdict is ReviewVerdict.HARM:
        raise NoRow("a harmful edit without a better text")


def _objective_texts(entry: Entry, reviews: Sequence[Review], lookup: ObjectiveLookup) -> list[str]:
    """The texts of the objectives that were active, then of those that reviewers wrote out, each once.

    Raises `NoRow` if an objective is no longer in the policies file, or if there is none.
    """
    by_name = lookup(entry)
    if any(name not in by_name for name in entry.objectives):
        raise NoRow("an objective that is no longer in the policies file")
    active_texts = [by_name[name].text for name in entry.objectives]
    reviewer_texts = [review.objective for review in reviews if review.objective and ":" in review.objective]
    texts = list(dict.fromkeys(active_texts + reviewer_texts))
    if not texts:
        raise NoRow("no objective was active")
    return texts


def _describe_source(entry: Entry, reviews: Sequence[Review]) -> str:
    """Say in one line where a row comes from: answer, policy, aligner, and each reviewer's verdict with its date."""
    dates = [datetime.fromtimestamp(review.at, UTC).date() for review in reviews]
    verdicts = ",".join(f"{one.who}={one.verdict.value}@{date}" for one, date in zip(reviews, dates, strict=True))
    versions = f"policy={entry.policy_hash} aligner={entry.aligner or '-'}"
    return f"review {entry.aligner_id}/{entry.choice} tenant={entry.tenant} {versions} {verdicts}"
