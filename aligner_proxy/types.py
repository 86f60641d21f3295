"""The frozen things that travel between rooms. Nothing here knows LiteLLM, HTTP or torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """What a route does with a correction: deliver it, only record it, or do not correct at all."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class StreamMode(StrEnum):
    """`hold` aligns the whole answer, then replays it; `sentence` does so by segments; `passthrough` for the record."""

    HOLD = "hold"
    SENTENCE = "sentence"
    PASSTHROUGH = "passthrough"


class Verify(StrEnum):
    """`flagged` generates only in place of flagged segments, `always` verifies the whole answer as a draft."""

    FLAGGED = "flagged"
    ALWAYS = "always"


class OnError(StrEnum):
    """What follows when a correction fails: the client gets the original, or an error, or it is tried again."""

    PASSTHROUGH = "passthrough"
    BLOCK = "block"
    RETRY = "retry"


class FailureClass(StrEnum):
    """The kinds of failure that a policy tells apart; the error types say which reason is of which."""

    TIMEOUT = "timeout"
    OVERLOAD = "overload"
    ENGINE_DOWN = "engine_down"
    GATE = "gate"
    INVALID_OUTPUT = "invalid_output"
    BUG = "bug"


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
    ANNOTATIONS = "annotations"
    INCONSISTENT = "inconsistent"
    LOGPROBS = "logprobs"
    BACKGROUND = "background"
    UPSTREAM_ERROR = "upstream_error"
    SHADOW_FULL = "shadow_full"
    QUOTA = "quota"


class JsonStrings(StrEnum):
    """What happens to the texts inside a JSON answer: `keep` never edits them, `correct` aligns each long one."""

    KEEP = "keep"
    CORRECT = "correct"


class GateRule(StrEnum):
    """What the gate asks about a correction, in the order in which an objection is named (see gate_setting.py)."""

    EMPTY = "empty"
    LEAK = "template_leak"
    INVENTED_TURN = "invented_turn"
    NEW_REFUSAL = "new_refusal"
    PERSONAL_DATA = "new_personal_data"
    LOST_CODE = "lost_code"
    LOST_CITATION = "lost_citation"
    LOST_NUMBER = "lost_number"
    LOST_ADDRESS = "lost_address"
    LOST_QUOTE = "lost_quote"
    LOST_NAME = "lost_name"
    LOST_ITEM = "lost_list_item"
    LOST_TURN = "lost_turn"
    INVENTED_FACT = "invented_fact"
    INVENTED_QUOTE = "invented_quote"
    SCRIPT = "changed_script"
    LANGUAGE = "changed_language"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"


# The aligner that is used where none is named; the corrector, which is an aligner on the engine.
DEFAULT_ALIGNER = "default"
METAALIGNER = "metaaligner"


