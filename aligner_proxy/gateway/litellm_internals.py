"""Uses of LiteLLM beyond its public interface: all that the hooks need besides their arguments."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from litellm.litellm_core_utils.served_output_texts import record_served_output_texts, served_stream_output_texts
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.guardrails import Mode as ModeByTag

from aligner_proxy.gateway import readiness
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


def count_in_readiness(reason: readiness.Reason) -> None:
    """Let a reason count in the proxy's /health/readiness; does nothing outside the proxy."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    if server is not None:
        readiness.count_in(server.app, reason)


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
