"""A guardrail that does nothing, in each of the hooks that ours has: what LiteLLM takes to call any guardrail."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from litellm.integrations.custom_guardrail import CustomGuardrail


class IdleGuardrail(CustomGuardrail):
    """Returns every request and every answer as it is."""

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """The request as it is."""
        return data

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> None:
        """Nothing, which leaves the answer as it is."""

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Nothing."""

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: AsyncIterable[Any], request_data: Any
    ) -> AsyncGenerator[Any, None]:
        """The items of the stream as they are."""
        async for item in response:
            yield item

    async def async_post_call_response_headers_hook(self, *_: Any, **__: Any) -> None:
        """No headers."""
