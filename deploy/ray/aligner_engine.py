"""The aligner's engine as a Ray Serve application, for those who have a Ray cluster; needs Ray 2.60 or later.

Each application is one engine with an address of its own (its route prefix), which gateways name one by one as they
name engines elsewhere: a stream stays with the engine that reads it, and Ray spreads requests over replicas as it
likes. So an application has one replica; engines.yaml beside this has two applications. Arguments: `policies`, a file
to take the aligner from (without it the embedded one), and `queue`, the requests that the engine takes at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from aligner_proxy.cli.options import weight_settings
from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.loader import open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.server.app import check_health, create_app
from aligner_proxy.policy import config

DRAIN_S = 25.0
"""As long as the engine alone finishes what it has begun."""
_BESIDE = 64
"""Requests that the engine refuses itself, with the time to wait, before Ray does."""


class Arguments(BaseModel):
    """What an application of engines.yaml may say."""

    model_config = ConfigDict(extra="forbid")

    policies: Path | None = None
    queue: int = Field(default=64, ge=1)


@serve.deployment(
    num_replicas=1, graceful_shutdown_timeout_s=DRAIN_S + 5, health_check_period_s=10, health_check_timeout_s=30
)
@serve.ingress()
class AlignerEngine:
    """One engine; a replica is ready once its aligner is loaded."""

    def __init__(self, arguments: Arguments) -> None:
        chosen = weight_settings({}, arguments.policies)
        engine = LocalEngine(lambda: open_aligner(chosen, config.home_folder(), lambda step: None))
        self._engine = LocalAdmission(engine, slots=arguments.queue)

    async def __serve_build_asgi_app__(self) -> Any:
        """Load, and give Ray what answers; raises where the aligner cannot be loaded, and Ray says so."""
        await self._engine.start()
        return create_app(self._engine)

    async def check_health(self) -> None:
        """Raises where only a new start helps, which Ray then makes."""
        health = await check_health(self._engine)
        if not health.alive:
            raise RuntimeError(f"the engine is not alive: {', '.join(health.reasons)}")


def application(arguments: Arguments) -> Any:
    """An engine, as `serve deploy engines.yaml` builds it."""
    deployment: Any = AlignerEngine
    return deployment.options(max_ongoing_requests=arguments.queue + _BESIDE).bind(arguments)
