"""Readiness with an engine that is there, gone or silent, under policies that block and that do not."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.gateway import readiness
from aligner_proxy.gateway.readiness import EngineReadiness, blocks_without_engine
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from tests.support.scripted import ScriptedEngine

BLOCK = {"on_error": "block"}
PASS = {"on_error": "passthrough"}


def file(
    defaults: dict[str, Any] | None = None, route: dict[str, Any] | None = None, tenant: dict[str, Any] | None = None
) -> PolicyFile:
    """A policies file of one route and one tenant."""
    return PolicyFile.model_validate(
        {
            "defaults": defaults or {},
            "routes": [{"match": {}, **route}] if route is not None else [],
            "tenants": [{"match": {}, **tenant}] if tenant is not None else [],
        }
    )


@pytest.mark.parametrize(
    ("policies", "blocks"),
    [
        (file(), False),
        (file(BLOCK), True),
        (file(None, BLOCK), True),
        (file(PASS, None, BLOCK), True),
        (file({"on_error": {"gate": "block"}}), False),
        (file({"on_error": {"engine_down": "block"}}), True),
        (file({"on_error": "retry"}), False),
        (file({"on_error": "retry"}, {"after_retry": "block"}), True),
        (file({**BLOCK, "mode": "shadow"}), False),
        (file({"mode": "off"}, BLOCK, {}), False),
        (file({"mode": "off"}, BLOCK, {"mode": "enforce"}), True),
        (file(None, {**BLOCK, "corrector": "self_refine"}), False),
    ],
)
def test_which_policies_need_an_engine(policies: PolicyFile, blocks: bool) -> None:
    assert blocks_without_engine(policies) is blocks


class Engine(ScriptedEngine):
    """An engine that may be gone or silent."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = False
        self.silent = False
        self.asked = 0

    async def info(self) -> AlignerInfo:
        self.asked += 1
        await asyncio.sleep(3600 if self.silent else 0)
        if self.gone:
            raise EngineUnavailable("no engine answers")
        return await super().info()


def application(status: int = 200) -> Starlette:
    """An application with LiteLLM's probes."""

    async def probe(_: Request) -> Response:
        return JSONResponse({"status": "healthy"}, status)

    return Starlette(routes=[Route("/health/readiness", probe), Route("/health/liveliness", probe)])


async def probe(app: Starlette, path: str = readiness.PATH) -> tuple[int, dict[str, Any]]:
    """What a probe gets."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        got = await http.get(path)
    return got.status_code, got.json()


async def test_a_gateway_that_blocks_is_ready_only_with_its_engine() -> None:
    engine = Engine()
    app = application()
    readiness.add_reason(app, EngineReadiness(engine, lambda: file(BLOCK)).reason)
    assert (await probe(app))[0] == 200
    engine.gone = True
    assert await probe(app) == (503, {"status": "not ready", "aligner": "engine_unavailable"})
    assert (await probe(app, "/health/liveliness"))[0] == 200
    engine.gone = False
    assert (await probe(app))[0] == 200


async def test_a_running_application_and_a_second_guardrail_count_too() -> None:
    engine = Engine()
    app = application()
    await probe(app)  # from now on it takes no middleware
    readiness.add_reason(app, EngineReadiness(Engine(), lambda: file(BLOCK)).reason)
    readiness.add_reason(app, EngineReadiness(engine, lambda: file(BLOCK)).reason)
    assert (await probe(app))[0] == 200
    engine.gone = True
    assert (await probe(app))[0] == 503


async def test_where_answers_pass_without_an_engine_it_is_not_asked() -> None:
    engine = Engine()
    engine.gone = True
    app = application()
    readiness.add_reason(app, EngineReadiness(engine, lambda: file(PASS)).reason)
    assert (await probe(app))[0] == 200
    assert engine.asked == 0


async def test_what_litellm_says_stays_where_the_engine_is_there() -> None:
    app = application(status=503)
    readiness.add_reason(app, EngineReadiness(Engine(), lambda: file(BLOCK)).reason)
    assert await probe(app) == (503, {"status": "healthy"})


async def test_a_silent_engine_is_none_and_many_probes_ask_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_WAIT_S", 0.05)
    engine = Engine()
    engine.silent = True
    ready = EngineReadiness(engine, lambda: file(BLOCK))
    assert await asyncio.gather(*(ready.reason() for _ in range(20))) == ["engine_unavailable"] * 20
    assert engine.asked == 1


async def test_a_changed_policies_file_counts_at_once() -> None:
    engine = Engine()
    engine.gone = True
    files = [file(PASS)]
    ready = EngineReadiness(engine, lambda: files[-1])
    assert await ready.reason() is None
    files.append(file(BLOCK))
    assert await ready.reason() == "engine_unavailable"


def test_entries_with_equal_settings_are_looked_at_once() -> None:
    routes = [{"match": {"model": f"m{n}"}, "deadline_s": 5} for n in range(3)]
    tenants = [{"match": {"team": f"t{n}"}, **({"enforce": ["harmless"]} if n else {})} for n in range(3)]
    policies = PolicyFile.model_validate({"routes": routes, "tenants": tenants})
    settings = [(policy.deadline_s, policy.on_skip.refusal) for policy in PolicyResolver(policies).active_settings()]
    assert Counter(settings) == {
        (20.0, "passthrough"): 2,
        (5.0, "passthrough"): 2,
        (20.0, "judge"): 1,
        (5.0, "judge"): 1,
    }
