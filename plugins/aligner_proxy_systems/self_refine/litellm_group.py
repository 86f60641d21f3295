"""Chat model of a LiteLLM model group, called through the proxy's own router.

The router calls the model and not the proxy. So no guardrail sees the call, its answer is not corrected again, and
LiteLLM's cache is neither read nor written. LiteLLM handles load balancing, cooldowns and fallbacks.
"""

from __future__ import annotations

import asyncio
from typing import Any

from litellm.router import Router

from aligner_proxy.correctors.litellm_router import ERRORS, UNTOUCHED, Routers, proxy_router, reply_of, translate_error
from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.errors import DeadlineExceeded, EngineFault, EngineUnavailable


class ChatGroup:
    """A model group of LiteLLM as a `ChatModel`, by default one of the proxy in this process. The router is fetched for
    every call by `get_router`, because LiteLLM replaces it when its models change.
    """

    def __init__(self, group: str, get_router: Routers = proxy_router) -> None:
        self._group = group
        self._get_router = get_router

    async def __call__(self, system: str, user: str, *, tokens: int, temperature: float, deadline_s: float) -> Reply:
        """Ask the model once; LiteLLM's retries are off, because the caller's policy decides about retries."""
        messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        options: dict[str, Any] = {"max_tokens": tokens, "temperature": temperature, "timeout": deadline_s}
        try:
            async with asyncio.timeout(deadline_s):
                router = self._available_router()
                response = await router.acompletion(self._group, messages, **options, num_retries=0, **UNTOUCHED)
        except TimeoutError:
            raise DeadlineExceeded("the model group did not answer in time") from None
        except ERRORS as error:
            raise translate_error(error) from None
        return reply_of(response)

    def _available_router(self) -> Router:
        """Return the router; raises `EngineUnavailable` outside the gateway, `EngineFault` without such a group."""
        router = self._get_router()
        if router is None:
            raise EngineUnavailable("LiteLLM's models can be called only inside the gateway")
        if not router.get_model_list(model_name=self._group):
            raise EngineFault("LiteLLM has no such model group; check the corrector's model against the model_list")
        return router
