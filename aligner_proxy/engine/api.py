"""Requests, results and protocols of engines: what a gateway and an engine exchange.

The gateway uses every engine through the protocol `Engine`, which the in-process engine, the clients and the scripted
engine of the tests implement. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from aligner_proxy.errors import EngineFault, HeadsUnavailable, StatesUnavailable, UnknownAligner, UnknownJudge
from aligner_proxy.types import DEFAULT_ALIGNER, Correction, DecodeCounts, Quota, SegmentScore, Turn, Verify, Write

_T = TypeVar("_T")
_Request = TypeVar("_Request", bound="EngineRequest")


class StrictModel(BaseModel):
    """Base class of what is sent to an engine, or stored: frozen, and refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class ClassifierInfo:
    """A token classifier that an engine has beside its aligner. `content_hash` changes whenever its labels may."""

    content_hash: str
    categories: tuple[str, ...] | None = None
    """The kinds of harm that a guard names; None for a classifier that is no guard."""


@dataclass(frozen=True, slots=True)
class AlignerInfo:
    """The aligner that an engine serves. `content_hash` changes whenever its weights, head or template do.

    An engine may serve further aligners over the same base model; a request chooses one by its name in `others`.
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
    """Whether its head also judges the end of the answer, so that missing text can be added there."""
    taught: tuple[str, ...] = ()
    """Texts of the objectives for which the aligner comes with a taught head."""
    languages: tuple[str, ...] = ()
    """Codes of the languages that it was trained for; empty if its model card names none (no limit is known)."""
    judges: Mapping[str, ClassifierInfo] = field(default_factory=dict)
    """The token classifiers beside the aligner, by the names that policies use."""

    def find_aligner(self, name: str) -> AlignerInfo:
        """The aligner of this name in requests; raises `UnknownAligner`."""
        if name == DEFAULT_ALIGNER:
            return self
        if name not in self.others:
            names = ", ".join((DEFAULT_ALIGNER, *self.others))
            raise UnknownAligner(f"this engine serves no aligner {name!r}; it has: {names}")
        return self.others[name]


MAX_PLACES = 1_000_000
"""Upper bound on the slots of one tenant; no tenant has that many at once."""
MIN_DEADLINE_S = 0.001
"""Shortest deadline in seconds, because it has to be above 0."""


class EngineRequest(StrictModel):
    """The fields that every request to an engine has: the tenant, its quota, and the aligner to use."""

    request_id: str
    aligner: str = Field(default=DEFAULT_ALIGNER, max_length=64)
    tenant: str = Field(default="-", max_length=64)
    """A digest of the tenant's name; a full engine shares its slots equally among tenants."""
    quota: Quota | None = None
    """Engine time that the tenant may use; None means no limit."""
    places: int = Field(default=0, ge=0, le=MAX_PLACES)
    """Running requests of the tenant in all gateways, as far as the sender knows; 0 if it knows of no others."""

    def with_deadline(self, seconds: float) -> Self:
        """The request with `seconds` as its deadline; at least `MIN_DEADLINE_S`."""
        return self.model_copy(update={"deadline_s": max(MIN_DEADLINE_S, seconds)})


HeadHash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""Content hash of a taught head; empty for none."""
HeadSource = Callable[[str], bytes | None]
"""Returns the bytes of a taught head by its content hash, or None if there is none; called in the event loop."""


class AlignRequest(EngineRequest):
    """One answer to correct. `objectives` are full texts in the prompt's order.

    `deadline_s` counts from the arrival of the request.
    """

    turns: tuple[Turn, ...]
    answer: str
    objectives: tuple[str, ...] = Field(min_length=1)
    common: int = Field(default=0, ge=0)
    """How many of the first objectives are the operator's. Tenants may share the cached model states of these."""
    caution: float = Field(default=0.0, allow_inf_nan=False)
    """In nats: segments that score higher are flagged; a draft token yields only to one with a logit higher by more."""
    verify: Verify = Verify.FLAGGED
    deadline_s: float = Field(default=20.0, gt=0, le=3600)
    draft: int = Field(default=0, ge=0, lt=8)
    """Which of several wanted corrections of the answer this is, from 0; models that sample do so from 1 on."""
    open_ended: bool = True
    """Whether text may be added after the answer; False if the answer is part of a larger text."""
    score_only: bool = False
    """Score the segments and leave the answer unchanged. An engine that cannot score still reads the answer."""
    write: Write = Write.FREE
    """What may be written in place of a flagged segment; without a detector head, `verified` is like `never`."""
    question: str = ""
    """An objective against which `verified` also judges written text (that it answers the question); empty for none."""
    heads: tuple[HeadHash, ...] = ()
    """The taught head of each objective, in their order; an empty tuple if no objective has one."""

    @model_validator(mode="after")
    def _check_head_count(self) -> Self:
        """Raise `ValueError` unless `heads` has an entry for each objective, or is empty."""
        if self.heads and len(self.heads) != len(self.objectives):
            raise ValueError(
                f"{len(self.heads)} heads for {len(self.objectives)} objectives; name one for each, or none"
            )
        return self


