"""Plugin API: protocols of what a plugin may offer, and one hook for each.

A plugin is a module with one or more of these hooks, registered under the entry point group `aligner_proxy`. A hook
returns what the plugin offers; objects are created only if a policies file names them. Third-party code runs in its own
thread, and its errors and timeouts count as failures of the engine (docs/guides/plugins.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pluggy
from pydantic import BaseModel, ConfigDict

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.plugins.endpoint import Endpoint as Endpoint
from aligner_proxy.plugins.endpoint import EndpointRefusal as EndpointRefusal
from aligner_proxy.plugins.stage import AnswerSoFar as AnswerSoFar
from aligner_proxy.plugins.stage import Hold as Hold
from aligner_proxy.plugins.stage import Outgoing as Outgoing
from aligner_proxy.plugins.stage import Stage as Stage
from aligner_proxy.plugins.stage import Stop as Stop
from aligner_proxy.policy.plugin_keys import PolicyKey as PolicyKey
from aligner_proxy.policy.plugin_keys import SelectorForm as SelectorForm
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.storage_schema import ServerAddress as ServerAddress
from aligner_proxy.types import Correction, Exchange, Objective, Outcome, Policy, Turn
from aligner_proxy.types import Finding as Finding
from aligner_proxy.types import Requirement as Requirement

GROUP = "aligner_proxy"
"""Name of the entry point group and of the hooks."""
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
Offered = TypeVar("Offered", covariant=True)


@dataclass(frozen=True, slots=True)
class Flagged:
    """A flagged segment of an audit entry."""

    text: str | None
    """None if redaction makes the text uncertain."""
    score: float | None
    """In nats; None without a detector."""
    objective: str | None
    """Name of the objective that the segment violates; None if unknown."""
    number: int | None = None
    """Its index among the judged segments, from 0; None in entries of earlier versions."""


@dataclass(frozen=True, slots=True)
class Content:
    """The texts of an audit entry."""

    facts: RequestFacts
    exchange: Exchange
    edited: str | None = None
    """Text that passed the gate (not delivered in shadow mode); None if nothing was judged."""
    proposed: str | None = None
    """The aligner's text, if the gate changed or refused it."""
    edits: tuple[tuple[int, int, str], ...] = ()
    """(start, end, new text) of the edits from the answer to `edited`, or to `proposed` if nothing passed."""
    segments: tuple[Flagged, ...] = ()
    scores: tuple[float | None, ...] = ()
    """Score of every judged segment; empty in entries of earlier versions."""
    threshold: float = 0.0
    """Score above which a segment was flagged."""
    reports: dict[str, Any] = field(default_factory=dict)
    """Reports on the answer, by extension."""
    record: dict[str, Any] = field(default_factory=dict)
    """Fields that plugins record about the policy."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Audit entry.

    Times: `at` in seconds since the epoch; `ms` added to the response and `engine_ms` in the aligner.
    """

    at: float
    call_id: str
    choice: int
    """Number of the choice in its response, from 0."""
    tenant: str
    model: str
    endpoint: str | None
    policy: str
    """Name of the policy: its route and tenant."""
    policy_hash: str
    """Hash of the policy's settings, which shows whether two entries had the same policy."""
    mode: str
    objectives: tuple[str, ...]
    """Names of the objectives."""
    status: str
    """As in the header x-aligner-status."""
    reason: str | None
    aligner: str | None
    """Content hash of the aligner; None if it made no correction."""
    cache_hit: bool | None
    """None if the cache was not used."""
    ms: float
    engine_ms: float
    forwards: int
    """Passes through the model."""
    chars: int
    """Length of the answer."""
    content: Content | None = None
    """The texts; None if storing them was forbidden (`no-store`)."""
    aligner_id: str = ""
    """The x-aligner-id that the client was given; empty for reasoning, and in entries of earlier versions."""
    judged: int | None = None
    """Number of judged segments."""
    changed: bool | None = None
    """Whether an edit passed the gate, delivered or only recorded; None if nothing was judged."""
    margin: float | None = None
    """Distance in nats between the threshold and the nearest segment's score; None without scores."""


