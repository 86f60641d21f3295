"""An engine without a model: it answers what a function returns. For tests and for trying out a gateway.

It satisfies `Engine` like the real ones, honours deadlines, and remembers which requests it saw (ids only). Behind
`server.create_app` it speaks HTTP, too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace

from aligner_proxy import prompts
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, DeferredSession, StatesRequest
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineFault, StatesUnavailable
from aligner_proxy.types import Correction
from aligner_proxy.waiting import within

Script = Callable[[AlignRequest], str | Correction | Exception]
StatesScript = Callable[[StatesRequest], list[list[float]] | Exception]

SCRIPTED = AlignerInfo(
    model="scripted",
    content_hash=hashlib.sha256(b"scripted").hexdigest(),
    template="ultrafeedback",
    template_hash=prompts.TEMPLATES["ultrafeedback"].hash,
    window=4096,
    has_head=True,
    quantization="none",
    device="none",
)


def unchanged(request: AlignRequest) -> str:
    """The script that leaves every answer alone."""
    return request.answer


class ScriptedEngine:
    """Answers `script(request)` after `delay_s`; an exception that the script returns is raised."""

    def __init__(self, script: Script = unchanged, *, delay_s: float = 0.0, about: AlignerInfo = SCRIPTED) -> None:
        self.script = script
        self.delay_s = delay_s
        self.about = about
        self.seen: list[str] = []
        self.cancelled: list[str] = []
        self.closed = False
        self.rows: StatesScript | None = None

    async def start(self) -> AlignerInfo:
        """There is nothing to load."""
        return self.about

    async def info(self) -> AlignerInfo:
        """The scripted description."""
        return self.about

    async def align(self, request: AlignRequest) -> Correction:
        """Play the script within the request's deadline."""
        about = self.about.named(request.aligner)
        self.seen.append(request.request_id)
        try:
            async with within(request.deadline_s):
                await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.append(request.request_id)
            raise
        return played(self.script(request), about)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Play the script of hidden states, where there is one, within the request's deadline."""
        if self.rows is None:
            raise StatesUnavailable("this scripted engine has no script of hidden states")
        try:
            async with asyncio.timeout(request.deadline_s):
                await asyncio.sleep(self.delay_s)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {request.deadline_s:g} s passed") from None
        rows = self.rows(request)
        if isinstance(rows, Exception):
            raise rows
        return rows

    async def read(self, request: AlignRequest) -> DeferredSession:
        """A script reads nothing ahead."""
        return DeferredSession(self)

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def played(result: str | Correction | Exception, about: AlignerInfo) -> Correction:
    """What a script returned, as an engine would return or raise it."""
    if isinstance(result, CorrectionError):
        raise result
    if isinstance(result, Exception):
        raise EngineFault(f"scripted {type(result).__name__}") from result
    correction = result if isinstance(result, Correction) else Correction(result)
    return replace(correction, aligner=correction.aligner or about.content_hash)
