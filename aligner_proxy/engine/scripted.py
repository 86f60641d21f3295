"""An engine without a model: it answers what a function says. For tests and for trying out a gateway.

It satisfies `Engine` like the real ones, honours deadlines, and remembers which requests it saw (ids only). Behind
`server.create_app` it speaks HTTP, too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace

from aligner_proxy import prompts
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, Unread, WeighRequest
from aligner_proxy.errors import CannotWeigh, CorrectionError, DeadlineExceeded, EngineFault
from aligner_proxy.types import Correction

Script = Callable[[AlignRequest], str | Correction | Exception]
WeightScript = Callable[[WeighRequest], tuple[float, ...] | Exception]

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
        self.script, self.delay_s, self.about = script, delay_s, about
        self.seen: list[str] = []
        self.cancelled: list[str] = []
        self.closed = False
        self.weights: WeightScript | None = None

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
            async with asyncio.timeout(request.deadline_s):
                await asyncio.sleep(self.delay_s)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {request.deadline_s:g} s passed") from None
        except asyncio.CancelledError:
            self.cancelled.append(request.request_id)
            raise
        return played(self.script(request), about)

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """Play the script of weights, where there is one, within the request's deadline."""
        if self.weights is None:
            raise CannotWeigh("nobody wrote what this engine would weigh")
        try:
            async with asyncio.timeout(request.deadline_s):
                await asyncio.sleep(self.delay_s)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {request.deadline_s:g} s passed") from None
        said = self.weights(request)
        if isinstance(said, Exception):
            raise said
        return said

    async def read(self, request: AlignRequest) -> Unread:
        """A script reads nothing ahead."""
        return Unread(self)

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def played(said: str | Correction | Exception, about: AlignerInfo) -> Correction:
    """What a script said, as an engine would say it."""
    if isinstance(said, CorrectionError):
        raise said
    if isinstance(said, Exception):
        raise EngineFault(f"scripted {type(said).__name__}") from said
    correction = said if isinstance(said, Correction) else Correction(said)
    return replace(correction, aligner=correction.aligner or about.content_hash)
