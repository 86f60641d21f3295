"""Corrector that uses Aligner (PKU, arXiv 2402.02416) on its own engine, in addition to MetaAligner's.

`aligner-proxy engine --model aligner/aligner-7b-v1.0` serves it with its own template. If it is the only aligner,
naming it under `aligner.model` is enough. It does not read objectives: its weights were trained for helpful and
harmless answers.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction

TEMPLATES = ("aligner", "aligner-v1")
"""Prompt templates by which an Aligner is recognised: the current one, and the one of the released weights."""


class PkuAlignerSettings(BaseModel):
    """Settings of the corrector in the policies file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Annotated[str, Field(pattern=r"^(unix:/|https?://)\S+$")]
    """unix:/path/to/engine.sock, or http(s)://host:port of an `aligner-proxy engine` that serves an Aligner."""


class PkuAligner:
    """Corrector that lets an Aligner on an engine correct the answer. Satisfies `Corrector`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def identity(self) -> str:
        """Return the content hash of the engine's aligner; raises `EngineFault` if this is not an Aligner."""
        info = await self._engine.info()
        if info.template not in TEMPLATES:
            raise EngineFault(f"the engine serves an aligner by template {info.template}, not an Aligner")
        return info.content_hash

    async def correct(self, request: AlignRequest) -> Correction:
        await self.identity()  # raises if the engine serves another aligner
        return await self._engine.align(request)