def make_proof_request(request: AlignRequest) -> AlignRequest:
    """The request with which an engine judges the text that it wrote in place of flagged segments.

    With `Write.VERIFIED`, the request's `question` becomes one more objective, unless it already is one.
    """
    if request.write is not Write.VERIFIED or not request.question or request.question in request.objectives:
        return request
    heads = (*request.heads, "") if request.heads else ()
    return request.model_copy(update={"objectives": (*request.objectives, request.question), "heads": heads})


MAX_TEXTS = 64
"""Most texts in one request for hidden states, and most answers in one request for rows."""


class StatesRequest(EngineRequest):
    """A request for the hidden states of texts, each read separately, at some layers (counted from 0)."""

    texts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, max_length=MAX_TEXTS)
    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1, max_length=8)
    deadline_s: float = Field(default=2.0, gt=0, le=3600)


class ExchangeText(StrictModel):
    """A conversation and its answer, for which rows are requested."""

    turns: tuple[Turn, ...]
    answer: Annotated[str, Field(min_length=1, max_length=24_000)]


class RowsRequest(EngineRequest):
    """A request for segment rows, on which heads are taught; each answer is read as if it were to be corrected."""

    exchanges: tuple[ExchangeText, ...] = Field(min_length=1, max_length=MAX_TEXTS)
    objectives: tuple[str, ...] = Field(min_length=1)
    with_space: bool = False
    """Whether the response is to have the aligner's teaching space, too."""
    deadline_s: float = Field(default=60.0, gt=0, le=3600)


class ExchangeRows(StrictModel):
    """The detector's rows and scores for the segments of one answer."""

    segments: tuple[tuple[int, int], ...]
    """The (start, end) characters of each segment in the answer, end excluded. A very long segment is split."""
    rows: str
    """[segments, width]: 16-bit floating point numbers, little-endian, as base64."""
    scores: tuple[tuple[FiniteFloat, ...], ...]
    """Scores [segments, objectives] of the general head, in nats."""


class RowsResponse(StrictModel):
    """The rows of each answer of a `RowsRequest`, in the same order."""

    aligner: str
    """Content hash of the aligner that read the answers."""
    width: int = Field(gt=0)
    """Numbers in a row."""
    exchanges: tuple[ExchangeRows, ...]
    space: str = ""
    """The teaching space (`model/teaching_space.py`) as base64; empty if there is none, or it was not asked for."""

    @model_validator(mode="after")
    def _check_row_counts(self) -> Self:
        """Raise `ValueError` unless each answer has a row and scores for every segment."""
        for exchange in self.exchanges:
            segment_count = len(exchange.segments)
            # a number has 2 bytes, and base64 writes each 3 bytes as 4 characters
            encoded_length = 4 * ceil(2 * self.width * segment_count / 3)
            if len(exchange.rows) != encoded_length or len(exchange.scores) != segment_count:
                raise ValueError(f"rows or scores of other segments than the {segment_count} that are named")
        return self


class TokenLabelsRequest(EngineRequest):
    """A request for the labels that a token classifier gives to the tokens of an answer.

    The classifier reads `question`, `context` (texts with which the answer has to agree) and `answer`.
    """

    model: str = Field(min_length=1, max_length=200)
    question: str
    context: tuple[str, ...] = ()
    """Texts with which the answer has to agree."""
    answer: str = Field(min_length=1)
    ends: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Where each segment of the answer ends, with the white space after it. Once a guard has found fault with a
    segment, it reads the text after the segment again, without the segment."""
    deadline_s: float = Field(default=10.0, gt=0, le=3600)


class LabelledSpan(StrictModel):
    """Characters `start` to `end` of an answer, `end` excluded, whose tokens have the same label and category."""

    start: int = Field(ge=0)
    end: int = Field(gt=0)
    label: str
    category: str = ""
    """The kind of harm; empty unless a guard names one."""


class TokenLabels(StrictModel):
    """The spans that a token classifier finds fault with, in their order, and the cost of the call."""

    spans: tuple[LabelledSpan, ...]
    read: int = Field(ge=0)
    """Number of tokens read."""
    ms: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class AlignResponse(StrictModel):
    """A `Correction` as it is sent over HTTP."""

    text: str
    segments: tuple[SegmentScore, ...] = ()
    counts: DecodeCounts = DecodeCounts()
    prompt_tokens: int = 0
    ms: float = 0.0
    aligner: str = ""

    def correction(self) -> Correction:
        """Convert to the frozen `Correction` that the gateway uses."""
        return Correction(self.text, self.segments, self.counts, self.prompt_tokens, self.ms, self.aligner)

    @classmethod
    def from_correction(cls, correction: Correction) -> AlignResponse:
        """The response that carries this correction."""
        names = ("text", "segments", "counts", "prompt_tokens", "ms", "aligner")
        return cls(**{name: getattr(correction, name) for name in names})


class Span(StrictModel):
    """A flagged range of an answer that is still being written: its segments `first` to `stop`, `stop` excluded.

    The end of the answer counts as one more segment.

    The aligner reads the first `end` characters of the answer and writes after `before`, the edited text already sent
    for everything before the range. Any segments after the range are kept; the replacement has to lead up to them.
    """

    first: int = Field(ge=0)
    stop: int = Field(gt=0)
    end: int = Field(gt=0)
    before: str
    deadline_s: float = Field(gt=0)
    objective: int | None = None
    """For the end of the answer: the index of the objective that misses something there."""


def _make_tuple(value: object) -> object:
    """Convert OpenAI's `stop` to a tuple or list of texts; it may be one text, a list, or null for none."""
    if isinstance(value, str):
        return (value,)
    return value or ()


