"""A reviewer's desk: the answer that lies on it, what was passed over, and the verdicts given since the log-in.

Which answer it is, and how it was drawn, is kept here and not in the form: a browser could say that an answer near the
threshold was drawn at random, and so change what is known of all answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import TTLCache

from aligner_proxy.audit.evidence import Evidence, read_evidence
from aligner_proxy.audit.review_queue import AnswerFilter, AnswerPlace, ReviewQueue, find_entry
from aligner_proxy.audit.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.console.access import Viewer
from aligner_proxy.console.sessions import LIFETIME_S
from aligner_proxy.plugins.api import Entry

PERIOD_S = 30 * 86_400.0
"""How far back answers are looked for, as the command `review` does unless told otherwise."""
_MOST_DESKS = 1000
_MOST_PASSED = 200
Drawn = tuple[AnswerPlace, ReviewOrigin]
Redact = Callable[[str], str]


@dataclass(slots=True)
class ReviewState:
    """The desk of one session."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    current: Drawn | None = None
    skipped: list[Drawn] = field(default_factory=list)
    """Answers that were left without a verdict, the last one at the end."""
    reviews: list[tuple[Review, ReviewOrigin]] = field(default_factory=list)
    """Verdicts of this session."""
    second: bool = False
    """Whether the answers are those that somebody else has reviewed."""


class ReviewStates:
    """The desks of the open sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: TTLCache[str, ReviewState] = TTLCache(_MOST_DESKS, LIFETIME_S)

    def state_of(self, session: str) -> ReviewState:
        """The desk of a session."""
        with self._lock:
            return self._of.setdefault(session, ReviewState())


@dataclass(frozen=True, slots=True)
class ReviewInput:
    """What a form says of the answer on the desk."""

    verdict: ReviewVerdict
    segment: int | None = None
    edit: str | None = None
    objective: str | None = None


class ReviewSession:
    """A reviewer at their desk, with the store open. The caller holds the desk's lock."""

    def __init__(self, store: AuditStore, state: ReviewState, viewer: Viewer) -> None:
        self._store = store
        self._state = state
        self._viewer = viewer
        self._who = reviewer_name(viewer)
        self.answer_filter = AnswerFilter(since=time.time() - PERIOD_S, tenants=viewer.tenants)
        self._queue = ReviewQueue(store, self._who, self.answer_filter, second=state.second)

    def current_answer(self) -> tuple[Entry, ReviewOrigin] | None:
        """The answer on the desk, else the next one; held for this reviewer. None: nothing waits."""
        if self._state.current is not None:
            place, chosen = self._state.current
            entry = find_entry(self._store, place)
            if entry is not None and self._viewer.may_see(entry.tenant) and self._queue.hold(place):
                return entry, chosen
        drawn = self._queue.next([place for place, _ in self._state.skipped])
        self._state.current = None if drawn is None else ((drawn[0].aligner_id, drawn[0].choice), drawn[1])
        return drawn

    def save(self, review_input: ReviewInput) -> None:
        """Keep a verdict on the answer on the desk; raises `UnknownAnswer` and `NoSuchPlace`."""
        if self._state.current is None:
            return
        place, chosen = self._state.current
        tenant = self._tenant_of(place)
        review = Review(
            *place,
            review_input.verdict,
            self._who,
            time.time(),
            chosen,
            review_input.segment,
            review_input.edit,
            review_input.objective,
            tenant,
        )
        Reviews(self._store).save(review)
        self._state.reviews.append((review, chosen))
        self._state.current = None
        self._queue.release()

    def _tenant_of(self, place: AnswerPlace) -> str:
        """The answer's tenant; a name that no tenant has where this reviewer may not see it."""
        entry = find_entry(self._store, place)
        return entry.tenant if entry is not None and self._viewer.may_see(entry.tenant) else "\0"

    def undo(self) -> bool:
        """Take the last verdict back, and lay its answer on the desk; False: there is none."""
        while self._state.reviews:
            review, chosen = self._state.reviews.pop()
            if Reviews(self._store).withdraw(review):
                self._state.current = ((review.aligner_id, review.choice), chosen)
                return True
        return False

    def skip(self) -> None:
        """Leave the answer on the desk without a verdict."""
        if self._state.current is not None:
            self._state.skipped.append(self._state.current)
            del self._state.skipped[:-_MOST_PASSED]
            self._state.current = None
            self._queue.release()

    def return_to_skipped(self) -> None:
        """Lay the answer that was passed over last on the desk again."""
        if self._state.skipped:
            self._state.current = self._state.skipped.pop()

    def switch_queue(self, *, second: bool) -> None:
        """Take up the answers that somebody else has reviewed, or those that nobody has."""
        self._queue.release()
        self._state.second = second
        self._state.current = None
        self._state.skipped.clear()

    def compute_figures(self) -> ReviewFigures:
        """What the reviews prove so far, of the answers that this reviewer may see."""
        evidence = read_evidence(self._store, self.answer_filter)
        places = (*evidence.disagreed, *evidence.disputed)[:_MOST_PASSED]
        apart = [entry for place in places if (entry := find_entry(self._store, place)) is not None]
        return ReviewFigures(evidence, self._queue.count_waiting(), tuple(apart))


@dataclass(frozen=True, slots=True)
class ReviewFigures:
    """What the reviews prove, how many answers wait, and those on which people disagree."""

    evidence: Evidence
    waiting: int
    disagreed: tuple[Entry, ...]


def reviewer_name(viewer: Viewer) -> str:
    """The name in the reviews, as the command `review` writes it."""
    return f"reviewer:{viewer.name}"
