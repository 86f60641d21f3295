"""Corrector that asks Aligner (PKU, arXiv 2402.02416) on an engine of its own, beside MetaAligner's.

`aligner-proxy engine --model aligner/aligner-7b-v1.0` serves it by its own template; where it is the only aligner,
naming it under `aligner.model` is enough. It reads no objectives: being helpful and harmless is what its weights know.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction

TEMPLATES = ("aligner", "aligner-v1")
"""Prompt templates of the weights that are an Aligner: those of today, and those of the released weights."""


class Settings(BaseModel):
    """Settings of the corrector in the policies file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Annotated[str, Field(pattern=r"^(unix:/|https?://)\S+$")]
    """unix:/path/to/engine.sock, or http(s)://host:port of an `aligner-proxy engine` that serves an Aligner."""


class PkuAligner:
    """Satisfies `Corrector`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def identity(self) -> str:
        """Content hash of the engine's aligner; raises `EngineFault` where that is not an Aligner."""
        info = await self._engine.info()
        if info.template not in TEMPLATES:
            raise EngineFault(f"the engine serves an aligner by template {info.template}, not an Aligner")
        return info.content_hash

    async def correct(self, request: AlignRequest) -> Correction:
        """The engine's correction."""
        await self.identity()
        return await self._engine.align(request)
