"""What may a plugin be? Four kinds of thing, each a small contract, and one hook for each.

A plugin is a module with one or more of these hooks, named under the entry point group `aligner_proxy`. A hook returns
what the plugin offers; nothing is made before a policies file names it. Foreign code runs in a thread of its own, and
whatever it raises or however long it takes is a failure like one of the engine (docs/plugins.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import pluggy
from pydantic import BaseModel, ConfigDict

from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.types import Correction

if TYPE_CHECKING:
    from aligner_proxy.audit import Entry

GROUP = "aligner_proxy"
"""Of the entry points, and of the hooks."""
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Offered = TypeVar("Offered", covariant=True)


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
