"""A LiteLLM model group as the aligner: a real router, in front of real small servers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import litellm
import pytest
from litellm.router import Router
from starlette.responses import JSONResponse

from aligner_proxy import prompts
from aligner_proxy.correctors.litellm_router import GroupCompleter
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.errors import (
    ConfigError,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineUnavailable,
)
from tests.correctors.failures import FAILURES
from tests.support import tiny
from tests.support.serving import Completions, completing, refused_port

# LiteLLM drops aiohttp sessions without closing them, in the middle of a test, too.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
FAMILY = prompts.TEMPLATES["ultrafeedback"]


def router(bases: Sequence[str], model: str = "text-completion-openai/big", **settings: Any) -> Router:
    """A router with one group, one deployment an address."""
    deployments = [
        {"model_name": "aligners", "litellm_params": {"model": model, "api_base": base, "api_key": "k"}}
        for base in bases
    ]
    return Router(model_list=deployments, **{"num_retries": 0, **settings})


def aligner(made: Router | None, group: str = "aligners") -> CompletionsAligner:
    """The group as an aligner."""
    return CompletionsAligner(GroupCompleter(group, lambda: made), FAMILY)


@pytest.fixture(autouse=True)
async def quiet() -> AsyncIterator[None]:
    """LiteLLM tells what it has done in tasks of its own, and keeps its connections; both end before the loop does."""
    yield
    for session in [found for found in gc.get_objects() if type(found) is aiohttp.ClientSession]:
        await session.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.mark.parametrize("model", ["text-completion-openai/big", "hosted_vllm/big", "openai/big"])
async def test_the_prompt_arrives_as_it_is_and_the_text_comes_back(model: str) -> None:
    request = tiny.request("The harbour opens at nine.")
    server = Completions(lambda body: "The harbour opens at ten.")
    async with completing(server) as base:
        done = await aligner(router([base], model)).align(request)
    [asked] = server.asked
    expected = prompts.render(FAMILY, request.turns[0].content, request.answer, request.objectives)
    assert asked["prompt"] == expected.text
    assert asked["prompt"].endswith("| Edit: ")
    assert (asked["model"], asked["temperature"]) == ("big", 0)
    assert "cache" not in asked
    assert done.text == "The harbour opens at ten."


async def test_who_the_group_is() -> None:
    made = router(["http://a/v1", "http://b/v1"])
    about = await aligner(made).info()
    assert (about.model, about.device, about.has_head) == ("aligners", "litellm:aligners", False)
    other = await aligner(router(["http://a/v1"], "text-completion-openai/other")).info()
    assert other.content_hash != about.content_hash


async def test_litellm_chooses_among_deployments_and_goes_around_one_that_is_away() -> None:
    server = Completions(lambda body: "Good.")
    async with completing(server) as base:
        away = f"http://127.0.0.1:{refused_port()}/v1"
        engine = aligner(router([away, base], num_retries=12, retry_after=0))
        for _ in range(3):
            assert (await engine.align(tiny.request())).text == "Good."


async def test_nothing_is_told_to_loggers_or_taken_from_litellms_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm.integrations.custom_logger import CustomLogger

    class Listening(CustomLogger):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[str] = []

        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            self.heard.append(str(kwargs.get("model")))

    listener = Listening()
    monkeypatch.setattr(litellm, "callbacks", [listener])
    server = Completions(lambda body: f"Answer {len(server.asked)}.")
    async with completing(server) as base:
        made = router([base], cache_responses=True)
        engine = aligner(made)
        said = [(await engine.align(tiny.request())).text for _ in range(2)]
        await asyncio.sleep(0.3)
        assert said == ["Answer 1.", "Answer 2."]
        assert not listener.heard
        await made.atext_completion(model="aligners", prompt="told")
        for _ in range(100):
            await asyncio.sleep(0.05)
            if listener.heard:
                break
        assert listener.heard, "the listener works"


@pytest.mark.parametrize(("said", "error"), FAILURES)
async def test_what_may_go_wrong_has_our_names_and_quotes_nothing(
    said: JSONResponse, error: type[CorrectionError]
) -> None:
    async with completing(Completions(lambda body: said)) as base:
        engine = aligner(router([base]))
        with pytest.raises(error) as caught:
            await engine.align(tiny.request(deadline_s=30))
    assert "SECRET" not in str(caught.value)


async def test_deadline() -> None:
    async with completing(Completions(lambda body: "late", delay_s=20.0)) as base:
        with pytest.raises(DeadlineExceeded):
            await aligner(router([base])).align(tiny.request(deadline_s=0.5))


async def test_groups_that_cannot_be() -> None:
    with pytest.raises(EngineFault, match="no such model group"):
        await aligner(router(["http://a/v1"]), "others").info()
    with pytest.raises(EngineFault, match=r"as a chat.*text-completion-openai"):
        await aligner(router(["http://a/v1"], "openai/gpt-4o")).info()
    with pytest.raises(EngineUnavailable, match="no models yet"):
        await aligner(None).info()


def test_outside_the_gateway_it_cannot_be_reached(tmp_path: Path) -> None:
    from aligner_proxy.gateway.build import open_engine
    from aligner_proxy.policy import config

    path = tmp_path / "policies.yaml"
    path.write_text("aligner: {engine: 'litellm:aligners'}\n")
    with pytest.raises(ConfigError, match="only be reached inside the gateway"):
        open_engine(config.load(path))
    assert open_engine(config.load(path), GroupCompleter) is not None
