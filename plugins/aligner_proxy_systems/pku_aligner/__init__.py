"""Aligner (PKU): a corrector on an engine of its own."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.engine.client.circuit_breaker import Breaker
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.plugins.api import Corrector, Kind, hookimpl
from aligner_proxy_systems.pku_aligner.corrector import PkuAligner, Settings


def _make(settings: Settings) -> Corrector:
    # Whether to try again is the policy's decision, as with the other engine; the breaker saves waiting for a dead one.
    return PkuAligner(Breaker(HttpEngine(settings.engine, patience_s=0.0)))


@hookimpl
def correctors() -> Sequence[Kind[Corrector]]:
    """Aligner, on an engine of its own."""
    about = "Aligner (PKU) on an engine of its own; one purpose, reads no objectives"
    return [Kind("aligner", about, _make, Settings)]
