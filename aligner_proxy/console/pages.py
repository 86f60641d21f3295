"""The pages: what each shows to whom. Everything that blocks runs in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlencode

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from aligner_proxy.audit.evidence import disagreements
from aligner_proxy.console import access, policy_of
from aligner_proxy.console.access import Viewer
from aligner_proxy.console.answer import Shown, opinions
from aligner_proxy.console.desk import Desks
from aligner_proxy.console.files import Files
from aligner_proxy.console.following import MISSED, Follower
from aligner_proxy.console.forms import NOT_FOUND, PageError
from aligner_proxy.console.long_work import Works
from aligner_proxy.console.playground import Gateway, GatewayRefused, Question
from aligner_proxy.console.rates import PERIODS, Rates, rates
from aligner_proxy.console.reading import Answers, Filters, handle
from aligner_proxy.console.sessions import Session, Sessions
from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import config

LISTED = 50
MOST_COUNTED = 100_000
"""Answers that rates are counted from."""
MOST_STREAMS = 200
_KEEP_ALIVE_S = 10.0
_MOST_OBJECTIVES = 32
_LONGEST_MODEL = 200
_DEFAULT_PERIOD = "1d"


@dataclass(frozen=True, slots=True)
class Services:
    """What the pages use."""

    files: Files
    sessions: Sessions
    answers: Answers
    follower: Follower
    gateway: Gateway
    templates: Environment
    desks: Desks
    works: Works
    master: str = field(repr=False)
    """The hash of the master key."""

    def viewer_of(self, session: Session) -> Viewer | None:
        """Who has this session, by the keys file as it is now."""
        return access.viewer(session.digest, self.master, self.files.current().keys, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is logged in."""

    request: Request
    services: Services
    session: Session
    viewer: Viewer

    def page(self, template: str, **values: object) -> Response:
        """A page for this viewer."""
        token = self.services.sessions.token(self.session.id)
        text = self.services.templates.get_template(template).render(
            viewer=self.viewer, token=token, path=self.request.url.path, **values
        )
        return HTMLResponse(text)

    def is_open(self) -> bool:
        """Whether the session goes on, and its key is worth what it was when the request came."""
        sessions = self.services.sessions
        return sessions.is_open(self.session) and self.services.viewer_of(self.session) == self.viewer

    @property
    def filters(self) -> Filters:
        """The filters in the address."""
        return Filters.of(dict(self.request.query_params))


async def live(visit: Visit) -> Response:
    """The newest answers, and those that happen."""
    filters = visit.filters
    found = await asyncio.to_thread(visit.services.answers.newest, visit.viewer, filters, LISTED)
    shown = [Shown(entry) for entry in found.entries]
    return visit.page("live.html", answers=shown, found=found, filters=filters, query=visit.request.url.query)


async def events(visit: Visit) -> Response:
    """New answers as server-sent events, each with the HTML of its line."""
    follower = visit.services.follower
    if follower.pages >= MOST_STREAMS:
        raise PageError(503, "Too many pages follow; close some.")
    return StreamingResponse(_events(visit, follower), media_type="text/event-stream")


async def _events(visit: Visit, follower: Follower) -> AsyncIterator[str]:
    row = visit.services.templates.get_template("answer_row.html")
    filters = visit.filters

    def event(entry: Entry) -> str:
        name = handle(entry)
        if name not in follower.rendered:
            lines = row.render(answer=Shown(entry)).replace("\r", "").split("\n")
            follower.rendered[name] = "event: answer\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
        return follower.rendered[name]

    def shown(entries: Sequence[Entry]) -> str:
        ours = (entry for entry in entries if visit.viewer.may_see(entry.tenant) and filters.admit(entry))
        return "".join(map(event, ours))

    kind = (visit.viewer.tenants, filters)
    with follower.page() as queue:
        yield "retry: 2000\n: following\n\n"
        yield shown(await follower.lately())
        while visit.is_open():
            try:
                happened = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_S)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            yield "event: missed\ndata: \n\n" if happened is MISSED else happened.shown(kind, shown)
        yield "event: over\ndata: \n\n"


