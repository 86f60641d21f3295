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
from aligner_proxy_review.reviews import NoSuchPlace, ReviewVerdict, UnknownAnswer, parse_segment

PATH = "/review"
MAX_SEGMENTS = 500
"""At most this many segments of an answer are shown."""
_OTHER_ANSWER = "Another answer is current now, perhaps because of another tab; nothing was saved."


async def show_review(visit: Visit) -> Response:
    """Show the current answer of the queue, with its segments."""
    entry, state = await asyncio.to_thread(_current_answer, visit)
    return visit.render_page(
        "review.html",
        answer=None if entry is None else AnswerView(entry),
        segments=judged_segments(entry.content)[:MAX_SEGMENTS] if entry and entry.content else [],
        guidelines=[] if entry is None else await asyncio.to_thread(_read_guidelines, visit, entry),
        review_state=state,
        nothing_to_undo=visit.request.query_params.get("undone") == "0",
    )


async def show_figures(visit: Visit) -> Response:
    """Show the figures; the page loads them separately, since a large store takes a moment to read."""
    figures = await asyncio.to_thread(_compute_figures, visit)
    return visit.render_page(
        "review_figures.html", figures=figures, disagreed=[AnswerView(entry) for entry in figures.disagreed]
    )


async def take_verdict(visit: Visit, form: dict[str, str]) -> Response:
    """Do what a key or button of the page says, and load the page again; raises `PageError`."""
    has_succeeded = await asyncio.to_thread(_apply_form, visit, form)
    return RedirectResponse(PATH if has_succeeded else f"{PATH}?undone=0", 303)


def _current_answer(visit: Visit) -> tuple[Entry | None, ReviewState]:
    """Return (answer to review now, state of the visit's session); no answer if none waits or none is recorded."""
    try:
        with _open_session(visit) as (session, state):
            drawn_answer = session.current_answer()
            return (None if drawn_answer is None else drawn_answer[0]), state
    except NothingRecorded:
        return None, visit.services.review_states.state_of(visit.session.id)


def _read_guidelines(visit: Visit, entry: Entry) -> list[Guideline]:
    """Read the guidelines for an answer; empty if the index of taught heads is damaged, which another page says."""
    try:
        return list_guidelines(visit.services.files.current().policies, entry, visit.viewer)
    except ConfigError:
        return []


def _compute_figures(visit: Visit) -> ReviewFigures:
    """Compute the figures of what this viewer may see; all are 0 before the first answer is recorded."""
    try:
        with _open_session(visit) as (session, _):
            return session.compute_figures()
    except NothingRecorded:
        return ReviewFigures(compute_evidence([], []), 0, ())


def _apply_form(visit: Visit, form: dict[str, str]) -> bool:
    """Do what the button of a form says; return False if there was nothing to undo, else True.

    Raises `PageError` for an unknown button, or if the form was shown with another answer.
    """
    button = form.get("act", "")
    with _open_session(visit) as (session, _):
        if button == "undo":
            return session.undo()
        if button in ("first", "second"):
            session.switch_queue(wants_second_opinions=button == "second")
            return True
        if button == "back":
            session.return_to_skipped()
            return True
        # The remaining buttons are about the answer with which the form was shown.
        drawn_answer = session.current_answer()
        if drawn_answer is None:
            raise PageError(409, _OTHER_ANSWER)
        entry, _ = drawn_answer
        if AnswerView(entry).handle != form.get("answer"):
            raise PageError(409, _OTHER_ANSWER)
        if button == "next":
            session.skip()
            return True
        _save_review(visit, session, _parse_input(button, form, entry))
    return True


def _save_review(visit: Visit, session: ReviewSession, review_input: ReviewInput) -> None:
    """Save a review of the current answer; raises `PageError` if the answer, or what the review names, is not there."""
    redact = writer.load_redaction(visit.services.files.current().policies)
    try:
        session.save(review_input, redact)
    except NoSuchPlace as error:
        raise PageError(400, f"The review was not saved: {error}.") from None
    except UnknownAnswer:
        raise PageError(409, "This answer was deleted meanwhile.") from None


def _parse_input(button: str, form: dict[str, str], entry: Entry) -> ReviewInput:
    """Read the review of an entry from the pressed button and the fields of the form.

    `button` is a `ReviewVerdict` or "edit"; raises `PageError` for anything else.
    """
    if button in (ReviewVerdict.RIGHT, ReviewVerdict.WRONG, ReviewVerdict.HARM):
        return ReviewInput(ReviewVerdict(button))
    segment = parse_segment(form.get("segment", ""))
    objective = form.get("objective", "").strip() or None
    if button == ReviewVerdict.MISSED:
        return ReviewInput(ReviewVerdict.MISSED, segment=segment, objective=objective)
    if button == "edit":
        # a better text means that the edit was bad, or that an edit was missing
        verdict = ReviewVerdict.HARM if entry.changed else ReviewVerdict.MISSED
        return ReviewInput(verdict, segment=segment, edit=form.get("edit", ""), objective=objective)
    raise PageError(400, "There is no such verdict.")


@contextmanager
def _open_session(visit: Visit) -> Iterator[tuple[ReviewSession, ReviewState]]:
    """Yield this log-in's review session and its state.

    The state's lock is held until the end of the block, so that two tabs of one log-in take turns.
    """
    state = visit.services.review_states.state_of(visit.session.id)
    with state.lock, closing(visit.services.files.current().store()) as store:
        yield ReviewSession(store, state, visit.viewer), state
