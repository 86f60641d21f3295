"""How is a LiteLLM model group asked a chat? Through the router that the proxy itself uses.

The router calls the model, not the proxy: no guardrail sees the call, so nothing that it answers is corrected again,
and nothing comes from or goes into LiteLLM's cache. Balancing, cooldowns and fallbacks are LiteLLM's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from litellm.router import Router

from aligner_proxy.asked_router import ERRORS, UNTOUCHED, Routers, meant, proxy_router
from aligner_proxy.errors import DeadlineExceeded, EngineFault, EngineUnavailable, InvalidOutput

_CHARS_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said, and the tokens that it took; `finished` unless it was cut off."""

    text: str
    read: int
    written: int
    finished: bool


class Chat(Protocol):
    """Asks a model one thing. Raises `CorrectionError` subclasses only."""

    async def __call__(self, system: str, user: str, *, tokens: int, temperature: float, deadline_s: float) -> Said:
        """At most `tokens` are written, within the deadline."""
        ...


class ChatGroup:
    """Satisfies `Chat`. `router` is asked for every time, because LiteLLM replaces it when its models change."""

    def __init__(self, group: str, router: Routers) -> None:
        self._group, self._router = group, router

    async def __call__(self, system: str, user: str, *, tokens: int, temperature: float, deadline_s: float) -> Said:
        """Ask the group."""
        messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        wishes: dict[str, Any] = {"max_tokens": tokens, "temperature": temperature, "timeout": deadline_s}
        try:
            async with asyncio.timeout(deadline_s):
                done = await self._there().acompletion(self._group, messages, **wishes, num_retries=0, **UNTOUCHED)
        except TimeoutError:
            raise DeadlineExceeded("the model group did not answer in time") from None
        except ERRORS as error:
            raise meant(error) from None
        return _said(done)

    def _there(self) -> Router:
        router = self._router()
        if router is None:
            raise EngineUnavailable("the models of LiteLLM are only there inside the gateway")
        if not router.get_model_list(model_name=self._group):
            raise EngineFault("LiteLLM has no such model group; check the corrector's model against the model_list")
        return router


def in_proxy(group: str) -> ChatGroup:
    """A model group of the proxy that this process is."""
    return ChatGroup(group, proxy_router)


def _said(done: Any) -> Said:
    try:
        choice = done.choices[0]
        text, why = choice.message.content, choice.finish_reason
    except (AttributeError, IndexError):
        text = why = None
    if not isinstance(text, str):
        raise InvalidOutput("the model group answered without a text")
    usage = getattr(done, "usage", None)
    read, written = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    # An upstream that counts nothing is counted by length, so that no bound is without effect.
    return Said(text, read or 0, written or len(text) // _CHARS_PER_TOKEN, finished=why in ("stop", "eos", None))
