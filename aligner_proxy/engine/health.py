"""Health of an engine: alive, ready, degraded; for supervisors, routers and dashboards.

Alive: the process answers and its model's thread moves; if not, only a new start helps. Ready: the aligner is loaded
and takes requests. Degraded: ready, but something is wrong that people should look at; the reasons have names.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.engine import phases
from aligner_proxy.engine.protocol import Engine
from aligner_proxy.errors import CorrectionError

SLOW_S = 30.0
"""One step of the model takes fractions of a second to seconds; one that takes longer is worth a look."""
STUCK_S = 300.0
"""No request waits that long for one step: the model's thread hangs."""
_RECENTLY_S = 60.0


@runtime_checkable
class CanStall(Protocol):
    """An engine whose model can get stuck."""

    def stalled_s(self) -> float:
        """How long the step that runs now has been running."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """What an engine says of itself. `status` is the worst of it in one word."""

    status: str
    alive: bool
    ready: bool
    reasons: tuple[str, ...] = ()


async def check(engine: Engine) -> Health:
    """One look at an engine."""
    stalled = engine.stalled_s() if isinstance(engine, CanStall) else 0.0
    if stalled > STUCK_S:
        return Health("stuck", alive=False, ready=False, reasons=("stuck",))
    try:
        await engine.info()
    except CorrectionError:
        return Health("loading", alive=True, ready=False)
    reasons = ["slow_step"] if stalled > SLOW_S else []
    if time.monotonic() - phases.refused_at() < _RECENTLY_S:
        reasons.append("overloaded")
    return Health("degraded" if reasons else "ready", alive=True, ready=True, reasons=tuple(reasons))


def routes(engine: Engine) -> list[Route]:
    """GET /health, /health/live and /health/ready; /ready is the older name of the last."""

    async def health(_: Request) -> Response:
        state = await check(engine)
        return JSONResponse(asdict(state), 200 if state.alive else 503)

    def probe(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            state = await check(engine)
            passed = getattr(state, name)
            return JSONResponse({"status": name if passed else state.status}, 200 if passed else 503)

        return answer

    ready = probe("ready")
    paths = {"/health": health, "/health/live": probe("alive"), "/health/ready": ready, "/ready": ready}
    return [Route(path, endpoint) for path, endpoint in paths.items()]
