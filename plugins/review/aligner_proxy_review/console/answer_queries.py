"""Queries of the audit store for the pages; most return only what the viewer may see."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from typing import NamedTuple
from urllib.parse import urlencode

from aligner_proxy.audit.entry import BESIDE_ID
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.errors import NothingRecorded
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.console.access import Viewer
from aligner_proxy_review.evidence import Evidence, compute_evidence, read_evidence
from aligner_proxy_review.review_queue import AnswerFilter, find_entry
from aligner_proxy_review.reviews import Review, Reviews

MAX_SEARCHED = 5000
"""At most this many entries, the newest, are searched for matches of a filter."""
_MAX_VALUES = 8
"""How many values of a filter are shown with their counts, the most frequent first."""
# The groups are the bits of the time as a double, and digits of the hash.
_HANDLE = re.compile(r"([0-9a-f]{16})-([0-9a-f]{32})")
_MAX_FILTER_CHARS = 200
"""Longer values of a filter are cut."""

StoreOpener = Callable[[], AuditStore]
"""Opens the audit store; raises `NothingRecorded` before the first answer is recorded."""


def answer_handle(entry: Entry) -> str:
    """The id of an answer in URLs: its time and a hash, since the client may have chosen the call id."""
    ids = json.dumps([entry.tenant, entry.call_id, entry.choice, entry.endpoint])
    return f"{struct.pack('>d', entry.at).hex()}-{hashlib.sha256(ids.encode()).hexdigest()[:32]}"


class CountedAnswer(NamedTuple):
    """The columns of an entry that are needed to count rates, named as in `Entry`."""

    at: float
    tenant: str
    policy: str
    status: str
    reason: str | None
    cache_hit: int | None
    ms: float


def route_name(entry: Entry | CountedAnswer) -> str:
    """The name of the route: the part of the policy's name before "+", after which the tenant's entry follows."""
    return entry.policy.partition("+")[0]


def flagged_objectives(entry: Entry) -> tuple[str, ...]:
    """The objectives that flagged segments violate, without duplicates; empty if no text was stored."""
    segments = entry.content.segments if entry.content else ()
    return tuple(dict.fromkeys(segment.objective for segment in segments if segment.objective))


def _matches_search(entry: Entry, search_text: str) -> bool:
    """Whether an answer has this id, or contains this text in conversation, answer or edit, in upper or lower case."""
    if search_text in (entry.aligner_id, entry.call_id):
        return True
    if entry.content is None:
        return False
    exchange = entry.content.exchange
    texts = [*(turn.content for turn in exchange.turns), exchange.answer, entry.content.edited]
    return any(search_text.casefold() in text.casefold() for text in texts if text)


@dataclass(frozen=True, slots=True)
class ListFilters:
    """Filters of a list of answers; an empty filter matches everything."""

    tenant: str = ""
    route: str = ""
    objective: str = ""
    status: str = ""
    before: str = ""
    """Only answers before this time, in seconds since the epoch; for the next page of a list."""

    @classmethod
    def from_query(cls, query: dict[str, str]) -> ListFilters:
        """Read the filters from the parameters of a query string; long values are cut."""
        return cls(**{field.name: query.get(field.name, "")[:_MAX_FILTER_CHARS] for field in fields(cls)})

    @property
    def until(self) -> float:
        """The time before which answers are listed; infinity if `before`, a text from the URL, is no time."""
        try:
            until = float(self.before)
        except ValueError:
            return math.inf
        return until if math.isfinite(until) else math.inf

    def query(self, before: str = "") -> str:
        """The query string of a list with these filters and another `before`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)} | {"before": before}
        return urlencode({name: value for name, value in values.items() if value})

    def with_value(self, name: str, value: str) -> ListFilters:
        """Return the filters with another value of the filter `name`, or without it if it has this value already."""
        return replace(self, **{name: "" if getattr(self, name) == value else value})

    def admit(self, entry: Entry) -> bool:
        """Whether an entry passes all filters except `before`."""
        return (
            self.tenant in ("", entry.tenant)
            and self.route in ("", route_name(entry))
            and self.status in ("", entry.status)
            and (not self.objective or self.objective in flagged_objectives(entry))
        )


@dataclass(frozen=True, slots=True)
class AnswerList:
    """The newest answers that match a filter."""

    entries: tuple[Entry, ...]
    searched_count: int
    """Number of entries that were searched for matches."""
    may_have_more: bool
    """Whether older answers may match, too."""
    oldest: float = math.inf
    """Time of the oldest entry that was searched, in seconds since the epoch; infinity if none was."""


