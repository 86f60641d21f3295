"""A model group asked through LiteLLM's own router: what it says, what it counts, and what its errors mean."""

from __future__ import annotations

from typing import Any

import litellm
import pytest
from litellm import exceptions
from litellm.router import Router

from aligner_proxy.correctors import litellm_router
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy_systems.self_refine.litellm_group import ChatGroup


def group(**params: Any) -> ChatGroup:
    told = {"model": "openai/any", "api_key": "none", **params}
    router = Router([{"model_name": "refiner", "litellm_params": told}])
    return ChatGroup("refiner", lambda: router)


async def ask(chat: ChatGroup) -> Any:
    return await chat("Review.", "{}", tokens=50, temperature=0.0, deadline_s=20.0)


async def test_the_router_is_asked_and_its_count_of_tokens_believed() -> None:
    said = await ask(group(mock_response="It is so."))
    assert (said.text, said.finished) == ("It is so.", True)
    assert said.read_tokens > 0
    assert said.written_tokens > 0


async def test_nobody_there_is_an_engine_that_is_away() -> None:
    with pytest.raises(EngineUnavailable):
        await ask(ChatGroup("refiner", lambda: None))
    with pytest.raises(EngineUnavailable):
        await ask(group(api_base="http://127.0.0.1:9/v1"))
    with pytest.raises(EngineUnavailable):
        await ask(ChatGroup("refiner"))


async def test_a_group_that_the_litellm_file_does_not_have_is_a_fault() -> None:
    router = Router([{"model_name": "other", "litellm_params": {"model": "openai/any", "api_key": "none"}}])
    with pytest.raises(EngineFault, match="no such model group"):
        await ask(ChatGroup("refiner", lambda: router))


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (exceptions.RateLimitError("secret", "p", "m"), EngineOverloaded),
        (exceptions.Timeout("secret", "m", "p"), DeadlineExceeded),
        (exceptions.ContextWindowExceededError("secret", "m", "p"), AnswerTooLong),
        (exceptions.ServiceUnavailableError("secret", "p", "m"), EngineUnavailable),
        (exceptions.AuthenticationError("secret", "p", "m"), EngineFault),
    ],
)
def test_what_litellm_raises_has_a_meaning_and_loses_its_text(error: Exception, meant: type[CorrectionError]) -> None:
    made = litellm_router.translate_error(error)
    assert type(made) is meant
    assert "secret" not in str(made)


def test_an_upstream_that_counts_nothing_is_counted_by_length() -> None:
    done = litellm.ModelResponse(choices=[{"message": {"content": "x" * 300}, "finish_reason": "length"}])
    done.usage = None  # type: ignore[attr-defined]
    said = litellm_router.reply_of(done)
    assert (said.written_tokens, said.finished) == (100, False)


@pytest.mark.parametrize("done", [None, litellm.ModelResponse(choices=[{"message": {"content": None}}])])
def test_an_answer_without_a_text_is_invalid(done: Any) -> None:
    with pytest.raises(InvalidOutput):
        litellm_router.reply_of(done)
