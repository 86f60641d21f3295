"""What reviews prove: how often an edit is right, how much is missed, where people disagree, how two aligners differ.

Each share comes with its 95 % interval. An answer counts once, with the verdict on which its reviewers agree. What is
missed is estimated from the answers that were drawn at random, never from those near the threshold. Feedback of an
application's users is counted apart: who sends it chooses the answers, and may want the figures to look well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aligner_proxy.audit.replay import wilson_interval
from aligner_proxy.audit.review_queue import AnswerFilter, AnswerPlace
from aligner_proxy.audit.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.api import Entry
from aligner_proxy.types import Status

TARGET_HALF_WIDTH = 0.05
"""Half the width of an interval that is narrow enough."""
_MOST_NEEDED = 100_000


@dataclass(frozen=True, slots=True)
class Share:
    """A share of answers, with the ends of its interval."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float, float]:
        """The share, and the ends of its 95 % interval."""
        return wilson_interval(self.count, self.of)

    @property
    def more_needed(self) -> int:
        """How many more reviews make the interval narrow enough, if the share stays as it is."""
        value = self.interval[0] if self.of else 0.5
        low = self.of
        high = _MOST_NEEDED
        while low < high:
            middle = (low + high) // 2
            if _half_width(value, middle) <= TARGET_HALF_WIDTH:
                high = middle
            else:
                low = middle + 1
        return low - self.of


