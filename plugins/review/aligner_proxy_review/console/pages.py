"""Handlers of most pages, and what all pages need; everything that blocks runs in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import config
from aligner_proxy.policy.resolver import entry_name
from aligner_proxy_review.console import access, policy_explanation
from aligner_proxy_review.console.access import Viewer
from aligner_proxy_review.console.answer import AnswerView, list_opinions
from aligner_proxy_review.console.answer_queries import AnswerQueries, ListFilters, answer_handle, route_name
from aligner_proxy_review.console.files import ConsoleFiles
from aligner_proxy_review.console.forms import NOT_FOUND, PageError
from aligner_proxy_review.console.jobs import ConsoleJobs
from aligner_proxy_review.console.live_feed import MISSED, LiveFeed
from aligner_proxy_review.console.playground import GatewayClient, GatewayRefused, PlaygroundQuestion
from aligner_proxy_review.console.rates import PERIODS, Rates, compute_rates
from aligner_proxy_review.console.review_session import ReviewStates
from aligner_proxy_review.console.sessions import ConsoleSession, ConsoleSessions
from aligner_proxy_review.evidence import reviewers_disagree

LISTED = 50
"""How many answers the live page shows at first."""
MAX_COUNTED = 100_000
"""Rates are counted from at most this many answers."""
MAX_STREAMS = 200
_KEEP_ALIVE_S = 10.0
"""Seconds after which an idle stream sends a comment, and checks whether its session has ended."""
_MAX_OBJECTIVES = 32
"""At most this many objectives of a question in the playground are used."""
_MAX_MODEL_CHARS = 200
"""A longer name of a model is cut in a link."""
_MAX_SEARCH_CHARS = 500
"""A longer text to search for is cut."""
_DEFAULT_PERIOD = "1d"


@dataclass(frozen=True, slots=True)
class Services:
    """The services that pages use."""

    files: ConsoleFiles
    sessions: ConsoleSessions
    answers: AnswerQueries
    feed: LiveFeed
    gateway: GatewayClient
    templates: Environment
    review_states: ReviewStates
    jobs: ConsoleJobs
    master: str = field(repr=False)
    """The hash of the master key."""

    def find_viewer(self, session: ConsoleSession) -> Viewer | None:
        """Return the owner of a session by the current keys file; None if their key was withdrawn."""
        return access.find_viewer(session.digest, self.master, self.files.current().keys, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Visit:
    """One request by a logged-in person (the viewer)."""

    request: Request
    services: Services
    session: ConsoleSession
    viewer: Viewer

    def render_page(self, template: str, **values: object) -> Response:
        """Render a page from a template, with `values`, the viewer, and the session's token for forms."""
        token = self.services.sessions.form_token(self.session.id)
        text = self.services.templates.get_template(template).render(
            viewer=self.viewer, token=token, path=self.request.url.path, **values
        )
        return HTMLResponse(text)

    def is_open(self) -> bool:
        """Whether the session is still open and its key still gives the same access as when the request arrived."""
        sessions = self.services.sessions
        return sessions.is_open(self.session) and self.services.find_viewer(self.session) == self.viewer

    @property
    def filters(self) -> ListFilters:
        """The filters in the query string."""
        return ListFilters.from_query(dict(self.request.query_params))


async def show_live(visit: Visit) -> Response:
    """Show the newest answers; the page then adds new ones as they arrive."""
    filters = visit.filters
    answers = await asyncio.to_thread(visit.services.answers.newest, visit.viewer, filters, LISTED)
    views = [AnswerView(entry) for entry in answers.entries]
    return visit.render_page(
        "live.html",
        answers=views,
        found=answers,
        filters=filters,
        choices=_filter_choices(visit, answers.entries),
        counts=await asyncio.to_thread(visit.services.answers.count_values, visit.viewer, filters),
    )


