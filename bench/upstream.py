"""`python -m bench.upstream PORT`: a scripted chat upstream; the question's first word selects the answer.

`good` gets a good answer and `bad` one with a defect; `dies` breaks off in the middle, and `fails` gets a 500. A word
of `LONG_ANSWERS` with a number gets an answer of that many characters, streamed as fast as the client reads. Whole
answers are sent at once, other streams at the pace of a hosted model. The answer repeats the question (only the start
of a long one), so that all answers differ and no cache helps.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bench.texts import DEFECT, LONG, repeat_text

CHUNK_CHARS = 24
CHUNK_S = 0.03
_HEAD = {"id": "chatcmpl-1", "created": 1700000000, "model": "up"}
_USAGE = {"prompt_tokens": 20, "completion_tokens": 220, "total_tokens": 240}
_QUOTED_CHARS = 200
_HIDDEN = "\u200b"
_TWINS = str.maketrans("aeopcxy", "\u0430\u0435\u043e\u0440\u0441\u0445\u0443")
_LEVEL = '{"a":'


def answer(question: str) -> str:
    """An answer of some 220 tokens, always the same for a question; longer if the question requests that."""
    _, text = LONG[zlib.crc32(question.encode()) % len(LONG)]
    first, rest = text.split(". ", 1)
    word, chars = _read_length(question)
    defect = DEFECT if word in _DEFECTIVE else ""
    whole = f"You asked about {question[:_QUOTED_CHARS]}. {first}.{defect} {rest}"
    return LONG_ANSWERS[word](whole, chars) if chars else whole


def _nest_text(text: str, chars: int) -> str:
    """JSON that consists mostly of nesting."""
    depth = max(0, chars - len(text)) // len(_LEVEL + "}")
    return f"{_LEVEL * depth}{json.dumps(text)}{'}' * depth}"


def _disguise_text(text: str, chars: int) -> str:
    """Letters of other alphabets, mixed with invisible characters and marks."""
    hidden = _HIDDEN.join(text.translate(_TWINS))
    spaced = " ".join(text[: len(text) // 2])
    return repeat_text(f"{hidden}\n\n{spaced}. {text.replace('o', '0').replace('e', '3')}\n\n", chars)


LONG_ANSWERS: dict[str, Callable[[str, int], str]] = {
    "long": lambda text, chars: repeat_text(f"{text}\n\n", chars),
    "insulting": lambda text, chars: repeat_text(f"{text}\n\n", chars),
    "line": lambda text, chars: repeat_text(f"{text} ".replace("\n\n", " "), chars),
    "unbroken": lambda text, chars: repeat_text("".join(filter(str.isalnum, text)), chars),
    "deep": _nest_text,
    "disguised": _disguise_text,
}
"""Makers of long answers from an ordinary one, by the question's first word."""
_DEFECTIVE = ("bad", "insulting", "line", "deep", "disguised")


def _read_length(question: str) -> tuple[str, int]:
    """The first word of a question, and the requested length; 0 if none is requested."""
    word, number, *_ = [*question[:_QUOTED_CHARS].split(), "", ""]
    return word, int(number) if word in LONG_ANSWERS else 0


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    question = body["messages"][-1]["content"]
    if question.startswith("fails"):
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if body.get("stream"):
        return StreamingResponse(_frames(question), media_type="text/event-stream")
    message = {"role": "assistant", "content": answer(question)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return JSONResponse(_HEAD | {"object": "chat.completion", "choices": choices, "usage": _USAGE})


async def _frames(question: str) -> AsyncIterator[str]:
    text = answer(question)
    pieces = [text[at : at + CHUNK_CHARS] for at in range(0, len(text), CHUNK_CHARS)]
    pause_s = 0.0 if _read_length(question)[1] else CHUNK_S
    yield _frame({"role": "assistant", "content": ""})
    for number, piece in enumerate(pieces):
        if question.startswith("dies") and number == len(pieces) // 2:
            raise ConnectionError("scripted")
        await asyncio.sleep(pause_s)
        yield _frame({"content": piece})
    yield _frame({}, "stop")
    yield "data: [DONE]\n\n"


def _frame(delta: dict[str, Any], why: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": why}
    return f"data: {json.dumps(_HEAD | {'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


async def health(_: Request) -> Response:
    """GET /health."""
    return Response()


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", timeout_keep_alive=600)
