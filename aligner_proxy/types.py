"""Frozen data types shared by all packages, independent of LiteLLM, HTTP and torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar


class Mode(StrEnum):
    """Mode of a route: deliver corrections, only record them, or correct nothing."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class StreamMode(StrEnum):
    """Stream mode: `hold` corrects the whole answer, `sentence` each segment, `passthrough` only records."""

    HOLD = "hold"
    SENTENCE = "sentence"
    PASSTHROUGH = "passthrough"


class Verify(StrEnum):
    """Scope of generation: `flagged` replaces flagged segments only, `always` verifies the whole answer as a draft."""

    FLAGGED = "flagged"
    ALWAYS = "always"


class Write(StrEnum):
    """What is written in place of a flagged passage: nothing, so that it is removed; only what a detector head finds
    good, also as an answer to the question; or anything that is not flagged itself."""

    NEVER = "never"
    VERIFIED = "verified"
    FREE = "free"


class OnError(StrEnum):
    """Reaction to a failed correction: deliver the original, answer with an error, or retry."""

    PASSTHROUGH = "passthrough"
    BLOCK = "block"
    RETRY = "retry"


class OnSkip(StrEnum):
    """Reaction to an answer that is skipped by default: judge what can be judged, deliver it, or return an error."""

    JUDGE = "judge"
    PASSTHROUGH = "passthrough"
    BLOCK = "block"


class IfNothingRemains(StrEnum):
    """Reaction when edits would leave nothing: a fixed text, another answer, an error, or the original.

    The other answer (`second_try`) comes from the editor. If it is no better, the fixed text is delivered.
    """

    DECLINE = "decline"
    SECOND_TRY = "second_try"
    BLOCK = "block"
    ORIGINAL = "original"


class SideTreatment(StrEnum):
    """Treatment of one kind of text that comes with an answer: leave, judge, correct or remove it, or return an error.

    Only arguments of tool calls can be corrected. What is flagged in them and cannot be is treated as by `judge`.
    """

    PASS = "pass"
    JUDGE = "judge"
    CORRECT = "correct"
    DROP = "drop"
    BLOCK = "block"


class SideKind(StrEnum):
    """Kinds of text that come with an answer.

    Each is a setting of policies, and the recorded reason when a text of this kind blocked an answer.
    """

    REASONING = "reasoning"
    TOOL_ARGUMENTS = "tool_arguments"
    TOOL_OUTPUT = "tool_output"
    TRANSCRIPTS = "transcripts"
    OTHER_TEXT = "other_text"


_side_treatments = attrgetter(*map(str, SideKind))
"""Reads what a policy says about each kind of text beside an answer."""
_NO_SIDE_TREATMENT = (SideTreatment.PASS,) * len(SideKind)


class IncomingTreatment(StrEnum):
    """Treatment of one kind of text in a request: leave it unread, report what is flagged, or refuse the request."""

    PASS = "pass"
    REPORT = "report"
    BLOCK = "block"


class IncomingKind(StrEnum):
    """Kinds of text in a request that may be judged; each is a setting of policies."""

    TOOL_RESULTS = "incoming_tool_results"
    HISTORY = "incoming_history"

    @property
    def short_name(self) -> str:
        """The kind in headers and errors, where it is clear that the text is the request's."""
        return self.value.removeprefix("incoming_")


_incoming_treatments = attrgetter(*map(str, IncomingKind))
"""Reads what a policy says about each kind of text in a request."""
_NO_INCOMING_TREATMENT = (IncomingTreatment.PASS,) * len(IncomingKind)


class Requirement:
    """A plugin's requirement on answers besides the objectives, given as the value of a policy key.

    Every default requires nothing. With a requirement in its policy, an answer is checked even without objectives. An
    empty value counts as no requirement.
    """

    __slots__ = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that describe the requirement to operators."""
        return ()

    @property
    def source_texts(self) -> tuple[str, ...]:
        """Texts whose facts an edit may state; the gate does not count them as invented."""
        return ()

    @property
    def operator_settings(self) -> object:
        """The operator's settings as JSON-able data, for the policy hash; nothing from the request."""
        return ()

    @property
    def header_names(self) -> tuple[str, ...]:
        """Request headers that the requirement reads (`RequestFacts.given`)."""
        return ()

    @property
    def reads_tool_results(self) -> bool:
        """Whether the requirement reads tool results (`RequestFacts.tool_results`)."""
        return False

    @property
    def file_names(self) -> tuple[str, ...]:
        """Paths of the files that the requirement uses, as written in the policies file."""
        return ()

    def read_files(self, place: Callable[[int], str], path: Callable[[str], Path]) -> Mapping[str, str]:
        """Read the files; return each text by file name.

        `place` maps the number of an entry to its position in the policies file, which a `ConfigError` names.
        """
        return {}

    def with_files(self, texts: Mapping[str, str]) -> Requirement:
        """A copy of the requirement that holds the texts of its files."""
        return self


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that a stage found in an answer, and its replacement; offsets refer to the text before the edit."""

    against: str
    """Name of the requirement or rule that the passage violates, comparable to an objective's name."""
    start: int
    end: int
    kind: str
    source: str
    """The evidence for it, such as a reference line, written "name:line"."""
    text: str | None = field(default=None, repr=False)
    """The replacement text; None if the passage was not replaced."""

    @property
    def is_replaced(self) -> bool:
        """Whether the passage was replaced."""
        return self.text is not None


