"""Do gateway and engine speak the same form of the wire? Each tells its number in a header; two numbers are an error.

Without this a gateway of another version would see fields refused or, worse, left out. Who tells no number is let in by
the server (any HTTP client may ask), and is taken for an old engine by the client only where it refuses our requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy import __version__
from aligner_proxy.engine.wire import refusal
from aligner_proxy.errors import EngineMismatch

WIRE = 6
"""Counted up with every change of the shapes in `protocol` and `wire`. 2: a request names its aligner. 3: verdicts are
waited for, and stretches replaced, while an answer is read. 4: objectives are weighed for a prompt. 5: an
answer is asked for as one of several drafts. 6: something may be added behind an answer."""
HEADER, RELEASE = "x-aligner-wire", "x-aligner-release"
TOLD = {HEADER: str(WIRE), RELEASE: __version__}
_REFUSED = 422


class SameWire:
    """ASGI middleware of the engine: tells its number with every answer and refuses those who tell another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(TOLD)
            await send(message)

        theirs = Headers(scope=scope)
        if theirs.get(HEADER, str(WIRE)) != str(WIRE):
            sent = refusal(mismatch("gateway", theirs, "engine"))
            answer = JSONResponse(sent.body.model_dump(), sent.status, sent.headers)
            return await answer(scope, receive, telling)
        return await self._app(scope, receive, telling)


def check(status: int, headers: Mapping[str, str]) -> None:
    """The gateway's side: raise `EngineMismatch` where an answer is from an engine of another number."""
    told = headers.get(HEADER)
    if told != str(WIRE) and (told is not None or status == _REFUSED):
        raise mismatch("engine", headers, "gateway")


def mismatch(other: str, headers: Mapping[str, str], here: str) -> EngineMismatch:
    """Who is of which release, and what to do."""
    release = headers.get(RELEASE, "an older release")[:32]
    wire = headers.get(HEADER, "1")[:8]
    return EngineMismatch(
        f"the {other} is of another version (aligner-proxy {release}, wire {wire}) than the {here} "
        f"({__version__}, wire {WIRE}); install the same aligner-proxy for both and restart them"
    )
