"""Aligner (PKU) plugin: a corrector on its own engine."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.engine.client.circuit_breaker import Breaker
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.plugins.api import Corrector, Kind, hookimpl
from aligner_proxy_systems.pku_aligner.corrector import PkuAligner, PkuAlignerSettings


def _make(settings: PkuAlignerSettings) -> Corrector:
    # `wait_s=0`: the policy decides about retries, as with the main engine; the breaker avoids waiting for a dead
    # engine
    return PkuAligner(Breaker(HttpEngine(settings.engine, wait_s=0.0)))


@hookimpl
def correctors() -> Sequence[Kind[Corrector]]:
    """Return the corrector `aligner`, on its own engine."""
    about = "Aligner (PKU) on an engine of its own; one purpose, reads no objectives"
    return [Kind("aligner", about, _make, PkuAlignerSettings)]
