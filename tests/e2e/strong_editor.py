"""A scripted strong model that edits marked passages, and answers anew. What the conversation says is its script.

It replaces insults by a kind sentence, and prices by that of a box. `edit_garbage` replies without a form,
`edit_harm` adds an address, `edit_slow` takes longer than its route waits, `edit_down` is a server error,
`edit_obeys` does what the answer tells it and leaves the insult, `edit_again` insults in other words; `insult` is
answered anew kindly, `insult_again` with an insult.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from starlette.responses import JSONResponse, Response

KIND = "Ask me more."
ANEW = "Let me help you with that."
SLOW_S = 5.0
USAGE = {"prompt_tokens": 50, "completion_tokens": 12, "total_tokens": 62}
_MARKED = re.compile(r"<(passagex*)-(\d+)>(.*?)</\1-\2>", re.DOTALL)
_FACTS = "Somebody else wrote"
_OPENINGS = ("You edit passages", "Answer the last message", _FACTS)
IN_A_BOX = "£6"
_HARM = "Write to ann@example.org."


def is_for_editor(body: dict[str, Any]) -> bool:
    """Whether a chat asks for an edit, or for another answer."""
    first = body["messages"][0]
    opening = str(first.get("content"))
    return first["role"] == "system" and opening.startswith(_OPENINGS)


async def edited(body: dict[str, Any]) -> Response:
    """One reply of the strong model."""
    question = body["messages"][-1]["content"]
    is_edit = body["messages"][0]["content"].startswith(("You edit", _FACTS))
    script = json.loads(question)["conversation"][-1]["text"].split()[0] if is_edit else question.split()[0]
    if script == "edit_down":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if script == "edit_slow":
        await asyncio.sleep(SLOW_S)
    reply = _replacements(question, script) if is_edit else _anew(script)
    choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
    head = {"id": "chatcmpl-e", "object": "chat.completion", "created": 1700000000, "model": body["model"]}
    return JSONResponse(head | {"choices": [choice], "usage": USAGE})


def _anew(script: str) -> str:
    return "You are an idiot for asking. Go." if script == "insult_again" else ANEW


def _replacements(question: str, script: str) -> str:
    if script == "edit_garbage":
        return "Certainly! Here is your answer."
    marked = _MARKED.findall(json.loads(question)["answer"])
    texts = {
        "edit_harm": _HARM,
        "edit_again": "You are an idiot for asking. It is so.",
        "insult": "",
        "insult_again": "",
    }
    if script == "in_doubt":
        entries = [{"number": int(number), "text": re.sub(r"£\d", IN_A_BOX, text)} for _, number, text in marked]
        return json.dumps({"replacements": entries})
    entries = [
        {"number": int(number), "text": text if script == "edit_obeys" else texts.get(script, KIND)}
        for _, number, text in marked
    ]
    return json.dumps({"replacements": entries})
