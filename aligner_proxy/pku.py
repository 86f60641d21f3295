"""How does Aligner (PKU, arXiv 2402.02416) correct beside MetaAligner? As corrector `aligner`, on its own engine.

`aligner-proxy engine --model aligner/aligner-7b-v1.0` serves it by its own template; where it is the only aligner,
naming it under `aligner.model` is enough. It reads no objectives: being helpful and harmless is what its weights know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.breaker import Breaker
from aligner_proxy.engine.client import HttpEngine
from aligner_proxy.engine.protocol import AlignRequest, Engine
from aligner_proxy.errors import EngineFault
from aligner_proxy.hookspecs import Corrector, Kind, hookimpl
from aligner_proxy.types import Correction

TEMPLATES = ("aligner", "aligner-v1")


class Settings(BaseModel):
    """What may stand in the policies file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Annotated[str, Field(pattern=r"^(unix:/|https?://)\S+$")]
    """unix:/path/to/engine.sock, or http(s)://host:port of an `aligner-proxy engine` that serves an Aligner."""


class PkuAligner:
    """Satisfies `Corrector`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def identity(self) -> str:
        """The weights there, with their template."""
        about = await self._engine.info()
        if about.template not in TEMPLATES:
            raise EngineFault(f"the engine serves an aligner by template {about.template}, not an Aligner")
        return about.content_hash

    async def correct(self, request: AlignRequest) -> Correction:
        """What the engine says."""
        await self.identity()
        return await self._engine.align(request)


def _make(settings: Settings) -> Corrector:
    # Patience is the policy's, as at the other engine; and a dead one costs nobody a deadline.
    return PkuAligner(Breaker(HttpEngine(settings.engine, patience_s=0.0)))


@hookimpl
def correctors() -> Sequence[Kind[Corrector]]:
    """Aligner, on an engine of its own."""
    about = "Aligner (PKU) on an engine of its own; one purpose, reads no objectives"
    return [Kind("aligner", about, _make, Settings)]