def _filter_choices(visit: Visit, entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the values that the page suggests for each filter, by its name: from the listed answers and the files.

    Only values that the viewer may know are suggested.
    """
    console_config = visit.services.files.current()
    tenants = {entry.tenant for entry in entries} | {access.TEAM + team for team in console_config.team_names}
    routes = {route_name(entry) for entry in entries}
    if visit.viewer.is_operator:
        routes |= {entry_name(route, index) for index, route in enumerate(console_config.policies.routes)}
    return {
        "tenant": sorted(filter(visit.viewer.may_see, tenants)),
        "route": sorted(routes),
        "objective": sorted(config.objectives(console_config.policies)),
    }


async def show_search(visit: Visit) -> Response:
    """Show the empty search form."""
    return visit.render_page("search.html", search_text="", answers=None, found=None)


async def search_answers(visit: Visit, form: dict[str, str]) -> Response:
    """Show the newest answers with an id or a text, which comes in a form, so that no address contains it."""
    search_text = form.get("search_text", "").strip()[:_MAX_SEARCH_CHARS]
    if not search_text:
        return await show_search(visit)
    answers = await asyncio.to_thread(visit.services.answers.search, visit.viewer, search_text, LISTED)
    views = [AnswerView(entry) for entry in answers.entries]
    return visit.render_page("search.html", search_text=search_text, answers=views, found=answers)


async def stream_events(visit: Visit) -> Response:
    """Stream new answers as server-sent events, each with the HTML of its row."""
    feed = visit.services.feed
    if feed.page_count >= MAX_STREAMS:
        raise PageError(503, "Too many live pages are open; close some.")
    return StreamingResponse(_iter_events(visit, feed), media_type="text/event-stream")


async def _iter_events(visit: Visit, feed: LiveFeed) -> AsyncIterator[str]:
    """Yield the server-sent events of a live page: first recent entries, then new batches, until the session ends."""
    row_template = visit.services.templates.get_template("answer_row.html")
    filters = visit.filters

    def render_event(entry: Entry) -> str:
        handle = answer_handle(entry)
        if handle not in feed.rendered:
            # each line of an event needs a field of its own, and a carriage return would end a line, too
            lines = row_template.render(answer=AnswerView(entry)).replace("\r", "").split("\n")
            feed.rendered[handle] = "event: answer\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
        return feed.rendered[handle]

    def render_entries(entries: Sequence[Entry]) -> str:
        """Render those entries that the viewer may see and that pass the filters."""
        visible_entries = (entry for entry in entries if visit.viewer.may_see(entry.tenant) and filters.admit(entry))
        return "".join(map(render_event, visible_entries))

    # pages with the same tenants and filters show the same entries, so they share the rendered batches
    kind_of_page = (visit.viewer.tenants, filters)
    with feed.open_page() as queue:
        yield "retry: 2000\n: following\n\n"
        yield render_entries(await feed.recent_entries())
        while visit.is_open():
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S):
                    batch = await queue.get()
            except TimeoutError:
                yield ": still here\n\n"
                continue
            yield "event: missed\ndata: \n\n" if batch is MISSED else batch.render(kind_of_page, render_entries)
        yield "event: over\ndata: \n\n"


async def show_answer(visit: Visit) -> Response:
    """Show one answer with its policy, its reviews and the shadow aligner's result; raises `PageError` 404."""
    services = visit.services
    entry = await asyncio.to_thread(services.answers.find, visit.viewer, visit.request.path_params["handle"])
    if entry is None:
        raise PageError(404, NOT_FOUND)
    policy = await asyncio.to_thread(lambda: policy_explanation.explain_entry(services.files.current(), entry))
    reviews = await asyncio.to_thread(services.answers.reviews, entry)
    shadow_entry = await asyncio.to_thread(services.answers.shadow_entry, entry)
    if shadow_entry is not None and not visit.viewer.may_see(shadow_entry.tenant):
        shadow_entry = None
    return visit.render_page(
        "answer.html",
        answer=AnswerView(entry),
        policy=policy,
        opinions=list_opinions(reviews),
        reviewers_disagree=reviewers_disagree(reviews),
        shadow_answer=None if shadow_entry is None else AnswerView(shadow_entry),
    )


async def show_rates(visit: Visit) -> Response:
    """Show the rates of the period in the query string."""
    name, period = read_period(visit)
    rates = await asyncio.to_thread(count_rates, visit, period)
    return visit.render_page("rates.html", rates=rates, period=name, periods=PERIODS)


def read_period(visit: Visit) -> tuple[str, float]:
    """(name, length in seconds) of the period that the query string names, by default a day."""
    name = visit.request.query_params.get("period", _DEFAULT_PERIOD)
    if name not in PERIODS:
        name = _DEFAULT_PERIOD
    return name, PERIODS[name]


def count_rates(visit: Visit, period: float) -> Rates:
    """Compute the rates of the last `period` seconds from the answers that the viewer may see."""
    now = time.time()
    # one answer more than is counted shows whether answers are left out
    answers = visit.services.answers.counted_answers(visit.viewer, now - period, MAX_COUNTED + 1)
    return compute_rates(answers[:MAX_COUNTED], now, period, is_cut=len(answers) > MAX_COUNTED)


async def show_playground(visit: Visit) -> Response:
    """Show the empty playground with the choices of a link; only the operator may use it, since it uses their key."""
    refuse_reviewers(visit)
    question = await asyncio.to_thread(_linked_question, visit)
    return _render_playground(visit, judged=None, asked=question, problem=None, policy=None, link=None)


def _render_playground(visit: Visit, **values: object) -> Response:
    """Render the playground with `values`, and with the configured names that its fields suggest."""
    console_config = visit.services.files.current()
    names = sorted(config.objectives(console_config.policies))
    return visit.render_page("playground.html", configured=console_config, objective_names=names, **values)


def _linked_question(visit: Visit) -> PlaygroundQuestion:
    """Read the choices of a link: a model, and names of configured objectives; question and answer stay empty."""
    query = visit.request.query_params
    names = _configured_names(visit, query.get("objectives", "").split(","))
    return PlaygroundQuestion(answer="", question="", model=query.get("model", "")[:_MAX_MODEL_CHARS], objectives=names)


def _configured_names(visit: Visit, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of configured objectives among the first `_MAX_OBJECTIVES` of `names`.

    They are written into a link; any other name could be a user's text, which must not be in an address.
    """
    objectives = config.objectives(visit.services.files.current().policies)
    return tuple(name for name in names[:_MAX_OBJECTIVES] if name in objectives)


def _playground_link(visit: Visit, question: PlaygroundQuestion) -> str:
    """The address of the playground with the same choices, without question, answer and free-text objectives."""
    names = ",".join(_configured_names(visit, question.objectives))
    return "/playground?" + urlencode({"model": question.model[:_MAX_MODEL_CHARS], "objectives": names})


async def judge_playground(visit: Visit, form: dict[str, str]) -> Response:
    """Have the gateway judge an answer, and show the result."""
    refuse_reviewers(visit)
    lines = [line.strip() for line in form.get("objectives", "").split("\n")]
    objectives = tuple(line for line in lines if line)[:_MAX_OBJECTIVES]
    question = PlaygroundQuestion(
        answer=form.get("answer", ""),
        question=form.get("question", ""),
        model=form.get("model", "").strip(),
        objectives=objectives,
    )
    result = None
    problem = None
    try:
        result = await visit.services.gateway.judge(question)
    except GatewayRefused as error:
        problem = str(error)
    policy = await asyncio.to_thread(_explain_policy, visit, question.model, "", "master")
    link = await asyncio.to_thread(_playground_link, visit, question)
    return _render_playground(visit, judged=result, asked=question, problem=problem, policy=policy, link=link)


async def show_policy(visit: Visit, form: dict[str, str]) -> Response:
    """Show the policy that a request would get whose model, team and key are in the form."""
    refuse_reviewers(visit)
    fields = {name: form.get(name, "").strip() for name in ("model", "team", "key")}
    explanation = await asyncio.to_thread(_explain_policy, visit, **fields)
    return visit.render_page("policy.html", policy=explanation, given=fields)


def _explain_policy(visit: Visit, model: str, team: str, key: str) -> policy_explanation.ExplainedPolicy | None:
    """Explain the policy that a request with this model, team and key would get; None if it would be refused."""
    try:
        return policy_explanation.explain_request(visit.services.files.current(), model, team, key)
    except (ForbiddenError, BadRequest):
        return None


def refuse_reviewers(visit: Visit) -> None:
    """Raise `PageError` 404, as for a page that does not exist, unless the viewer is the operator."""
    if not visit.viewer.is_operator:
        raise PageError(404, NOT_FOUND)
