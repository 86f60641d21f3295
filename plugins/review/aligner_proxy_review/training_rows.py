"""Training rows for models/ from reviews: the answer, the corrected answer, and the segments that must change.

A row uses only what reviewers said. An answer gives no row if reviewers disagree, if a harmful edit has no better text,
or if a missed violation has no segment. The report counts these by reason.
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
STAYS = 0
UNKNOWN = -1
"""Labels of segments; a flagged segment that was not edited is unknown until a review is about it."""
ObjectiveLookup = Callable[[Entry], dict[str, Objective]]
"""Given an entry, returns the objectives that its tenant may have, by name."""


class NoRow(Exception):
    """The reviews of an answer give no training row; the message is the reason, without text."""


@dataclass(slots=True)
class _DraftRow:
    """Draft of a row: a label for each segment, and edits by character range."""

    answer: str
    segments: list[Segment]
    labels: list[int]
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    """(start, end, new text), with positions in the answer."""

    def replace_segment(self, number: int, text: str) -> None:
        """Replace a segment by `text`, undoing earlier edits; an empty text also removes adjacent white space."""
        self.keep_segment(number)
        segment = self.segments[number]
        start = segment.start
        end = segment.end
        # no white space follows the last segment, so remove the white space before it
        if not text and number == len(self.segments) - 1 and number > 0:
            start = self.segments[number - 1].end
        elif not text:
            end += len(segment.gap)
        self.edits.append((start, end, text))

    def keep_segment(self, number: int) -> None:
        """Remove the edits that touch a segment."""
        segment = self.segments[number]
        self.edits = [edit for edit in self.edits if edit[1] <= segment.start or edit[0] >= segment.end]

    @property
    def target(self) -> str:
        """The corrected answer; raises `NoRow` if two edits overlap."""
        text = self.answer
        # apply the edits from the last to the first, so that the positions of the others stay valid
        next_edit_start = len(text)
        for start, end, replacement in sorted(self.edits, reverse=True):
            # edits may share only white space
            if end > next_edit_start and self.answer[next_edit_start:end].strip():
                raise NoRow("two edits of the same place")
            text = text[:start] + replacement + text[min(end, next_edit_start) :]
            next_edit_start = start
        return text


def make_training_row(
    entry: Entry, reviews: Sequence[Review], family: Template, lookup: ObjectiveLookup
) -> dict[str, Any]:
    """Return the row of one answer; raises `NoRow` if its reviews do not say how it should read."""
    content = entry.content
    answer = content.exchange.answer if content else None
    if content is None or not answer:
        raise NoRow("its text was not kept")
    if reviewers_disagree(reviews):
        raise NoRow("reviewers disagree")
    draft = _start_draft(entry, content, answer)
    target = None
    # reviews of single segments come last, so that they override the labels of the whole answer
    for review in sorted(reviews, key=lambda review: (review.segment is not None, review.at)):
        if review.segment is None:
            whole_text = _apply_whole_review(draft, entry, review)
            target = target if whole_text is None else whole_text
        else:
            _apply_segment_review(draft, review)
    return {
        "query": query_field(family, content.exchange.turns),
        "objectives": _objective_texts(entry, reviews, lookup),
        "answer": answer,
        "target": draft.target if target is None else target,
        "labels": draft.labels,
        "source": _provenance(entry, reviews),
    }


def _start_draft(entry: Entry, content: Content, answer: str) -> _DraftRow:
    """Create the draft from the recorded result, before any review; raises `NoRow` if its segments differ."""
    segments = split(answer)
    # There may be one score more than segments: the end of the answer is scored if something may be missing there.
    if entry.judged not in (len(segments), len(segments) + 1):
        raise NoRow("its segments are not those that were judged")
    labels = [STAYS] * len(segments)
    for flagged in content.segments:
        if flagged.number is not None and flagged.number < len(labels):
            # of an answer that was declined as a whole all segments are flagged, which says nothing of each
            is_sure = entry.reason != DECLINED or (flagged.score or 0.0) > content.threshold
            labels[flagged.number] = CHANGES if entry.changed and is_sure else UNKNOWN
    return _DraftRow(answer, segments, labels, list(content.edits) if entry.changed else [])


def _apply_whole_review(draft: _DraftRow, entry: Entry, review: Review) -> str | None:
    """Apply a review of the whole answer; returns the reviewer's corrected text, None without one. Raises `NoRow`."""
    if review.edit is not None:
        # the reviewer kept segments whose text is still there
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
    """Apply a review of one segment; a missed one without a better text is removed. Raises `NoRow`."""
    number = review.segment
    if number is None or number >= len(draft.segments):
        raise NoRow("about the end of the answer, after its last segment")
    if review.verdict is ReviewVerdict.WRONG:
        draft.labels[number] = STAYS
        draft.keep_segment(number)
    elif review.verdict is ReviewVerdict.MISSED or review.edit is not None:
        draft.labels[number] = CHANGES
        draft.replace_segment(number, review.edit or "")
    elif review.verdict is ReviewVerdict.HARM:
        raise NoRow("a harmful edit without a better text")


def _objective_texts(entry: Entry, reviews: Sequence[Review], lookup: ObjectiveLookup) -> list[str]:
    """The texts of the objectives that were active, then of those that reviewers wrote out; raises `NoRow`."""
    by_name = lookup(entry)
    missing = [name for name in entry.objectives if name not in by_name]
    if missing:
        raise NoRow("an objective that is no longer in the policies file")
    own_texts = [review.objective for review in reviews if review.objective and ":" in review.objective]
    texts = list(dict.fromkeys([by_name[name].text for name in entry.objectives] + own_texts))
    if not texts:
        raise NoRow("no objective was active")
    return texts


def _provenance(entry: Entry, reviews: Sequence[Review]) -> str:
    """Say in one line where a row comes from: answer, policy, aligner, and each reviewer's verdict with its date."""
    verdicts = ",".join(f"{review.who}={review.verdict.value}@{_date_text(review.at)}" for review in reviews)
    versions = f"policy={entry.policy_hash} aligner={entry.aligner or '-'}"
    return f"review {entry.aligner_id}/{entry.choice} tenant={entry.tenant} {versions} {verdicts}"


def _date_text(at: float) -> str:
    """The UTC date of a time in seconds since the epoch: 0 -> "1970-01-01"."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()
