"""The console as an application (Starlette): its addresses, who gets in, and the headers of every response.

Read `_guarded` first: no page but the log-in is shown without a session, and no form is taken without its token.
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

from aligner_proxy.console import forms, pages, reviewing
from aligner_proxy.console.access import digest, viewer
from aligner_proxy.console.changing import canary, objectives, promoting
from aligner_proxy.console.desk import Desks
from aligner_proxy.console.files import Files
from aligner_proxy.console.following import Follower
from aligner_proxy.console.forms import NOT_FOUND, PageError
from aligner_proxy.console.long_work import Works
from aligner_proxy.console.pages import Services, Visit
from aligner_proxy.console.playground import Gateway
from aligner_proxy.console.reading import Answers
from aligner_proxy.console.rendering import environment
from aligner_proxy.console.sessions import LIFETIME_S, Failures, Sessions
from aligner_proxy.errors import AlignerProxyError

log = logging.getLogger(__name__)

COOKIE = "aligner_console"
FORM_COOKIE = "aligner_console_login"
"""Ties the log-in form to the browser that got it."""
KNOWN_COOKIE = "aligner_console_known"
"""Says that somebody got in from this browser before; it opens nothing."""
_KNOWN_S = 90 * 86_400
_KNOWN = "known-"
"""How its value begins: no other cookie that we sign is one of these."""
_FIRST_PAGE = "/live"
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer browsers would send our own forms with the origin null, too.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

Page = Callable[[Visit], Awaitable[Response]]
FormPage = Callable[[Visit, dict[str, str]], Awaitable[Response]]


class Headers:
    """Middleware that puts our headers on every response, errors and files included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


