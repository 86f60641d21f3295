"""How does a LiteLLM model group serve as the aligner? Through the router that the proxy itself uses.

Balancing, retries, cooldowns and fallbacks are LiteLLM's. The router calls the model, not the proxy, so no hook of ours
sees this call, and nothing it answers is corrected again or taken from LiteLLM's cache.
"""

from __future__ import annotations

from typing import Any

import litellm
from litellm.constants import openai_text_completion_compatible_providers
from litellm.router import Router

from aligner_proxy.asked_router import ERRORS, UNTOUCHED, Routers, meant, proxy_router
from aligner_proxy.engine.completions import ServedModel, parse_completion, request_body
from aligner_proxy.engine.patience import NotReady
from aligner_proxy.engine.protocol import Completion, CompletionRequest
from aligner_proxy.errors import EngineFault
from aligner_proxy.waiting import within

_COMPLETE = {"text-completion-openai", "azure_text", *openai_text_completion_compatible_providers}


class GroupCompleter:
    """Satisfies `Completer`. `router` is asked for every time, because LiteLLM replaces it when its models change."""

    def __init__(self, group: str, router: Routers, *, predicts: bool = False) -> None:
        self._group, self._router, self._predicts = group, router, predicts

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
