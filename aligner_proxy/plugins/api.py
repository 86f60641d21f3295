"""Plugin API: protocols of what a plugin may offer, and one hook for each.

A plugin is a module with one or more of these hooks, registered under the entry point group `aligner_proxy`. A hook
returns what the plugin offers; objects are created only if a policies file names them. Third-party code runs in a
thread of its own, and its errors and timeouts count as failures of the engine (docs/guides/plugins.md).
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
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.policy.server_address import ServerAddress as ServerAddress
from aligner_proxy.types import Correction, Exchange, Objective, Outcome, Policy, Turn
from aligner_proxy.types import Finding as Finding
from aligner_proxy.types import Standard as Standard

GROUP = "aligner_proxy"
"""Name of the entry point group and of the hooks."""
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
Offered = TypeVar("Offered", covariant=True)


@dataclass(frozen=True, slots=True)
class Flagged:
    """A flagged segment; `text` is None if redaction does not leave it certain."""

    text: str | None
    score: float | None
    objective: str | None
    number: int | None = None
    """Its place among the judged segments, from 0; None in entries of earlier versions."""


@dataclass(frozen=True, slots=True)
class Content:
    """The texts of an audit entry."""

    facts: RequestFacts
    exchange: Exchange
    edited: str | None = None
    """Text that passed the gate, not delivered in shadow mode; None if nothing was judged."""
    proposed: str | None = None
    """The aligner's text, if the gate changed or refused it."""
    edits: tuple[tuple[int, int, str], ...] = ()
    """(start, end, text): edits from the answer to `edited`, or to `proposed` if nothing passed."""
    segments: tuple[Flagged, ...] = ()
    scores: tuple[float | None, ...] = ()
    """Score of every judged segment; empty in entries of earlier versions."""
    threshold: float = 0.0
    """Score above which a segment was flagged."""
    reports: dict[str, Any] = field(default_factory=dict)
    """Reports on the answer, by extension."""
    record: dict[str, Any] = field(default_factory=dict)
    """Fields of plugins about the policy."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Audit entry. Times: `at` seconds since the epoch, `ms` added to the response, `engine_ms` of the aligner."""

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
    aligner_id: str = ""
    """What x-aligner-id told the client; empty for reasoning, and in entries of earlier versions."""
    judged: int | None = None
    """Number of judged segments."""
    changed: bool | None = None
    """Whether an edit passed the gate, delivered or only recorded; None if nothing was judged."""
    margin: float | None = None
    """How near the nearest segment came to the threshold, in nats; None without scores."""


class NoSettings(BaseModel):
    """Settings of a kind that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Offered]):
    """One thing that a plugin offers: name, description, factory and settings."""

    name: str
    """Name in the policies file: letters, digits, and inside them `.`, `_`, `-`."""
    about: str
    """Description in one line for `aligner-proxy doctor`."""
    make: Callable[[Any], Offered]
    """Factory, called with the checked settings once in each worker at its start."""
    settings: type[BaseModel] = NoSettings
    """Model of the settings in the policies file; it should refuse unknown keys."""


class Corrector(Protocol):
    """Editor of answers in place of the aligner. The gate judges its corrections, too."""

    async def identity(self) -> str:
        """Identifier that changes whenever its corrections may; part of every cache key."""
        ...

    async def correct(self, request: AlignRequest) -> Correction:
        """The edited answer (or the same one), within `request.deadline_s`; may raise any `CorrectionError`."""
        ...


@runtime_checkable
class SentenceCorrector(Corrector, Protocol):
    """Corrector that edits sentence by sentence, so that `stream: sentence` can release finished sentences."""

    async def revise(self, request: AlignRequest, before: str, sentence: str) -> Correction:
        """The correction of one segment of the answer; `before` is the delivered text before it."""
        ...


class CorrectionStore(Protocol):
    """Store of corrections in place of the folder on disk. Its values are checked, so it need not be trusted."""

    async def get(self, key: str) -> bytes | None:
        """The value under this key; None if it is missing or expired."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` for at most `ttl_s` seconds."""
        ...


class GateCheck(Protocol):
    """Further rule of the gate."""

    def breaks(self, original: str, edited: str, objectives: Sequence[str]) -> bool:
        """Whether `edited`, which holds one or more edits of the original, does harm. No side effects: called often."""
        ...


class AuditSink(Protocol):
    """Receiver of an entry for every judged answer, after the response."""

    async def write(self, entry: Entry) -> None:
        """Keep one entry. Texts are redacted as in the audit store, and missing if storing was forbidden."""
        ...


@dataclass(frozen=True, slots=True)
class RequestField:
    """Field that a request may set under `metadata.aligner`; also an option of `aligner-proxy check`."""

    name: str
    about: str
    """The help text of the option."""


@dataclass(frozen=True, slots=True)
class BodyField:
    """Field that the body of `POST /v1/align` may have; `RequestFacts.brought` has its value."""

    name: str
    type: Any
    """The pydantic-annotated type of its value."""
    default: Any
    about: str
    """Its description in the OpenAPI document."""


