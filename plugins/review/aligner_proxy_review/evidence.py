"""Evidence from reviews (people's verdicts on recorded answers): shares of right, wrong and missed edits.

Each share has a 95 % interval. An answer counts once, with the verdict its reviewers agree on. The share of missed
answers is estimated only from answers drawn at random, never from those near the threshold. Feedback from an
application's users is counted separately, since its senders choose the answers and may have an interest in the figures.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.intervals import wilson_interval
from aligner_proxy.plugins.api import Entry
from aligner_proxy.types import Status
from aligner_proxy_review.review_queue import AnswerFilter, AnswerPlace, group_reviews
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict

TARGET_HALF_WIDTH = 0.05
"""An interval is narrow enough if half its width is at most this."""
_MAX_REVIEWS = 100_000
"""Upper end of the search for the number of reviews that make an interval narrow enough."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of reviewed answers, `count` of `total`, with its 95 % interval."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float, float]:
        """(share, lower end of its 95 % interval, upper end), from 0 to 1."""
        return wilson_interval(self.count, self.total)

    @property
    def lower_end(self) -> float:
        """The lower end of the 95 % interval."""
        return self.interval[1]

    @property
    def upper_end(self) -> float:
        """The upper end of the 95 % interval."""
        return self.interval[2]

    @property
    def more_needed(self) -> int:
        """How many more reviews make half the interval at most `TARGET_HALF_WIDTH`, if the share does not change."""
        # without reviews, take the share with the widest interval
        estimate, _, _ = self.interval
        share = estimate if self.total else 0.5
        # the index of the first count in the range that suffices is the number of further reviews
        review_counts = range(self.total, _MAX_REVIEWS)
        return bisect_left(review_counts, True, key=lambda count: _half_width(share, count) <= TARGET_HALF_WIDTH)