MAX_FINDINGS = 32
"""At most this many findings are listed in a record, for replaced and for unsettled ones each."""


class FailureClass(StrEnum):
    """Classes of failure that a policy distinguishes; each error type names its class (errors.py).

    `judge` means that a second opinion failed; unless the policy blocks, the head's own verdicts then stand.
    `unjudged` means that the policy wants the answer judged (`on_skip: judge`), but it could not be.
    """

    TIMEOUT = "timeout"
    OVERLOAD = "overload"
    ENGINE_DOWN = "engine_down"
    GATE = "gate"
    INVALID_OUTPUT = "invalid_output"
    BUG = "bug"
    JUDGE = "judge"
    UNJUDGED = "unjudged"


class Status(StrEnum):
    """Status of one answer, as in the header x-aligner-status."""

    CORRECTED = "corrected"
    UNCHANGED = "unchanged"
    NOT_JUDGED = "not_judged"
    SKIPPED = "skipped"
    SHADOW = "shadow"
    FAILED = "failed"
    PENDING = "pending"


class SkipReason(StrEnum):
    """Reason why an answer was not judged. Each value appears in headers, metrics and docs."""

    ENDPOINT = "endpoint"
    MODE_OFF = "mode_off"
    NO_OBJECTIVES = "no_objectives"
    RELOAD_FAILED = "reload_failed"
    """No objectives either, but the file on disk, whose change was refused, may name some."""
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
    LANGUAGE = "language"


class JsonStrings(StrEnum):
    """Treatment of strings inside a JSON answer: `keep` never edits them, `correct` corrects each long one."""

    KEEP = "keep"
    CORRECT = "correct"


class GateRule(StrEnum):
    """Rules of the gate, in the order in which they are reported when several are broken."""

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
    TORN_PAIR = "torn_pair"
    INVENTED_FACT = "invented_fact"
    INVENTED_QUOTE = "invented_quote"
    SCRIPT = "changed_script"
    LANGUAGE = "changed_language"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    REPEATED_SENTENCE = "said_twice"
    BARE_SPEAKER = "bare_speaker"


