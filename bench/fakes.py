"""Fake services for measuring the gateway's own cost: hooks, client, cache, gate and rewriting.

`python -m bench.fakes upstream PORT`, `... engine SOCKET` and `... reader SOCKET` serve them. All answer at once. The
engine corrects whole answers; the reader reads answers while they are written.
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
from tests.support.scripted import ScriptedEngine, SegmentEngine

_DEFECTIVE = answers()[1][1]


async def complete(request: Request) -> JSONResponse:
    """Repeat the question in the answer, so that every answer differs and no cache helps."""
    question = (await request.json())["messages"][-1]["content"]
    message = {"role": "assistant", "content": f"{question}. {_DEFECTIVE}"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 9, "completion_tokens": 90, "total_tokens": 99}
    return JSONResponse(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": choices, "usage": usage}
    )


def edit(request: AlignRequest) -> Correction:
    """Remove the defect and flag its segment, as an aligner with a detector head does."""
    segment = SegmentScore(DEFECT.strip(), 5.0, flagged=True)
    return Correction(request.answer.replace(DEFECT, ""), (segment,))


def score(segment: str) -> float:
    """Score the defect as a violation and everything else as fine."""
    return 5.0 if segment == DEFECT.strip() else -5.0


def main(what: str, where: str) -> None:
    """Serve one of the fakes."""
    if what == "upstream":
        app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
        uvicorn.run(app, host="127.0.0.1", port=int(where), log_level="error")
    else:
        engine = SegmentEngine(score) if what == "reader" else ScriptedEngine(edit)
        uvicorn.run(create_app(engine), uds=where, log_level="error", timeout_keep_alive=600)


if __name__ == "__main__":
    main(*sys.argv[1:])
