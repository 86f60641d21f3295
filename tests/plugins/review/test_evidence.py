"""What reviews prove, with intervals; disagreements apart, what is missed from the random share alone."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.location import StoreLocation, open_store
from aligner_proxy.intervals import wilson_interval
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.evidence import Share, compute_evidence, pair_answers, read_evidence
from aligner_proxy_review.review_queue import AnswerFilter
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.audit.conftest import noted

RIGHT, WRONG, HARM, MISSED = ReviewVerdict


def make_named_entry(name: str, *, changed: bool | None = True) -> Entry:
    return replace(make_entry(noted()), aligner_id=name, changed=changed)


def said(name: str, verdict: ReviewVerdict, who: str = "anna", chosen: ReviewOrigin = ReviewOrigin.NEAREST) -> Review:
    return Review(name, 0, verdict, who, 1.0, chosen)


def test_shares_by_hand() -> None:
    entries = [make_named_entry(f"e{n}") for n in range(6)] + [
        make_named_entry(f"u{n}", changed=False) for n in range(5)
    ]
    reviews = [
        *(said(f"e{n}", RIGHT) for n in range(3)),
        said("e3", WRONG),
        said("e4", HARM),
        said("e5", RIGHT),
        said("e5", WRONG, "ben"),
        said("u0", MISSED, chosen=ReviewOrigin.RANDOM),
        said("u1", RIGHT, chosen=ReviewOrigin.RANDOM),
        said("u2", MISSED),
        said("gone", HARM),
    ]
    found = compute_evidence([*entries, make_named_entry("unjudged", changed=None)], reviews)
    assert (found.answers, found.changed) == (11, Share(6, 11))
    assert (found.right, found.wrong) == (Share(3, 5), Share(2, 5))
    assert found.missed == Share(1, 2), "the one near the threshold says nothing of all"
    assert found.disagreed == (("e5", 0),)
    assert found.verdicts == {"right": 4, "wrong": 1, "harm": 1, "missed": 2}
    assert found.recall is not None
    assert found.recall[0] == (0.6 * 6) / (0.6 * 6 + 0.5 * 5)
    assert found.recall[1] < found.recall[0] < found.recall[2]


def test_of_a_store_the_same_as_of_all_its_entries(place: StoreLocation) -> None:
    """On both kinds of store; only of the wanted answers, among which most have no review."""
    entries = [replace(make_named_entry(f"e{n}", changed=n % 3 == 0), at=1000.0 + n) for n in range(9)]
    others = replace(make_named_entry("other", changed=False), at=1001.0, tenant="team:globex")
    reviews = [
        said("e0", RIGHT),
        said("e3", WRONG),
        said("e3", RIGHT, "ben"),
        said("e6", RIGHT),
        said("e6", HARM, "key:user", ReviewOrigin.FEEDBACK),
        said("e7", MISSED, chosen=ReviewOrigin.RANDOM),
        said("other", WRONG),
    ]
    with closing(open_store(place)) as store:
        for one in [*entries, others, replace(make_named_entry("unjudged", changed=None), at=1002.0)]:
            store.add(one)
        for review in reviews:
            Reviews(store).save(review, str)
        wanted = AnswerFilter(since=1001.0, tenants=frozenset({entries[0].tenant}))
        assert read_evidence(store, wanted) == compute_evidence(entries[1:], reviews)
        assert read_evidence(store, AnswerFilter(tenants=frozenset())).answers == 0
        assert read_evidence(store, AnswerFilter()) == compute_evidence([*entries, others], reviews)


def test_feedback_counts_apart_and_takes_no_reviewers_word_away() -> None:
    reviews = [
        said("e0", HARM),
        said("e0", RIGHT, "key:user", ReviewOrigin.FEEDBACK),
        said("e1", RIGHT, "key:user", ReviewOrigin.FEEDBACK),
        said("e1", WRONG, "key:other", ReviewOrigin.FEEDBACK),
    ]
    found = compute_evidence([make_named_entry("e0"), make_named_entry("e1")], reviews)
    assert (found.right, found.wrong) == (Share(0, 1), Share(1, 1))
    assert found.feedback == {"right": 2, "wrong": 1}
    assert (found.disagreed, found.disputed) == ((), (("e0", 0),))


def test_without_reviews_nothing_is_proved() -> None:
    found = compute_evidence([make_named_entry("e0")], [])
    assert (found.right.interval, found.recall) == ((0.0, 0.0, 1.0), None)


def test_one_person_who_says_more_of_several_segments_does_not_disagree() -> None:
    both = [said("e0", RIGHT), replace(said("e0", MISSED), segment=0), replace(said("e0", WRONG, "ben"), segment=1)]
    found = compute_evidence([make_named_entry("e0")], both)
    assert found.disagreed == ()
    assert found.wrong == Share(1, 1)


def test_so_many_more_make_the_interval_narrow() -> None:
    so_far = Share(8, 10)
    total = so_far.total + so_far.more_needed
    _, low, high = wilson_interval(round(0.8 * total), total)
    assert high - low <= 0.1
    _, low, high = wilson_interval(round(0.8 * (total - 5)), total - 5)
    assert high - low > 0.0999
    assert Share(800, 1000).more_needed == 0


def test_one_review_fewer_than_are_needed_is_not_enough() -> None:
    for of in range(1, 40):
        for count in range(of + 1):
            more = Share(count, of).more_needed
            widths = [high - low for _, low, high in (interval(count, of, more - 1), interval(count, of, more))]
            assert widths[1] <= 0.1
            assert more == 0 or widths[0] > 0.1


def interval(count: int, of: int, more: int) -> tuple[float, float, float]:
    """The interval of a share after so many more reviews with the same share."""
    return wilson_interval(count * (of + more) / of, of + more)


def test_the_same_answers_one_by_one() -> None:
    def make_numbered_entry(
        number: int, *, changed: bool, edited: str = "It is so.", tenant: str = "team:acme"
    ) -> Entry:
        one = make_named_entry(f"x{number}", changed=changed)
        assert one.content is not None
        exchange = replace(one.content.exchange, answer=f"Answer {number}.")
        return replace(one, tenant=tenant, content=replace(one.content, exchange=exchange, edited=edited))

    first = [make_numbered_entry(n, changed=n < 3) for n in range(6)]
    second = [
        make_numbered_entry(0, changed=True),
        make_numbered_entry(1, changed=True, edited="So."),
        make_numbered_entry(2, changed=False),
        make_numbered_entry(3, changed=True),
        make_numbered_entry(4, changed=False),
        make_numbered_entry(4, changed=True),
        make_numbered_entry(5, changed=False, tenant="team:other"),
        make_numbered_entry(9, changed=True),
    ]
    both = pair_answers(first, second)
    assert (both.answers, both.alike, both.otherwise) == (5, 1, 1)
    assert (both.first_alone, both.second_alone, both.neither) == (1, 1, 1)