class NoSettings(BaseModel):
    """Settings model of a kind without settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Offered]):
    """One thing that a plugin offers: name, description, factory and settings."""

    name: str
    """Name in the policies file: letters and digits; also `.`, `_` and `-`, but not first or last."""
    about: str
    """Description in one line for `aligner-proxy doctor`."""
    make: Callable[[Any], Offered]
    """Factory, called with the validated settings once in each worker at its start."""
    settings: type[BaseModel] = NoSettings
    """Model of the settings in the policies file; it should reject unknown keys."""


class Corrector(Protocol):
    """Edits answers instead of the aligner. The gate judges its corrections, too."""

    async def identity(self) -> str:
        """Identifier that changes whenever its corrections may change; part of every cache key."""

    async def correct(self, request: AlignRequest) -> Correction:
        """Correct the answer of the request within `request.deadline_s`; may raise any `CorrectionError`."""


@runtime_checkable
class SentenceCorrector(Corrector, Protocol):
    """Corrector that edits sentence by sentence, so that `stream: sentence` can release finished sentences."""

    async def revise(self, request: AlignRequest, before: str, sentence: str) -> Correction:
        """Correct one segment of the answer; `before` is the delivered text before it."""


class CorrectionStore(Protocol):
    """Stores corrections instead of the folder on disk. Its values are verified, so it need not be trusted."""

    async def get(self, key: str) -> bytes | None:
        """The value stored under this key; None if it is missing or expired."""

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Store `value` under this key for at most `ttl_s` seconds."""


class GateCheck(Protocol):
    """An additional rule of the gate."""

    def breaks(self, original: str, edited: str, objectives: Sequence[str]) -> bool:
        """Whether `edited`, the original with one or more edits, is unacceptable.

        Called often; must have no side effects.
        """


class AuditSink(Protocol):
    """Receives an entry for every judged answer, after the response."""

    async def write(self, entry: Entry) -> None:
        """Store one entry. Texts are redacted as in the audit store, and missing if storing was forbidden."""


@dataclass(frozen=True, slots=True)
class RequestField:
    """A field that a request may set under `metadata.aligner`; also an option of `aligner-proxy check`."""

    name: str
    about: str
    """The help text of the option."""


@dataclass(frozen=True, slots=True)
class BodyField:
    """A field that the body of `POST /v1/align` may have; `RequestFacts.brought` has its value."""

    name: str
    type: Any
    """The pydantic-annotated type of its value."""
    default: Any
    about: str
    """Its description in the OpenAPI document."""


@dataclass(frozen=True, slots=True)
class CheckTable:
    """A table in the output of `aligner-proxy check`."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Corrected:
    """A correction with the gate's verdict."""

    correction: Correction
    cache_hit: bool | None
    """None if the cache was not used."""
    verdict: Verdict


