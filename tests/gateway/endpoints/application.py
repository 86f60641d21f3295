"""The endpoints in an application of their own: the real guardrail, a scripted engine, and no LiteLLM server."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from aligner_proxy.engine.api import Engine
from aligner_proxy.gateway import litellm_internals, reload
from aligner_proxy.gateway.endpoints import routes
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.support.scripted import SegmentEngine

INSULTS = ("You fool.", "You are an idiot.")
POLICIES: dict[str, Any] = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        {"match": {"model": "off"}, "mode": "off", "objectives": ["kind"]},
        {"match": {"model": "strict"}, "on_error": "block", "objectives": ["kind"]},
        {"match": {"model": "bare"}},
        {"match": {"model": "ungated"}, "objectives": ["kind"], "gate": []},
        {
            "match": {"model": "pointers"},
            "objectives": ["kind"],
            "on_skip": {"annotations": "judge", "logprobs": "judge"},
        },
        {"match": {"model": "calls"}, "objectives": ["kind"], "tool_arguments": "correct"},
        {"match": {"model": "calls-block"}, "objectives": ["kind"], "tool_arguments": "block", "on_error": "block"},
        {"match": {"model": "*"}, "name": "all", "objectives": ["kind"]},
    ],
    "tenants": [
        {"match": {"team": "acme"}, "allow": ["concise", "humour"], "allow_bypass": True},
        {"match": {"team": "strict"}, "on_error": "block"},
        {"match": {"team": "free"}, "allow": ["*"], "deny": ["humour"]},
        {"match": {"team": "facts"}, "allow_references": True},
    ],
}


def insults(text: str) -> float:
    """The score of a segment: an insult must change."""
    return 4.0 if text in INSULTS else -4.0


class Api:
    """A client of the endpoints; `guard` is the guardrail behind them, `limiter` LiteLLM's of requests."""

    def __init__(self, guard: AlignerGuardrail) -> None:
        self.guard = guard
        self.limiter: Any = None
        self.app = FastAPI()
        self.app.add_exception_handler(ProxyException, _as_litellm)
        routes.add_endpoints(self.app, _caller, guard)
        transport = httpx.ASGITransport(app=self.app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    def play(self, engine: Engine) -> None:
        """Let this engine correct."""
        self.guard.pipeline = Pipeline(engine, extensions=self.guard.pipeline.extensions)

    async def post(self, path: str, body: Any, team: str = "", **headers: str) -> httpx.Response:
        """The response to a body, from a key of this team."""
        return await self.http.post(path, json=body, headers={"team": team, **headers})

    async def align(self, answer: str, team: str = "", model: str | None = "gpt", **more: Any) -> httpx.Response:
        """The response of `POST /v1/align`."""
        body = {"messages": [{"role": "user", "content": "What?"}], "answer": answer, **more}
        return await self.post("/v1/align", body | ({"model": model} if model else {}), team)


def _caller(request: Request) -> UserAPIKeyAuth:
    """The caller as LiteLLM would know it: here a header names the team."""
    team = request.headers.get("team") or None
    return UserAPIKeyAuth(api_key="a" * 64, team_id=team, request_route=request.url.path)


async def _as_litellm(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProxyException)
    return JSONResponse({"error": error.to_dict()}, int(error.code), error.headers)


async def _with_metadata(*, data: dict[str, Any], request: Request, **_: Any) -> dict[str, Any]:
    """What LiteLLM adds to a request, as far as we read it."""
    body = {"headers": dict(request.headers), "body": dict(data)}
    return {**data, "metadata": {"user_api_key_hash": "a" * 64}, "proxy_server_request": body}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The endpoints under `POLICIES`, with an engine that takes insults out."""
    monkeypatch.setattr(litellm_internals, "config_folder", lambda: tmp_path)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    reload._watch_policies.cache_clear()
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(POLICIES))
    made = Api(AlignerGuardrail(guardrail_name="aligner", event_hook="post_call", default_on=True))
    made.play(SegmentEngine(insults))
    server = types.SimpleNamespace(
        add_litellm_data_to_request=_with_metadata,
        general_settings={},
        proxy_config=None,
        version="0",
        proxy_logging_obj=types.SimpleNamespace(get_proxy_hook=lambda _: made.limiter),
    )
    monkeypatch.setattr(litellm_internals, "proxy_module", lambda: server)
    yield made
    reload._watch_policies.cache_clear()
