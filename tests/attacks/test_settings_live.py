"""LiteLLM alone, without `serve`, whose file leaves the guardrail out in every way, under policies that enforce."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.attacks.attack import Attack, rows
from tests.e2e.clients import Streamed
from tests.e2e.conftest import deployment, engine, folder, proxies, tenants, upstream
from tests.e2e.deployment import CLAUDE, INSTRUCT, Deployment

__all__ = ["deployment", "engine", "folder", "proxies", "tenants", "upstream"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


class LeavesOut(Deployment):
    """A LiteLLM that hands the guardrail nothing and throws away what it returns, if it may."""

    def litellm(self, guarded: bool) -> dict[str, Any]:
        """LiteLLM's YAML."""
        settings = super().litellm(guarded)
        for entry in settings.get("guardrails", ()):
            entry["litellm_params"] |= {
                "mode": "during_call",
                "default_on": False,
                "stream_scope": "non_streaming",
                "run_in_parallel": True,
                "scan_raw_request": True,
            }
        return settings


DEPLOYMENT = LeavesOut(()).model("gpt").model("claude", CLAUDE).model("instruct", INSTRUCT)
HOLDS = "the answer is corrected"
TRIED = "every setting at once by which LiteLLM leaves the guardrail out"
WIRES = rows(
    ("live-settings-chat", "LiteLLM file", f"chat: {TRIED}", HOLDS, "chat"),
    ("live-settings-text", "LiteLLM file", f"text: {TRIED}", HOLDS, "complete"),
    ("live-settings-responses", "LiteLLM file", f"responses: {TRIED}", HOLDS, "respond"),
    ("live-settings-messages", "LiteLLM file", f"messages: {TRIED}", HOLDS, "message"),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", WIRES)
def test_where_policies_enforce_every_answer_is_corrected(attack: Attack, stream: bool, tenants: Any) -> None:
    got: httpx.Response = getattr(tenants["acme"], attack.payload)("rude settings", stream=stream)
    assert got.status_code == httpx.codes.OK, got.text
    assert "You are an idiot" not in got.text
    if stream:
        comments = Streamed(got.status_code, got.headers, got.text).comments
        assert comments[-1].startswith(": aligner status=corrected")
    else:
        assert got.headers["x-aligner-status"] == "corrected"