def _half_width(value: float, of: int) -> float:
    """Half the width of the interval of a share of so many."""
    _, low, high = wilson_interval(round(value * of), of)
    return (high - low) / 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the reviews of some answers prove."""

    answers: int
    changed: Share
    verdicts: Mapping[str, int]
    """Answers by the verdict on which their reviewers agree."""
    right: Share
    """Of the reviewed edits: those that are right."""
    wrong: Share
    """Of the reviewed edits: those that are wrong or do harm."""
    missed: Share
    """Of the answers without an edit that were drawn at random and reviewed: those in which something was missed."""
    disagreed: tuple[AnswerPlace, ...]
    """Answers on which reviewers disagree; they count nowhere else."""
    feedback: Mapping[str, int]
    """Verdicts that came as feedback."""
    disputed: tuple[AnswerPlace, ...]
    """Answers of which feedback says something else than the reviewers, who agree."""

    @property
    def recall(self) -> tuple[float, float, float] | None:
        """Estimated share of what should be edited that is; with bounds from both intervals. None without reviews."""
        if not self.right.of or not self.missed.of:
            return None
        unchanged = self.changed.of - self.changed.count
        right, least, most = (part * self.changed.count for part in self.right.interval)
        missed, fewest, all_missed = (part * unchanged for part in self.missed.interval)
        return _found_share(right, missed), _found_share(least, all_missed), _found_share(most, fewest)


def _found_share(edited: float, missed: float) -> float:
    return edited / (edited + missed) if edited + missed else 0.0


def compute_evidence(entries: Iterable[Entry], reviews: Iterable[Review]) -> Evidence:
    """What these reviews prove of these answers; reviews of others do not count."""
    by_place: dict[AnswerPlace, list[Review]] = defaultdict(list)
    for review in reviews:
        by_place[review.aligner_id, review.choice].append(review)
    judged_entries = {(entry.aligner_id, entry.choice): entry for entry in entries if entry.changed is not None}
    verdicts = dict.fromkeys((verdict.value for verdict in ReviewVerdict), 0)
    edits = {True: 0, False: 0}
    drawn = {True: 0, False: 0}
    disagreed = []
    disputed = []
    feedback: Counter[str] = Counter()
    for place, entry in judged_entries.items():
        everything = by_place.get(place, [])
        reviewer_reviews = [review for review in everything if review.chosen is not ReviewOrigin.FEEDBACK]
        feedback.update(review.verdict.value for review in everything if review.chosen is ReviewOrigin.FEEDBACK)
        if reviewers_disagree(reviewer_reviews):
            disagreed.append(place)
            continue
        verdict = agreed_verdict(reviewer_reviews)
        if verdict is None:
            continue
        if reviewers_disagree(everything):
            disputed.append(place)
        verdicts[verdict.value] += 1
        if entry.changed and verdict is not ReviewVerdict.MISSED:
            edits[verdict is ReviewVerdict.RIGHT] += 1
        if not entry.changed and any(review.chosen is ReviewOrigin.RANDOM for review in reviewer_reviews):
            drawn[verdict is ReviewVerdict.MISSED] += 1
    reviewed = edits[True] + edits[False]
    return Evidence(
        answers=len(judged_entries),
        changed=Share(sum(bool(entry.changed) for entry in judged_entries.values()), len(judged_entries)),
        verdicts=verdicts,
        right=Share(edits[True], reviewed),
        wrong=Share(edits[False], reviewed),
        missed=Share(drawn[True], drawn[True] + drawn[False]),
        disagreed=tuple(disagreed),
        feedback=dict(feedback),
        disputed=tuple(disputed),
    )


def read_evidence(store: AuditStore, answer_filter: AnswerFilter) -> Evidence:
    """What the reviews in a store prove of the wanted answers; those that nobody reviewed are counted, not read."""
    condition, values = answer_filter.condition()
    judged = f"FROM entries e WHERE e.aligner_id != '' AND e.changed IS NOT NULL AND {condition}"
    answers, changed = store.rows(f"SELECT count(*), coalesce(sum(e.changed), 0) {judged}", values)[0]
    reviewed = compute_evidence(reviewed_entries(store, answer_filter), Reviews(store).all())
    return replace(reviewed, answers=int(answers), changed=Share(int(changed), int(answers)))


def reviewed_entries(store: AuditStore, answer_filter: AnswerFilter) -> Iterator[Entry]:
    """The wanted answers of which somebody has said something, in the order in which they came, without texts."""
    condition, values = answer_filter.condition()
    reviewed = "JOIN (SELECT DISTINCT aligner_id, choice FROM reviews) r ON r.aligner_id = e.aligner_id"
    inner = f"SELECT e.id FROM entries e {reviewed} AND r.choice = e.choice WHERE e.aligner_id != '' AND {condition}"
    return store.select(f"id IN ({inner}) ORDER BY id", values, texts=False)


def reviewers_disagree(reviews: Sequence[Review]) -> bool:
    """Whether several people say different things of the same place of an answer."""
    return any(mark_contradictions(reviews))


def mark_contradictions(reviews: Sequence[Review]) -> list[bool]:
    """Of each review of an answer whether somebody else says otherwise of the same place."""
    people: dict[int | None, dict[ReviewVerdict, set[str]]] = defaultdict(lambda: defaultdict(set))
    for review in reviews:
        people[review.segment][review.verdict].add(review.who)
    return [
        any(
            verdict is not review.verdict and len(said_by) > (review.who in said_by)
            for verdict, said_by in people[review.segment].items()
        )
        for review in reviews
    ]


def agreed_verdict(reviews: Sequence[Review]) -> ReviewVerdict | None:
    """The verdict on which people agree, the worst that is said of any place; None without one."""
    return None if not reviews or reviewers_disagree(reviews) else _worst_verdict(reviews)


_WORST = (ReviewVerdict.HARM, ReviewVerdict.WRONG, ReviewVerdict.MISSED, ReviewVerdict.RIGHT)


def _worst_verdict(reviews: Sequence[Review]) -> ReviewVerdict:
    """The worst that is said of an answer in any place."""
    return min((review.verdict for review in reviews), key=_WORST.index)


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """What two aligners, or two policies, did to the same answers."""

    answers: int
    neither: int
    first_alone: int
    """Answers that only the first one changed."""
    second_alone: int
    alike: int
    """Answers that both changed, into the same text."""
    otherwise: int


def pair_answers(first: Iterable[Entry], second: Iterable[Entry]) -> PairedAnswers:
    """What was done to the answers that both judged: of one tenant, to one conversation, with one text."""
    before = {key: entry for entry in first if (key := _answer_key(entry)) is not None}
    counts = {"neither": 0, "first_alone": 0, "second_alone": 0, "alike": 0, "otherwise": 0}
    seen_keys = set()
    for entry in second:
        key = _answer_key(entry)
        if key is None or key in seen_keys or key not in before:
            continue
        seen_keys.add(key)
        other = before[key]
        changed = (bool(other.changed), bool(entry.changed))
        if changed == (True, True):
            counts["alike" if _edited_text(other) == _edited_text(entry) else "otherwise"] += 1
        else:
            counts["first_alone" if changed[0] else "second_alone" if changed[1] else "neither"] += 1
    return PairedAnswers(answers=len(seen_keys), **counts)


def _edited_text(entry: Entry) -> str | None:
    return entry.content.edited if entry.content else None


def _answer_key(entry: Entry) -> tuple[object, ...] | None:
    """What tells one answer from another; None where it was not judged, or its text was not kept."""
    if entry.content is None or entry.changed is None or entry.status == Status.FAILED:
        return None
    exchange = entry.content.exchange
    return entry.tenant, exchange.turns, exchange.answer
