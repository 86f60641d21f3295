"""The guardrail outside of a proxy: a body comes back as a client would get it, and nothing else is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.gateway.batch_guardrail import BatchGuardrail, FixedPolicies
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.reload import ActiveConfig
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.types import Objective, Policy, Status
from tests.support.scripted import SegmentEngine

RUDE = "The harbour opens at six. You are a fool."
POLITE = "The harbour opens at six."
BODY = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": RUDE}}]}
FILE = """
objectives: {kind: "Kindness: the response should never insult the reader"}
audit: required
routes:
  - {match: {model: gpt}, name: gpt, objectives: [kind]}
  - {match: {model: none}, name: none, objectives: [kind], on_error: block, max_answer_chars: 5, on_skip: block}
tenants:
  - {match: {team: acme}, name: acme, allow_bypass: true, deny: [concise]}
"""


def make_guard(folder: Path, policy: Policy | None = None) -> BatchGuardrail:
    file = registry.parse_policies(FILE, folder / "policies.yaml")
    engine = SegmentEngine(lambda text: 4.0 if "fool" in text else -4.0)
    fixed = FixedPolicies(ActiveConfig.from_file(file))
    return BatchGuardrail(fixed, Pipeline(engine), 5.0, policy, {"team_id": "acme"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def text_of(body: dict[str, Any]) -> str:
    return str(body["choices"][0]["message"]["content"])


async def test_a_body_is_corrected_and_nothing_is_written(home: Path) -> None:
    corrected = await make_guard(home.parent).correct_body(BODY, {"model": "gpt"}, "line-1")
    assert (text_of(corrected.body), text_of(BODY)) == (POLITE, RUDE)
    assert (corrected.state.status, corrected.state.policy.name) == (Status.CORRECTED, "gpt+acme")
    assert [edit["answer"] for edit in corrected.edits] == [0]
    assert not home.exists()


async def test_a_request_in_a_file_brings_no_headers(home: Path) -> None:
    headers = {"x-aligner-bypass": "1", "x-aligner-objectives": "concise"}
    request = {"model": "gpt", "proxy_server_request": {"headers": headers}}
    assert text_of((await make_guard(home.parent).correct_body(BODY, request, "line-1")).body) == POLITE


async def test_what_the_policy_blocks_says_why(home: Path) -> None:
    with pytest.raises(Blocked) as error:
        await make_guard(home.parent).correct_body(BODY, {"model": "none"}, "line-1")
    assert error.value.reason == "too_long"


async def test_a_policy_of_its_own_replaces_those_of_the_file(home: Path) -> None:
    policy = Policy("own", objectives=(Objective("kind", "Kindness: be kind"),))
    corrected = await make_guard(home.parent, policy).correct_body(BODY, {"model": "none"}, "line-1")
    assert (text_of(corrected.body), corrected.state.policy.name) == (POLITE, "own")


async def test_a_body_that_needs_no_change_is_the_same_object(home: Path) -> None:
    body = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": POLITE}}]}
    corrected = await make_guard(home.parent).correct_body(body, {"model": "gpt"}, "line-1")
    assert corrected.body is body
    assert (corrected.state.status, corrected.edits) == (Status.UNCHANGED, ())
