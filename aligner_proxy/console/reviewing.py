"""The review page: one answer of the queue at a time, the verdict on it, and what the verdicts prove so far."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager

from starlette.responses import RedirectResponse, Response

from aligner_proxy.audit import writer
from aligner_proxy.audit.evidence import evidence
from aligner_proxy.audit.judged import judged_segments
from aligner_proxy.audit.reviews import ReviewVerdict
from aligner_proxy.console.answer import Shown
from aligner_proxy.console.desk import Desk, Figures, Said, Sitting
from aligner_proxy.console.forms import PageError
from aligner_proxy.console.pages import Visit
from aligner_proxy.errors import NoSuchPlace, NothingRecorded, UnknownAnswer
from aligner_proxy.plugins.api import Entry
from aligner_proxy.plugins.extensions import Boundary

PATH = "/review"
MOST_SEGMENTS = 500
_OTHER = "Another answer is on your desk now, perhaps by another tab; nothing was kept."
_LONGEST_NUMBER = 6


async def review(visit: Visit) -> Response:
    """The answer on the reviewer's desk."""
    entry, desk = await asyncio.to_thread(_answer, visit)
    shown = None if entry is None else Shown(entry)
    segments = judged_segments(entry.content)[:MOST_SEGMENTS] if entry and entry.content else []
    undone = visit.request.query_params.get("undone")
    return visit.page("review.html", answer=shown, segments=segments, desk=desk, nothing_to_undo=undone == "0")


async def figures(visit: Visit) -> Response:
    """The figures, which the page asks for by itself, since a large store takes a moment."""
    found = await asyncio.to_thread(_figures, visit)
    return visit.page("review_figures.html", figures=found, disagreed=[Shown(entry) for entry in found.disagreed])


async def judge(visit: Visit, form: dict[str, str]) -> Response:
    """A key, or a button, of the page."""
    undone = await asyncio.to_thread(_judged, visit, form)
    return RedirectResponse(PATH + ("" if undone else "?undone=0"), 303)


def _answer(visit: Visit) -> tuple[Entry | None, Desk]:
    try:
        with _sitting(visit) as (sitting, desk):
            found = sitting.answer()
            return (None if found is None else found[0]), desk
    except NothingRecorded:
        return None, visit.services.desks.of(visit.session.id)


def _figures(visit: Visit) -> Figures:
    try:
        with _sitting(visit) as (sitting, _):
            return sitting.figures()
    except NothingRecorded:
        return Figures(evidence([], []), 0, ())


def _judged(visit: Visit, form: dict[str, str]) -> bool:
    """Do what a form says; False where there was nothing to undo."""
    act = form.get("act", "")
    with _sitting(visit) as (sitting, _):
        if act == "undo":
            return sitting.undo()
        if act in ("first", "second"):
            sitting.turn_to(second=act == "second")
            return True
        if act == "back":
            sitting.back()
            return True
        # What follows is about one answer: the one that the form was made for.
        found = sitting.answer()
        if found is None or Shown(found[0]).handle != form.get("answer"):
            raise PageError(409, _OTHER)
        if act == "next":
            sitting.next()
            return True
        said = _said(act, form, found[0])
        try:
            sitting.keep(_redacted(visit, said))
        except NoSuchPlace as error:
            raise PageError(400, f"It was not kept: {error}.") from None
        except UnknownAnswer:
            raise PageError(409, "This answer was deleted meanwhile.") from None
    return True


def _said(act: str, form: dict[str, str], entry: Entry) -> Said:
    """What a form says of an answer; raises `PageError`."""
    if act in (ReviewVerdict.RIGHT, ReviewVerdict.WRONG, ReviewVerdict.HARM):
        return Said(ReviewVerdict(act))
    segment = _segment(form.get("segment", ""))
    objective = form.get("objective", "").strip() or None
    if act == ReviewVerdict.MISSED:
        return Said(ReviewVerdict.MISSED, segment, objective=objective)
    if act == "edit":
        verdict = ReviewVerdict.HARM if entry.changed else ReviewVerdict.MISSED
        return Said(verdict, segment, form.get("edit", ""), objective)
    raise PageError(400, "There is no such verdict.")


def _segment(text: str) -> int | None:
    """The number of a segment; -1, which no answer has, for what is none."""
    if not text:
        return None
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_NUMBER else -1


def _redacted(visit: Visit, said: Said) -> Said:
    """The same after the operator's redaction, which sees every text that is kept."""
    redact = writer.redaction(visit.services.files.current().policies)
    if redact is None or said.edit is None:
        return said
    with Boundary():  # only the type of its errors may be told
        return Said(said.verdict, said.segment, redact(said.edit), said.objective)


@contextmanager
def _sitting(visit: Visit) -> Iterator[tuple[Sitting, Desk]]:
    """Block with the reviewer at their desk; two tabs of one session wait for each other."""
    desk = visit.services.desks.of(visit.session.id)
    with desk.lock, closing(visit.services.files.current().store()) as store:
        yield Sitting(store, desk, visit.viewer), desk