def percent_text(interval: tuple[float, float, float]) -> str:
    """A share and its 95 % interval, as in "2.0 % (1.1 to 3.5)"."""
    value, low, high = (100 * part for part in interval)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _half_width(share: float, answers: int) -> float:
    """Half the width of the 95 % interval of a share (from 0 to 1) that was found in `answers` answers."""
    # not rounded to whole answers, so that more of them never make the interval wider
    _, low, high = wilson_interval(share * answers, answers)
    return (high - low) / 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the reviews of some answers prove."""

    answers: int
    """Number of judged answers, with and without a review."""
    changed: Share
    """The judged answers that were edited."""
    verdicts: Mapping[str, int]
    """Number of answers by the verdict on which their reviewers agree."""
    right: Share
    """The reviewed edits that are right."""
    wrong: Share
    """The reviewed edits that are wrong or harmful."""
    missed: Share
    """The reviewed random answers without an edit in which something was missed."""
    disagreed: tuple[AnswerPlace, ...]
    """Answers on which reviewers disagree; the shares above do not count them, except for `changed`."""
    feedback: Mapping[str, int]
    """Number of reviews that came as feedback, by verdict."""
    disputed: tuple[AnswerPlace, ...]
    """Answers on which reviewers agree with each other but feedback disagrees."""

    @property
    def recall(self) -> tuple[float, float, float] | None:
        """How many of the answers that need an edit get a right one: (share, lower bound, upper bound), from 0 to 1.

        The bounds combine the intervals of `right` and `missed`. None if one of these has no reviews.
        """
        if not self.right.total or not self.missed.total:
            return None
        # scale the shares of the reviewed answers up to numbers of all answers
        unchanged_count = self.changed.total - self.changed.count
        right, least_right, most_right = (share * self.changed.count for share in self.right.interval)
        missed, least_missed, most_missed = (share * unchanged_count for share in self.missed.interval)
        # the worst case has few right edits and many missed ones, the best case the reverse
        return (
            _compute_recall(right, missed),
            _compute_recall(least_right, most_missed),
            _compute_recall(most_right, least_missed),
        )


def _compute_recall(right_count: float, missed_count: float) -> float:
    """Recall from the numbers of rightly edited and of missed answers; 0 if both are 0."""
    return right_count / (right_count + missed_count) if right_count + missed_count else 0.0


def compute_evidence(entries: Iterable[Entry], reviews: Iterable[Review]) -> Evidence:
    """Count what reviewers agree on about these recorded answers; reviews of other answers are ignored."""
    reviews_by_place = group_reviews(reviews)
    judged_entries = {(entry.aligner_id, entry.choice): entry for entry in entries if entry.changed is not None}
    verdict_counts = dict.fromkeys((verdict.value for verdict in ReviewVerdict), 0)
    edit_counts: Counter[bool] = Counter()  # edited answers, by whether the edit is right
    random_counts: Counter[bool] = Counter()  # random answers without an edit, by whether something was missed
    disagreements: list[AnswerPlace] = []
    disputes: list[AnswerPlace] = []
    feedback: Counter[str] = Counter()
    for place, entry in judged_entries.items():
        all_reviews = reviews_by_place.get(place, [])
        reviewer_reviews = [review for review in all_reviews if review.chosen is not ReviewOrigin.FEEDBACK]
        feedback.update(review.verdict.value for review in all_reviews if review.chosen is ReviewOrigin.FEEDBACK)
        if reviewers_disagree(reviewer_reviews):
            disagreements.append(place)
            continue
        verdict = find_agreed_verdict(reviewer_reviews)
        if verdict is None:
            continue
        # reviewers agree, so only feedback can disagree here
        if reviewers_disagree(all_reviews):
            disputes.append(place)
        verdict_counts[verdict.value] += 1
        # "missed" says nothing about the edits that were made
        if entry.changed and verdict is not ReviewVerdict.MISSED:
            edit_counts[verdict is ReviewVerdict.RIGHT] += 1
        # answers near the threshold are not representative of what is missed
        if not entry.changed and any(review.chosen is ReviewOrigin.RANDOM for review in reviewer_reviews):
            random_counts[verdict is ReviewVerdict.MISSED] += 1
    return Evidence(
        answers=len(judged_entries),
        changed=Share(sum(bool(entry.changed) for entry in judged_entries.values()), len(judged_entries)),
        verdicts=verdict_counts,
        right=Share(edit_counts[True], edit_counts.total()),
        wrong=Share(edit_counts[False], edit_counts.total()),
        missed=Share(random_counts[True], random_counts.total()),
        disagreed=tuple(disagreements),
        feedback=dict(feedback),
        disputed=tuple(disputes),
    )


def read_evidence(store: AuditStore, answer_filter: AnswerFilter) -> Evidence:
    """Return what the store's reviews prove about the answers that the filter selects.

    To save memory, only entries of reviewed answers are loaded; the database counts the other judged answers.
    """
    condition, values = answer_filter.sql_condition()
    clause = f"FROM entries e WHERE e.aligner_id != '' AND e.changed IS NOT NULL AND {condition}"
    answers, changed = store.fetch_rows(f"SELECT count(*), coalesce(sum(e.changed), 0) {clause}", values)[0]
    evidence = compute_evidence(select_reviewed_entries(store, answer_filter), Reviews(store).all())
    return replace(evidence, answers=int(answers), changed=Share(int(changed), int(answers)))


def select_reviewed_entries(store: AuditStore, answer_filter: AnswerFilter) -> Iterator[Entry]:
    """Iterate over the entries of the filter that have a review, in the order of their ids and without texts."""
    condition, values = answer_filter.sql_condition()
    places = "SELECT DISTINCT aligner_id, choice FROM reviews"
    ids = (
        f"SELECT e.id FROM entries e JOIN ({places}) r ON r.aligner_id = e.aligner_id AND r.choice = e.choice "
        f"WHERE e.aligner_id != '' AND {condition}"
    )
    return store.select(f"id IN ({ids}) ORDER BY id", values, texts=False)


def reviewers_disagree(reviews: Sequence[Review]) -> bool:
    """Whether two people gave different verdicts on the same segment; `reviews` are those of one answer."""
    return any(mark_contradictions(reviews))


def mark_contradictions(reviews: Sequence[Review]) -> list[bool]:
    """Return, for each review of one answer, whether another person gave another verdict on the same segment.

    Reviews of the whole answer are compared with each other only.
    """
    reviewers_by_segment: dict[int | None, dict[ReviewVerdict, set[str]]] = defaultdict(lambda: defaultdict(set))
    for review in reviews:
        reviewers_by_segment[review.segment][review.verdict].add(review.who)
    contradictions: list[bool] = []
    for review in reviews:
        is_contradicted = any(
            # a reviewer who changes his own verdict contradicts nobody
            verdict is not review.verdict and bool(reviewers - {review.who})
            for verdict, reviewers in reviewers_by_segment[review.segment].items()
        )
        contradictions.append(is_contradicted)
    return contradictions


def find_agreed_verdict(reviews: Sequence[Review]) -> ReviewVerdict | None:
    """The worst verdict that these reviews of one answer give; None without reviews, or if reviewers disagree.

    Reviews of different segments may have different verdicts without disagreement.
    """
    if not reviews or reviewers_disagree(reviews):
        return None
    return min((review.verdict for review in reviews), key=_WORST_FIRST.index)


_WORST_FIRST = (ReviewVerdict.HARM, ReviewVerdict.WRONG, ReviewVerdict.MISSED, ReviewVerdict.RIGHT)
"""Verdicts, the worst first."""


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """Results of two aligners, or two policies, on the same answers."""

    answers: int
    neither: int
    """Answers that neither changed."""
    first_alone: int
    """Answers that only the first changed."""
    second_alone: int
    """Answers that only the second changed."""
    alike: int
    """Answers that both changed into the same text."""
    otherwise: int
    """Answers that both changed, into different texts."""


def pair_answers(first: Iterable[Entry], second: Iterable[Entry]) -> PairedAnswers:
    """Count which of two aligners or policies changed the answers that both judged; the arguments are their entries.

    Two entries belong to the same answer if tenant, conversation and original text are equal.
    """
    first_entries = {key: entry for entry in first if (key := _answer_key(entry)) is not None}
    counts = {"neither": 0, "first_alone": 0, "second_alone": 0, "alike": 0, "otherwise": 0}
    seen_keys = set()
    for entry in second:
        key = _answer_key(entry)
        # an answer that was given several times counts once
        if key is None or key in seen_keys or key not in first_entries:
            continue
        seen_keys.add(key)
        first_entry = first_entries[key]
        counts[_compare_changes(first_entry, entry)] += 1
    return PairedAnswers(answers=len(seen_keys), **counts)


def _compare_changes(first: Entry, second: Entry) -> str:
    """Name the field of `PairedAnswers` that counts an answer with these two entries."""
    if first.changed and second.changed:
        return "alike" if _edited_text(first) == _edited_text(second) else "otherwise"
    if first.changed:
        return "first_alone"
    return "second_alone" if second.changed else "neither"


def _edited_text(entry: Entry) -> str | None:
    """The text after the edits; None if no text was stored."""
    return entry.content.edited if entry.content else None


def _answer_key(entry: Entry) -> tuple[object, ...] | None:
    """(tenant, conversation, original text): what two entries of the same answer have in common.

    None if the answer was not judged or its text was not stored.
    """
    if entry.content is None or entry.changed is None or entry.status == Status.FAILED:
        return None
    exchange = entry.content.exchange
    return entry.tenant, exchange.turns, exchange.answer
