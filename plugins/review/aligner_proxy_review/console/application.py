"""The console as a Starlette application: its addresses, access control, and the headers of every response.

Read `_require_session` first: every page except the log-in needs a session, and every form needs the session's token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy.concurrency import end_tasks
from aligner_proxy.errors import AlignerProxyError
from aligner_proxy_review.console import forms, overview, pages, review_page
from aligner_proxy_review.console.access import find_viewer, key_digest
from aligner_proxy_review.console.answer_queries import AnswerQueries
from aligner_proxy_review.console.changing import canary, objectives, promotion_page
from aligner_proxy_review.console.files import ConsoleFiles
from aligner_proxy_review.console.forms import NOT_FOUND, PageError
from aligner_proxy_review.console.jobs import ConsoleJobs
from aligner_proxy_review.console.live_feed import LiveFeed
from aligner_proxy_review.console.pages import Services, Visit
from aligner_proxy_review.console.playground import GatewayClient
from aligner_proxy_review.console.rendering import make_environment
from aligner_proxy_review.console.review_session import ReviewStates
from aligner_proxy_review.console.sessions import LIFETIME_S, ConsoleSessions, LoginFailures

log = logging.getLogger(__name__)

COOKIE = "aligner_console"
FORM_COOKIE = "aligner_console_login"
"""Cookie that ties the log-in form to the browser that loaded it."""
KNOWN_COOKIE = "aligner_console_known"
"""Cookie that marks a browser from which somebody has logged in before; it gives no access."""
_KNOWN_S = 90 * 86_400
"""Seconds for which a browser stays known."""
_KNOWN_PREFIX = "known-"
"""The value of `KNOWN_COOKIE` begins with this; that of no other cookie that we sign does."""
_FIRST_PAGE = overview.PATH
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer, browsers would send even our own forms with the origin null.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

Page = Callable[[Visit], Awaitable[Response]]
"""Shows a page to a logged-in person."""
FormPage = Callable[[Visit, dict[str, str]], Awaitable[Response]]
"""Handles a form, given its fields by name."""


class HeadersMiddleware:
    """Middleware that adds our headers to every response, including errors and files."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Console:
    """The console of one gateway.

    `secure`: whether browsers use HTTPS. `engine` is the address of the running engine; None means the gateway's.
    """

    def __init__(
        self,
        litellm_file: Path,
        master_key: str,
        gateway: GatewayClient,
        *,
        secure: bool = False,
        engine: str | None = None,
    ) -> None:
        files = ConsoleFiles(litellm_file, engine)
        answers = AnswerQueries(lambda: files.current().store())
        self.sessions = ConsoleSessions()
        self.services = Services(
            files=files,
            sessions=self.sessions,
            answers=answers,
            feed=LiveFeed(answers),
            gateway=gateway,
            templates=make_environment(),
            review_states=ReviewStates(),
            jobs=ConsoleJobs(),
            master=key_digest(master_key),
        )
        self._failures = LoginFailures()
        """Recent failed log-ins."""
        self._secure = secure
        """Whether browsers may send the cookies only over HTTPS."""

    def application(self) -> Starlette:
        """Make the application with all addresses, their access control and their error pages."""
        static = StaticFiles(packages=[("aligner_proxy_review.console", "static")])
        routes = [
            Route("/", self._redirect_home),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/logout", self._require_session_form(self._logout), methods=["POST"]),
            Route(overview.PATH, self._require_session(overview.show_overview)),
            Route("/live", self._require_session(pages.show_live)),
            Route("/search", self._require_session(pages.show_search), methods=["GET"]),
            Route("/search", self._require_session_form(pages.search_answers), methods=["POST"]),
            Route("/live/events", self._require_session(pages.stream_events)),
            Route("/answers/{handle}", self._require_session(pages.show_answer)),
            Route(review_page.PATH, self._require_session(review_page.show_review), methods=["GET"]),
            Route(review_page.PATH, self._require_session_form(review_page.take_verdict), methods=["POST"]),
            Route("/review/figures", self._require_session(review_page.show_figures)),
            Route(objectives.PATH, self._require_session(objectives.show_list)),
            Route(objectives.PATH + "/{handle}", self._require_session(objectives.show_objective), methods=["GET"]),
            Route(objectives.PATH + "/{handle}", self._require_session_form(objectives.take_form), methods=["POST"]),
            Route(objectives.PATH + "/{handle}/lesson", self._require_session(objectives.show_teaching)),
            Route(promotion_page.PATH, self._require_session(promotion_page.show_form), methods=["GET"]),
            Route(promotion_page.PATH, self._require_session_form(promotion_page.take_form), methods=["POST"]),
            Route(promotion_page.PATH + "/replay", self._require_session(promotion_page.show_replay)),
            Route(canary.PATH, self._require_session(canary.show_canary)),
            Route("/rates", self._require_session(pages.show_rates)),
            Route("/playground", self._require_session(pages.show_playground), methods=["GET"]),
            Route("/playground", self._require_session_form(pages.judge_playground), methods=["POST"]),
            Route("/policy", self._require_session_form(pages.show_policy), methods=["POST"]),
            Mount("/static", static),
        ]
        handlers = {
            PageError: self._show_error,
            HTTPException: self._show_error,
            AlignerProxyError: self._show_store_error,
            sqlite3.Error: self._show_store_error,
            OSError: self._show_store_error,
        }
        return Starlette(
            routes=routes,
            middleware=[Middleware(HeadersMiddleware)],
            exception_handlers=handlers,
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Follow the audit store while the application runs, and end jobs and connections with it."""
        feed_task = asyncio.ensure_future(self.services.feed.run())
        try:
            yield
        finally:
            await end_tasks(feed_task)
            await self.services.jobs.aclose()
            await self.services.gateway.aclose()

    def _find_visit(self, request: Request) -> Visit | None:
        """Return the visit (request, session and viewer) that a request belongs to; None without a valid session.

        The keys file is read every time, so that withdrawing a key takes effect at once.
        """
        session = self.sessions.find(request.cookies.get(COOKIE))
        if session is None:
            return None
        viewer = self.services.find_viewer(session)
        return None if viewer is None else Visit(request, self.services, session, viewer)

    def _require_session(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """Wrap a page so that only logged-in people can see it."""

        async def show_page(request: Request) -> Response:
            visit = await asyncio.to_thread(self._find_visit, request)
            return await page(visit) if visit else _redirect_to_login(request)

        return show_page

    def _require_session_form(self, page: FormPage) -> Callable[[Request], Awaitable[Response]]:
        """Wrap a form's handler so that it runs only with a session, and with the session's token in the form."""

        async def take_form(request: Request) -> Response:
            visit = await asyncio.to_thread(self._find_visit, request)
            if visit is None:
                return _redirect_to_login(request)
            form = await forms.read_fields(request)
            if not self.sessions.is_token_of(visit.session.id, form.get(forms.TOKEN, "")):
                raise PageError(403, "This form belongs to another session; load the page again.")
            return await page(visit, form)

        return take_form

    async def _redirect_home(self, _: Request) -> Response:
        return RedirectResponse(_FIRST_PAGE, 303)

    async def _login(self, request: Request) -> Response:
        """Show the log-in page, or check the key of its form, and open a session if the key is right.

        Failed log-ins are counted; after too many, the browser or address has to wait.
        """
        if request.method != "POST":
            return self._login_page(request)
        form = await forms.read_fields(request)
        form_browser_id = self.sessions.verify(request.cookies.get(FORM_COOKIE))
        if form_browser_id is None or not self.sessions.is_token_of(form_browser_id, form.get(forms.TOKEN, "")):
            return self._login_page(request, 403, "This form is too old; send it again.")
        address = request.client.host if request.client else ""
        known_browser_id = self._known_browser_id(request)
        # failures count for the known browser, since anybody can get a new form cookie
        counted_id = known_browser_id or form_browser_id
        if self._failures.must_wait(counted_id, address, is_known=known_browser_id is not None):
            return self._login_page(request, 429, "Too many attempts; wait a minute.")
        key_hash = key_digest(form.get("key", "").strip())
        keys = await asyncio.to_thread(lambda: self.services.files.current().keys)
        if find_viewer(key_hash, self.services.master, keys, datetime.now(UTC)) is None:
            self._failures.record(counted_id, address, key_hash)
            log.warning("console: a log-in was refused")
            return self._login_page(request, 403, "This key does not open the console.")
        return self._open_session(key_hash, known_browser_id or _KNOWN_PREFIX + secrets.token_urlsafe(16))

    def _known_browser_id(self, request: Request) -> str | None:
        """The id of a browser from which somebody has logged in before; None for other browsers."""
        browser_id = self.sessions.verify(request.cookies.get(KNOWN_COOKIE))
        return browser_id if browser_id is not None and browser_id.startswith(_KNOWN_PREFIX) else None

    def _open_session(self, key_hash: str, known_browser_id: str) -> Response:
        """Open a session for the owner of a key, mark the browser as known, and redirect to the first page."""
        response = RedirectResponse(_FIRST_PAGE, 303)
        self._set_cookie(response, COOKIE, self.sessions.begin(key_hash), int(LIFETIME_S))
        response.delete_cookie(FORM_COOKIE, path="/login")
        self._set_cookie(response, KNOWN_COOKIE, self.sessions.sign(known_browser_id), _KNOWN_S, "/login")
        return response

    def _login_page(self, request: Request, status: int = 200, problem: str | None = None) -> Response:
        """Return the log-in page; a signed cookie ties its form to this browser, since there is no session yet."""
        browser_id = self.sessions.verify(request.cookies.get(FORM_COOKIE)) or secrets.token_urlsafe(16)
        text = self.services.templates.get_template("login.html").render(
            viewer=None, token=self.sessions.form_token(browser_id), problem=problem, path="/login"
        )
        response = HTMLResponse(text, status)
        self._set_cookie(response, FORM_COOKIE, self.sessions.sign(browser_id), None, "/login")
        return response

    async def _logout(self, visit: Visit, _: dict[str, str]) -> Response:
        self.sessions.end(visit.session)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    def _set_cookie(self, response: Response, name: str, value: str, max_age_s: int | None, path: str = "/") -> None:
        """Set a cookie for `max_age_s` seconds; None means until the browser closes."""
        response.set_cookie(
            name, value, max_age=max_age_s, path=path, secure=self._secure, httponly=True, samesite="strict"
        )

    async def _show_error(self, request: Request, error: Exception) -> Response:
        """Show the error page for a `PageError`, or for an unknown address or method."""
        if isinstance(error, PageError):
            return self._error_page(request, error.status, error.message)
        # the framework raises `HTTPException` for unknown addresses and methods
        status = error.status_code if isinstance(error, HTTPException) else 500
        return self._error_page(request, status, NOT_FOUND)

    async def _show_store_error(self, request: Request, error: Exception) -> Response:
        """Show the error page, with status 503, if the audit store or a file cannot be read."""
        # Our own errors say what to do and have no text of the traffic; those of SQLite and the system may name files.
        is_own = isinstance(error, AlignerProxyError)
        log.warning("console: a page could not be shown (%s)", type(error).__name__)
        return self._error_page(request, 503, str(error) if is_own else "The audit store cannot be read.")

    def _error_page(self, request: Request, status: int, message: str) -> Response:
        """Return the page that shows a message, with an HTTP status."""
        text = self.services.templates.get_template("error.html").render(
            viewer=None, token="", message=message, status=status, path=request.url.path
        )
        return HTMLResponse(text, status)


def _redirect_to_login(request: Request) -> Response:
    """Redirect to the log-in, always to the same address, since an address in the request could be an attacker's."""
    # htmx, which loads parts of a page, would put the log-in page into this page
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": "/login"})
    # a stream of events cannot be redirected to a page
    if request.url.path.endswith("/events"):
        return Response(status_code=401)
    return RedirectResponse("/login", 303)
