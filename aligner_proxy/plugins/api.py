"""The plugin API: contracts of what a plugin may offer, and one hook for each.

A plugin is a module with one or more of these hooks, named under the entry point group `aligner_proxy`. A hook returns
what the plugin offers; nothing is made before a policies file names it. Foreign code runs in a thread of its own, and
whatever it raises or however long it takes is a failure like one of the engine (docs/plugins.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pluggy
from pydantic import BaseModel, ConfigDict

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.policy.plugin_keys import PolicyKey as PolicyKey
from aligner_proxy.policy.plugin_keys import SelectorForm as SelectorForm
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.types import Correction, Exchange, Objective, Outcome, Policy, Turn

GROUP = "aligner_proxy"
"""Of the entry points, and of the hooks."""
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


Offered = TypeVar("Offered", covariant=True)


@dataclass(frozen=True, slots=True)
class Flagged:
    """A segment that the detector spoke against; `text` is None where redaction leaves nothing certain to show."""

    text: str | None
    score: float | None
    objective: str | None


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that holds text."""

    facts: RequestFacts
    exchange: Exchange
    edited: str | None = None
    """What the gate let through, delivered or, in shadow mode, not; None where nothing was judged."""
    proposed: str | None = None
    """What the aligner wanted, where the gate did not let it through as it was."""
    edits: tuple[tuple[int, int, str], ...] = ()
    """(start, end, text): from the answer to `edited`, or to `proposed` where nothing was let through."""
    segments: tuple[Flagged, ...] = ()
    reports: dict[str, Any] = field(default_factory=dict)
    """What plugins say of the answer, by extension."""
    record: dict[str, Any] = field(default_factory=dict)
    """What plugins say of the policy."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One choice. Times: `at` seconds since the epoch, `ms` added to the response, `engine_ms` of the aligner."""

    at: float
    call_id: str
    choice: int
    tenant: str
    model: str
    endpoint: str | None
    policy: str
    policy_hash: str
    mode: str
    objectives: tuple[str, ...]
    status: str
    reason: str | None
    aligner: str | None
    cache_hit: bool | None
    ms: float
    engine_ms: float
    forwards: int
    chars: int
    content: Content | None = None


class NoSettings(BaseModel):
    """For what there is nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Offered]):
    """One thing that a plugin offers: what it is called, what it is, how it is set, how it is made."""

    name: str
    """By which the policies file names it: letters, digits, and inside them `.`, `_`, `-`."""
    about: str
    """One line for `aligner-proxy doctor`."""
    make: Callable[[Any], Offered]
    """Given the checked settings. Called once in each worker, at its start."""
    settings: type[BaseModel] = NoSettings
    """What may stand in the policies file; it should refuse unknown keys."""


class Corrector(Protocol):
    """Edits answers in place of the aligner. The gate judges what it returns, as it judges the aligner."""

    async def identity(self) -> str:
        """Changes whenever its corrections may; part of every cache key, as are its name, version and settings."""
        ...

    async def correct(self, request: AlignRequest) -> Correction:
        """The edited answer (or the same one), within `request.deadline_s`; may raise any `CorrectionError`."""
        ...


@runtime_checkable
class SentenceCorrector(Corrector, Protocol):
    """A corrector that edits sentence by sentence, so that `stream: sentence` releases what it has looked at."""

    async def revise(self, request: AlignRequest, before: str, sentence: str) -> Correction:
        """What stands in place of one segment of the answer; `before` is what goes out before it."""
        ...


class CorrectionStore(Protocol):
    """Keeps corrections in place of the folder on disk. What it returns is checked, so it need not be trusted."""

    async def get(self, key: str) -> bytes | None:
        """What was put under this key; None where nothing is, or nothing young enough."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` for at most `ttl_s` seconds."""
        ...


class GateCheck(Protocol):
    """One more rule that an edit must not break."""

    def breaks(self, original: str, edited: str, objectives: Sequence[str]) -> bool:
        """Whether `edited`, which holds one or more edits of the original, does harm. No side effects: called often."""
        ...


class AuditSink(Protocol):
    """Is told of every answer that was looked at, behind the response."""

    async def write(self, entry: Entry) -> None:
        """Keep one entry. Texts are redacted as the audit store's, and missing where storing was forbidden."""
        ...


