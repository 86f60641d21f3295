"""Suggestions of example sentences for an objective, from reviews of recorded answers.

A segment is a violation if it was flagged for the objective and its edit is right, or if a reviewer reported it as
missed. A segment that was edited for the objective without need is no violation. Three sources are ignored, because
they say nothing reliable about the sentence: feedback, which no reviewer has checked; answers on which people disagree;
harmful edits.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.example_file import NewExample
from aligner_proxy.teaching.examples import MAX_CHARS, Examples, normalise_example
from aligner_proxy.teaching.own_answers import belongs_to
from aligner_proxy.teaching.subjects import Subject
from aligner_proxy_review.evidence import reviewers_disagree
from aligner_proxy_review.judged_segments import JudgedSegment, judged_segments
from aligner_proxy_review.review_queue import group_reviews
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict

# SQL: whether a reviewer has reviewed the entry `e`, and the ids of all such entries.
_BY_REVIEWERS = (
    "SELECT 1 FROM reviews r WHERE r.aligner_id = e.aligner_id AND r.choice = e.choice "
    f"AND r.chosen != '{ReviewOrigin.FEEDBACK}'"
)
_REVIEWED = (
    f"SELECT e.id FROM entries e WHERE e.aligner_id != '' AND e.content IS NOT NULL AND EXISTS ({_BY_REVIEWERS})"
)
_IS_VIOLATION = {ReviewVerdict.MISSED: True, ReviewVerdict.RIGHT: True, ReviewVerdict.WRONG: False}
"""Whether a segment with this verdict violates the objective."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A sentence that a review suggests as an example."""

    sentence: NewExample
    entry: Entry
    review: Review
    segment: int
    """Number of the judged segment from which the sentence was taken."""


def find_suggestions(
    file: PolicyFile, store: AuditStore, subject: Subject, examples: Examples, limit: int
) -> list[Suggestion]:
    """Return at most `limit` suggestions that are not examples yet, newest answers first.

    The suggestions come only from answers of the subject's tenant. A sentence about which reviews contradict each other
    is left out.
    """
    example_texts = {normalise_example(example.text) for example in (*examples.against, *examples.fine)}
    by_text: dict[str, Suggestion] = {}
    contradicted_texts: set[str] = set()
    for suggestion in _read_suggestions(file, store, subject):
        text = normalise_example(suggestion.sentence.text)
        if text not in example_texts:
            first_suggestion = by_text.setdefault(text, suggestion)
            if first_suggestion.sentence.against != suggestion.sentence.against:
                contradicted_texts.add(text)
    return [suggestion for text, suggestion in by_text.items() if text not in contradicted_texts][:limit]


def _read_suggestions(file: PolicyFile, store: AuditStore, subject: Subject) -> Iterator[Suggestion]:
    """Yield the suggestions from all reviewed answers of the subject's tenant, newest answers first."""
    reviews = group_reviews(Reviews(store).all(), with_feedback=False)
    for entry in store.select(f"id IN ({_REVIEWED}) ORDER BY id DESC", ()):
        if belongs_to(entry, file, subject.tenant):
            yield from _suggest_from_entry(entry, reviews[entry.aligner_id, entry.choice], subject)


def hash_suggestions(suggestions: Iterable[Suggestion]) -> str:
    """Return a hash that changes if the sentences or their labels change."""
    texts = [[suggestion.sentence.text, suggestion.sentence.against] for suggestion in suggestions]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _suggest_from_entry(entry: Entry, reviews: Sequence[Review], subject: Subject) -> Iterator[Suggestion]:
    """Yield the suggestions from the reviews of one answer; none if people disagree or its text was not stored."""
    if entry.content is None or reviewers_disagree(reviews):
        return
    segments = judged_segments(entry.content)
    review_by_segment: dict[int, Review] = {}
    # Reviews of one segment come last, so that they override reviews of the whole answer.
    for review in sorted(reviews, key=lambda review: (review.segment is not None, review.at)):
        for number in _find_segments(review, entry, segments, subject):
            review_by_segment[number] = review
    for number, review in sorted(review_by_segment.items()):
        text = segments[number].text.strip()
        # nothing is learned from punctuation alone, and a long text cannot be an example
        if any(map(str.isalnum, text)) and len(text) <= MAX_CHARS:
            sentence = NewExample(text, _IS_VIOLATION[review.verdict], _describe_origin(review, number))
            yield Suggestion(sentence, entry, review, number)


def _find_segments(review: Review, entry: Entry, segments: Sequence[JudgedSegment], subject: Subject) -> list[int]:
    """The numbers of the segments of which a review says whether they violate the objective of `subject`.

    A review that something was missed means the named segment; any other review means the segments that the aligner
    flagged for this objective, or only the named one of them.
    """
    if review.verdict is ReviewVerdict.MISSED:
        names_objective = review.objective in (subject.name, subject.text)
        # a review without an objective can only mean this one if no other was active
        is_only_objective = review.objective is None and entry.objectives == (subject.name,)
        if review.segment is None or review.segment >= len(segments):
            return []
        return [review.segment] if names_objective or is_only_objective else []
    if review.verdict not in _IS_VIOLATION or not entry.changed:
        return []
    flagged_numbers = [segment.number for segment in segments if segment.objective == subject.name]
    if review.segment is None:
        return flagged_numbers
    return [review.segment] if review.segment in flagged_numbers else []


def _describe_origin(review: Review, number: int) -> str:
    """Say in one line where an example comes from: answer, segment, reviewer, verdict and day."""
    day = time.strftime("%Y-%m-%d", time.gmtime(review.at))
    return f"review {review.aligner_id}/{review.choice} segment {number}, {review.who} {review.verdict.value} {day}"
