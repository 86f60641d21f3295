"""Tool results and history of requests through the real proxy: refused before the upstream is called, or reported."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.scripted_answers import RUDE
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED
PLACES = {"/v1/chat/completions": "messages.2", "/v1/messages": "messages.2", "/v1/responses": "input.2"}


def conversation(path: str, result: str) -> dict[str, Any]:
    """A call and its result, in the form of an endpoint."""
    question = {"role": "user", "content": "good"}
    if path == "/v1/responses":
        call = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"}
        return {"input": [question, call, {"type": "function_call_output", "call_id": "call_1", "output": result}]}
    if path == "/v1/messages":
        use = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
        returned = {"type": "tool_result", "tool_use_id": "toolu_1", "content": result}
        turns = [question, {"role": "assistant", "content": [use]}, {"role": "user", "content": [returned]}]
        return {"max_tokens": 99, "messages": turns}
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    asking = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"messages": [question, asking, {"role": "tool", "tool_call_id": "call_1", "content": result}]}


def bodies_seen(upstream: str, text: str) -> int:
    """How many bodies with a text have reached the upstreams."""
    return sum(
        text in str(body) for body in httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()
    )


@pytest.mark.parametrize("path", PLACES)
def test_a_flagged_tool_result(gateway: Any, upstream: str, path: str) -> None:
    suffix = "-claude" if path == "/v1/messages" else ""
    result = f"{RUDE} Said on {path}."
    body = conversation(path, result)
    got = gateway.http.post(path, json={"model": f"incoming-block{suffix}", **body})
    assert got.status_code == 422
    assert f"{PLACES[path]} of the request (tool_results) was flagged: kind" in got.text
    assert bodies_seen(upstream, result) == 0
    for stream in (False, True):
        got = gateway.http.post(path, json={"model": f"incoming-report{suffix}", "stream": stream, **body})
        assert got.status_code == 200
        assert got.headers["x-aligner-incoming"] == "tool_results@2:kind"
    assert bodies_seen(upstream, result) == 2
