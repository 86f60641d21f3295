"""What our hooks or documents count on in the pinned LiteLLM: a test that fails after an upgrade names what moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock

import litellm
import pytest
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.litellm_core_utils.realtime_streaming import RealTimeStreaming
from litellm.llms import get_guardrail_translation_mapping
from litellm.proxy import utils as proxy_utils
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.proxy.policy_engine.pipeline_types import PipelineStep
from litellm.types.utils import CallTypes

from aligner_proxy.gateway.guardrail import AlignerGuardrail
from tests.gateway.test_guardrail import answer, build, data


class Unified(CustomGuardrail):
    """A guardrail that LiteLLM runs by its `apply_guardrail`."""

    def __init__(self, name: str = "unified", **settings: Any) -> None:
        super().__init__(guardrail_name=name, default_on=True, **settings)
        self.runs = 0

    async def apply_guardrail(self, inputs: Any, request_data: Any, input_type: Any, logging_obj: Any = None) -> Any:
        self.runs += 1
        return inputs


class Native(Unified):
    """The same with hooks of its own, as ours has them."""

    use_native_lifecycle_hooks: ClassVar[bool] = True


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    return build(tmp_path, monkeypatch)


async def test_a_check_on_the_model_is_noted_in_the_response(guard: AlignerGuardrail) -> None:
    """By that note LiteLLM leaves out the second run of a guardrail that stands on the model and on the proxy."""
    unified = Unified(event_hook="post_call")
    request, response = {**data(), "guardrails": ["unified"]}, answer("It is so.")
    await unified.async_post_call_success_deployment_hook(request, response, CallTypes.acompletion)
    assert response._hidden_params["guardrail_checks"]
    assert (unified.runs, unified.post_call_already_checked({}, response)) == (1, True)


async def test_no_note_keeps_an_answer_from_ours(guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours checks nothing on the model, so nothing may say that it did; and no answer is hashed to find that out."""
    response = answer("It is so. You fool.")
    marker = guard._post_call_check_marker(response)
    response._hidden_params["guardrail_checks"] = (marker,)
    assert CustomGuardrail.post_call_already_checked(guard, {}, response) is True
    monkeypatch.setattr(guard, "_post_call_check_marker", MagicMock(side_effect=AssertionError))
    assert guard.post_call_already_checked({}, response) is False


def test_pipelines_rewrite_ended_streams_of_every_format_but_text_completions() -> None:
    """For guardrails of others in a pipeline; 1.110 does so for text completions, too."""
    formats = ("acompletion", "atext_completion", "aresponses", "anthropic_messages")
    rewritten = [
        name for name in formats if get_guardrail_translation_mapping(CallTypes(name)).delivers_ended_stream_rewrites
    ]
    assert rewritten == ["acompletion", "aresponses", "anthropic_messages"]


def test_a_pipeline_that_only_detects_streams_live_but_never_with_ours(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    both: list[Any] = [Unified(event_hook="post_call"), guard]
    for each in both:
        each.streaming_buffer_until_moderated = False
    monkeypatch.setattr(litellm, "callbacks", both)
    steps = [
        PipelineStep(guardrail=name, on_pass="allow", on_fail="allow", on_error="allow")
        for name in ("unified", "aligner")
    ]
    assert [proxy_utils._pipeline_step_streams_live(step) for step in steps] == [True, False]


async def test_realtime_asks_no_guardrail_with_hooks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap of ours, which docs/guides/operations.md tells under `Not corrected`."""
    hook = GuardrailEventHooks.realtime_input_transcription
    unified, native = Unified(event_hook=hook), Native("native", event_hook=hook)
    monkeypatch.setattr(litellm, "callbacks", [unified, native])
    stream = RealTimeStreaming(MagicMock(), MagicMock(), MagicMock(), request_data={"metadata": {}})
    assert await stream.run_realtime_guardrails("How are you?") is False
    assert (unified.runs, native.runs) == (1, 0)