_Zero = Annotated[float, Field(ge=0, le=0)]
"""A setting of the sampling that may only be 0, which has no effect."""


class Prediction(StrictModel):
    """The text that the client expects as the completion."""

    type: Literal["content"] = "content"
    content: str


class CompletionRequest(StrictModel):
    """A request in OpenAI's format for the greedy completion of one text; the engine refuses unknown fields.

    It accepts fields without effect (a penalty of 0, a seed without sampling), because some clients always send them.
    """

    prompt: str
    model: str | None = Field(default=None, max_length=200)
    max_tokens: int = Field(default=16, ge=1)  # OpenAI's default
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
    """A completion, why it ended, and its cost. `stop_reason` (vLLM's name) is the stop text that ended it, if any."""

    text: str
    finish_reason: Literal["stop", "length"] = "stop"
    stop_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counts: DecodeCounts = field(default_factory=DecodeCounts)

    @property
    def finished(self) -> bool:
        """Whether the text ended by itself; if not, the token limit cut it off."""
        return self.finish_reason == "stop"


@dataclass(frozen=True, slots=True)
class BlockUse:
    """Counts of KV-cache blocks by state.

    `used` blocks are held by a sequence, `shared` by more than one; `cached` are free but can still be reused.
    """

    used: int
    shared: int
    cached: int
    free: int


@dataclass(slots=True)
class Totals:
    """Counts since the engine started."""

    forwards: int = 0
    fed_tokens: int = 0
    finished: int = 0
    failed: int = 0
    preempted: int = 0
    """How often a sequence had to start again because blocks were needed elsewhere."""
    unbalanced: int = 0
    """How often blocks were miscounted when the engine was idle; more than 0 means a bug."""
    counts: DecodeCounts = field(default_factory=DecodeCounts)
    """Sums over finished requests. Requests share forward passes, so its `forwards` are more than those above."""


@dataclass(frozen=True, slots=True)
class Load:
    """A snapshot of an engine: sequences by state, KV-cache blocks by use, totals."""

    running: int
    waiting: int
    parked: int
    """Sequences that wait for text that the upstream is still writing."""
    blocks: BlockUse
    totals: Totals


class Session(Protocol):
    """An answer that an engine reads while the upstream still writes it. Always ended by `finish` or `aclose`."""

    def ask_early(self) -> None:
        """Allow judges to be asked while the answer grows, because no text is sent on before `finish`.

        Called before any text is fed, if at all. Sessions without judges do nothing.
        """
        return None  # a body, so that sessions inherit this method

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Add text to the answer without waiting for the model; return all verdicts so far, in segment order."""

    async def end(self) -> None:
        """Say that no more text will come; does not wait for the model."""

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Wait until there are more than `known_count` verdicts, or the answer has ended, and return all of them.

        None means that this engine has no verdicts before the answer is finished. A segment gets its verdict when the
        next segment has begun, and the last segment when the answer has ended. A verdict never changes.
        """

    async def replace(self, span: Span) -> Correction:
        """Write a replacement for a flagged range; it is the `text` of the returned correction and may be empty."""

    async def finish(self, request: AlignRequest) -> Correction:
        """Correct the complete answer, `request.answer`, within `request.deadline_s`."""

    async def aclose(self) -> None:
        """Give up the session; may be called again, and does nothing once `finish` was called."""