class Console:
    """The console of one gateway. `secure`: browsers reach it by HTTPS; `engine`: the address of the one that runs."""

    def __init__(
        self,
        litellm_file: Path,
        master_key: str,
        gateway: Gateway,
        *,
        secure: bool = False,
        engine: str | None = None,
    ) -> None:
        files = Files(litellm_file, engine)
        answers = Answers(lambda: files.current().store())
        self.sessions = Sessions()
        self.services = Services(
            files,
            self.sessions,
            answers,
            Follower(answers),
            gateway,
            environment(),
            Desks(),
            Works(),
            digest(master_key),
        )
        self._failures = Failures()
        self._secure = secure

    def application(self) -> Starlette:
        """The application."""
        static = StaticFiles(packages=[("aligner_proxy.console", "static")])
        routes = [
            Route("/", self._home),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/logout", self._guarded_form(self._logout), methods=["POST"]),
            Route("/live", self._guarded(pages.live)),
            Route("/live/events", self._guarded(pages.events)),
            Route("/answers/{handle}", self._guarded(pages.answer)),
            Route(reviewing.PATH, self._guarded(reviewing.review), methods=["GET"]),
            Route(reviewing.PATH, self._guarded_form(reviewing.judge), methods=["POST"]),
            Route("/review/figures", self._guarded(reviewing.figures)),
            Route(objectives.PATH, self._guarded(objectives.listed)),
            Route(objectives.PATH + "/{handle}", self._guarded(objectives.objective), methods=["GET"]),
            Route(objectives.PATH + "/{handle}", self._guarded_form(objectives.change), methods=["POST"]),
            Route(objectives.PATH + "/{handle}/lesson", self._guarded(objectives.lesson)),
            Route(promoting.PATH, self._guarded(promoting.promote), methods=["GET"]),
            Route(promoting.PATH, self._guarded_form(promoting.change), methods=["POST"]),
            Route(promoting.PATH + "/replay", self._guarded(promoting.replayed)),
            Route(canary.PATH, self._guarded(canary.canary)),
            Route("/rates", self._guarded(pages.counted)),
            Route("/playground", self._guarded(pages.playground), methods=["GET"]),
            Route("/playground", self._guarded_form(pages.play), methods=["POST"]),
            Route("/policy", self._guarded_form(pages.policy), methods=["POST"]),
            Mount("/static", static),
        ]
        handlers = {
            PageError: self._error,
            HTTPException: self._error,
            AlignerProxyError: self._unreadable,
            sqlite3.Error: self._unreadable,
            OSError: self._unreadable,
        }
        return Starlette(
            routes=routes,
            middleware=[Middleware(Headers)],
            exception_handlers=handlers,
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        following = asyncio.ensure_future(self.services.follower.run())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self.services.works.aclose()
            await self.services.gateway.aclose()

    def _visit(self, request: Request) -> Visit | None:
        """The visit of a request with a session; the keys file is asked every time, so that a key can be withdrawn."""
        session = self.sessions.of(request.cookies.get(COOKIE))
        found = self.services.viewer_of(session) if session else None
        return Visit(request, self.services, session, found) if session and found else None

    def _guarded(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """A page for those who are logged in."""

        async def shown(request: Request) -> Response:
            visit = await asyncio.to_thread(self._visit, request)
            return await page(visit) if visit else _to_login(request)

        return shown

    def _guarded_form(self, page: FormPage) -> Callable[[Request], Awaitable[Response]]:
        """What a form of such a page is sent to."""

        async def taken(request: Request) -> Response:
            visit = await asyncio.to_thread(self._visit, request)
            if visit is None:
                return _to_login(request)
            form = await forms.fields(request)
            if not self.sessions.holds(form.get(forms.TOKEN, ""), visit.session.id):
                raise PageError(403, "This form is not of your session; load the page again.")
            return await page(visit, form)

        return taken

    async def _home(self, _: Request) -> Response:
        return RedirectResponse(_FIRST_PAGE, 303)

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return self._login_page(request)
        form = await forms.fields(request)
        browser = self.sessions.verified(request.cookies.get(FORM_COOKIE))
        if browser is None or not self.sessions.holds(form.get(forms.TOKEN, ""), browser):
            return self._login_page(request, 403, "This form is too old; send it again.")
        address = request.client.host if request.client else ""
        known = self.sessions.verified(request.cookies.get(KNOWN_COOKIE))
        is_known = known is not None and known.startswith(_KNOWN)
        name = known if known is not None and is_known else browser
        if self._failures.too_many(name, address, is_known=is_known):
            return self._login_page(request, 429, "Too many attempts; wait a minute.")
        sha256 = digest(form.get("key", "").strip())
        keys = await asyncio.to_thread(lambda: self.services.files.current().keys)
        if viewer(sha256, self.services.master, keys, datetime.now(UTC)) is None:
            self._failures.note(name, address, sha256)
            log.warning("console: a log-in was refused")
            return self._login_page(request, 403, "This key does not open the console.")
        response = RedirectResponse(_FIRST_PAGE, 303)
        self._set_cookie(response, COOKIE, self.sessions.begin(sha256), int(LIFETIME_S))
        response.delete_cookie(FORM_COOKIE, path="/login")
        known = name if is_known else _KNOWN + secrets.token_urlsafe(16)
        self._set_cookie(response, KNOWN_COOKIE, self.sessions.signed(known), _KNOWN_S, "/login")
        return response

    def _login_page(self, request: Request, status: int = 200, problem: str | None = None) -> Response:
        browser = self.sessions.verified(request.cookies.get(FORM_COOKIE)) or secrets.token_urlsafe(16)
        text = self.services.templates.get_template("login.html").render(
            viewer=None, token=self.sessions.token(browser), problem=problem, path="/login"
        )
        response = HTMLResponse(text, status)
        self._set_cookie(response, FORM_COOKIE, self.sessions.signed(browser), None, "/login")
        return response

    async def _logout(self, visit: Visit, _: dict[str, str]) -> Response:
        self.sessions.end(visit.session)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    def _set_cookie(self, response: Response, name: str, value: str, age: int | None, path: str = "/") -> None:
        response.set_cookie(name, value, max_age=age, path=path, secure=self._secure, httponly=True, samesite="strict")

    async def _error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, PageError):
            return self._error_page(request, error.status, error.message)
        status = error.status_code if isinstance(error, HTTPException) else 500
        return self._error_page(request, status, NOT_FOUND)

    async def _unreadable(self, request: Request, error: Exception) -> Response:
        # Our own errors say what to do and hold no text; those of SQLite and of the system may name files.
        ours = isinstance(error, AlignerProxyError)
        log.warning("console: a page could not be shown (%s)", type(error).__name__)
        return self._error_page(request, 503, str(error) if ours else "The audit store cannot be read.")

    def _error_page(self, request: Request, status: int, message: str) -> Response:
        text = self.services.templates.get_template("error.html").render(
            viewer=None, token="", message=message, status=status, path=request.url.path
        )
        return HTMLResponse(text, status)


def _to_login(request: Request) -> Response:
    """The way to the log-in; always to the same place, since an address in the request could be anybody's."""
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": "/login"})
    if request.url.path.endswith("/events"):
        return Response(status_code=401)
    return RedirectResponse("/login", 303)