class LengthUnit(StrEnum):
    """What a bound of length counts (lengths.py)."""

    WORDS = "words"
    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    CHARACTERS = "characters"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an objective that a request brought lets an edit do that the gate otherwise refuses.

    A client's text is not the operator's: its words are never read for exceptions, only this is.
    """

    rules: tuple[GateRule, ...] = ()
    """Rules that are given up."""
    longest: tuple[LengthUnit, int] | None = None
    """Segments of an answer that is longer than this may go, as long as half of the bound is left."""
    banned: tuple[str, ...] = ()
    """Segments that hold one of these words or phrases may go."""


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective: its configured name and the whole text that the aligner reads ("Name: description")."""

    name: str
    text: str
    allowance: Allowance | None = None
    """Set on an objective that the request brought; None where the operator says it."""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What follows a failure, class by class; the fields are named as the classes."""

    timeout: OnError = OnError.PASSTHROUGH
    overload: OnError = OnError.PASSTHROUGH
    engine_down: OnError = OnError.PASSTHROUGH
    gate: OnError = OnError.PASSTHROUGH
    invalid_output: OnError = OnError.PASSTHROUGH
    bug: OnError = OnError.PASSTHROUGH

    def of(self, kind: FailureClass) -> OnError:
        """What follows a failure of this class."""
        action: OnError = getattr(self, kind.value)
        return action


@dataclass(frozen=True, slots=True)
class Quota:
    """Seconds of engine time that `account` may use a minute."""

    account: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A route's objectives are chosen by a plugin, prompt by prompt (`objectives: WORD` in the policies file)."""

    word: str
    candidates: tuple[str, ...]
    """Names of the objectives to choose among, most important first; neither enforced nor asked for by the request."""
    enforced: tuple[str, ...] = ()
    """Names of the objectives that stay whatever is chosen."""
    options: Any = field(default=None, hash=False)
    """What the file says besides: an instance of the form's pydantic model."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decides one request, resolved once and never changed. Times in seconds, caution in nats."""

    name: str
    objectives: tuple[Objective, ...] = ()
    mode: Mode = Mode.ENFORCE
    stream: StreamMode = StreamMode.HOLD
    keepalive_s: float = 15.0
    debug_trailer: bool = False  # whether the end of a stream tells what was flagged, and how long things took
    deadline_s: float = 20.0
    on_error: FailurePolicy = FailurePolicy()
    after_retry: OnError = OnError.PASSTHROUGH  # what follows a failure that does not go away
    caution: float = 0.0
    score_only: bool = False  # the engine scores the answer and edits nothing
    verify: Verify = Verify.FLAGGED
    aligner: str = DEFAULT_ALIGNER
    sample: float = 1.0
    max_answer_chars: int = 24_000
    gate: tuple[GateRule, ...] = tuple(GateRule)
    json_strings: JsonStrings = JsonStrings.KEEP
    corrector: str = METAALIGNER
    draft: int = 0  # number of this draft, where a plugin asks for several
    plugin_rules: tuple[str, ...] = ()
    bypass: bool = False  # the request asked to be left alone, and its tenant may ask that
    tenant: str = "-"  # namespace of the cache and of what is in flight: no two tenants ever share an entry
    quota: Quota | None = None
    selection: Selection | None = None  # a plugin chooses among the objectives
    extensions: tuple[tuple[str, Any], ...] = field(default=(), hash=False)
    """(name, value) of plugins: their keys of the policies file that differ from the default, and what they add."""
    origins: tuple[tuple[str, str], ...] = ()
    """(setting, where its value came from), for `check`."""

    def extension(self, name: str, default: Any = None) -> Any:
        """The value that a plugin's key has here, `default` where nothing was said."""
        for key, value in self.extensions:
            if key == name:
                return value
        return default

    def with_extension(self, name: str, value: Any) -> Policy:
        """The same policy with this value under `name`."""
        others = tuple(pair for pair in self.extensions if pair[0] != name)
        return replace(self, extensions=(*others, (name, value)))


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation before the answer; `role` as in the OpenAI API."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One choice of one response (of Responses and Messages: one text part, numbered so) without its wire format."""

    call_id: str
    index: int
    turns: tuple[Turn, ...]
    answer: str | None
    finish_reason: str | None = "stop"
    tool_calls: bool = False
    structured: bool = False
    json_schema: str | None = None
    """The JSON schema that the request asked the answer to meet, as JSON text."""
    constrained: bool = False
    """The request bound the answer by a grammar that we cannot check, so its JSON is never edited."""
    refusal: bool = False
    non_text: bool = False
    logprobs: bool = False
    annotations: bool = False
    """Citations point into the text by offset or quote it; an edit would make them point to other words."""
    inconsistent: bool = False
    """The events of a stream do not tell one and the same text, so there is no saying where an edit belongs."""
    no_store: bool = False
    """The client or upstream asked for `Cache-Control: no-store`."""
    fault: str | None = None  # why the response could not be read at all
    inner: bool = False  # there is more of the response behind it, so nothing is to be added there


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """A segment and the log-odds (nats; None: no head) that it must change; without text the place behind the last."""

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

    def __add__(self, more: DecodeCounts) -> DecodeCounts:
        """Both together."""
        return DecodeCounts(*(getattr(self, f.name) + getattr(more, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Correction:
    """What the engine returns: the edited answer, the segments of the original and the cost. `ms` is engine time."""

    text: str
    segments: tuple[SegmentScore, ...] = ()
    counts: DecodeCounts = field(default_factory=DecodeCounts)
    prompt_tokens: int = 0
    ms: float = 0.0
    aligner: str = ""
    """Content hash of the aligner that made it."""

    def with_cost_of(self, parts: Iterable[Correction]) -> Correction:
        """This correction at the price of all that it was put together from: tokens and engine time are added up."""
        parts = tuple(parts)
        return replace(
            self,
            counts=sum((part.counts for part in parts), DecodeCounts()),
            prompt_tokens=sum(part.prompt_tokens for part in parts),
            ms=sum(part.ms for part in parts),
        )


def all_cached(hits: Iterable[bool | None]) -> bool | None:
    """Whether the cache had everything that it was asked for; None where it was asked for nothing."""
    asked = {hit for hit in hits if hit is not None}
    return all(asked) if asked else None


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
    edited: str | None = None
    """What the gate lets through, delivered or, in shadow mode, not; None where nothing was judged."""
    edits: int = 0
    """Edits that the aligner wanted, and below the rule that each dropped one broke."""
    dropped: tuple[str, ...] = ()
    attempts: int = 0
    """How often it was tried; 0 where nothing was."""
    reports: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=(), hash=False)
    """(extension, what it says of the answer): JSON-able, never text of the conversation."""

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
