"""Version of the wire between gateway and engine: both send its number in a header; two numbers are an error.

Without this a gateway of another version would see fields refused or, worse, left out. A client that sends no number is
let in by the server (any HTTP client may ask); a server that sends none is taken for an old engine by the client only
where it refuses our requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy import __version__
from aligner_proxy.engine.wire import refusal
from aligner_proxy.errors import EngineMismatch

WIRE = 7
"""Counted up with every change of the shapes in `protocol` and `wire`. 2: a request names its aligner. 3: verdicts are
waited for, and stretches replaced, while an answer is read. 4: objectives are weighed for a prompt. 5: an
answer is asked for as one of several drafts. 6: something may be added behind an answer. 7: an answer can be scored
without being edited; hidden states of texts in place of weights of objectives."""
HEADER = "x-aligner-wire"
RELEASE = "x-aligner-release"
VERSION_HEADERS = {HEADER: str(WIRE), RELEASE: __version__}
_REFUSED = 422


class WireVersionCheck:
    """ASGI middleware of the engine: sends its number with every answer and refuses requests with another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(VERSION_HEADERS)
            await send(message)

        theirs = Headers(scope=scope)
        if theirs.get(HEADER, str(WIRE)) != str(WIRE):
            sent = refusal(mismatch("gateway", theirs, "engine"))
            answer = JSONResponse(sent.body.model_dump(), sent.status, sent.headers)
            return await answer(scope, receive, send_versioned)
        return await self._app(scope, receive, send_versioned)


def check(status: int, headers: Mapping[str, str]) -> None:
    """The gateway's side: raise `EngineMismatch` where an answer is from an engine of another number."""
    number = headers.get(HEADER)
    if number != str(WIRE) and (number is not None or status == _REFUSED):
        raise mismatch("engine", headers, "gateway")


def mismatch(other: str, headers: Mapping[str, str], here: str) -> EngineMismatch:
    """The error that names both releases, and what to do."""
    release = headers.get(RELEASE, "an older release")[:32]
    wire = headers.get(HEADER, "1")[:8]
    return EngineMismatch(
        f"the {other} is of another version (aligner-proxy {release}, wire {wire}) than the {here} "
        f"({__version__}, wire {WIRE}); install the same aligner-proxy for both and restart them"
    )
