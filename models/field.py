"""What stands behind each system while they are compared? The pipeline with the engines it needs, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligner_proxy import config
from aligner_proxy.apart import Here
from aligner_proxy.correctors import PluggedCorrector
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.protocol import Engine
from aligner_proxy.engine.weights import Settings, open_aligner
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.pku import PkuAligner
from aligner_proxy.self_refine import SelfRefine
from aligner_proxy.self_refine import Settings as RefineSettings

if TYPE_CHECKING:
    from aligner_proxy.chat_group import Chat

REFINER = "refiner"


class SystemsError(ValueError):
    """A comparison that cannot be made; the text names the file, the place and what is wrong."""


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Engine]:
    """The engine over an aligner folder, loaded."""
    engine = LocalEngine(lambda: open_aligner(Settings(folder), config.home()))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.aclose()


@asynccontextmanager
async def gateway(
    aligner: Path,
    corrector: str | None,
    single_purpose: Path | None,
    chat: Callable[[], Chat],
    refining: dict[str, Any],
) -> AsyncIterator[Pipeline]:
    """The pipeline over an aligner, with the corrector that a route names."""
    async with AsyncExitStack() as stack:
        made: dict[str, Engine] = {}
        if corrector == "aligner":
            if single_purpose is None:
                raise SystemsError("single_purpose must name the folder of an Aligner where a corrector is one")
            single = PkuAligner(await stack.enter_async_context(opened(single_purpose)))
            made[corrector] = PluggedCorrector(corrector, corrector, single, Here())
        if corrector == "self_refine":
            refine = SelfRefine(RefineSettings(model=REFINER, **refining), chat())
            made[corrector] = PluggedCorrector(corrector, corrector, refine, Here())
        yield Pipeline(await stack.enter_async_context(opened(aligner)), correctors=made)
