"""A policy: all settings for one request, with its objectives and their judges."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, NamedTuple

from aligner_proxy.types.requirement import Requirement
from aligner_proxy.types.settings import (
    DEFAULT_ALIGNER,
    EDITOR_GROUP_PREFIX,
    LOCAL_EDITOR,
    METAALIGNER,
    UPSTREAM_EDITOR,
    AskAbout,
    FailureClass,
    GateRule,
    GuardForm,
    IfNothingRemains,
    IncomingKind,
    IncomingTreatment,
    JsonStrings,
    JudgeKind,
    LengthUnit,
    Mode,
    OnError,
    OnSkip,
    SideKind,
    SideTreatment,
    SkipReason,
    StreamMode,
    Verify,
    Write,
)

_read_side_treatments = attrgetter(*map(str, SideKind))
"""Returns the treatments that a policy sets for all kinds of text beside an answer, as a tuple."""
_NO_SIDE_TREATMENT = (SideTreatment.PASS,) * len(SideKind)
_read_incoming_treatments = attrgetter(*map(str, IncomingKind))
"""Returns the treatments that a policy sets for all kinds of text in a request, as a tuple."""
_NO_INCOMING_TREATMENT = (IncomingTreatment.PASS,) * len(IncomingKind)


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


ANSWER_BAND = 1.4
"""Default of `Judge.answer_band`, in nats, for answers that a taught head scores as a whole. With the
embedded aligner, the judge is then asked about 2.3 % of long ordinary answers."""
DOUBT_BAND = 0.5
"""Default of `Judge.band`, in nats. The embedded head scores 1 in 100 neutral segments so close to being harmful."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that gives a second opinion on segments; it flags or clears them, and writes nothing."""

    kind: JudgeKind = JudgeKind.CHAT
    group: str = ""
    """The model group, or the token classifier's name; empty for no judge."""
    form: GuardForm | None = None
    """The family of a guard; None for other kinds."""
    ask: AskAbout = AskAbout.DOUBT
    band: float = DOUBT_BAND
    """With `ask: doubt`, the judge is asked about segments that score at most this many nats below the threshold."""
    answer_band: float | None = None
    """With `ask: doubt`, the judge is also asked about an answer that scores, as a whole, at most this many nats below
    the threshold: about the third of its segments with the highest scores. 0 asks about no answer. None is
    `ANSWER_BAND` if a taught head scores answers as a whole; otherwise 0."""

    def __bool__(self) -> bool:
        return bool(self.group)

    def __str__(self) -> str:
        """The judge as `aligner-proxy check` shows it."""
        if not self:
            return "off"
        form_text = f", form: {self.form.value}" if self.form else ""
        band_text = f", band: {self.band:g}" if self.ask is AskAbout.DOUBT else ""
        if band_text and self.answer_band is not None:
            band_text += f", answer_band: {self.answer_band:g}"
        return f"{self.kind.value}: {self.group}{form_text}, ask: {self.ask.value}{band_text}"

    @property
    def may_clear(self) -> bool:
        """Whether the judge is asked about segments that the head flagged, which it may then clear."""
        return bool(self) and self.ask is not AskAbout.DOUBT

    @property
    def decides_whole_answers(self) -> bool:
        """Whether an answer counts as harmful as a whole only if the judge flags its segments."""
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
    """Content hash of the objective's taught head; empty if it has none."""
    judge: Judge | None = None
    """The judge that is asked about the objective (`NO_JUDGE` for none); None means the policy's."""


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

    def reaction_to(self, failure: FailureClass) -> OnError:
        """The reaction to a failure of this class while retries are left."""
        reaction: OnError = getattr(self, failure.value)
        return reaction


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
        reaction: OnSkip = getattr(self, str(reason), OnSkip.PASSTHROUGH)
        return reaction


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
    decline_within: float = 2.5  # next to a harmful segment, others count as harmful from this far below
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
        """The judges of the policy and of its objectives, each once; `NO_JUDGE` is none of them."""
        judges = [self.judge, *[objective.judge for objective in self.objectives]]
        return tuple(dict.fromkeys(filter(None, judges)))

    @property
    def judge_groups(self) -> str:
        """The model groups of all judges, joined by "+", as headers and metrics name them; empty without judges."""
        return "+".join(sorted({judge.group for judge in self.judges}))

    def drop_judges(self) -> Policy:
        """This policy without judges, so that the head alone decides; the same object if it has none."""
        if not self.judges:
            return self
        objectives = tuple(
            replace(objective, judge=None) if objective.judge else objective for objective in self.objectives
        )
        return replace(self, judge=NO_JUDGE, objectives=objectives)

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
        return _read_incoming_treatments(self) != _NO_INCOMING_TREATMENT

    def final_action(self, failure: FailureClass) -> OnError:
        """The reaction to a failure of this class when no retry is left."""
        reaction = self.on_error.reaction_to(failure)
        return self.after_retry if reaction is OnError.RETRY else reaction

    @property
    def blocks_unjudged(self) -> bool:
        """Whether the client gets an error (in shadow mode: would get one) if something could not be judged."""
        return self.final_action(FailureClass.UNJUDGED) is OnError.BLOCK

    @property
    def looks_at_side_texts(self) -> bool:
        """Whether any kind of text that comes with an answer is judged, dropped or blocked."""
        return _read_side_treatments(self) != _NO_SIDE_TREATMENT

    @property
    def effective_write(self) -> Write:
        """What may be written in place of flagged text: `write` if the aligner edits, `editor_write` if an editor."""
        return self.write if self.editor == LOCAL_EDITOR else self.editor_write

    @property
    def editor_group(self) -> str | None:
        """The model group that acts as editor; None if the aligner edits, or if the answering group is unknown."""
        if self.editor == UPSTREAM_EDITOR:
            return self.upstream or None
        return self.editor.removeprefix(EDITOR_GROUP_PREFIX) if self.editor.startswith(EDITOR_GROUP_PREFIX) else None

    @property
    def engine_account(self) -> tuple[str, Quota | None]:
        """(tenant, quota or None) as the engine gets them, with digests in place of names, which it need not know."""
        quota = self.quota
        if quota is not None:
            quota = replace(quota, account=_digest(quota.account))
        return _digest(self.tenant), quota

    def extension(self, name: str, default: Any = None) -> Any:
        """The value that a plugin has set under `name`; `default` if it has set none."""
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
        other_pairs = tuple((name, value) for name, value in self.extensions if not isinstance(value, Requirement))
        return replace(self, extensions=other_pairs)

    def with_extension(self, name: str, value: Any) -> Policy:
        """This policy with a plugin's value under `name`, in place of any value it has there."""
        other_pairs = tuple((key, other_value) for key, other_value in self.extensions if key != name)
        return replace(self, extensions=(*other_pairs, (name, value)))


def _digest(name: str) -> str:
    """The first 16 hexadecimal digits of a name's SHA-256 hash."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