@dataclass(frozen=True, slots=True)
class CheckTable:
    """Table of `aligner-proxy check`."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Corrected:
    """Correction with the gate's verdict."""

    correction: Correction
    cache_hit: bool | None
    """None: the cache was not used."""
    verdict: Verdict


class Inner(Protocol):
    """The next wrapper further inside; innermost are cache, engine (or corrector) and gate."""

    @property
    def deadline(self) -> float:
        """Time by which the correction must be ready, in seconds of `time.monotonic()`."""
        ...

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """A correction of this text under this policy; raises `CorrectionError` subclasses."""
        ...

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict on a correction."""
        ...

    async def has_detector(self, policy: Policy) -> bool:
        """Whether the engine's aligner scores segments (`SegmentScore.score`)."""
        ...


class TextEncoder(Protocol):
    """Hidden states of texts, from the aligner on the engine. Raises `CorrectionError` subclasses."""

    async def identity(self) -> str:
        """Content hash of the aligner, as a key for caching its states."""
        ...

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        """[texts, layers * hidden size]: means over the tokens of each text, each layer normalised
        to mean 0 and variance 1."""
        ...


class Extension:
    """Extension of the handling of requests. Every default changes nothing.

    One instance serves all requests of a worker, so it must keep nothing about a request; that belongs in the policy
    (`Policy.with_extension`) or the report.
    """

    name: str = ""
    """Name of its reports in log lines, LiteLLM's guardrail record and audit entries."""
    order: int = 0
    """Wrappers with a lower number are further outside."""
    keys: tuple[PolicyKey, ...] = ()
    """Keys of the policies file; `policy.extension(name, default)` returns their values."""
    selectors: tuple[SelectorForm, ...] = ()
    """Words allowed in place of a list of objectives; `policy.selection` has their settings."""
    request_fields: tuple[RequestField, ...] = ()
    """Fields of requests; `RequestFacts.fields` has their values."""
    body_fields: tuple[BodyField, ...] = ()
    """Fields of the body of `POST /v1/align`; `RequestFacts.brought` has their values."""

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """The policy with the settings of this request, before anything is spent.

        May raise `BadRequest` (the client gets a 400) or `ForbiddenError` (403).
        """
        return policy

    def selects(self, policy: Policy) -> bool:
        """Whether `select` applies to this policy."""
        return False

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """The policy with its objectives chosen and ordered for this conversation, while the upstream works."""
        return policy

    def unselected(self, policy: Policy, reason: str) -> Policy:
        """The policy after `select` failed or took too long; by default all candidates stay, in the file's order."""
        return policy

    def prefill(self, policy: Policy) -> Policy:
        """The policy for prefilling an answer that is still being written."""
        return policy

    def wraps(self, policy: Policy) -> bool:
        """Whether `correct` wraps corrections under this policy; streams are then held."""
        return False

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        """The correction of a text by calls to `inner`, within `inner.deadline`."""
        return await inner.correct(text, policy)

    def stages(self, policy: Policy) -> Sequence[Stage]:
        """Stages that one answer goes through under this policy, by their `order`; new ones for each answer."""
        return ()

    def report(self, policy: Policy, answer: str, delivered: str) -> Mapping[str, Any] | None:
        """Report on a judged answer (JSON-able, no text); None: nothing."""
        return None

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Headers of the response: name without `x-aligner-` -> value. Called again when the outcomes are known."""
        return {}

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Fields of the comment at the end of a stream: name -> value."""
        return {}

    def record(self, policy: Policy) -> Mapping[str, Any]:
        """Fields of LiteLLM's guardrail record and the audit entry about the policy (JSON-able, no text)."""
        return {}

    def observe(self, outcome: Outcome) -> None:
        """Count one outcome in the extension's own metrics."""

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Notes of `aligner-proxy check` on this policy."""
        return ()

    def tables(self, policy: Policy) -> Iterable[CheckTable]:
        """Tables of `aligner-proxy check` on this policy."""
        return ()

    def details(self, policy: Policy) -> Mapping[str, Any]:
        """Fields of `aligner-proxy check --json` on this policy."""
        return {}

    def describe(self, objective: Objective) -> str | None:
        """How an objective of this extension is met, for `aligner-proxy check`; None: not its own."""
        return None


@hookspec
def extensions() -> Sequence[Extension]:  # type: ignore[empty-body]
    """Extensions, active wherever the plugin is installed."""


@hookspec
def endpoints() -> Sequence[Endpoint]:  # type: ignore[empty-body]
    """Endpoints of the gateway, served wherever the plugin is installed."""


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
    """The server that `cache.redis_env` names. `make` gets a `ServerAddress`, checks it, connects to nothing, and
    returns a `SharedServer` (gateway/shared_server.py). Only for plugins that come with the gateway, as it runs in the
    gateway's loop."""


@hookspec
def audit_databases() -> Sequence[Kind[Any]]:  # type: ignore[empty-body]
    """The database that `audit.database_env` names. `make` gets a `ServerAddress`, checks it, connects to nothing, and
    returns an `AuditDatabase` (audit/location.py). Only for plugins that come with the gateway."""


@hookspec
def audit_sinks() -> Sequence[Kind[AuditSink]]:  # type: ignore[empty-body]
    """Sinks that `plugins.audit_sinks` may name."""
