"""Queue of recorded answers for a reviewer: those with a score near the threshold first, mixed with random ones.

Some answers without an edit are drawn at random, since only these show what is missed. Ids are random, so the order of
ids is a random order. An answer is leased to one reviewer at a time; the lease expires.
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
# _NOT_LEASED: no other reviewer has leased the answer. _NOT_REVIEWED: no reviewer has reviewed it.
# _REVIEWED_BY_OTHERS: other reviewers have reviewed it, but this reviewer has not.
_REVIEWABLE = "e.aligner_id != '' AND e.changed IS NOT NULL AND e.content IS NOT NULL"
_SAME_ANSWER = "r.aligner_id = e.aligner_id AND r.choice = e.choice"
_NOT_LEASED = f"NOT EXISTS (SELECT 1 FROM review_leases r WHERE {_SAME_ANSWER} AND r.who != ? AND r.until > ?)"
_NOT_REVIEWED = f"NOT EXISTS (SELECT 1 FROM reviews r WHERE {_SAME_ANSWER} AND r.chosen != '{ReviewOrigin.FEEDBACK}')"
_REVIEWED_BY_OTHERS = (
    f"EXISTS (SELECT 1 FROM reviews r WHERE {_SAME_ANSWER} AND r.chosen != '{ReviewOrigin.FEEDBACK}') "
    f"AND NOT EXISTS (SELECT 1 FROM reviews r WHERE {_SAME_ANSWER} AND r.who = ?)"
)
_WRITE_LEASE = (
    "INSERT INTO review_leases VALUES (?, ?, ?, ?) "
    "ON CONFLICT (aligner_id, choice) DO UPDATE SET who = excluded.who, until = excluded.until"
)
# The condition and the order in which answers are chosen for each origin.
_ORDERS = {
    # 9e999 is infinite in SQLite, so answers without a score come last
    ReviewOrigin.NEAREST: "1 = 1 ORDER BY ifnull(e.margin, 9e999)",
    ReviewOrigin.RANDOM: "e.changed = 0 ORDER BY e.aligner_id, e.choice",
}


@dataclass(frozen=True, slots=True)
class AnswerFilter:
    """Selection of answers by tenant, policy and time; None selects all."""

    tenant: str | None = None
    """A tenant as in the store, or only a team's id."""
    policy: str | None = None
    """A route's name, or the names of route and tenant as x-aligner-policy shows them."""
    since: float = 0.0
    """The time of the oldest answers, in seconds since the epoch."""
    tenants: frozenset[str] | None = None
    """The tenants whose answers the reviewer may see, as in the store; None for all."""

    def sql_condition(self) -> tuple[str, list[object]]:
        """(SQL condition on the table `entries`, which the caller names `e`; values of its placeholders)."""
        conditions: list[str] = ["e.at >= ?"]
        values: list[object] = [self.since]
        if self.tenant is not None:
            # entries of a team have the tenant "team:ID"
            conditions.append("e.tenant IN (?, 'team:' || ?)")
            values += [self.tenant, self.tenant]
        if self.policy is not None:
            # a policy is named ROUTE+TENANT, so a route's name selects the policies of all its tenants
            conditions.append("(e.policy = ? OR substr(e.policy, 1, length(?) + 1) = ? || '+')")
            values += [self.policy] * 3
        if self.tenants is not None:
            # a reviewer of no tenant sees nothing, and SQL does not allow an empty list
            placeholders = ", ".join("?" * len(self.tenants))
            conditions.append(f"e.tenant IN ({placeholders})" if self.tenants else "1 = 0")
            values += sorted(self.tenants)
        return " AND ".join(conditions), values


def group_reviews(reviews: Iterable[Review], *, with_feedback: bool = True) -> dict[AnswerPlace, list[Review]]:
    """Group reviews by answer; `with_feedback`: whether feedback is included, and not only the reviews of reviewers."""
    by_place: dict[AnswerPlace, list[Review]] = defaultdict(list)
    for review in reviews:
        if with_feedback or review.chosen is not ReviewOrigin.FEEDBACK:
            by_place[review.aligner_id, review.choice].append(review)
    return by_place


