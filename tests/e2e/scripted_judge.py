"""Scripted judges of the upstream: a chat model, each guard in its published form, and a decision model.

At `/v1/chat/completions`, the model that LiteLLM calls says which: `judge-chat`, or `judge-` and the form of a guard.
At `/v1/decisions` is the decision model. All find fault with the Seine alone, and `judge-facts` with £5, for which the
page has £6. A prompt in other roles than those of its guard is an error of the server.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import JSONResponse, Response

PREFIX = "judge-"
USAGE = {"prompt_tokens": 30, "completion_tokens": 6, "total_tokens": 36}
_MARKED = re.compile(r"<(passagex*)-(\d+)>(.*?)</\1-\2>", re.DOTALL)
_REPLIES = {
    "llama_guard": ("unsafe\nS10", "safe"),
    "qwen3guard": (
        "Safety: Unsafe\nCategories: Unethical Acts\nRefusal: No",
        "Safety: Safe\nCategories: None\nRefusal: No",
    ),
    "granite_guardian": ("<think>\n</think>\n<score> yes </score>", "<think>\n</think>\n<score> no </score>"),
    "shieldgemma": ("Yes, it does.", "No."),
    "gpt_oss_safeguard": ('{"violation": 1}', '{"violation": 0}'),
    "nemotron": (
        "Prompt harm: unharmful\nResponse harm: harmful",
        "Prompt harm: unharmful\nResponse harm: unharmful",
    ),
}
"""What each guard replies to a bad text, and to a good one."""
_ROLES = {
    "llama_guard": ["user", "assistant"],
    "qwen3guard": ["user", "assistant"],
    "granite_guardian": ["user", "assistant", "user"],
    "shieldgemma": ["user"],
    "gpt_oss_safeguard": ["system", "user"],
    "nemotron": ["user"],
}


def judge_reply(body: dict[str, Any]) -> Response:
    """One reply of the judge that a chat asks."""
    name = body["model"].removeprefix(PREFIX)
    messages = body["messages"]
    if name == "down":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if name == "facts":
        content = _judge_facts(json.loads(messages[-1]["content"])["facts"])
    elif name == "chat":
        texts = _read_passages(messages[-1]["content"])
        entries = [
            {"number": n, "violates": "Seine" in text, "probability": 0.9 if "Seine" in text else 0.1}
            for n, text in texts.items()
        ]
        content = json.dumps({"verdicts": entries})
    elif [message["role"] for message in messages] != _ROLES[name]:
        return JSONResponse({"error": {"message": "roles", "type": "server_error", "code": None}}, 500)
    else:
        is_bad = any("Seine" in message["content"] for message in messages)
        content = _REPLIES[name][0 if is_bad else 1]
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    head = {"id": "chatcmpl-j", "object": "chat.completion", "created": 1700000000, "model": body["model"]}
    return JSONResponse(head | {"choices": [choice], "usage": USAGE})


def decision_reply(body: dict[str, Any]) -> Response:
    """The probabilities of the decision model, in OpenAI's form."""
    texts = _read_passages(body["input"])
    answers = [
        {"type": "predicate", "name": name, "probability": 0.9 if "Seine" in texts[int(name)] else 0.1}
        for name in (question["name"] for question in body["questions"])
    ]
    usage = {"input_tokens": 30, "output_tokens": 0, "total_tokens": 30}
    return JSONResponse({"model": body["model"], "answers": answers, "usage": usage})


def _read_passages(prompt: str) -> dict[int, str]:
    """The passages that are asked about, by their numbers."""
    return {int(n): text for _, n, text in _MARKED.findall(json.loads(prompt)["answer"])}


def _judge_facts(facts: list[dict[str, Any]]) -> str:
    """The verdicts on facts that references leave in doubt."""
    entries = []
    for fact in facts:
        value = next((one["number"] for one in fact["values"] if one["value"] == "£6" and fact["fact"] == "£5"), 0)
        entries.append({"number": fact["number"], "verdict": "contradicted" if value else "not said", "value": value})
    return json.dumps({"verdicts": entries})
