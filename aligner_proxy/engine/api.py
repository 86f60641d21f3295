"""Requests, results and protocols of engines: what a gateway and an engine exchange.

The gateway knows an engine as `Engine`; the server, the client, the in-process engine and the scripted one all satisfy
it. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Annotated, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from aligner_proxy.errors import EngineFault, HeadsUnavailable, StatesUnavailable, UnknownAligner
from aligner_proxy.types import DEFAULT_ALIGNER, Correction, DecodeCounts, Quota, SegmentScore, Turn, Verify


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
    ends: bool = False
    """Whether its head judges the place behind the last segment, too: what is missing there can be added."""
    taught: tuple[str, ...] = ()
    """Texts of the objectives for which it has a taught head of its own."""
    languages: tuple[str, ...] = ()
    """Codes of the languages that it was trained for; empty: all, as far as anybody knows."""

    def find_aligner(self, name: str) -> AlignerInfo:
        """The one that requests call so; raises `UnknownAligner`."""
        if name == DEFAULT_ALIGNER:
            return self
        if name not in self.others:
            names = ", ".join((DEFAULT_ALIGNER, *self.others))
            raise UnknownAligner(f"this engine serves no aligner {name!r}; it has: {names}")
        return self.others[name]


MAX_PLACES = 1_000_000
"""More than any tenant has at once."""


class Asked(BaseModel):
    """What every request to an engine says: on whose account, to which aligner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: str
    aligner: str = Field(default=DEFAULT_ALIGNER, max_length=64)
    tenant: str = Field(default="-", max_length=64)
    """A digest of whose answer it is: a full engine shares its places equally among tenants."""
    quota: Quota | None = None
    """What the tenant may use; None: as much as there is."""
    places: int = Field(default=0, ge=0, le=MAX_PLACES)
    """Requests of the tenant in all gateways, as far as this one knows; 0: nothing is known of others."""


HeadHash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""Content hash of a taught head; empty: none."""
HeadSource = Callable[[str], bytes | None]
"""Gives the bytes of a taught head by its content hash, None where there is none; called in the event loop."""


class AlignRequest(Asked):
    """One answer to correct. Objectives are whole texts in their final order; `deadline_s` counts from arrival."""

    turns: tuple[Turn, ...]
    answer: str
    objectives: tuple[str, ...] = Field(min_length=1)
    common: int = Field(default=0, ge=0)
    """So many of the first objectives are the operator's: what the model computed of them serves other tenants, too."""
    caution: float = Field(default=0.0, allow_inf_nan=False)
    verify: Verify = Verify.FLAGGED
    deadline_s: float = Field(default=20.0, gt=0, le=3600)
    draft: int = Field(default=0, ge=0, lt=8)
    """Which of several drafts of the same answer this is to be: what can write otherwise does so from 1 on."""
    open_ended: bool = True
    """Whether something may be added behind the answer; no where it stands in a larger text."""
    score_only: bool = False
    """Score the segments and leave the answer as it is. An engine that cannot score reads the answer all the same."""
    heads: tuple[HeadHash, ...] = ()
    """Of each objective its taught head; empty where none has one."""

    @model_validator(mode="after")
    def _one_head_each(self) -> Self:
        if self.heads and len(self.heads) != len(self.objectives):
            raise ValueError(
                f"{len(self.heads)} heads for {len(self.objectives)} objectives; name one for each, or none"
            )
        return self


MAX_TEXTS = 64
"""Of one request for hidden states."""


class StatesRequest(Asked):
    """Texts whose hidden states are wanted, each by itself, and from which layers (counted from 0)."""

    texts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, max_length=MAX_TEXTS)
    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1, max_length=8)
    deadline_s: float = Field(default=2.0, gt=0, le=3600)


class ExchangeText(BaseModel):
    """A conversation and the answer of which rows are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: tuple[Turn, ...]
    answer: Annotated[str, Field(min_length=1, max_length=24_000)]


class RowsRequest(Asked):
    """Answers of whose segments the rows are wanted that heads are taught on, each read like one to be corrected."""

    exchanges: tuple[ExchangeText, ...] = Field(min_length=1, max_length=MAX_TEXTS)
    objectives: tuple[str, ...] = Field(min_length=1)
    deadline_s: float = Field(default=60.0, gt=0, le=3600)


class ExchangeRows(BaseModel):
    """What the detector read of one answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    segments: tuple[tuple[int, int], ...]
    """Of each segment its first character in the answer, and the one behind its last. A very long one is several."""
    rows: str
    """[segments, width]: 16-bit floating point numbers, little-endian, as base64."""
    scores: tuple[tuple[FiniteFloat, ...], ...]
    """[segments, objectives] of the general head, in nats."""


class RowsResponse(BaseModel):
    """Rows of each answer of a `RowsRequest`, in its order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aligner: str
    """Content hash of the aligner that read them."""
    width: int = Field(gt=0)
    """Numbers in a row."""
    exchanges: tuple[ExchangeRows, ...]

    @model_validator(mode="after")
    def _as_many_rows_as_segments(self) -> Self:
        for exchange in self.exchanges:
            segments = len(exchange.segments)
            encoded = 4 * ceil(2 * self.width * segments / 3)
            if len(exchange.rows) != encoded or len(exchange.scores) != segments:
                raise ValueError(f"rows or scores of other segments than the {segments} that are named")
        return self


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
    def from_correction(cls, correction: Correction) -> AlignResponse:
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


def _make_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value or ()


_Zero = Annotated[float, Field(ge=0, le=0)]


class Prediction(BaseModel):
    """What the client expects to be written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["content"] = "content"
    content: str