def find_entry(store: AuditStore, place: AnswerPlace) -> Entry | None:
    """The entry of an answer; None if it was deleted."""
    return next(store.select("aligner_id = ? AND choice = ? AND aligner_id != ''", place), None)


class ReviewQueue:
    """The queue of one reviewer: answers that nobody has reviewed, and that no other reviewer holds by a lease.

    With `second_opinion`, it has the answers that others have reviewed, but not this reviewer. `draw_number` returns a
    random number from 0 to 1, `now` the seconds since the epoch.
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
        """Return (next answer that is not in `skipped`, how it was chosen); None if no answer is left.

        A lease keeps the answer from other reviewers for a while; this reviewer's earlier leases are released.
        """
        first_origin = ReviewOrigin.RANDOM if self._draw_number() < RANDOM_SHARE else ReviewOrigin.NEAREST
        other_origin = ReviewOrigin.NEAREST if first_origin is ReviewOrigin.RANDOM else ReviewOrigin.RANDOM
        with self._store.transaction():
            self._delete_leases()
            for origin in (first_origin, other_origin):
                # one answer more than are skipped, so that at least one is not skipped
                for place in self._list_places(origin, len(skipped) + 1):
                    if place not in skipped:
                        self._write_lease(place)
                        entry = find_entry(self._store, place)
                        assert entry is not None  # the transaction keeps others from deleting it
                        return entry, origin
        return None

    def lease(self, place: AnswerPlace) -> bool:
        """Lease this answer to the reviewer, whose other leases are released; False if somebody else has leased it."""
        with self._store.transaction():
            self._delete_leases()
            # our own and expired leases are gone, so a lease is somebody else's
            leases = self._store.fetch_rows("SELECT 1 FROM review_leases WHERE aligner_id = ? AND choice = ?", place)
            if not leases:
                self._write_lease(place)
        return not leases

    def count_waiting(self) -> int:
        """Count the answers in the queue that nobody else has leased."""
        condition, values = self._queue_condition()
        rows = self._store.fetch_rows(f"SELECT count(*) FROM entries e WHERE {condition}", values)
        return int(rows[0][0])

    def release(self) -> None:
        """Release the answer that is leased to this reviewer."""
        with self._store.transaction():
            self._delete_leases()

    def _write_lease(self, place: AnswerPlace) -> None:
        self._store.fetch_rows(_WRITE_LEASE, (*place, self._reviewer, self._now() + LEASE_S))

    def _delete_leases(self) -> None:
        self._store.fetch_rows("DELETE FROM review_leases WHERE who = ? OR until <= ?", (self._reviewer, self._now()))

    def _list_places(self, origin: ReviewOrigin, count: int) -> list[AnswerPlace]:
        """The first `count` answers of the queue, nearest to the threshold or at random, as `origin` says."""
        condition, values = self._queue_condition()
        statement = f"SELECT e.aligner_id, e.choice FROM entries e WHERE {condition} AND {_ORDERS[origin]} LIMIT ?"
        rows = self._store.fetch_rows(statement, (*values, count))
        return [(str(aligner_id), int(choice)) for aligner_id, choice in rows]

    def _queue_condition(self) -> tuple[str, list[object]]:
        """(SQL condition for answers in this queue, values of its placeholders)."""
        condition, values = self._filter.sql_condition()
        conditions = [_REVIEWABLE, condition, _NOT_LEASED]
        values += [self._reviewer, self._now()]
        if self._second_opinion:
            conditions.append(_REVIEWED_BY_OTHERS)
            values.append(self._reviewer)
        else:
            conditions.append(_NOT_REVIEWED)
        return " AND ".join(conditions), values
