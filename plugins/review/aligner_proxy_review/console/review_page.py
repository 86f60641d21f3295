"""The review page: one queued answer at a time, its verdict, and what all reviews prove so far."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager

from starlette.responses import RedirectResponse, Response

from aligner_proxy.audit import writer
from aligner_proxy.errors import ConfigError, NothingRecorded
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.console.answer import AnswerView
from aligner_proxy_review.console.forms import PageError
from aligner_proxy_review.console.guidelines import Guideline, list_guidelines
from aligner_proxy_review.console.pages import Visit
from aligner_proxy_review.console.review_session import ReviewFigures, ReviewInput, ReviewSession, ReviewState
from aligner_proxy_review.evidence import compute_evidence
from aligner_proxy_review.judged_segments import judged_segments
from aligner_proxy_review.reviews import NoSuchPlace, ReviewVerdict, UnknownAnswer

PATH = "/review"
MAX_SEGMENTS = 500
"""Limit on the segments shown of one answer."""
_OTHER = "Another answer is current now, perhaps because of another tab; nothing was saved."
_LONGEST_NUMBER = 6
"""Digits of the longest number of a segment."""


async def show_review(visit: Visit) -> Response:
    """Show the current answer of the queue, with its segments."""
    entry, state = await asyncio.to_thread(_current_answer, visit)
    view = None if entry is None else AnswerView(entry)
    segments = judged_segments(entry.content)[:MAX_SEGMENTS] if entry and entry.content else []
    undone = visit.request.query_params.get("undone")
    return visit.render_page(
        "review.html",
        answer=view,
        segments=segments,
        guidelines=[] if entry is None else await asyncio.to_thread(_read_guidelines, visit, entry),
        desk=state,
        nothing_to_undo=undone == "0",
    )


async def show_figures(visit: Visit) -> Response:
    """Show the figures; the page loads them separately, since a large store takes a moment to read."""
    figures = await asyncio.to_thread(_compute_figures, visit)
    return visit.render_page(
        "review_figures.html", figures=figures, disagreed=[AnswerView(entry) for entry in figures.disagreed]
    )


async def take_verdict(visit: Visit, form: dict[str, str]) -> Response:
    """Do what a key or button of the page says, and load the page again; raises `PageError`."""
    undone = await asyncio.to_thread(_apply_form, visit, form)
    return RedirectResponse(PATH + ("" if undone else "?undone=0"), 303)


def _current_answer(visit: Visit) -> tuple[Entry | None, ReviewState]:
    """The current answer and the state; None as the answer if the queue is empty or nothing is recorded."""
    try:
        with _open_session(visit) as (session, state):
            next_answer = session.current_answer()
            return (None if next_answer is None else next_answer[0]), state
    except NothingRecorded:
        return None, visit.services.review_states.state_of(visit.session.id)


def _read_guidelines(visit: Visit, entry: Entry) -> list[Guideline]:
    """The guidelines for an answer; none while the policies file's index of heads is damaged, as its page says."""
    try:
        return list_guidelines(visit.services.files.current().policies, entry, visit.viewer)
    except ConfigError:
        return []


def _compute_figures(visit: Visit) -> ReviewFigures:
    """The figures of what this viewer may see; all 0 before the first answer is recorded."""
    try:
        with _open_session(visit) as (session, _):
            return session.compute_figures()
    except NothingRecorded:
        return ReviewFigures(compute_evidence([], []), 0, ())


def _apply_form(visit: Visit, form: dict[str, str]) -> bool:
    """Apply the action of a form; returns False if there was nothing to undo, else True. Raises `PageError`."""
    act = form.get("act", "")
    with _open_session(visit) as (session, _):
        if act == "undo":
            return session.undo()
        if act in ("first", "second"):
            session.switch_queue(second=act == "second")
            return True
        if act == "back":
            session.return_to_skipped()
            return True
        # The remaining actions need the answer for which the form was made.
        next_answer = session.current_answer()
        if next_answer is None or AnswerView(next_answer[0]).handle != form.get("answer"):
            raise PageError(409, _OTHER)
        if act == "next":
            session.skip()
            return True
        redact = writer.load_redaction(visit.services.files.current().policies)
        try:
            session.save(_parse_input(act, form, next_answer[0]), redact)
        except NoSuchPlace as error:
            raise PageError(400, f"The review was not saved: {error}.") from None
        except UnknownAnswer:
            raise PageError(409, "This answer was deleted meanwhile.") from None
    return True


def _parse_input(act: str, form: dict[str, str], entry: Entry) -> ReviewInput:
    """Parse the verdict from a form; raises `PageError`."""
    if act in (ReviewVerdict.RIGHT, ReviewVerdict.WRONG, ReviewVerdict.HARM):
        return ReviewInput(ReviewVerdict(act))
    segment = _parse_segment(form.get("segment", ""))
    objective = form.get("objective", "").strip() or None
    if act == ReviewVerdict.MISSED:
        return ReviewInput(ReviewVerdict.MISSED, segment, objective=objective)
    if act == "edit":
        # a better text means that the edit was bad, or that one was missing
        verdict = ReviewVerdict.HARM if entry.changed else ReviewVerdict.MISSED
        return ReviewInput(verdict, segment, form.get("edit", ""), objective)
    raise PageError(400, "There is no such verdict.")


def _parse_segment(text: str) -> int | None:
    """The number of a segment; None (the whole answer) if empty, and -1, which no answer has, if it is not a number."""
    if not text:
        return None
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_NUMBER else -1


@contextmanager
def _open_session(visit: Visit) -> Iterator[tuple[ReviewSession, ReviewState]]:
    """Yield this log-in's review session and its state; holds its lock, so that two tabs of one log-in take turns."""
    state = visit.services.review_states.state_of(visit.session.id)
    with state.lock, closing(visit.services.files.current().store()) as store:
        yield ReviewSession(store, state, visit.viewer), state
