"""Review queue: gives a reviewer recorded answers, nearest to the threshold first, mixed with random ones.

Some answers without an edit are drawn at random, since only these show what is missed. Ids are random, so ordering by
id is a random draw. An answer is leased to one reviewer at a time; the lease expires.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.reviews import Review, ReviewOrigin

RANDOM_SHARE = 0.2
"""Share of answers drawn at random from those without an edit."""
LEASE_S = 900.0
"""Seconds for which an inactive reviewer keeps the lease of an answer."""
AnswerPlace = tuple[str, int]
"""An answer's id and the number of its choice."""

# SQL conditions on an entry `e` and a lease or review `r`.
# _FREE: nobody else has leased the answer. _BY_NOBODY: no reviewer has judged it.
# _BY_ANOTHER_ALONE: other reviewers have judged it, but this reviewer has not.
_REVIEWABLE = "e.aligner_id != '' AND e.changed IS NOT NULL AND e.content IS NOT NULL"
_SAME = "r.aligner_id = e.aligner_id AND r.choice = e.choice"
_FREE = f"NOT EXISTS (SELECT 1 FROM review_leases r WHERE {_SAME} AND r.who != ? AND r.until > ?)"
_BY_NOBODY = f"NOT EXISTS (SELECT 1 FROM reviews r WHERE {_SAME} AND r.chosen != '{ReviewOrigin.FEEDBACK}')"
_BY_ANOTHER_ALONE = (
    f"EXISTS (SELECT 1 FROM reviews r WHERE {_SAME} AND r.chosen != '{ReviewOrigin.FEEDBACK}') "
    f"AND NOT EXISTS (SELECT 1 FROM reviews r WHERE {_SAME} AND r.who = ?)"
)
_WRITE_LEASE = (
    "INSERT INTO review_leases VALUES (?, ?, ?, ?) "
    "ON CONFLICT (aligner_id, choice) DO UPDATE SET who = excluded.who, until = excluded.until"
)
_ORDERS = {
    # 9e999 is infinite in SQLite, so answers without a score come last
    ReviewOrigin.NEAREST: "1 = 1 ORDER BY ifnull(e.margin, 9e999)",
    ReviewOrigin.RANDOM: "e.changed = 0 ORDER BY e.aligner_id, e.choice",
}


@dataclass(frozen=True, slots=True)
class AnswerFilter:
    """Selection of answers: by tenant, by policy, since a time (seconds since the epoch); None selects all."""

    tenant: str | None = None
    """As in the store, or only a team's id."""
    policy: str | None = None
    """A route's name, or the names of route and tenant as x-aligner-policy shows them."""
    since: float = 0.0
    tenants: frozenset[str] | None = None
    """The tenants whose answers the reviewer may see, as in the store; None for all."""

    def sql_condition(self) -> tuple[str, list[object]]:
        """An SQL condition on entries `e`, and the values of its placeholders."""
        parts: list[str] = ["e.at >= ?"]
        values: list[object] = [self.since]
        if self.tenant is not None:
            parts.append("e.tenant IN (?, 'team:' || ?)")
            values += [self.tenant, self.tenant]
        if self.policy is not None:
            parts.append("(e.policy = ? OR substr(e.policy, 1, length(?) + 1) = ? || '+')")
            values += [self.policy] * 3
        if self.tenants is not None:
            # a reviewer of no tenant sees nothing
            parts.append(f"e.tenant IN ({', '.join('?' * len(self.tenants))})" if self.tenants else "1 = 0")
            values += sorted(self.tenants)
        return " AND ".join(parts), values


def group_reviews(reviews: Iterable[Review], *, feedback: bool = True) -> dict[AnswerPlace, list[Review]]:
    """The reviews of each answer; without `feedback` only those of reviewers."""
    by_place: dict[AnswerPlace, list[Review]] = defaultdict(list)
    for review in reviews:
        if feedback or review.chosen is not ReviewOrigin.FEEDBACK:
            by_place[review.aligner_id, review.choice].append(review)
    return by_place


