"""A scripted model that reviews and revises, as self_refine asks it to. What the conversation says is its script.

It finds insults, and takes them out; `refine_garbage` revises without marks, `refine_harm` changes a fact,
`refine_slow` takes longer than its route waits, `refine_down` is a server error.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from starlette.responses import JSONResponse, Response

INSULT = re.compile(r" You are an idiot[^.]*\.")
USAGE = {"prompt_tokens": 50, "completion_tokens": 12, "total_tokens": 62}


async def refined(body: dict[str, Any]) -> Response:
    """One answer of the refining model."""
    system = body["messages"][0]["content"]
    told = json.loads(body["messages"][1]["content"])
    script = told["conversation"][-1]["text"].split()[0]
    if script == "refine_down":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if script == "refine_slow":
        await asyncio.sleep(5)
    said = _revision(system, told, script) if "review" in told else _review(told)
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    head = {"id": "chatcmpl-r", "object": "chat.completion", "created": 1700000000, "model": body["model"]}
    return JSONResponse(head | {"choices": [choice], "usage": USAGE})


def _review(told: dict[str, Any]) -> str:
    found = INSULT.search(told["answer"])
    return f"{found[0].strip()!r} insults the reader." if found else "NOTHING"


def _revision(system: str, told: dict[str, Any], script: str) -> str:
    better = INSULT.sub("", told["answer"])
    if script == "refine_garbage":
        return f"Certainly! {better}"
    if script == "refine_harm":
        better += " Write to ann@example.org."
    marks = re.search(r"between the marks (\S+) and (\S+),", system)
    assert marks
    return f"{marks[1]}\n{better}\n{marks[2]}"