class ForwardingSession(Session):
    """A session that forwards every call to another one; base class of wrappers, which override what they change."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def inner(self) -> Session:
        """The session that receives the calls; an override may raise once that session is gone."""
        return self._session

    def ask_early(self) -> None:
        self.inner().ask_early()

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        return await self.inner().feed(text)

    async def end(self) -> None:
        await self.inner().end()

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        return await self.inner().wait_for_verdicts(known_count)

    async def replace(self, span: Span) -> Correction:
        return await self.inner().replace(span)

    async def finish(self, request: AlignRequest) -> Correction:
        return await self.inner().finish(request)

    async def aclose(self) -> None:
        await self.inner().aclose()


class DeferredSession(Session):
    """A session of an engine that cannot read ahead: it ignores text and corrects the whole answer in `finish`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        return ()

    async def end(self) -> None:
        """Do nothing, because nothing was read."""

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        return None

    async def replace(self, span: Span) -> Correction:
        raise EngineFault("this engine reads no answer ahead")

    async def finish(self, request: AlignRequest) -> Correction:
        return await self._engine.align(request)

    async def aclose(self) -> None:
        """Do nothing, because the session holds nothing."""


class Engine(Protocol):
    """Anything that corrects answers. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    async def info(self) -> AlignerInfo:
        """Describe the aligner; raises `EngineUnavailable` until it is loaded."""

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer within `request.deadline_s`."""

    async def read(self, request: AlignRequest) -> Session:
        """Begin to read an answer that is still being written; `request.answer` is its text so far."""

    async def aclose(self) -> None:
        """Release connections or the model."""


@runtime_checkable
class HasStates(Protocol):
    """An engine that returns hidden states of texts, or a wrapper around one that may."""

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Return rows [texts, layers * hidden]: means over tokens, normalised per layer. Raises `StatesUnavailable`."""


async def text_states(engine: Engine, request: StatesRequest) -> list[list[float]]:
    """Return hidden states of texts from any engine; raises `StatesUnavailable` if it cannot provide them."""
    if not isinstance(engine, HasStates):
        raise StatesUnavailable("this engine gives no hidden states; an engine of aligner-proxy with a model does")
    return await engine.states(request)


@runtime_checkable
class Teachable(Protocol):
    """An engine to which objectives can be taught, or a wrapper around one that may be."""

    async def put_head(self, data: bytes) -> str:
        """Store a taught head for requests that name it, and return its content hash. Raises `HeadRefused`."""

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Return the rows of segments on which heads are taught. Raises `HeadsUnavailable`."""


def require_teachable(engine: Engine) -> Teachable:
    """The engine, typed as one to which objectives can be taught; raises `HeadsUnavailable` for others."""
    if not isinstance(engine, Teachable):
        raise HeadsUnavailable(
            "nothing can be taught to this engine; an engine of aligner-proxy with a model is needed"
        )
    return engine


@runtime_checkable
class HasJudges(Protocol):
    """An engine that may have token classifiers beside its aligner, or a wrapper around one."""

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        """Return what the classifier `request.model` says of an answer. Raises `UnknownJudge`."""


def require_judges(engine: Engine) -> HasJudges:
    """The engine, typed as one that may have token classifiers; raises `UnknownJudge` for others."""
    if not isinstance(engine, HasJudges):
        raise UnknownJudge("this engine has no judges; an engine of aligner-proxy with a model may have some")
    return engine


class ForwardingEngine:
    """Base class of engines that wrap another one: forwards all calls but `read` to `inner`."""

    def __init__(self, inner: Engine) -> None:
        self.inner = inner

    async def info(self) -> AlignerInfo:
        return await self.inner.info()

    async def forward(self, request: _Request, send: Callable[[_Request], Coroutine[Any, Any, _T]]) -> _T:
        """Forward a request by calling `send`; wrappers override this to do something before or after every request."""
        return await send(request)

    async def align(self, request: AlignRequest) -> Correction:
        return await self.forward(request, self.inner.align)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        return await self.forward(request, partial(text_states, self.inner))

    async def put_head(self, data: bytes) -> str:
        return await require_teachable(self.inner).put_head(data)

    async def rows(self, request: RowsRequest) -> RowsResponse:
        return await self.forward(request, require_teachable(self.inner).rows)

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        return await self.forward(request, require_judges(self.inner).label_tokens)

    async def aclose(self) -> None:
        await self.inner.aclose()


@runtime_checkable
class CanStall(Protocol):
    """An engine whose model can get stuck."""

    def stalled_s(self) -> float:
        """Seconds that the current step has been running."""


class Startable(Engine, Protocol):
    """An engine that has to load its aligner first."""

    async def start(self) -> AlignerInfo:
        """Load the aligner and describe it; raises `WeightsError` if that fails."""


@runtime_checkable
class Local(Startable, CanStall, Protocol):
    """An engine with a model of its own."""

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt."""

    def load(self) -> Load:
        """The engine's current load."""
