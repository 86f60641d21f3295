"""The frozen things that travel between rooms. Nothing here knows LiteLLM, HTTP or torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Mode(StrEnum):
    """What a route does with a correction: deliver it, only record it, or do not correct at all."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class StreamMode(StrEnum):
    """How a stream is treated. `hold` withholds it, aligns the whole answer and replays it."""

    HOLD = "hold"


class Verify(StrEnum):
    """`flagged` generates only in place of flagged segments, `always` verifies the whole answer as a draft."""

    FLAGGED = "flagged"
    ALWAYS = "always"


class OnError(StrEnum):
    """What the client gets when a correction fails: the original, or an error."""

    PASSTHROUGH = "passthrough"
    BLOCK = "block"


class Status(StrEnum):
    """What became of one answer; the value of the header x-aligner-status."""

    CORRECTED = "corrected"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    SHADOW = "shadow"
    FAILED = "failed"
    PENDING = "pending"


class SkipReason(StrEnum):
    """Why an answer was not looked at. Each value appears in headers, metrics and docs."""

    ENDPOINT = "endpoint"
    MODE_OFF = "mode_off"
    NO_OBJECTIVES = "no_objectives"
    BYPASS = "bypass"
    NOT_SAMPLED = "not_sampled"
    TOOL_CALLS = "tool_calls"
    STRUCTURED_OUTPUT = "structured_output"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    NON_TEXT = "non_text"
    LOGPROBS = "logprobs"
    UPSTREAM_ERROR = "upstream_error"


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective: its configured name and the whole text that the aligner reads ("Name: description")."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decides one request, resolved once and never changed. Times in seconds, caution in nats."""

    name: str
    objectives: tuple[Objective, ...] = ()
    mode: Mode = Mode.ENFORCE
    stream: StreamMode = StreamMode.HOLD
    deadline_s: float = 20.0
    on_error: OnError = OnError.PASSTHROUGH
    caution: float = 0.0
    verify: Verify = Verify.FLAGGED
    sample: float = 1.0
    max_answer_chars: int = 24_000
    bypass: bool = False
    """The request asked to be left alone and its tenant may ask that."""
    tenant: str = "-"
    """Cache and in-flight namespace: no two tenants ever share an entry."""
    origins: tuple[tuple[str, str], ...] = ()
    """(setting, where its value came from), for `check`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation before the answer; `role` as in the OpenAI API."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One choice of one response, without its wire format: what was asked and what the upstream answered."""

    call_id: str
    index: int
    turns: tuple[Turn, ...]
    answer: str | None
    finish_reason: str | None = "stop"
    tool_calls: bool = False
    structured: bool = False
    refusal: bool = False
    non_text: bool = False
    logprobs: bool = False
    no_store: bool = False
    """The client or upstream asked for `Cache-Control: no-store`."""


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """One segment of the answer with the detector's log-odds (nats; None without a head) that it must change."""

    text: str
    score: float | None
    flagged: bool
    objective: int | None = None
    """Index of the objective that speaks most against the segment; None where that is not known."""


@dataclass(frozen=True, slots=True)
class DecodeCounts:
    """Where the tokens came from; the serving field's words. `forwards` counts passes through the model."""

    drafted: int = 0
    accepted: int = 0
    recovered: int = 0
    bonus: int = 0
    forwards: int = 0


@dataclass(frozen=True, slots=True)
class Correction:
    """What the engine returns: the edited answer, the segments of the original and the cost. `ms` milliseconds."""

    text: str
    segments: tuple[SegmentScore, ...] = ()
    counts: DecodeCounts = field(default_factory=DecodeCounts)
    prompt_tokens: int = 0
    ms: float = 0.0
    aligner: str = ""
    """Content hash of the aligner that made it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one choice. `text` is what to deliver, `correction` what the engine said (also in shadow)."""

    status: Status
    reason: str | None
    text: str | None
    policy: Policy
    index: int = 0
    cache_hit: bool | None = None
    correction: Correction | None = None
    ms: float = 0.0

    @property
    def against(self) -> list[str]:
        """Names of the objectives that segments were flagged for, each once, sorted."""
        segments = self.correction.segments if self.correction else ()
        return sorted({name for segment in segments if (name := self.named(segment))})

    def named(self, segment: SegmentScore) -> str | None:
        """The objective that a segment was flagged for; None where an engine names none, or one that is not there."""
        index = segment.objective if segment.flagged else None
        if index is None or not 0 <= index < len(self.policy.objectives):
            return None
        return self.policy.objectives[index].name
