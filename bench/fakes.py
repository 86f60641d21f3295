"""`python -m bench.fakes upstream PORT` and `python -m bench.fakes engine SOCKET`: both answer at once.

With them only the gateway's own cost remains: hooks, client, cache, gate and rewriting.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.types import Correction, SegmentScore
from bench.texts import DEFECT, answers
from tests.support.scripted import ScriptedEngine

_DEFECTIVE = answers()[1][1]


async def complete(request: Request) -> JSONResponse:
    """Repeats the number in the question, so that no two answers are the same and no cache helps."""
    asked = (await request.json())["messages"][-1]["content"]
    message = {"role": "assistant", "content": f"{asked}. {_DEFECTIVE}"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 9, "completion_tokens": 90, "total_tokens": 99}
    return JSONResponse(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": choices, "usage": usage}
    )


def edit(request: AlignRequest) -> Correction:
    """Takes the defect out and flags its segment, as an aligner with a detector head does."""
    segment = SegmentScore(DEFECT.strip(), 5.0, flagged=True)
    return Correction(request.answer.replace(DEFECT, ""), (segment,))


def main(what: str, where: str) -> None:
    """Serve one of the two."""
    if what == "upstream":
        app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
        uvicorn.run(app, host="127.0.0.1", port=int(where), log_level="error")
    else:
        uvicorn.run(create_app(ScriptedEngine(edit)), uds=where, log_level="error")


if __name__ == "__main__":
    main(*sys.argv[1:])
