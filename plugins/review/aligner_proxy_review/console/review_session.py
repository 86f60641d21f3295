"""Review session of one log-in: the current answer, the skipped answers, and the verdicts so far.

The server stores which answer is shown and how it was drawn. If the form said so instead, a browser could claim that an
answer near the threshold was drawn at random and so distort the estimates for all answers.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from cachetools import TTLCache

from aligner_proxy.audit.entry import Redact
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.console.access import Viewer
from aligner_proxy_review.console.sessions import LIFETIME_S
from aligner_proxy_review.evidence import Evidence, read_evidence
from aligner_proxy_review.review_queue import AnswerFilter, AnswerPlace, ReviewQueue, find_entry
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict

MAX_ANSWER_AGE_S = 30 * 86_400.0
"""The queue has only answers that are not older, in seconds; this is also the default of the `review` command."""
_MAX_STATES = 1000
_MAX_REMEMBERED = 200
"""At most this many skipped answers are remembered, and this many disagreements listed."""
DrawnAnswer = tuple[AnswerPlace, ReviewOrigin]
"""(an answer, how it was chosen for review)."""


@dataclass(slots=True)
class ReviewState:
    """What the server remembers of one reviewer's work between two requests."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    current: DrawnAnswer | None = None
    """The answer that is shown; None before the first answer, and between two answers."""
    skipped: list[DrawnAnswer] = field(default_factory=list)
    """Answers that were skipped without a verdict, the latest last."""
    reviews: list[Review] = field(default_factory=list)
    """The reviews of this session, the latest last."""
    wants_second_opinions: bool = False
    """Whether the reviewer wants answers that somebody else has already reviewed."""


class ReviewStates:
    """The review states of the open sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: TTLCache[str, ReviewState] = TTLCache(_MAX_STATES, LIFETIME_S)
        """The states by the session's id."""

    def state_of(self, session_id: str) -> ReviewState:
        """Return the state of a session; create it on first use."""
        with self._lock:
            return self._states.setdefault(session_id, ReviewState())


@dataclass(frozen=True, slots=True)
class ReviewInput:
    """The verdict that a form gives on the current answer; the fields mean the same as those of `Review`."""

    verdict: ReviewVerdict
    segment: int | None = None
    edit: str | None = None
    objective: str | None = None


class ReviewSession:
    """What one reviewer does on the review page: get an answer, judge it, skip it, or undo the last verdict.

    A session is created for each request, from the reviewer's state. The caller must hold the state's lock.
    """

    def __init__(self, store: AuditStore, state: ReviewState, viewer: Viewer) -> None:
        self._store = store
        self._state = state
        self._viewer = viewer
        self._reviewer = f"reviewer:{viewer.name}"  # as the command `review` writes it
        # the queue has only answers of this reviewer's tenants
        self.answer_filter = AnswerFilter(since=time.time() - MAX_ANSWER_AGE_S, tenants=viewer.tenants)
        self._queue = ReviewQueue(store, self._reviewer, self.answer_filter, second_opinion=state.wants_second_opinions)

    def current_answer(self) -> tuple[Entry, ReviewOrigin] | None:
        """Return (current answer, how it was chosen); without a current answer, draw the next. None if none is left.

        The answer is leased to this reviewer, so for a while no other reviewer gets it.
        """
        if self._state.current is not None:
            place, origin = self._state.current
            entry = find_entry(self._store, place)
            # the answer may have been deleted, hidden from this reviewer, or leased to somebody else
            if entry is not None and self._viewer.may_see(entry.tenant) and self._queue.lease(place):
                return entry, origin
        next_answer = self._queue.next([place for place, _ in self._state.skipped])
        self._state.current = None
        if next_answer is not None:
            entry, origin = next_answer
            self._state.current = ((entry.aligner_id, entry.choice), origin)
        return next_answer

    def save(self, review_input: ReviewInput, redact: Redact) -> None:
        """Save a verdict on the current answer, with its texts redacted, and release the answer.

        Does nothing without a current answer. Raises what `Reviews.save` raises.
        """
        if self._state.current is None:
            return
        place, origin = self._state.current
        aligner_id, choice = place
        review = Review(
            aligner_id,
            choice,
            review_input.verdict,
            self._reviewer,
            at=time.time(),
            chosen=origin,
            segment=review_input.segment,
            edit=review_input.edit,
            objective=review_input.objective,
            # the store refuses the review if the reviewer may no longer see the answer
            tenant=self._tenant_of(place),
        )
        Reviews(self._store).save(review, redact)
        self._state.reviews.append(review)
        self._state.current = None
        self._queue.release()

    def _tenant_of(self, place: AnswerPlace) -> str:
        """The tenant of an answer; if this reviewer may not see it, a name that no tenant can have."""
        entry = find_entry(self._store, place)
        return entry.tenant if entry is not None and self._viewer.may_see(entry.tenant) else "\0"

    def undo(self) -> bool:
        """Withdraw the last verdict, and make its answer current again; return False if there is no verdict."""
        while self._state.reviews:
            review = self._state.reviews.pop()
            # False means that the answer was deleted with its verdict; then the verdict before it is withdrawn
            if Reviews(self._store).withdraw(review):
                self._state.current = ((review.aligner_id, review.choice), review.chosen)
                return True
        return False

    def skip(self) -> None:
        """Skip the current answer without a verdict."""
        if self._state.current is not None:
            self._state.skipped.append(self._state.current)
            # answers that were skipped long ago are forgotten, so the queue may give them again
            del self._state.skipped[:-_MAX_REMEMBERED]
            self._state.current = None
            self._queue.release()

    def return_to_skipped(self) -> None:
        """Show the answer that was skipped last again."""
        if self._state.skipped:
            self._state.current = self._state.skipped.pop()

    def switch_queue(self, *, wants_second_opinions: bool) -> None:
        """Switch to answers that somebody else has reviewed, or back to answers that nobody has reviewed.

        The current answer is released, and the skipped answers are forgotten.
        """
        self._queue.release()
        self._state.wants_second_opinions = wants_second_opinions
        self._state.current = None
        self._state.skipped.clear()

    def compute_figures(self) -> ReviewFigures:
        """Compute what the reviews prove so far about the answers that this reviewer may see."""
        evidence = read_evidence(self._store, self.answer_filter)
        places = (*evidence.disagreed, *evidence.disputed)[:_MAX_REMEMBERED]
        entries = (find_entry(self._store, place) for place in places)
        existing_entries = tuple(entry for entry in entries if entry is not None)
        return ReviewFigures(evidence, self._queue.count_waiting(), existing_entries)


@dataclass(frozen=True, slots=True)
class ReviewFigures:
    """What the reviews prove, how many answers wait, and on which answers people disagree."""

    evidence: Evidence
    waiting_count: int
    disagreed: tuple[Entry, ...]
    """The answers on which reviewers disagree with each other or with feedback, at most `_MAX_REMEMBERED`."""