_HALF = re.compile("[\ud800-\udfff]")
"""A lone surrogate: half of a pair."""
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""Both halves, one after the other, as they stand where two pieces of a stream were put together."""
DEFAULT_ALIGNER = "default"
"""The aligner used if a policy names none."""
EMBEDDED = "embedded"
"""The model of the aligner that comes with the distribution aligner-proxy-embedded."""
METAALIGNER = "metaaligner"
"""Name of the default corrector: an aligner that runs on the engine."""
LOCAL_EDITOR = "local"
"""The default editor: the aligner that flags a passage also rewrites it."""
UPSTREAM_EDITOR = "upstream"
"""The editor is the model group that answers the request."""
BREVITY_OBJECTIVES = frozenset({"concise", "non-repetitive"})
"""Names of the built-in objectives about brevity."""
EDITOR_GROUP = "model:"
"""Prefix of an editor that is a model group: `model:GROUP`."""
SAFETY_OBJECTIVES = frozenset({"harmless"})
"""Names of the objectives about safety; an answer that is all harm is never delivered for want of anything else."""


class LengthUnit(StrEnum):
    """Unit of a length bound (text/lengths.py)."""

    WORDS = "words"
    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    CHARACTERS = "characters"


@dataclass(frozen=True, slots=True)
class Allowance:
    """Exceptions from the gate's rules that an objective of a request grants.

    Exceptions come only from here: the wording of a client's objective is never searched for them.
    """

    rules: tuple[GateRule, ...] = ()
    """Gate rules that do not apply."""
    longest: tuple[LengthUnit, int] | None = None
    """(unit, bound): if the answer is longer, segments may be removed while at least half of the bound remains."""
    banned: tuple[str, ...] = ()
    """Segments with one of these words or phrases may be removed."""


class JudgeKind(StrEnum):
    """Kinds of model that give a second opinion: chat, guard or decision models, or token classifiers of the engine."""

    CHAT = "chat"
    GUARD = "guard"
    DECISIONS = "decisions"
    TOKENS = "tokens"


class GuardForm(StrEnum):
    """Families of guard models, by the published form of their prompts and replies."""

    LLAMA_GUARD = "llama_guard"
    QWEN3GUARD = "qwen3guard"
    GRANITE_GUARDIAN = "granite_guardian"
    SHIELDGEMMA = "shieldgemma"
    GPT_OSS_SAFEGUARD = "gpt_oss_safeguard"
    NEMOTRON = "nemotron"


class AskAbout(StrEnum):
    """Segments about which a judge is asked: unflagged ones near the threshold, flagged ones, or all."""

    DOUBT = "doubt"
    FLAGGED = "flagged"
    ALL = "all"


ANSWER_BAND = 1.75
"""Nats below the threshold from which a judge is asked about a whole answer that a taught head scores. The embedded
aligner asks about 3 % of ordinary answers then."""
DOUBT_BAND = 0.5
"""Default of `Judge.band` in nats; of neutral segments the embedded head scores 1 in 100 so close to being harmful."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that gives a second opinion on segments; it flags or clears them, and writes nothing."""

    kind: JudgeKind = JudgeKind.CHAT
    group: str = ""
    """The model group, or the token classifier's name; empty for no judge."""
    form: GuardForm | None = None
    ask: AskAbout = AskAbout.DOUBT
    band: float = DOUBT_BAND
    """With `ask: doubt`, segments that score at most this many nats below the threshold are asked about."""
    answer_band: float | None = None
    """The same for the score of an answer, whose highest third of segments is then asked about; 0: not asked. It is the
    mean of what its segments say of the answer where a taught head tells that, else the mean of their scores. None:
    `ANSWER_BAND` where a head tells it, else 0."""

    def __bool__(self) -> bool:
        return bool(self.group)

    def __str__(self) -> str:
        """The judge as `check` shows it."""
        if not self:
            return "off"
        form = f", form: {self.form.value}" if self.form else ""
        band = f", band: {self.band:g}" if self.ask is AskAbout.DOUBT else ""
        if band and self.answer_band is not None:
            band += f", answer_band: {self.answer_band:g}"
        return f"{self.kind.value}: {self.group}{form}, ask: {self.ask.value}{band}"

    @property
    def may_clear(self) -> bool:
        """Whether it may clear what the head flagged."""
        return bool(self) and self.ask is not AskAbout.DOUBT

    @property
    def decides_whole_answers(self) -> bool:
        """Whether it is asked before an answer counts as harmful as a whole; nothing is declined without it then."""
        return self.may_clear or (bool(self) and self.answer_band != 0)


NO_JUDGE = Judge()


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective: its configured name and the whole text that the aligner reads ("Name: description")."""

    name: str
    text: str
    allowance: Allowance | None = None
    """Set for objectives of a request; None for the operator's."""
    head: str = ""
    """Content hash of its taught head; empty if it has none."""
    judge: Judge | None = None
    """The judge that is asked about it, perhaps none; None means the policy's."""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """Reaction to each class of failure; the fields are named like the classes."""

    timeout: OnError = OnError.PASSTHROUGH
    overload: OnError = OnError.PASSTHROUGH
    engine_down: OnError = OnError.PASSTHROUGH
    gate: OnError = OnError.PASSTHROUGH
    invalid_output: OnError = OnError.PASSTHROUGH
    bug: OnError = OnError.PASSTHROUGH
    judge: OnError = OnError.PASSTHROUGH
    unjudged: OnError = OnError.PASSTHROUGH

    def reaction_to(self, kind: FailureClass) -> OnError:
        """The reaction to a failure of this class while retries are left."""
        action: OnError = getattr(self, kind.value)
        return action