def find_entry(store: AuditStore, place: AnswerPlace) -> Entry | None:
    """The entry of an answer; None if it was deleted."""
    return next(store.select("aligner_id = ? AND choice = ? AND aligner_id != ''", place), None)


class ReviewQueue:
    """The queue of one reviewer: answers without a review or, with `second_opinion`, those that only others reviewed.

    `draw_number` returns a random number from 0 to 1, `now` the seconds since the epoch.
    """

    def __init__(
        self,
        store: AuditStore,
        reviewer: str,
        answer_filter: AnswerFilter | None = None,
        *,
        second_opinion: bool = False,
        draw_number: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._reviewer = reviewer
        self._filter = answer_filter or AnswerFilter()
        self._second_opinion = second_opinion
        self._draw_number = draw_number
        self._now = now

    def next(self, skipped: Sequence[AnswerPlace] = ()) -> tuple[Entry, ReviewOrigin] | None:
        """Return the next answer that is not in `skipped`, and how it was chosen; None at the end.

        The answer is leased to this reviewer, and earlier leases of this reviewer are released.
        """
        first_origin = ReviewOrigin.RANDOM if self._draw_number() < RANDOM_SHARE else ReviewOrigin.NEAREST
        other_origin = ReviewOrigin.NEAREST if first_origin is ReviewOrigin.RANDOM else ReviewOrigin.RANDOM
        with self._store.transaction():
            self._delete_leases()
            for origin in (first_origin, other_origin):
                # one more than are skipped, so that one of them is not skipped, if there is any
                for place in self._list_places(origin, len(skipped) + 1):
                    if place not in skipped:
                        self._write_lease(place)
                        entry = find_entry(self._store, place)
                        assert entry is not None  # the transaction keeps others from deleting it
                        return entry, origin
        return None

    def lease(self, place: AnswerPlace) -> bool:
        """Lease this answer and release all others; False if somebody else has leased it."""
        with self._store.transaction():
            self._delete_leases()
            # our own and expired leases are gone, so this is somebody else's
            leases = self._store.fetch_rows("SELECT 1 FROM review_leases WHERE aligner_id = ? AND choice = ?", place)
            if not leases:
                self._write_lease(place)
        return not leases

    def count_waiting(self) -> int:
        """The number of answers in the queue that nobody else has leased."""
        condition, values = self._queue_condition()
        return int(self._store.fetch_rows(f"SELECT count(*) FROM entries e WHERE {condition}", values)[0][0])

    def release(self) -> None:
        """Release the answer that is leased to this reviewer."""
        with self._store.transaction():
            self._delete_leases()

    def _write_lease(self, place: AnswerPlace) -> None:
        self._store.fetch_rows(_WRITE_LEASE, (*place, self._reviewer, self._now() + LEASE_S))

    def _delete_leases(self) -> None:
        """Delete this reviewer's leases and all that have expired."""
        self._store.fetch_rows("DELETE FROM review_leases WHERE who = ? OR until <= ?", (self._reviewer, self._now()))

    def _list_places(self, origin: ReviewOrigin, count: int) -> list[AnswerPlace]:
        """The first `count` answers of the queue, in the order for this origin."""
        condition, values = self._queue_condition()
        statement = f"SELECT e.aligner_id, e.choice FROM entries e WHERE {condition} AND {_ORDERS[origin]} LIMIT ?"
        return [(str(row[0]), int(row[1])) for row in self._store.fetch_rows(statement, (*values, count))]

    def _queue_condition(self) -> tuple[str, list[object]]:
        """The SQL condition for answers in this queue, and the values of its placeholders."""
        condition, values = self._filter.sql_condition()
        reviewed = _BY_ANOTHER_ALONE if self._second_opinion else _BY_NOBODY
        values += [self._reviewer, self._now(), *([self._reviewer] if self._second_opinion else [])]
        return f"{_REVIEWABLE} AND {condition} AND {_FREE} AND {reviewed}", values
