"""Uses of LiteLLM beyond its public interface: all that the hooks need besides their arguments."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from litellm.litellm_core_utils.served_output_texts import record_served_output_texts, served_stream_output_texts
from litellm.proxy._types import ProxyException
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.guardrails import Mode as ModeByTag

from aligner_proxy.gateway.disconnect import watch


def config_folder() -> Path:
    """Folder of the LiteLLM YAML, to which paths are relative."""
    from litellm.proxy import proxy_server  # importing it takes seconds, except inside the proxy

    path = proxy_server.user_config_file_path
    return Path(path).resolve().parent if path else Path.cwd()


def watch_clients() -> None:
    """Watch for clients that disconnect; does nothing outside the proxy."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    if server is not None:
        watch(server.app)


def at_shutdown(last: Callable[[], Awaitable[object]]) -> None:
    """Run `last` when the proxy has served its last request, before it shuts down."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    if server is None:
        return
    before = server.proxy_shutdown_event

    async def shutdown(*given: Any, **named: Any) -> None:
        await last()
        await before(*given, **named)

    server.proxy_shutdown_event = shutdown  # type: ignore[attr-defined]


def bound_fallbacks(too_many: Callable[[object], bool], message: str) -> None:
    """Refuse long lists of fallbacks (HTTP 400) where LiteLLM checks a body, which it does before any hook runs.

    It compares each entry with some hundred names of parameters.
    """
    from litellm.proxy.auth import auth_utils

    values_of = auth_utils._iter_fallback_field_values
    if getattr(values_of, "bounded", False):
        return

    def bounded(request_body: Mapping[str, object]) -> Iterator[object]:
        for value in values_of(request_body):
            if too_many(value):
                raise ProxyException(message, "invalid_request_error", "fallbacks", 400)
            yield value

    bounded.bounded = True  # type: ignore[attr-defined]
    auth_utils._iter_fallback_field_values = bounded


def with_pre_call(event_hook: Any) -> Any:
    """The guardrail's modes with pre_call, without which LiteLLM does not call its pre-call hook."""
    if event_hook is None or isinstance(event_hook, ModeByTag):
        return event_hook
    hooks = event_hook if isinstance(event_hook, list) else [event_hook]
    names = [GuardrailEventHooks(hook).value for hook in hooks]
    return [GuardrailEventHooks(name) for name in dict.fromkeys(["pre_call", *names])]


def log_served(data: dict[str, Any], items: Sequence[object]) -> None:
    """Log the served text of a stream, which LiteLLM itself does not because our comment is no chunk."""
    details = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    if isinstance(details, dict):
        record_served_output_texts(details, served_stream_output_texts(items))