@dataclass(frozen=True, slots=True)
class SkipPolicy:
    """Reaction to each reason for skipping an answer; the fields are named like the reasons.

    Reasons without a field (`mode_off`, `bypass`, `empty` ...) always skip.
    """

    not_sampled: OnSkip = OnSkip.PASSTHROUGH
    tool_calls: OnSkip = OnSkip.JUDGE
    structured_output: OnSkip = OnSkip.PASSTHROUGH
    refusal: OnSkip = OnSkip.PASSTHROUGH
    truncated: OnSkip = OnSkip.PASSTHROUGH
    filtered: OnSkip = OnSkip.PASSTHROUGH
    too_long: OnSkip = OnSkip.PASSTHROUGH
    non_text: OnSkip = OnSkip.PASSTHROUGH
    annotations: OnSkip = OnSkip.PASSTHROUGH
    inconsistent: OnSkip = OnSkip.PASSTHROUGH
    logprobs: OnSkip = OnSkip.PASSTHROUGH
    background: OnSkip = OnSkip.PASSTHROUGH
    upstream_error: OnSkip = OnSkip.PASSTHROUGH
    quota: OnSkip = OnSkip.PASSTHROUGH
    language: OnSkip = OnSkip.PASSTHROUGH

    def reaction_to(self, reason: str | None) -> OnSkip:
        """The reaction to this reason; `PASSTHROUGH` for None, and for reasons without a field."""
        action: OnSkip = getattr(self, str(reason), OnSkip.PASSTHROUGH)
        return action


GOVERNED_SKIPS = tuple(SkipReason(f.name) for f in fields(SkipPolicy))
"""The skip reasons for which a policy can set a reaction (`on_skip`)."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Seconds of engine time that `account` may use per minute."""

    account: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A plugin chooses the route's objectives for each prompt (`objectives: WORD` in the policies file)."""

    word: str
    candidates: tuple[str, ...]
    """Names of the objectives to choose from, most important first; without enforced and requested ones."""
    enforced: tuple[str, ...] = ()
    """Names of the objectives that always apply."""
    options: Any = field(default=None, hash=False)
    """Settings from the file: an instance of the plugin's pydantic model."""


@dataclass(frozen=True, slots=True)
class AlignerShare:
    """One of the aligners among which a policy divides its traffic."""

    name: str
    percent: int = 0
    """Percent of the tenant's traffic."""
    heads: tuple[tuple[str, str], ...] = ()
    """(objective, content hash of the head taught for this objective and this aligner)."""


@dataclass(frozen=True, slots=True)
class HandOff:
    """Webhook for doubtful answers: those with a segment score within `within` nats of the threshold."""

    url: str
    secret_env: str
    """Environment variable with the secret that signs reports."""
    within: float
    text: bool = False
    """Whether a report includes question, answer and edited answer."""


class Traffic(NamedTuple):
    """Whose requests these are and which model answers them, by names that may stand in metrics: never a key."""

    tenant: str = "-"
    """The tenant's name in the policies file, else its team, else the alias in the keys file."""
    model: str = "-"