@dataclass(frozen=True, slots=True)
class RequestField:
    """A field that a request may bring under `metadata.aligner`; also an option of `aligner-proxy check`."""

    name: str
    about: str
    """The help text of the option."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """One correction, judged by the gate."""

    correction: Correction
    cache_hit: bool | None
    """None: the cache was not asked."""
    verdict: Verdict


class Inner(Protocol):
    """What a wrapper stands around: the next wrapper; innermost are cache, engine (or corrector) and gate."""

    @property
    def deadline(self) -> float:
        """When the correction has to be there, in seconds of `time.monotonic()`."""
        ...

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """A correction of this text under this policy; raises `CorrectionError` subclasses."""
        ...

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """What the gate says of a correction."""
        ...

    async def has_detector(self, policy: Policy) -> bool:
        """Whether the engine's aligner scores segments (`SegmentScore.score`)."""
        ...


class TextEncoder(Protocol):
    """Hidden states of texts, from the aligner on the engine. Raises `CorrectionError` subclasses."""

    async def identity(self) -> str:
        """Content hash of the aligner: a key for what is remembered of its states."""
        ...

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        """[texts, layers * hidden size]: means over the tokens of each text, each layer normalised
        to mean 0 and variance 1."""
        ...


class Extension:
    """What a plugin does to the way of a request. Every default changes nothing.

    One instance serves all requests of a worker, so nothing about a request may be kept on it; what belongs to one goes
    into its policy (`Policy.with_extension`) or its report.
    """

    name: str = ""
    """Under which its reports stand in log lines, LiteLLM's guardrail record and audit entries."""
    order: int = 0
    """Wrappers with a lower number stand further outside."""
    keys: tuple[PolicyKey, ...] = ()
    """Keys of the policies file; their values are found with `policy.extension(name, default)`."""
    selectors: tuple[SelectorForm, ...] = ()
    """Words that may stand in place of a list of objectives; what the file says is in `policy.selection`."""
    request_fields: tuple[RequestField, ...] = ()
    """What a request may say, found in `RequestFacts.fields`."""

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """The policy with what this request asks for, before anything is spent.

        May raise `BadRequest` (the client gets a 400) or `ForbiddenError` (403).
        """
        return policy

    def selects(self, policy: Policy) -> bool:
        """Whether `select` is wanted for this policy."""
        return False

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """The policy with its objectives chosen and ordered for this conversation, while the upstream works."""
        return policy

    def unselected(self, policy: Policy, reason: str) -> Policy:
        """The policy where `select` failed or took too long; by default all candidates stay, in the file's order."""
        return policy

    def prefill(self, policy: Policy) -> Policy:
        """The policy by which the engine reads an answer that is still being written."""
        return policy

    def wraps(self, policy: Policy) -> bool:
        """Whether `correct` stands around corrections under this policy; streams are then held."""
        return False

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        """The correction of a text, by whatever is asked of `inner`, within `inner.deadline`."""
        return await inner.correct(text, policy)

    def report(self, policy: Policy, answer: str, delivered: str) -> Mapping[str, Any] | None:
        """What is to be kept of an answer that was judged (JSON-able, no text); None: nothing."""
        return None

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Headers of the response: name without `x-aligner-` -> value. Called again when the outcomes are known."""
        return {}

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Words of the comment that closes a stream: name -> value."""
        return {}

    def record(self, policy: Policy) -> Mapping[str, Any]:
        """What LiteLLM's guardrail record and the audit entry say of the policy (JSON-able, no text)."""
        return {}

    def observe(self, outcome: Outcome) -> None:
        """Count one outcome in metrics of its own."""

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Notes of `aligner-proxy check` on this policy."""
        return ()

    def describe(self, objective: Objective) -> str | None:
        """How an objective that this extension brought is met, for `aligner-proxy check`; None: it is not its own."""
        return None


@hookspec
def extensions() -> Sequence[Extension]:  # type: ignore[empty-body]
    """Extensions of the way of a request; they are there wherever the plugin is installed."""


@hookspec
def correctors() -> Sequence[Kind[Corrector]]:  # type: ignore[empty-body]
    """Correctors that `corrector:` may name."""


@hookspec
def caches() -> Sequence[Kind[CorrectionStore]]:  # type: ignore[empty-body]
    """Stores that `plugins.cache` may name."""


@hookspec
def gate_rules() -> Sequence[Kind[GateCheck]]:  # type: ignore[empty-body]
    """Rules that `plugin_rules:` may name."""


@hookspec
def audit_sinks() -> Sequence[Kind[AuditSink]]:  # type: ignore[empty-body]
    """Sinks that `plugins.audit_sinks` may name."""