class AnswerQueries:
    """Reader of the audit store for pages; entries are returned only if the viewer may see them, unless stated.

    Each call opens the store, since a connection belongs to its thread. All calls may block.
    """

    def __init__(self, opener: StoreOpener) -> None:
        self._opener = opener

    def newest(self, viewer: Viewer, filters: ListFilters, limit: int) -> AnswerList:
        """The newest matching answers, at most `limit`."""
        return self._find_newest(viewer, filters.admit, limit, filters.until)

    def search(self, viewer: Viewer, search_text: str, limit: int) -> AnswerList:
        """The newest answers with this id, or with this text in question, answer or edit; at most `limit`."""
        return self._find_newest(viewer, lambda entry: _matches_search(entry, search_text), limit)

    def _find_newest(
        self, viewer: Viewer, admit: Callable[[Entry], bool], limit: int, until: float = math.inf
    ) -> AnswerList:
        """Find the newest answers before `until` that the viewer may see and for which `admit` is true.

        At most `limit` answers are returned, and at most `MAX_SEARCHED` entries are searched.
        """
        matching_entries: list[Entry] = []
        searched_count = 0
        oldest = math.inf
        for entry in self._iter_entries(since=0.0, until=until, limit=MAX_SEARCHED):
            searched_count += 1
            oldest = entry.at
            if viewer.may_see(entry.tenant) and admit(entry):
                matching_entries.append(entry)
                if len(matching_entries) == limit:
                    break
        return AnswerList(
            tuple(matching_entries),
            searched_count,
            may_have_more=len(matching_entries) == limit or searched_count == MAX_SEARCHED,
            oldest=oldest,
        )

    def evidence(self, viewer: Viewer, since: float) -> Evidence:
        """What reviews prove about the answers since a time that this viewer may see."""
        with self._open_store() as store:
            if store is None:
                return compute_evidence([], [])
            return read_evidence(store, AnswerFilter(since=since, tenants=viewer.tenants))

    def find(self, viewer: Viewer, handle: str) -> Entry | None:
        """Find the answer with this handle (`answer_handle`); None if there is none or the viewer may not see it."""
        match = _HANDLE.fullmatch(handle)
        if match is None:
            return None
        # the handle contains the exact time, so only entries of that moment have to be read
        (at,) = struct.unpack(">d", bytes.fromhex(match[1]))
        # a forged handle may contain any bits
        if not math.isfinite(at):
            return None
        # `until` is excluded, so these are the entries of exactly this moment
        for entry in self._iter_entries(since=at, until=math.nextafter(at, math.inf)):
            if answer_handle(entry) == handle:
                return entry if viewer.may_see(entry.tenant) else None
        return None

    def reviews(self, entry: Entry) -> list[Review]:
        """The reviews of an answer, in order of arrival."""
        if not entry.aligner_id:
            return []
        with self._open_store() as store:
            return Reviews(store).reviews_of(entry.aligner_id, entry.choice) if store else []

    def shadow_entry(self, entry: Entry) -> Entry | None:
        """Find the shadow aligner's entry for the same answer; None if there is none."""
        if not entry.aligner_id or entry.aligner_id.endswith(BESIDE_ID):
            return None
        with self._open_store() as store:
            return find_entry(store, (entry.aligner_id + BESIDE_ID, entry.choice)) if store else None

    def entries_since(self, since: float, limit: int) -> list[Entry]:
        """The newest answers since a time, at most `limit`, of all tenants, in the order from the oldest."""
        newest_entries = list(self._iter_entries(since, math.inf, limit))
        return newest_entries[::-1]

    def last_row(self) -> int:
        """The id of the newest row; 0 if there is none."""
        with self._open_store() as store:
            return store.last_row() if store else 0

    def entries_after(self, known_row: int, limit: int) -> tuple[int, list[Entry]]:
        """Return (id of the newest row, answers in rows after `known_row`), of all tenants, for the live pages.

        Of the answers, the newest `limit` are returned, oldest first.
        """
        with self._open_store() as store:
            if store is None:
                return 0, []
            last_row = store.last_row()
            # after an erasure the newest row may have a smaller id
            if last_row <= known_row:
                return last_row, []
            newest_entries = store.select("id > ? AND id <= ? ORDER BY id DESC LIMIT ?", (known_row, last_row, limit))
            return last_row, list(newest_entries)[::-1]

    def count_values(self, viewer: Viewer, filters: ListFilters) -> list[tuple[str, list[tuple[str, int]]]]:
        """Count how many of the newest answers each value of a filter would list, if the other filters stay.

        Return pairs: the name of a filter, and its (value, count) pairs. Nothing is counted on later pages of a list,
        and with a filter by objective, which would need the texts of all answers.
        """
        if filters.objective or filters.before:
            return []
        answers = self.counted_answers(viewer, 0.0, MAX_SEARCHED)
        rows = [{"status": answer.status, "tenant": answer.tenant, "route": route_name(answer)} for answer in answers]
        filter_values = {name: getattr(filters, name) for name in ("status", "tenant", "route")}
        counts_by_filter = []
        for name in filter_values:
            other_values = {other: value for other, value in filter_values.items() if value and other != name}
            counts = Counter(
                row[name] for row in rows if all(row[other] == value for other, value in other_values.items())
            )
            counts_by_filter.append((name, counts.most_common(_MAX_VALUES)))
        return counts_by_filter

    def counted_answers(self, viewer: Viewer, since: float, limit: int) -> list[CountedAnswer]:
        """The newest answers since a time that this viewer may see, newest first, for counting rates."""
        condition, values = AnswerFilter(since=since, tenants=viewer.tenants).sql_condition()
        columns = ", ".join(f"e.{name}" for name in CountedAnswer._fields)
        statement = f"SELECT {columns} FROM entries e WHERE {condition} ORDER BY e.at DESC, e.id DESC LIMIT ?"
        with self._open_store() as store:
            if store is None:
                return []
            return [CountedAnswer(*row) for row in store.fetch_rows(statement, (*values, limit))]

    def _iter_entries(self, since: float, until: float, limit: int = -1) -> Iterator[Entry]:
        """Yield the answers from `since` to `until` (excluded), newest first, at most `limit`; -1 for all."""
        with self._open_store() as store:
            if store is not None:
                yield from store.entries(since=since, until=until, limit=limit)

    @contextmanager
    def _open_store(self) -> Iterator[AuditStore | None]:
        """Open the store, and close it at the end of the block; yields None before the first answer is recorded."""
        try:
            store = self._opener()
        except NothingRecorded:
            yield None
            return
        with closing(store):
            yield store
