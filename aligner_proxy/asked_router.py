"""How is LiteLLM's own router asked, and what do its exceptions mean? For whatever of ours calls a model group.

The router calls the model, not the proxy, so no hook of ours sees the call, and nothing that it answers is corrected
again or taken from LiteLLM's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
from litellm import exceptions
from litellm.router import Router
from litellm.types.router import RouterRateLimitError

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