async def answer(visit: Visit) -> Response:
    """One answer, edit by edit."""
    services = visit.services
    entry = await asyncio.to_thread(services.answers.find, visit.viewer, visit.request.path_params["handle"])
    if entry is None:
        raise PageError(404, NOT_FOUND)
    policy = await asyncio.to_thread(lambda: policy_of.of_entry(services.files.current(), entry))
    reviews = await asyncio.to_thread(services.answers.reviews, entry)
    other = await asyncio.to_thread(services.answers.beside, entry)
    return visit.page(
        "answer.html",
        answer=Shown(entry),
        policy=policy,
        opinions=opinions(reviews),
        apart=disagreements(reviews),
        beside=Shown(other) if other is not None and visit.viewer.may_see(other.tenant) else None,
    )


async def counted(visit: Visit) -> Response:
    """The rates of a period."""
    name = visit.request.query_params.get("period", _DEFAULT_PERIOD)
    if name not in PERIODS:
        name = _DEFAULT_PERIOD
    found = await asyncio.to_thread(_rates, visit, PERIODS[name])
    return visit.page("rates.html", rates=found, period=name, periods=PERIODS)


def _rates(visit: Visit, period: float) -> Rates:
    now = time.time()
    counted = visit.services.answers.counted(visit.viewer, now - period, MOST_COUNTED + 1)
    return rates(counted[:MOST_COUNTED], now, period, cut=len(counted) > MOST_COUNTED)


async def playground(visit: Visit) -> Response:
    """The empty playground, with the choices of a link; for the operator alone, who is the gateway's master."""
    refuse_reviewers(visit)
    asked = await asyncio.to_thread(_linked, visit)
    return visit.page("playground.html", judged=None, asked=asked, problem=None, policy=None, link=None)


def _linked(visit: Visit) -> Question:
    """What a link chooses: a model, and objectives by the names that they have here; never a text."""
    query = visit.request.query_params
    named = _names_of(visit, query.get("objectives", "").split(","))
    return Question("", "", query.get("model", "")[:_LONGEST_MODEL], named)


def _names_of(visit: Visit, given: Sequence[str]) -> tuple[str, ...]:
    """Those that are names of objectives; anything else could be a text."""
    known = config.objectives(visit.services.files.current().policies)
    return tuple(name for name in given[:_MOST_OBJECTIVES] if name in known)


def _link(visit: Visit, asked: Question) -> str:
    """The address of the playground with the same choices, without question, answer and objectives in own words."""
    names = ",".join(_names_of(visit, asked.objectives))
    return "/playground?" + urlencode({"model": asked.model[:_LONGEST_MODEL], "objectives": names})


async def play(visit: Visit, form: dict[str, str]) -> Response:
    """An answer judged."""
    refuse_reviewers(visit)
    lines = [line.strip() for line in form.get("objectives", "").split("\n")]
    objectives = tuple(line for line in lines if line)[:_MOST_OBJECTIVES]
    asked = Question(form.get("answer", ""), form.get("question", ""), form.get("model", "").strip(), objectives)
    judged = None
    problem = None
    try:
        judged = await visit.services.gateway.judge(asked)
    except GatewayRefused as error:
        problem = str(error)
    policy = await asyncio.to_thread(_policy, visit, asked.model, "", "master")
    link = await asyncio.to_thread(_link, visit, asked)
    return visit.page("playground.html", judged=judged, asked=asked, problem=problem, policy=policy, link=link)


async def policy(visit: Visit, form: dict[str, str]) -> Response:
    """The policy that a model, team and key would get."""
    refuse_reviewers(visit)
    given = {name: form.get(name, "").strip() for name in ("model", "team", "key")}
    found = await asyncio.to_thread(partial(_policy, visit, **given))
    return visit.page("policy.html", policy=found, given=given)


def _policy(visit: Visit, model: str, team: str, key: str) -> policy_of.Explained | None:
    try:
        return policy_of.of_request(visit.services.files.current(), model, team, key)
    except (ForbiddenError, BadRequest):
        return None


def refuse_reviewers(visit: Visit) -> None:
    """Raise `PageError` as for a page that is not there, unless this is the operator."""
    if not visit.viewer.is_operator:
        raise PageError(404, NOT_FOUND)
