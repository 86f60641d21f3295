"""Suggests examples of one objective from reviews of recorded answers, with their provenance.

A segment is a violation if it was flagged for the objective and its edit is right, or if a reviewer reported it as
missed. A segment edited for the objective without need is fine. Three sources are ignored, because they say nothing
reliable about the sentence: feedback, which no reviewer has checked; answers on which people disagree; harmful edits.
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
    """Number of the judged segment that the sentence is."""


def find_suggestions(
    file: PolicyFile, store: AuditStore, subject: Subject, examples: Examples, limit: int
) -> list[Suggestion]:
    """Return at most `limit` suggestions that are not examples yet, newest answers first.

    They come only from answers of the subject's tenant. A sentence with contradicting reviews is left out.
    """
    example_keys = {normalise_example(example.text) for example in (*examples.against, *examples.fine)}
    by_text: dict[str, Suggestion] = {}
    contradicted: set[str] = set()
    for suggestion in _read_suggestions(file, store, subject):
        key = normalise_example(suggestion.sentence.text)
        if key not in example_keys:
            first_suggestion = by_text.setdefault(key, suggestion)
            if first_suggestion.sentence.against != suggestion.sentence.against:
                contradicted.add(key)
    return [suggestion for key, suggestion in by_text.items() if key not in contradicted][:limit]


def _read_suggestions(file: PolicyFile, store: AuditStore, subject: Subject) -> Iterator[Suggestion]:
    """Suggestions from all reviewed answers, newest first."""
    reviews = group_reviews(Reviews(store).all(), feedback=False)
    for entry in store.select(f"id IN ({_REVIEWED}) ORDER BY id DESC", ()):
        if belongs_to(entry, file, subject.tenant):
            yield from _entry_suggestions(entry, reviews[entry.aligner_id, entry.choice], subject)


def hash_suggestions(suggestions: Iterable[Suggestion]) -> str:
    """A hash that identifies a list of suggestions."""
    texts = [[suggestion.sentence.text, suggestion.sentence.against] for suggestion in suggestions]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _entry_suggestions(entry: Entry, reviews: Sequence[Review], subject: Subject) -> Iterator[Suggestion]:
    """Suggestions from the reviews of one answer; none if people disagree or its text is missing."""
    if entry.content is None or reviewers_disagree(reviews):
        return
    segments = judged_segments(entry.content)
    review_of: dict[int, Review] = {}
    # Reviews of one segment override reviews of the whole answer.
    for review in sorted(reviews, key=lambda review: (review.segment is not None, review.at)):
        review_of |= dict.fromkeys(_find_segments(review, entry, segments, subject), review)
    for number, review in sorted(review_of.items()):
        text = segments[number].text.strip()
        # marks alone, or a text too long for an example, teach nothing
        if any(map(str.isalnum, text)) and len(text) <= MAX_CHARS:
            sentence = NewExample(text, _IS_VIOLATION[review.verdict], _describe_origin(review, number))
            yield Suggestion(sentence, entry, review, number)


def _find_segments(review: Review, entry: Entry, segments: Sequence[JudgedSegment], subject: Subject) -> list[int]:
    """The numbers of the segments for which a review says whether they violate this objective."""
    if review.verdict is ReviewVerdict.MISSED:
        names_objective = review.objective in (subject.name, subject.text)
        # without a name the review can only mean this objective if it was the only active one
        is_only_objective = review.objective is None and entry.objectives == (subject.name,)
        has_segment = review.segment is not None and review.segment < len(segments)
        return [int(review.segment or 0)] if has_segment and (names_objective or is_only_objective) else []
    if review.verdict not in _IS_VIOLATION or not entry.changed:
        return []
    flagged = [segment.number for segment in segments if segment.objective == subject.name]
    return flagged if review.segment is None else [number for number in flagged if number == review.segment]


def _describe_origin(review: Review, number: int) -> str:
    """The origin of an example: answer, segment, reviewer, verdict and day."""
    day = time.strftime("%Y-%m-%d", time.gmtime(review.at))
    return f"review {review.aligner_id}/{review.choice} segment {number}, {review.who} {review.verdict.value} {day}"
