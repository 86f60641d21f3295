"""`engine: litellm:<group>` in the real proxy: the group corrects, and the call for it is not corrected itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.e2e.warm_litellm import COMMON
from tests.support.serving import Completions, served

from .clients import MASTER_KEY
from .deployment import LITELLM
from .processes import Process, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
SAID = "The harbour opens at six. You are a fool."
BETTER = "The harbour opens at six."


async def _chat(_: Request) -> Response:
    message = {"role": "assistant", "content": SAID}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return JSONResponse({"id": "c", "object": "chat.completion", "created": 1, "choices": [choice], "usage": usage})


def _proxy(folder: Path, base: str) -> tuple[Process, str]:
    """LiteLLM with the guardrail, an upstream, and the group that aligns."""
    (folder / "configs").mkdir()
    policies = {
        "aligner": {"engine": "litellm:aligners", "template": "ultrafeedback"},
        "objectives": {"kind": "Kindness: the response should never insult the reader"},
        "routes": [{"match": {"model": "*"}, "objectives": ["kind"]}],
    }
    (folder / "configs" / "policies.yaml").write_text(yaml.safe_dump(policies))
    params = {"api_base": base, "api_key": "none"}
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    settings: dict[str, Any] = {
        "model_list": [
            {"model_name": "gpt", "litellm_params": {"model": "openai/up", **params}},
            {"model_name": "aligners", "litellm_params": {"model": "text-completion-openai/big", **params}},
        ],
        "general_settings": {"master_key": MASTER_KEY},
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail | {"policies": "policies.yaml"}}],
    }
    path = folder / "configs" / "litellm.yaml"
    port = free_port()
    path.write_text(yaml.safe_dump(settings))
    env = {
        **COMMON,
        "ALIGNER_PROXY_HOME": str(folder / "home"),
        "NO_PROXY": "*",
    }
    command = [LITELLM, "--config", str(path), "--host", "127.0.0.1"]
    return Process([*command, "--port", str(port), "--telemetry", "False"], folder / "log", env, warm=True), str(port)


async def test_the_group_corrects_and_is_not_corrected(tmp_path: Path) -> None:
    server = Completions(lambda body: BETTER)
    app = server.app()
    app.router.routes.append(Route("/v1/chat/completions", _chat, methods=["POST"]))
    async with served(app) as address:
        process, port = _proxy(tmp_path, f"{address}/v1")
        process.start()
        try:
            await asyncio.to_thread(process.wait_for, f"http://127.0.0.1:{port}/health/readiness")
            headers = {"authorization": f"Bearer {MASTER_KEY}"}
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False, verify=False
            ) as client:
                body = {"model": "gpt", "messages": [{"role": "user", "content": "When does it open?"}]}
                got = await client.post("/v1/chat/completions", json=body)
                assert got.json()["choices"][0]["message"]["content"] == BETTER
                assert got.headers["x-aligner-status"] == "corrected"
                assert len(server.asked) == 1, "one call for one correction: nobody corrected the correction"
                assert "You are a fool." in server.asked[0]["prompt"]
                again = await client.post("/v1/chat/completions", json=body)
                assert again.headers["x-aligner-cache"] == "hit"
                assert len(server.asked) == 1
        finally:
            process.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()