class Inner(Protocol):
    """The correction inside a wrapper: another wrapper, or the innermost correction, by cache, engine and gate."""

    @property
    def deadline(self) -> float:
        """Time by which the correction must be ready, in seconds of `time.monotonic()`."""

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """Correct this text under this policy; raises `CorrectionError` subclasses."""

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict on a correction."""

    async def has_detector(self, policy: Policy) -> bool:
        """Whether the aligner of this policy scores segments (`SegmentScore.score`)."""


class TextEncoder(Protocol):
    """Hidden states of texts, from the aligner on the engine. Raises `CorrectionError` subclasses."""

    async def identity(self) -> str:
        """Content hash of the aligner, as a key for caching its states."""

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        """The hidden states of these texts at these layers: a row for each text, of `layers` * hidden size numbers.

        A row has for each layer the mean over the text's tokens, normalised to mean 0 and variance 1.
        """


class Extension:
    """Extends the handling of requests. Every default method changes nothing.

    One instance serves all requests of a worker, so it must store nothing about a request. Such data belongs in the
    policy (`Policy.with_extension`) or the report.
    """

    name: str = ""
    """Name of its reports in log lines, LiteLLM's guardrail record and audit entries."""
    order: int = 0
    """Position of its wrapper; lower numbers are further outside."""
    keys: tuple[PolicyKey, ...] = ()
    """Keys it adds to the policies file; `policy.extension(name, default)` returns their values."""
    selectors: tuple[SelectorForm, ...] = ()
    """Words allowed instead of a list of objectives; `policy.selection` has their settings."""
    request_fields: tuple[RequestField, ...] = ()
    """Request fields it adds; `RequestFacts.fields` has their values."""
    body_fields: tuple[BodyField, ...] = ()
    """Fields it adds to the body of `POST /v1/align`; `RequestFacts.brought` has their values."""

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """The policy with the settings of this request; called before any work is done.

        May raise `BadRequest` (the client gets a 400) or `ForbiddenError` (403).
        """
        return policy

    def selects(self, policy: Policy) -> bool:
        """Whether `select` applies to this policy."""
        return False

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """The policy with its objectives chosen and ordered for this conversation. Runs while the upstream works."""
        return policy

    def unselected(self, policy: Policy, reason: str) -> Policy:
        """The policy after `select` failed or timed out for this reason; by default all candidates apply."""
        return policy

    def prefill(self, policy: Policy) -> Policy:
        """The policy under which the engine reads an answer while it is still being written."""
        return policy

    def wraps(self, policy: Policy) -> bool:
        """Whether `correct` wraps corrections under this policy; if so, streams are held."""
        return False

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        """The correction of a text, made by calls to `inner` before `inner.deadline`."""
        return await inner.correct(text, policy)

    def stages(self, policy: Policy) -> Sequence[Stage]:
        """New stages for one answer under this policy; they are sorted by their `order`."""
        return ()

    def report(self, policy: Policy, answer: str, delivered: str) -> Mapping[str, Any] | None:
        """A report on a judged answer, of which `delivered` goes out (JSON-able, without texts); None for no report."""
        return None

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Response headers by name, without `x-aligner-`. Called first without outcomes, and again with them."""
        return {}

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Fields of the comment at the end of a stream, by name."""
        return {}

    def record(self, policy: Policy) -> Mapping[str, Any]:
        """Fields about the policy for LiteLLM's guardrail record and the audit entry (JSON-able, without texts)."""
        return {}

    def observe(self, outcome: Outcome) -> None:
        """Count one outcome in the extension's own metrics."""

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Notes on this policy for `aligner-proxy check`."""
        return ()

    def tables(self, policy: Policy) -> Iterable[CheckTable]:
        """Tables on this policy for `aligner-proxy check`."""
        return ()

    def details(self, policy: Policy) -> Mapping[str, Any]:
        """Fields on this policy for `aligner-proxy check --json`."""
        return {}

    def describe(self, objective: Objective) -> str | None:
        """How an objective of this extension is met, for `aligner-proxy check`; None for other objectives."""
        return None


@hookspec
def extensions() -> Sequence[Extension]:  # type: ignore[empty-body]
    """Extensions, active whenever the plugin is installed."""


@hookspec
def endpoints() -> Sequence[Endpoint]:  # type: ignore[empty-body]
    """Endpoints of the gateway, served whenever the plugin is installed."""


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
def shared_servers() -> Sequence[Kind[Any]]:  # type: ignore[empty-body]
    """The server that `cache.redis_env` names.

    `make` gets a `ServerAddress`, validates it without connecting, and returns a `SharedServer`
    (gateway/shared_server.py). Only for plugins that come with the gateway, because it runs in the gateway's loop.
    """


@hookspec
def audit_databases() -> Sequence[Kind[Any]]:  # type: ignore[empty-body]
    """The database that `audit.database_env` names.

    `make` gets a `ServerAddress`, validates it without connecting, and returns an `AuditDatabase` (audit/location.py).
    Only for plugins that come with the gateway.
    """


@hookspec
def audit_sinks() -> Sequence[Kind[AuditSink]]:  # type: ignore[empty-body]
    """Sinks that `plugins.audit_sinks` may name."""
