"""Readiness: if a policy blocks answers without an engine, the gateway is not ready while the engine is down.

LiteLLM's `/health/readiness` does not check the engine, so a load balancer would send requests to a gateway that
answers all of them with 503. If no policy blocks, answers pass without an engine, and the gateway stays ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from aligner_proxy.engine.api import Engine
from aligner_proxy.errors import CorrectionError, EngineUnavailable
from aligner_proxy.gateway.asgi_layers import add_layer
from aligner_proxy.pipeline import outcomes
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import METAALIGNER, Outcome, Policy, Status

log = logging.getLogger(__name__)
PATH = "/health/readiness"
_WAIT_S = 3.0
"""Seconds to wait for the engine; less than probes wait (Kubernetes and our `health` command: 5 s)."""

Reason = Callable[[], Awaitable[str | None]]
"""Async function that returns why the gateway is not ready, in one word; None if it is ready."""


def blocks_without_engine(file: PolicyFile) -> bool:
    """Whether any route, for any tenant of the file, prefers an error to an answer that no engine has checked."""
    return any(map(_blocks_without_aligner, PolicyResolver(file).active_settings()))


def _blocks_without_aligner(policy: Policy) -> bool:
    """Whether an answer is blocked when the aligner's engine is down."""
    engine_down = Outcome(Status.FAILED, EngineUnavailable.reason, None, policy)
    return policy.corrector == METAALIGNER and outcomes.blocks(engine_down)


class EngineReadiness:
    """Finds out whether the engine responds, if the active policies need it. Concurrent probes share one check.
    `get_file` returns the active policies file, or None once nothing uses it any more.
    """

    def __init__(self, engine: Engine, get_file: Callable[[], PolicyFile | None]) -> None:
        self._engine = engine
        self._get_file = get_file
        self._examined_file: PolicyFile | None = None
        self._file_needs_engine = False
        """Whether some policy of `_examined_file` blocks answers without an engine."""
        self._check_task: asyncio.Task[str | None] | None = None
        """The running or last check; its result is what `reason` returns."""
        self._logged_fault: str | None = None
        """The reason that was logged last; None if the gateway was ready."""

    async def reason(self) -> str | None:
        """Why the gateway is not ready; None if it is."""
        if self._check_task is None or self._check_task.done():
            self._check_task = asyncio.create_task(self._check_engine())
        return await asyncio.shield(self._check_task)  # not stopped with this probe, since others may wait, too

    async def _needs_engine(self) -> bool:
        """Whether some policy of the active file blocks answers without an engine; each file is examined only once."""
        file = self._get_file()
        if file is None:
            return False  # the guardrail with these policies is gone
        if self._examined_file is not file:
            # This runs in a thread, because thousands of routes and tenants take tenths of a second.
            self._file_needs_engine = await asyncio.to_thread(blocks_without_engine, file)
            self._examined_file = file
        return self._file_needs_engine

    async def _check_engine(self) -> str | None:
        """Ask the engine whether it responds; return why the gateway is not ready, or None, and log a change."""
        if not await self._needs_engine():
            return None
        fault = await self._engine_fault()
        if fault != self._logged_fault:
            self._logged_fault = fault
            if fault:
                log.warning("not ready: %s", fault)
            else:
                log.info("ready again")
        return fault

    async def _engine_fault(self) -> str | None:
        """The reason why the engine does not respond in time; None if it does."""
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._engine.info()
        except TimeoutError:
            return EngineUnavailable.reason
        except CorrectionError as error:
            return error.reason
        return None


class ReadinessMiddleware:
    """ASGI middleware that answers LiteLLM's readiness probe with 503 if any of `reasons` returns a word."""

    def __init__(self, app: ASGIApp, reasons: list[Reason]) -> None:
        self.app = app
        self._reasons = reasons

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path may begin with the prefix under which the application is served.
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith(PATH):
            for reason in self._reasons:
                fault = await reason()
                if fault is not None:
                    reply = JSONResponse({"status": "not ready", "aligner": fault}, 503)
                    await reply(scope, receive, send)
                    return
        await self.app(scope, receive, send)


_reasons: WeakKeyDictionary[Any, list[Reason]] = WeakKeyDictionary()
"""The reasons of each application, in the list that its middleware reads."""


def add_reason(app: Starlette, reason: Reason) -> None:
    """Let the readiness probe of `app` fail while `reason` returns a word; adds the middleware at the first call."""
    reasons = _reasons.setdefault(app, [])
    reasons.append(reason)
    if len(reasons) == 1:
        add_layer(app, ReadinessMiddleware, reasons=reasons)