@dataclass(frozen=True, slots=True)
class Policy:
    """All settings for one request, resolved once. Times in seconds, caution in nats."""

    name: str
    objectives: tuple[Objective, ...] = ()
    mode: Mode = Mode.ENFORCE
    stream: StreamMode = StreamMode.HOLD
    keepalive_s: float = 15.0  # longest time without an event while a stream is held back; 0 for no limit
    debug_trailer: bool = False  # whether a stream ends with its flags and timings
    exact_times: bool = False  # whether x-aligner-ms is exact
    deadline_s: float = 20.0
    on_error: FailurePolicy = FailurePolicy()
    after_retry: OnError = OnError.PASSTHROUGH  # reaction when retries fail, too
    on_skip: SkipPolicy = SkipPolicy()
    if_nothing_remains: IfNothingRemains = IfNothingRemains.ORIGINAL
    declines_harm_alone: bool = False  # if_nothing_remains counts only where a safety objective was violated
    decline: tuple[tuple[str, str], ...] = ()  # (language, text) in place of an answer; "" is any language
    decline_within: float = 2.0  # next to a harmful segment, others count as harmful from this far below
    decline_whole_answers: bool = True  # if_nothing_remains counts where an answer is harmful as a whole, too
    caution: float = 0.0  # score above which a segment is flagged
    score_only: bool = False  # the engine scores the answer and edits nothing
    verify: Verify = Verify.FLAGGED
    aligner: str = DEFAULT_ALIGNER
    aligner_shares: tuple[AlignerShare, ...] = ()  # several aligners, until one is picked for the conversation
    shadow_aligner: AlignerShare | None = None  # also scores the same answers, for comparison only
    hand_off: HandOff | None = None  # webhook to which doubtful answers are reported
    sample: float = 1.0  # share of requests that are judged
    max_answer_chars: int = 400_000  # longest text that is corrected as a whole
    gate: tuple[GateRule, ...] = tuple(GateRule)
    json_strings: JsonStrings = JsonStrings.KEEP
    reasoning: SideTreatment = SideTreatment.PASS
    tool_arguments: SideTreatment = SideTreatment.PASS
    tool_output: SideTreatment = SideTreatment.PASS
    transcripts: SideTreatment = SideTreatment.PASS
    other_text: SideTreatment = SideTreatment.PASS
    incoming_tool_results: IncomingTreatment = IncomingTreatment.PASS
    incoming_history: IncomingTreatment = IncomingTreatment.PASS
    corrector: str = METAALIGNER
    write: Write = Write.NEVER  # what the aligner may write in place of a flagged passage
    editor_write: Write = Write.FREE  # what an editor may write there
    editor: str = LOCAL_EDITOR  # writes replacements of flagged text: local, upstream, or model:GROUP
    judge: Judge = NO_JUDGE  # gives a second opinion on what the head doubts
    upstream: str = ""  # model group that answers; empty if unknown; `editor: upstream` uses it
    payer: tuple[tuple[str, Any], ...] = field(default=(), compare=False, repr=False)
    """(name, value) pairs of LiteLLM metadata that charge calls of editor and judge to the key of the request."""
    draft: int = 0  # number of this draft, if a plugin requests several
    plugin_rules: tuple[str, ...] = ()
    bypass: bool = False  # the request opted out, and its tenant is allowed to
    tenant: str = "-"  # namespace of cache and in-flight work: tenants never share an entry
    traffic: Traffic = field(default=Traffic(), compare=False)  # names of tenant and model in metrics
    quota: Quota | None = None
    selection: Selection | None = None  # a plugin chooses among the objectives
    extensions: tuple[tuple[str, Any], ...] = field(default=(), hash=False)
    """(name, value) pairs of plugins: policy keys that differ from their default, and values that plugins set."""
    origins: tuple[tuple[str, str], ...] = ()
    """(setting, origin of its value), for `check`."""

    @property
    def judges(self) -> tuple[Judge, ...]:
        """The different judges of the policy and of its objectives."""
        judges = [self.judge, *[objective.judge for objective in self.objectives]]
        return tuple(dict.fromkeys(filter(None, judges)))

    @property
    def judge_groups(self) -> str:
        """The model groups of its judges, as headers and metrics name them; empty for no judge."""
        return "+".join(sorted({judge.group for judge in self.judges}))

    def drop_judges(self) -> Policy:
        """This policy without judges, so that the head alone decides; the same object if it has none."""
        objectives = tuple(
            replace(objective, judge=None) if objective.judge else objective for objective in self.objectives
        )
        return replace(self, judge=NO_JUDGE, objectives=objectives) if self.judges else self

    def side_treatment(self, kind: SideKind) -> SideTreatment:
        """What is done with text of this kind beside an answer."""
        treatment: SideTreatment = getattr(self, kind.value)
        return treatment

    def incoming_treatment(self, kind: IncomingKind) -> IncomingTreatment:
        """What is done with text of this kind in a request."""
        treatment: IncomingTreatment = getattr(self, kind.value)
        return treatment

    @property
    def looks_at_incoming(self) -> bool:
        """Whether any kind of text in a request is judged."""
        return _incoming_treatments(self) != _NO_INCOMING_TREATMENT

    def final_action(self, kind: FailureClass) -> OnError:
        """The reaction to a failure of this class when no retry is left."""
        action = self.on_error.reaction_to(kind)
        return self.after_retry if action is OnError.RETRY else action

    @property
    def blocks_unjudged(self) -> bool:
        """Whether the client gets an error if something could not be judged; shadow mode: whether it would."""
        return self.final_action(FailureClass.UNJUDGED) is OnError.BLOCK

    @property
    def looks_at_side_texts(self) -> bool:
        """Whether any kind of text that comes with an answer is judged, dropped or blocked."""
        return _side_treatments(self) != _NO_SIDE_TREATMENT

    @property
    def effective_write(self) -> Write:
        """What may be written in place of flagged text: `write` if the aligner edits, `editor_write` if an editor."""
        return self.write if self.editor == LOCAL_EDITOR else self.editor_write

    @property
    def editor_group(self) -> str | None:
        """The model group that acts as editor; None if the aligner edits, or if the answering group is unknown."""
        if self.editor == UPSTREAM_EDITOR:
            return self.upstream or None
        return self.editor.removeprefix(EDITOR_GROUP) if self.editor.startswith(EDITOR_GROUP) else None

    def extension(self, name: str, default: Any = None) -> Any:
        """The value of a plugin's key, `default` if it is not set."""
        for key, value in self.extensions:
            if key == name:
                return value
        return default

    @property
    def requirements(self) -> tuple[tuple[str, Requirement], ...]:
        """(name, value) of each requirement that a plugin sets."""
        return tuple((name, value) for name, value in self.extensions if isinstance(value, Requirement) and value)

    @property
    def source_texts(self) -> tuple[str, ...]:
        """Texts from plugins whose facts do not count as invented."""
        return tuple(text for _, requirement in self.requirements for text in requirement.source_texts)

    def without_requirements(self) -> Policy:
        """This policy without the requirements of plugins, so that only its objectives are checked."""
        others = tuple(pair for pair in self.extensions if not isinstance(pair[1], Requirement))
        return replace(self, extensions=others)

    def with_extension(self, name: str, value: Any) -> Policy:
        """This policy with this value of a plugin under `name`."""
        others = tuple(pair for pair in self.extensions if pair[0] != name)
        return replace(self, extensions=(*others, (name, value)))


