"""What does a LiteLLM request say about its answer, whatever the endpoint?

Reads the request data that LiteLLM hands to the hooks (a dict full of live objects; nothing here copies or keeps it).
Only keys and structure are looked at; texts are taken from messages and prompts alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aligner_proxy.types import Turn

# Besides OpenAI's response_format: the names under which vLLM and llama.cpp take a grammar for the output.
_GRAMMARS = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar")
_NO_STORE = "no-store"


def structured(data: Mapping[str, Any]) -> bool:
    """Whether the client asked for output that must stay machine-readable."""
    wanted = data.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else wanted
    if kind is not None and kind != "text":
        return True
    extra = data.get("extra_body")
    places = (data, extra) if isinstance(extra, Mapping) else (data,)
    return any(place.get(name) for place in places for name in _GRAMMARS)


def turns(messages: object) -> tuple[Turn, ...]:
    """The conversation before the answer; of a turn made of parts, the text parts."""
    if not isinstance(messages, (list, tuple)):
        return ()
    return tuple(Turn(str(m.get("role") or ""), _text(m.get("content"))) for m in messages if isinstance(m, Mapping))


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        return ""
    return "\n".join(_part_texts(content))


def _part_texts(parts: Iterable[object]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            yield part["text"]


def headers(data: Mapping[str, Any]) -> dict[str, str]:
    """The client's request headers, names in lower case."""
    request = data.get("proxy_server_request")
    found = request.get("headers") if isinstance(request, Mapping) else None
    return {str(name).lower(): str(value) for name, value in found.items()} if isinstance(found, Mapping) else {}


def no_store(data: Mapping[str, Any], response: object = None) -> bool:
    """`Cache-Control: no-store` of client or upstream, or LiteLLM's own body field for the same wish."""
    control = data.get("cache")
    if isinstance(control, Mapping) and control.get("no-store"):
        return True
    return any(_NO_STORE in said.lower() for said in (headers(data).get("cache-control", ""), _said_upstream(response)))


def _said_upstream(response: object) -> str:
    """The upstream's Cache-Control, which LiteLLM keeps beside a response or a chunk."""
    hidden = getattr(response, "_hidden_params", None)
    found = hidden.get("additional_headers") if hidden is not None and hasattr(hidden, "get") else None
    return str(found.get("llm_provider-cache-control") or "") if isinstance(found, Mapping) else ""


def buckets(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """LiteLLM's metadata dicts, the one that the proxy itself filled first. Which of the two depends on the route."""
    found = [data.get(name) for name in ("metadata", "litellm_metadata")]
    kept = [bucket for bucket in found if isinstance(bucket, dict)]
    return sorted(kept, key=lambda bucket: not any(str(name).startswith("user_api_key") for name in bucket))
