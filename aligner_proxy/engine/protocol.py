"""What is said between a gateway and an engine: one request, one answer, one description of the aligner.

The gateway's side of the seam is `Engine`; the server, the client, the in-process engine and the scripted one all
satisfy it. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.errors import CannotWeigh, EngineFault, UnknownAligner
from aligner_proxy.types import DEFAULT_ALIGNER, Correction, DecodeCounts, Quota, SegmentScore, Turn, Verify

if TYPE_CHECKING:
    from aligner_proxy.engine.complete import Completion, CompletionRequest
    from aligner_proxy.engine.load import Load


@dataclass(frozen=True, slots=True)
class AlignerInfo:
    """The aligner that an engine serves. `content_hash` changes whenever its weights, head or template do.

    An engine may serve others over the same base; requests choose by their names in `others`.
    """

    model: str
    content_hash: str
    template: str
    template_hash: str
    window: int
    """Longest prompt plus correction, in tokens."""
    has_head: bool
    quantization: str
    device: str
    others: Mapping[str, AlignerInfo] = field(default_factory=dict)
    weighs: bool = False
    """Whether it has a net that weighs objectives for a prompt."""
    ends: bool = False
    """Whether its head judges the place behind the last segment, too: what is missing there can be added."""

    def named(self, name: str) -> AlignerInfo:
        """The one that requests call so; raises `UnknownAligner`."""
        if name == DEFAULT_ALIGNER:
            return self
        if name not in self.others:
            known = ", ".join((DEFAULT_ALIGNER, *self.others))
            raise UnknownAligner(f"this engine serves no aligner {name!r}; it has: {known}")
        return self.others[name]


class _Asked(BaseModel):
    """What every question to an engine says: about which conversation, on whose account, to which aligner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: str
    turns: tuple[Turn, ...]
    aligner: str = Field(default=DEFAULT_ALIGNER, max_length=64)
    tenant: str = Field(default="-", max_length=64)
    """A digest of whose answer it is: a full engine shares its places equally among tenants."""
    quota: Quota | None = None
    """What the tenant may use; None: as much as there is."""


class AlignRequest(_Asked):
    """One answer to correct. Objectives are whole texts in their final order; `deadline_s` counts from arrival."""

    answer: str
    objectives: tuple[str, ...] = Field(min_length=1)
    caution: float = Field(default=0.0, allow_inf_nan=False)
    verify: Verify = Verify.FLAGGED
    deadline_s: float = Field(default=20.0, gt=0, le=3600)
    draft: int = Field(default=0, ge=0, lt=8)
    """Which of several drafts of the same answer this is to be: what can write otherwise does so from 1 on."""
    open_ended: bool = True
    """Whether something may be added behind the answer; no where it stands in a larger text."""


class WeighRequest(_Asked):
    """Objectives to weigh for a conversation."""

    objectives: tuple[str, ...] = Field(min_length=1, max_length=256)
    deadline_s: float = Field(default=2.0, gt=0, le=3600)


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


class Span(BaseModel):
    """A flagged stretch of an answer that is still being written: its segments `first` to `stop`, that one excluded.

    The place behind the last segment counts as one more.

    The aligner reads the first `end` characters of the answer and writes behind `before`, which is what went out in
    place of all that stands before the stretch. Segments after the stretch are those that it has to lead back to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: int = Field(ge=0)
    stop: int = Field(gt=0)
    end: int = Field(gt=0)
    before: str
    deadline_s: float = Field(gt=0)
    objective: int | None = None
    """Behind the last segment: the objective that misses something there."""


class Reading(Protocol):
    """An answer that an engine reads while the upstream still writes it. Always ended by `finish` or `aclose`."""

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; never waits for the model. The verdicts that are there, from the first segment on."""
        ...

    async def end(self) -> None:
        """There is no more; never waits for the model."""
        ...

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """The verdicts, as soon as there are more than `known`, or all of them when the answer has ended.

        None: this engine has none before the answer is finished. A segment gets its verdict when the next one has
        begun; the last one gets it when the answer has ended. A verdict never changes.
        """
        ...

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch: the text of the correction, which may be empty."""
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

    async def end(self) -> None:
        """Nothing was read."""

    async def judged(self, known: int) -> None:
        """There are no verdicts before the end."""

    async def replace(self, span: Span) -> Correction:
        """Without verdicts there is nothing to replace."""
        raise EngineFault("this engine reads no answer ahead")

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


@runtime_checkable
class Weighs(Protocol):
    """An engine that can say what objectives weigh for a prompt, or knows one that might."""

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """One weight for each objective, in their order; they sum to 1. Raises `CannotWeigh`."""
        ...


async def weigh(engine: Engine, request: WeighRequest) -> tuple[float, ...]:
    """Ask any engine; raises `CannotWeigh` where it has no such thing."""
    if not isinstance(engine, Weighs):
        raise CannotWeigh("this engine cannot weigh objectives")
    return await engine.weigh(request)


class Startable(Engine, Protocol):
    """An engine that has something to load."""

    async def start(self) -> AlignerInfo:
        """Load; raises `WeightsError` when that is impossible."""
        ...


@runtime_checkable
class Local(Startable, Protocol):
    """An engine with a model of its own."""

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt."""
        ...

    def load(self) -> Load:
        """What it is busy with."""
        ...

    def stalled_s(self) -> float:
        """How long the step that runs now has been running."""
        ...