def replace_surrogates(text: str) -> str:
    """Replace each lone surrogate with U+FFFD; the length stays the same, and so does the object if there is none.

    JSON can contain lone surrogates, but UTF-8 cannot encode them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return _HALF.sub("\ufffd", text)
    return text


def join_surrogates(text: str) -> str:
    """Join both halves of each surrogate pair to its letter, and replace each lone half with U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _HALF.sub("\ufffd", _PAIR.sub(_join_pair, text))
    return text


def is_first_half(letter: str) -> bool:
    """Whether a character is the first half of a pair of surrogates."""
    return "\ud800" <= letter <= "\udbff"


def _join_pair(pair: re.Match[str]) -> str:
    """The one letter that both halves of a surrogate pair encode."""
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation before the answer; `role` as in the OpenAI API."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One choice of one response (in Responses and Messages: one text part), independent of its wire format."""

    call_id: str
    index: int
    """Number of the choice or text part in its response."""
    turns: tuple[Turn, ...]
    """The conversation before the answer."""
    answer: str | None
    """None if the response has no text here."""
    finish_reason: str | None = "stop"
    tool_calls: bool = False
    """The answer calls tools, in fields of the response or, where that matters, in its text."""
    structured: bool = False
    """The request prescribed the form of the answer, or began it."""
    json_schema: str | None = None
    """JSON schema for the answer from the request, as JSON text."""
    constrained: bool = False
    """The answer follows a grammar that cannot be checked here, so its JSON is never edited."""
    refusal: bool = False
    """The response says, apart from its text, that the model declined."""
    non_text: bool = False
    """The answer has parts that are not text, such as images."""
    logprobs: bool = False
    """The response has probabilities of tokens, which an edit would make wrong."""
    annotations: bool = False
    """Citations refer to the text by offset or quotation; an edit would break them."""
    inconsistent: bool = False
    """The events of a stream disagree about the text, so an edit has no defined place."""
    hidden_text: bool = False
    """A field that is delivered unchanged holds text, such as a refusal field with something other than a refusal."""
    no_store: bool = False
    """The client or upstream asked for `Cache-Control: no-store`."""
    fault: str | None = None  # why the response could not be read
    inner: bool = False  # more of the response follows, so nothing is appended
    is_call: bool = False
    """The answer is the arguments of a tool call, of which only prose is judged and edited."""
    tagged_reasoning: str = ""
    """Reasoning between tags that stands before the answer in the same text; it is no part of the answer."""

    @property
    def question(self) -> str:
        """The last turn of the user; empty if there is none."""
        return next((turn.content for turn in reversed(self.turns) if turn.role == "user"), "")


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """A segment and its log-odds of needing a change (nats; None: no detector); empty text: the end of the answer."""

    text: str
    score: float | None
    flagged: bool
    objective: int | None = None
    """Index of the objective that the segment violates most; None if unknown."""
    evidence: tuple[float, int] | None = None
    """What the segment says of the answer as a whole: (nats, index of the objective). None for the end of the answer,
    and without a taught head that says it."""


class AnswerScore(NamedTuple):
    """The score of an answer as a whole."""

    score: float
    """Mean of what its segments say, in nats."""
    objective: int
    """Index of the objective."""


