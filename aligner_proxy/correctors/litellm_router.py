"""Completions through a model group of LiteLLM's own router, inside the proxy.

Balancing, retries, cooldowns and fallbacks are LiteLLM's. The router calls the model, not the proxy, so no hook of ours
sees this call, and nothing that it answers is corrected again or taken from LiteLLM's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import litellm
import openai
from litellm import exceptions
from litellm.constants import openai_text_completion_compatible_providers
from litellm.router import Router
from litellm.types.router import RouterRateLimitError

from aligner_proxy.concurrency import within
from aligner_proxy.engine.api import Completion, CompletionRequest
from aligner_proxy.engine.client.completions import ServedModel, parse_completion, request_body
from aligner_proxy.engine.client.retry import NotReady
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
)

Routers = Callable[[], Router | None]
"""Asked for every time, because LiteLLM replaces its router when its models change."""
ERRORS = (openai.OpenAIError, exceptions.BudgetExceededError, RouterRateLimitError)
"""What a call of the router may raise."""
UNTOUCHED: dict[str, Any] = {
    # A prompt quotes a tenant's conversation, who may have asked that nobody logs or stores it. Costs are still told.
    "no-log": True,
    "caching": False,
    "cache": {"no-cache": True, "no-store": True},
}
_COMPLETE = {"text-completion-openai", "azure_text", *openai_text_completion_compatible_providers}


def proxy_router() -> Router | None:
    """The router of the proxy that this process is."""
    from litellm.proxy import proxy_server  # importing it takes seconds; inside the proxy it is there already

    router: Router | None = proxy_server.llm_router
    return router


def meant(error: Exception) -> CorrectionError:
    """What LiteLLM's exception is among ours; of its text nothing is kept, it may quote the prompt."""
    kinds: tuple[tuple[type[Exception], Callable[[], CorrectionError]], ...] = (
        (
            exceptions.ContextWindowExceededError,
            lambda: AnswerTooLong("prompt and answer do not fit the model's window"),
        ),
        (exceptions.RateLimitError, lambda: EngineOverloaded("the model group is full")),
        (exceptions.Timeout, lambda: DeadlineExceeded("the model group did not answer in time")),
        (exceptions.APIConnectionError, lambda: EngineUnavailable("no deployment of the model group can be reached")),
        (RouterRateLimitError, lambda: EngineUnavailable("every deployment of the model group is left alone for now")),
        (exceptions.ServiceUnavailableError, lambda: EngineUnavailable("no deployment of the model group is ready")),
    )
    found = next((make() for kind, make in kinds if isinstance(error, kind)), None)
    if found is None and _unreached(error):
        found = EngineUnavailable("no deployment of the model group can be reached")
    return found or EngineFault(f"LiteLLM raised {type(error).__name__}")


def _unreached(error: BaseException | None) -> bool:
    """Whether a connection could not be made or was lost: LiteLLM tells that as an internal server error."""
    while error is not None:
        if isinstance(error, openai.APIConnectionError):
            return True
        error = error.__cause__ or error.__context__
    return False


class GroupCompleter:
    """Satisfies `Completer`. `router` is asked for every time, because LiteLLM replaces it when its models change."""

    def __init__(self, group: str, router: Routers, *, predicts: bool = False) -> None:
        self._group = group
        self._router = router
        self._predicts = predicts

    async def about(self) -> ServedModel:
        """The group and the models in it; a fault when the LiteLLM file has no such group."""
        models = sorted({entry["litellm_params"]["model"] for entry in self._deployments()})
        return ServedModel(self._group, {"models": models}, None, f"litellm:{self._group}")

    async def complete(self, request: CompletionRequest, deadline_s: float) -> Completion:
        """Continue one text within the deadline."""
        self._deployments()
        body = request_body(request, self._group, predicts=self._predicts)
        try:
            async with within(deadline_s):
                done = await self._there().atext_completion(**body, timeout=deadline_s, **UNTOUCHED)
        except ERRORS as error:
            raise meant(error) from None
        return parse_completion(done.model_dump())

    async def aclose(self) -> None:
        """The router is LiteLLM's."""

    def _there(self) -> Router:
        router = self._router()
        if router is None:
            raise NotReady("LiteLLM has no models yet")
        return router

    def _deployments(self) -> list[dict[str, Any]]:
        listed: Any = self._there().get_model_list(model_name=self._group)
        found: list[dict[str, Any]] = list(listed or ())
        if not found:
            raise EngineFault("LiteLLM has no such model group; check aligner.engine against the model_list")
        chats = sorted({name for entry in found if not _completes(name := entry["litellm_params"]["model"])})
        if chats:
            raise EngineFault(
                f"the model group holds {', '.join(chats)}, which LiteLLM would ask as a chat; an aligner continues a "
                "text: use text-completion-openai/NAME or hosted_vllm/NAME"
            )
        return found


def _completes(model: str) -> bool:
    """Whether LiteLLM asks such a deployment at /v1/completions, with the prompt as it is."""
    name, provider, *_ = litellm.get_llm_provider(model)
    return provider in _COMPLETE or (provider == "openai" and name not in litellm.open_ai_chat_completion_models)


def in_proxy(group: str) -> GroupCompleter:
    """A model group of the proxy that this process is."""
    return GroupCompleter(group, proxy_router)
