"""A guardrail that does nothing: what does LiteLLM itself take for having one?"""

from __future__ import annotations

from typing import Any, ClassVar

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks


class IdleGuardrail(CustomGuardrail):
    """The hooks that the gateway's own guardrail has, without anything in them."""

    use_native_lifecycle_hooks: ClassVar[bool] = True

    def __init__(self, event_hook: Any = None, **settings: Any) -> None:
        both = [GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call]
        super().__init__(event_hook=both, **settings)

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> Any:
        """Take the request as it is."""
        return data

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> Any:
        """Leave the response as it is."""