def score_whole_answer(segments: Sequence[SegmentScore]) -> AnswerScore | None:
    """The score of an answer as a whole.

    Above 0 the answer probably goes against that objective. None if a segment says nothing of the answer. The end of
    the answer is no segment of it.
    """
    return GrowingScore().read(segments)


class GrowingScore:
    """The score of an answer as a whole (`score_whole_answer`) while it grows, each of whose segments is read once."""

    def __init__(self) -> None:
        self._read_count = 0
        """Number of segments read."""
        self._text_count = 0
        """Number of those with text."""
        self._nats = 0.0
        """Sum of what they say."""
        self._objective: int | None = None
        """The objective that the first of them names."""
        self._is_known = True
        """Whether all of them say something."""

    def read(self, segments: Sequence[SegmentScore]) -> AnswerScore | None:
        """The score of the answer so far; the first of its `segments` are those of the call before."""
        for segment in segments[self._read_count :]:
            if segment.text and segment.evidence is not None:
                nats, objective = segment.evidence
                self._text_count += 1
                self._nats += nats
                self._objective = objective if self._objective is None else self._objective
            elif segment.text:
                self._is_known = False
        self._read_count = len(segments)
        if self._objective is None or not self._is_known:
            return None
        return AnswerScore(self._nats / self._text_count, self._objective)