class CompletionRequest(BaseModel):
    """The part of OpenAI's request that greedy completion of one text needs; anything else is refused by name.

    What asks for nothing (a penalty of 0, a seed where nothing is drawn) is taken: clients send it by themselves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    model: str | None = Field(default=None, max_length=200)
    max_tokens: int = Field(default=16, ge=1)
    temperature: _Zero | None = None
    n: Literal[1] | None = 1
    stream: Literal[False] | None = False
    stop: Annotated[tuple[str, ...], BeforeValidator(_make_tuple), Field(max_length=8)] = ()
    prediction: Prediction | None = None
    user: str | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: _Zero | None = None
    frequency_penalty: _Zero | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The text, why it ended, and its cost. `stop_reason` is the stop text that ended it (vLLM's name for it)."""

    text: str
    finish_reason: Literal["stop", "length"] = "stop"
    stop_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counts: DecodeCounts = field(default_factory=DecodeCounts)

    @property
    def finished(self) -> bool:
        """Whether it ended by itself; otherwise the limit cut it off."""
        return self.finish_reason == "stop"


@dataclass(frozen=True, slots=True)
class BlockUse:
    """Blocks by what they are for: `used` are held, `shared` by more than one; `cached` are free and still known."""

    used: int
    shared: int
    cached: int
    free: int


@dataclass(slots=True)
class Totals:
    """Since the engine began."""

    forwards: int = 0
    fed_tokens: int = 0
    finished: int = 0
    failed: int = 0
    preempted: int = 0
    unbalanced: int = 0
    """How often blocks were miscounted when the engine was idle: never, or there is a bug."""
    drafted: int = 0
    accepted: int = 0
    recovered: int = 0
    bonus: int = 0

    def add(self, counts: DecodeCounts) -> None:
        """Where the tokens of one finished request came from; its forwards were shared and are counted as they run."""
        self.drafted += counts.drafted
        self.accepted += counts.accepted
        self.recovered += counts.recovered
        self.bonus += counts.bonus


@dataclass(frozen=True, slots=True)
class Load:
    """One look at an engine: sequences by state, blocks of the KV cache by use, totals."""

    running: int
    waiting: int
    parked: int
    blocks: BlockUse
    totals: Totals


class Session(Protocol):
    """An answer that an engine reads while the upstream still writes it. Always ended by `finish` or `aclose`."""

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; never waits for the model. The verdicts that are there, from the first segment on."""
        ...

    async def end(self) -> None:
        """There is no more; never waits for the model."""
        ...

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """The verdicts, as soon as there are more than `known_count`, or all of them when the answer has ended.

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
        """Give it up; may be called again, and does nothing once `finish` was called."""
        ...


class ForwardingSession:
    """A session that passes everything on to another one; what wraps a session overrides what it changes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def inner(self) -> Session:
        """The session that calls are passed on to; may raise where there is none any more."""
        return self._session

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        return await self.inner().feed(text)

    async def end(self) -> None:
        """There is no more."""
        await self.inner().end()

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """The verdicts, as soon as there are more than `known_count`."""
        return await self.inner().wait_for_verdicts(known_count)

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch."""
        return await self.inner().replace(span)

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction of the whole answer."""
        return await self.inner().finish(request)

    async def aclose(self) -> None:
        """Let go of what was not finished."""
        await self.inner().aclose()


class DeferredSession:
    """A session of an engine that reads nothing ahead: the whole answer is corrected at its end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Nothing is read."""
        return ()

    async def end(self) -> None:
        """Nothing was read."""

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """There are no verdicts before the end."""
        return None

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

    async def read(self, request: AlignRequest) -> Session:
        """Begin to read an answer that is still being written; `request.answer` is what there is of it."""
        ...

    async def aclose(self) -> None:
        """Release connections or the model."""
        ...


@runtime_checkable
class HasStates(Protocol):
    """An engine that gives hidden states of texts, or stands before one that might."""

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Rows [texts, layers * hidden]: means over tokens, normalised layer by layer. Raises `StatesUnavailable`."""
        ...


async def text_states(engine: Engine, request: StatesRequest) -> list[list[float]]:
    """Hidden states of texts from any engine; raises `StatesUnavailable` where it has none to give."""
    if not isinstance(engine, HasStates):
        raise StatesUnavailable("this engine gives no hidden states; an engine of aligner-proxy with a model does")
    return await engine.states(request)


@runtime_checkable
class HasHeads(Protocol):
    """An engine to which objectives can be taught, or stands before one that might."""

    async def put_head(self, data: bytes) -> str:
        """Keep a taught head for requests that name it; its content hash. Raises `HeadRefused`."""
        ...

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """What heads are taught on: rows of segments. Raises `HeadsUnavailable`."""
        ...


def with_heads(engine: Engine) -> HasHeads:
    """The engine as one to which objectives can be taught; raises `HeadsUnavailable` for others."""
    if not isinstance(engine, HasHeads):
        raise HeadsUnavailable(
            "nothing can be taught to this engine; an engine of aligner-proxy with a model is needed"
        )
    return engine


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
