"""Stream Aligner plugin: a corrector that revises sentence by sentence, on a completions server."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.engine.client.completions import CompletionsClient
from aligner_proxy.plugins.api import Corrector, Kind, hookimpl
from aligner_proxy_systems.stream_aligner.corrector import StreamAligner, StreamAlignerSettings


def _make(settings: StreamAlignerSettings) -> Corrector:
    return StreamAligner(settings, CompletionsClient(settings.engine, settings.model, wait_s=0.0))


@hookimpl
def correctors() -> Sequence[Kind[Corrector]]:
    """Return the corrector `stream_aligner`, on a completions server."""
    about = "Stream Aligner on a completions server; sentence by sentence, reads no objectives"
    return [Kind("stream_aligner", about, _make, StreamAlignerSettings)]