@dataclass(frozen=True, slots=True)
class DecodeCounts:
    """Token counts of speculative decoding; `forwards` counts passes through the model."""

    drafted: int = 0
    """Tokens proposed by drafts."""
    accepted: int = 0
    """Drafted tokens that the model would have written, too."""
    recovered: int = 0
    """Tokens that the model wrote in place of the first rejected one of a draft."""
    bonus: int = 0
    """Tokens that the model wrote after a draft that was accepted completely."""
    forwards: int = 0

    def __add__(self, other: DecodeCounts) -> DecodeCounts:
        return DecodeCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class EditorUse:
    """Editor calls for one answer: their number, tokens, milliseconds and results."""

    calls: int = 0
    """Calls with a usable reply."""
    read: int = 0
    """Tokens of the prompts."""
    written: int = 0
    """Tokens of the replies."""
    ms: float = 0.0
    failed: int = 0
    """Calls without a usable reply; the aligner edited instead."""
    refused: int = 0
    """Replacements that were flagged again or refused by the gate, so the passages were removed."""

    def __add__(self, other: EditorUse) -> EditorUse:
        return EditorUse(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class JudgeUse:
    """Use of a judge for one answer: the segments that it was asked about, its verdicts, and the cost of its calls."""

    segments: int = 0
    """Segments about which it was asked, or whose verdict was known from an equal question."""
    flagged: int = 0
    """Segments that it flagged and the head had not."""
    cleared: int = 0
    """Segments that the head had flagged and it cleared."""
    calls: EditorUse = field(default_factory=EditorUse)

    def __add__(self, other: JudgeUse) -> JudgeUse:
        return JudgeUse(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Correction:
    """Result of the engine: the edited answer, the segments of the original and the cost. `ms` is engine time."""

    text: str
    segments: tuple[SegmentScore, ...] = ()
    counts: DecodeCounts = field(default_factory=DecodeCounts)
    prompt_tokens: int = 0
    ms: float = 0.0
    aligner: str = ""
    """Content hash of the aligner."""
    untaught: int = 0
    """Number of objectives that only the general head judged because their taught head was missing."""
    editor: EditorUse | None = None
    """Use of an editor outside the engine; None if there was none, including when the cache had the result."""
    judge: JudgeUse | None = None
    """Use of a judge; None if it was asked about nothing, including when the cache had the result."""

    @property
    def deliverable(self) -> Correction:
        """This correction with lone surrogates replaced, so that it can be encoded; usually the same object."""
        text = replace_surrogates(self.text)
        return self if text is self.text else replace(self, text=text)

    @property
    def without_editor(self) -> Correction:
        """This correction without the use of editor and judge, for recipients for whom neither was called."""
        return replace(self, editor=None, judge=None) if self.editor or self.judge else self

    def with_editor(self, use: EditorUse | None) -> Correction:
        """This correction with `use` added to its editor use; the same object if `use` is None."""
        return replace(self, editor=self.editor + use if self.editor else use) if use else self

    def with_judge(self, use: JudgeUse | None) -> Correction:
        """This correction with `use` added to its use of a judge; the same object if `use` is None."""
        return replace(self, judge=self.judge + use if self.judge else use) if use else self

    def with_cost_of(self, parts: Iterable[Correction]) -> Correction:
        """This correction with the summed tokens and engine time of its parts."""
        parts = tuple(parts)
        return replace(
            self,
            counts=sum((part.counts for part in parts), DecodeCounts()),
            prompt_tokens=sum(part.prompt_tokens for part in parts),
            ms=sum(part.ms for part in parts),
            # Not a sum, since all parts have the same objectives.
            untaught=max(self.untaught, *(part.untaught for part in parts), 0),
            editor=_sum_uses((part.editor for part in parts), EditorUse()),
            judge=_sum_uses((part.judge for part in parts), JudgeUse()),
        )


_Use = TypeVar("_Use", EditorUse, JudgeUse)


def _sum_uses(uses: Iterable[_Use | None], nothing: _Use) -> _Use | None:
    """The sum of the uses; None if there are none."""
    present = [use for use in uses if use]
    return sum(present, nothing) if present else None


def all_cached(hits: Iterable[bool | None]) -> bool | None:
    """Whether every cache look-up was a hit; None if there were no look-ups."""
    results = set(hits) - {None}
    return all(results) if results else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one choice. `text` is to be delivered; `correction` is the engine's result, also in shadow mode."""

    status: Status
    reason: str | None
    text: str | None
    policy: Policy
    index: int = 0
    cache_hit: bool | None = None
    """None if the cache was not used."""
    correction: Correction | None = None
    ms: float = 0.0
    """Milliseconds that the correction added to the response."""
    edited: str | None = None
    """Text that passed the gate, not delivered in shadow mode; None if nothing was judged."""
    edits: int = 0
    """Number of proposed edits."""
    dropped: tuple[str, ...] = ()
    """For each dropped edit, the gate rule that it broke."""
    renumbered: int = 0
    """Number of list markers, and references to them, renumbered after items were removed; these are not edits."""
    findings: tuple[Finding, ...] = ()
    """Problems that stages found in addition to the engine's verdicts, and their replacements."""
    attempts: int = 0
    caution: float | None = None
    """Caution of the attempt that gave this outcome; None if it is the policy's."""
    reports: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=(), hash=False)
    """(extension, its report on the answer); reports are JSON-able and contain no text of the conversation."""

    @property
    def violated_objectives(self) -> list[str]:
        """Sorted names, without duplicates, of the objectives of flagged segments and of unsettled findings."""
        names = {name for segment in self.segments if (name := self.objective_of(segment))}
        return sorted(names | {finding.against for finding in self.findings if not finding.is_replaced})

    @property
    def threshold(self) -> float:
        """Score above which a segment was flagged."""
        return self.policy.caution if self.caution is None else self.caution

    @property
    def margin(self) -> float | None:
        """Distance of the nearest segment score from the threshold, in nats; None if no segment has a score."""
        scores = (segment.score for segment in self.segments)
        finite = [score for score in scores if score is not None and math.isfinite(score)]
        return min((abs(score - self.threshold) for score in finite), default=None)

    @property
    def findings_record(self) -> dict[str, Any]:
        """Findings for records, grouped by what they violate: counts, kinds and sources, never text."""
        names = dict.fromkeys(finding.against for finding in self.findings)
        return {
            name: _summarize_findings([finding for finding in self.findings if finding.against == name])
            for name in names
        }

    @property
    def segments(self) -> tuple[SegmentScore, ...]:
        """The judged segments; empty without a correction."""
        return self.correction.segments if self.correction else ()

    @property
    def flagged_count(self) -> int:
        """Number of flagged segments."""
        return len([segment for segment in self.segments if segment.flagged])

    def objective_of(self, segment: SegmentScore) -> str | None:
        """Name of the objective that a segment was flagged for; None if the engine gives no valid index."""
        index = segment.objective if segment.flagged else None
        if index is None or not 0 <= index < len(self.policy.objectives):
            return None
        return self.policy.objectives[index].name


def _summarize_findings(findings: Sequence[Finding]) -> dict[str, Any]:
    """The number of replaced findings, and kind and source of the first `MAX_FINDINGS` replaced and unsettled ones."""
    replaced = [{"kind": finding.kind, "source": finding.source} for finding in findings if finding.is_replaced]
    unsettled = [{"kind": finding.kind, "source": finding.source} for finding in findings if not finding.is_replaced]
    return {"edits": len(replaced), "replaced": replaced[:MAX_FINDINGS], "unsettled": unsettled[:MAX_FINDINGS]}
