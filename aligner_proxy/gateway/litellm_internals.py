"""Which parts of LiteLLM that are no public interface do we lean on? All that the hooks need besides what hooks get."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from litellm.litellm_core_utils.served_output_texts import record_served_output_texts, served_stream_output_texts
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.guardrails import Mode as ModeByTag

from aligner_proxy.gateway.disconnect import watch


def config_folder() -> Path:
    """Folder of the LiteLLM YAML, from which relative paths count."""
    from litellm.proxy import proxy_server  # importing it takes seconds; inside the proxy it is there already

    path = proxy_server.user_config_file_path
    return Path(path).resolve().parent if path else Path.cwd()


def watch_clients() -> None:
    """Inside the proxy its application is there already; outside nobody connects."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    if server is not None:
        watch(server.app)


def at_shutdown(last: Callable[[], Awaitable[object]]) -> None:
    """Let `last` be done when the proxy has served its last request, before it lets go of everything."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    if server is None:
        return
    before = server.proxy_shutdown_event

    async def then(*given: Any, **named: Any) -> None:
        await last()
        await before(*given, **named)

    server.proxy_shutdown_event = then  # type: ignore[attr-defined]


def with_pre_call(event_hook: Any) -> Any:
    """LiteLLM calls a guardrail's pre-call hook only in mode pre_call; whoever corrects answers needs both."""
    if event_hook is None or isinstance(event_hook, ModeByTag):
        return event_hook
    wanted = list(event_hook) if isinstance(event_hook, list) else [event_hook]
    names = [GuardrailEventHooks(name).value for name in wanted]
    return [GuardrailEventHooks(name) for name in dict.fromkeys(["pre_call", *names])]


def log_served(data: dict[str, Any], items: Sequence[object]) -> None:
    """LiteLLM logs the served text of a stream only if all its items are chunks; our comment is none."""
    details = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    if isinstance(details, dict):
        record_served_output_texts(details, served_stream_output_texts(items))
