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

from aligner_proxy.audit.evidence import Evidence, evidence_of
from aligner_proxy.audit.review_queue import Place, ReviewQueue, Wanted, entry_at
from aligner_proxy.audit.reviews import Chosen, Review, Reviews, ReviewVerdict
from aligner_proxy.audit.store import Store
from aligner_proxy.console.access import Viewer
from aligner_proxy.console.sessions import LIFETIME_S
from aligner_proxy.plugins.api import Entry

PERIOD_S = 30 * 86_400.0
"""How far back answers are looked for, as the command `review` does unless told otherwise."""
_MOST_DESKS = 1000
_MOST_PASSED = 200
Drawn = tuple[Place, Chosen]
Redact = Callable[[str], str]


@dataclass(slots=True)
class Desk:
    """The desk of one session."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    current: Drawn | None = None
    passed: list[Drawn] = field(default_factory=list)
    """Answers that were left without a verdict, the last one at the end."""
    given: list[tuple[Review, Chosen]] = field(default_factory=list)
    """Verdicts of this session."""
    second: bool = False
    """Whether the answers are those that somebody else has reviewed."""


class Desks:
    """The desks of the open sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: TTLCache[str, Desk] = TTLCache(_MOST_DESKS, LIFETIME_S)

    def of(self, session: str) -> Desk:
        """The desk of a session."""
        with self._lock:
            return self._of.setdefault(session, Desk())


@dataclass(frozen=True, slots=True)
class Said:
    """What a form says of the answer on the desk."""

    verdict: ReviewVerdict
    segment: int | None = None
    edit: str | None = None
    objective: str | None = None


class Sitting:
    """A reviewer at their desk, with the store open. The caller holds the desk's lock."""

    def __init__(self, store: Store, desk: Desk, viewer: Viewer) -> None:
        self._store = store
        self._desk = desk
        self._viewer = viewer
        self._who = who(viewer)
        self.wanted = Wanted(since=time.time() - PERIOD_S, tenants=viewer.tenants)
        self._queue = ReviewQueue(store, self._who, self.wanted, second=desk.second)

    def answer(self) -> tuple[Entry, Chosen] | None:
        """The answer on the desk, else the next one; held for this reviewer. None: nothing waits."""
        if self._desk.current is not None:
            place, chosen = self._desk.current
            entry = entry_at(self._store, place)
            if entry is not None and self._viewer.may_see(entry.tenant) and self._queue.hold(place):
                return entry, chosen
        found = self._queue.next([place for place, _ in self._desk.passed])
        self._desk.current = None if found is None else ((found[0].aligner_id, found[0].choice), found[1])
        return found

    def keep(self, said: Said) -> None:
        """Keep a verdict on the answer on the desk; raises `UnknownAnswer` and `NoSuchPlace`."""
        if self._desk.current is None:
            return
        place, chosen = self._desk.current
        tenant = self._tenant(place)
        review = Review(
            *place, said.verdict, self._who, time.time(), chosen, said.segment, said.edit, said.objective, tenant
        )
        Reviews(self._store).keep(review)
        self._desk.given.append((review, chosen))
        self._desk.current = None
        self._queue.release()

    def _tenant(self, place: Place) -> str:
        """The answer's tenant; a name that no tenant has where this reviewer may not see it."""
        entry = entry_at(self._store, place)
        return entry.tenant if entry is not None and self._viewer.may_see(entry.tenant) else "\0"

    def undo(self) -> bool:
        """Take the last verdict back, and lay its answer on the desk; False: there is none."""
        while self._desk.given:
            review, chosen = self._desk.given.pop()
            if Reviews(self._store).withdraw(review):
                self._desk.current = ((review.aligner_id, review.choice), chosen)
                return True
        return False

    def next(self) -> None:
        """Leave the answer on the desk without a verdict."""
        if self._desk.current is not None:
            self._desk.passed.append(self._desk.current)
            del self._desk.passed[:-_MOST_PASSED]
            self._desk.current = None
            self._queue.release()

    def back(self) -> None:
        """Lay the answer that was passed over last on the desk again."""
        if self._desk.passed:
            self._desk.current = self._desk.passed.pop()

    def turn_to(self, *, second: bool) -> None:
        """Take up the answers that somebody else has reviewed, or those that nobody has."""
        self._queue.release()
        self._desk.second = second
        self._desk.current = None
        self._desk.passed.clear()

    def figures(self) -> Figures:
        """What the reviews prove so far, of the answers that this reviewer may see."""
        found = evidence_of(self._store, self.wanted)
        places = (*found.disagreed, *found.disputed)[:_MOST_PASSED]
        apart = [entry for place in places if (entry := entry_at(self._store, place)) is not None]
        return Figures(found, self._queue.waiting(), tuple(apart))


@dataclass(frozen=True, slots=True)
class Figures:
    """What the reviews prove, how many answers wait, and those on which people disagree."""

    found: Evidence
    waiting: int
    disagreed: tuple[Entry, ...]


def who(viewer: Viewer) -> str:
    """The name in the reviews, as the command `review` writes it."""
    return f"reviewer:{viewer.name}"
