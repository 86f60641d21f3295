"""The queue: nearest to the threshold first, some unedited ones at random, one reviewer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.location import StoreLocation, open_store
from aligner_proxy.audit.store import AuditStore
from aligner_proxy_fleet.database import DatabaseStore
from aligner_proxy_review.review_queue import LEASE_S, AnswerFilter, ReviewQueue
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.audit.conftest import noted


class Clock:
    def __init__(self) -> None:
        self.at = 5000.0

    def __call__(self) -> float:
        return self.at


def put(store: AuditStore, name: str, margin: float | None, *, changed: bool | None = True, **fields: object) -> None:
    """An entry of this name."""
    made = replace(make_entry(noted()), aligner_id=name, margin=margin, changed=changed, **fields)  # type: ignore[arg-type]
    store.add(made)


@pytest.fixture
def store(place: StoreLocation) -> Iterator[AuditStore]:
    made = open_store(place)
    put(made, "far", 5.0)
    put(made, "near", 0.1)
    put(made, "middle", 1.0, changed=False)
    put(made, "b-fine", 7.0, changed=False)
    put(made, "unscored", None)
    put(made, "reasoning", 0.01, changed=None)
    put(made, "no-text", 0.01, content=None)
    put(made, "", 0.01)
    yield made
    made.close()


def queue(store: AuditStore, who: str = "anna", draw: float = 1.0, **more: object) -> ReviewQueue:
    more.setdefault("now", Clock())
    return ReviewQueue(store, who, draw_number=lambda: draw, **more)  # type: ignore[arg-type]


def say(store: AuditStore, name: str, who: str = "anna", chosen: ReviewOrigin = ReviewOrigin.NEAREST) -> None:
    Reviews(store).save(Review(name, 0, ReviewVerdict.RIGHT, who, 2000.0, chosen), str)


def worked_off(store: AuditStore, made: ReviewQueue, who: str = "anna") -> list[tuple[str, str]]:
    """Every answer in turn, each reviewed."""
    seen = []
    while (found := made.next()) is not None:
        seen.append((found[0].aligner_id, found[1].value))
        say(store, found[0].aligner_id, who)
    return seen


def test_the_nearest_to_the_threshold_first_and_without_scores_last(store: AuditStore) -> None:
    made = queue(store)
    assert made.count_waiting() == 5
    names = [name for name, _ in worked_off(store, made)]
    assert names == ["near", "middle", "far", "b-fine", "unscored"]
    assert made.count_waiting() == 0


def test_some_are_drawn_from_those_without_an_edit_in_the_order_of_their_random_ids(store: AuditStore) -> None:
    seen = worked_off(store, queue(store, draw=0.0))
    assert seen[:2] == [("b-fine", "random"), ("middle", "random")]
    assert [how for _, how in seen[2:]] == ["nearest"] * 3


def test_an_answer_is_held_for_one_reviewer_until_the_hold_ends(store: AuditStore) -> None:
    clock = Clock()
    anna, ben = queue(store, "anna", now=clock), queue(store, "ben", now=clock)
    assert [found[0].aligner_id for found in (anna.next(), ben.next()) if found] == ["near", "middle"]
    assert (anna.count_waiting(), ben.count_waiting()) == (4, 4)
    clock.at += LEASE_S + 1
    found = ben.next()
    assert found is not None
    assert found[0].aligner_id == "near"
    ben.release()
    again = anna.next()
    assert again is not None
    assert again[0].aligner_id == "near"


def test_a_leased_answer_is_nobody_elses_and_can_be_leased_again(store: AuditStore) -> None:
    anna = queue(store, "anna")
    ben = queue(store, "ben")
    assert anna.lease(("far", 0))
    assert anna.lease(("far", 0))
    assert not ben.lease(("far", 0))
    anna.release()
    assert ben.lease(("far", 0))


def test_what_is_passed_comes_back_only_when_it_is_no_longer_passed(store: AuditStore) -> None:
    made = queue(store)
    found = made.next([("near", 0), ("middle", 0)])
    assert found is not None
    assert found[0].aligner_id == "far"
    everything = [(name, 0) for name in ("near", "middle", "far", "b-fine", "unscored")]
    assert made.next(everything) is None


def test_feedback_of_users_leaves_an_answer_in_the_queue(store: AuditStore) -> None:
    say(store, "near", "key:user", ReviewOrigin.FEEDBACK)
    assert queue(store).count_waiting() == 5


def test_a_second_opinion_is_about_what_another_has_reviewed(store: AuditStore) -> None:
    say(store, "near", "ben")
    say(store, "far", "anna")
    assert [name for name, _ in worked_off(store, queue(store, second_opinion=True))] == ["near"]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (AnswerFilter(tenant="acme"), 5),
        (AnswerFilter(tenant="team:acme"), 5),
        (AnswerFilter(tenant="other"), 0),
        (AnswerFilter(policy="all"), 5),
        (AnswerFilter(policy="all+acme"), 5),
        (AnswerFilter(policy="al"), 0),
        (AnswerFilter(since=1001.0), 0),
        (AnswerFilter(tenants=frozenset({"team:acme", "team:other"})), 5),
        (AnswerFilter(tenants=frozenset({"team:other"})), 0),
        (AnswerFilter(tenants=frozenset()), 0),
    ],
)
def test_only_what_is_wanted(store: AuditStore, wanted: AnswerFilter, names: int) -> None:
    assert queue(store, answer_filter=wanted).count_waiting() == names


@pytest.mark.parametrize("chosen", list(ReviewOrigin)[:2])
def test_the_first_of_many_is_found_by_an_index_without_sorting(store: AuditStore, chosen: ReviewOrigin) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    rows = store.fetch_rows

    def watched(statement: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        asked.append((statement, values))
        return rows(statement, values)

    store.fetch_rows = watched  # type: ignore[method-assign, assignment]
    queue(store, draw=0.0 if chosen is ReviewOrigin.RANDOM else 1.0).next()
    (first,) = [one for one in asked if "LIMIT" in one[0]]
    if isinstance(store, DatabaseStore):
        rows("SET enable_seqscan = off; SET enable_sort = off")  # which are quicker for so few
        plan = " ".join(str(row[0]) for row in rows(f"EXPLAIN {first[0]}", first[1]))
        by_id = "entries_once"
    else:
        plan = " ".join(str(row[3]) for row in rows(f"EXPLAIN QUERY PLAN {first[0]}", first[1]))
        by_id = "entries_aligner_id"
    assert ("entries_margin" if chosen is ReviewOrigin.NEAREST else by_id) in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
