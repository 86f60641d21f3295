"""What is said between a gateway and an engine: one request, one answer, one description of the aligner.

The gateway's side of the seam is `Engine`; the server, the client, the in-process engine and the scripted one all
satisfy it. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.types import Correction, DecodeCounts, SegmentScore, Turn, Verify


@dataclass(frozen=True, slots=True)
class AlignerInfo:
    """The aligner that an engine serves. `content_hash` changes whenever its weights, head or template do."""

    model: str
    content_hash: str
    template: str
    template_hash: str
    window: int
    """Longest prompt plus correction, in tokens."""
    has_head: bool
    quantization: str
    device: str


class AlignRequest(BaseModel):
    """One answer to correct. Objectives are whole texts in their final order; `deadline_s` counts from arrival."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: str
    turns: tuple[Turn, ...]
    answer: str
    objectives: tuple[str, ...] = Field(min_length=1)
    caution: float = 0.0
    verify: Verify = Verify.FLAGGED
    deadline_s: float = Field(default=20.0, gt=0)


class AlignResponse(BaseModel):
    """A `Correction` on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    segments: tuple[SegmentScore, ...] = ()
    counts: DecodeCounts = DecodeCounts()
    prompt_tokens: int = 0
    ms: float = 0.0
    aligner: str = ""

    def correction(self) -> Correction:
        """The same as the frozen value that the gateway's rooms use."""
        return Correction(self.text, self.segments, self.counts, self.prompt_tokens, self.ms, self.aligner)

    @classmethod
    def of(cls, correction: Correction) -> AlignResponse:
        """From the frozen value."""
        names = ("text", "segments", "counts", "prompt_tokens", "ms", "aligner")
        return cls(**{name: getattr(correction, name) for name in names})


class Reading(Protocol):
    """An answer that an engine reads while the upstream still writes it. Always ended by `finish` or `aclose`."""

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; never waits for the model. The verdicts that are there, from the first segment on."""
        ...

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended and is `request.answer`; its correction, within `request.deadline_s`."""
        ...

    async def aclose(self) -> None:
        """Nobody wants it any more; may be called again, and does nothing once `finish` was called."""
        ...


class Unread:
    """A `Reading` for engines that cannot read ahead: everything happens at the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Nothing is read."""
        return ()

    async def finish(self, request: AlignRequest) -> Correction:
        """The whole correction."""
        return await self._engine.align(request)

    async def aclose(self) -> None:
        """Nothing to let go of."""


class Engine(Protocol):
    """Anything that corrects answers. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    async def info(self) -> AlignerInfo:
        """Describe the aligner; raises `EngineUnavailable` until it is loaded."""
        ...

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer within `request.deadline_s`."""
        ...

    async def read(self, request: AlignRequest) -> Reading:
        """Begin to read an answer that is still being written; `request.answer` is what there is of it."""
        ...

    async def aclose(self) -> None:
        """Release connections or the model."""
        ...
