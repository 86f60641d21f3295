"""What a LiteLLM request holds about its answer, whatever the endpoint.

Reads the request data that LiteLLM hands to the hooks (a dict full of live objects; nothing here copies or keeps it).
Only keys and structure are looked at; texts are taken from messages and prompts alone.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

from aligner_proxy.types import Turn

# Besides OpenAI's response_format: the names under which vLLM and llama.cpp take a grammar for the output.
_GRAMMARS = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar")
_NO_STORE = "no-store"


def structured(data: Mapping[str, Any]) -> bool:
    """Whether the client wants output that stays machine-readable, by the fields of any endpoint."""
    return bool(_formats(data)) or constrained(data)


def constrained(data: Mapping[str, Any]) -> bool:
    """Whether the client bound the output by something that we could not check after an edit."""
    extra = data.get("extra_body")
    places = (data, extra) if isinstance(extra, Mapping) else (data,)
    grammar = any(place.get(name) for place in places for name in _GRAMMARS)
    return grammar or any(_kind(format_) not in ("json_object", "json_schema") for format_ in _formats(data))


def json_schema(data: Mapping[str, Any]) -> str | None:
    """The schema that the output must meet, as JSON text; "false" (which nothing meets) where it is none."""
    formats = [format_ for format_ in _formats(data) if _kind(format_) == "json_schema"]
    if not formats:
        return None
    # Only chat has it one level deeper, and may leave it out. No endpoint knows two schemas for one answer.
    chat = formats[0] is data.get("response_format")
    holder = _inner(formats[0], "json_schema") if chat else formats[0]
    schema = holder.get("schema", chat) if isinstance(holder, Mapping) and len(formats) == 1 else False
    try:
        return json.dumps(schema)
    except (TypeError, ValueError):
        return "false"


def _formats(data: Mapping[str, Any]) -> list[object]:
    """What the output must be, if anything but plain text."""
    formats = (
        data.get("response_format"),  # chat
        _inner(data.get("text"), "format"),  # Responses
        data.get("output_format"),  # Messages, and its newer form
        _inner(data.get("output_config"), "format"),
    )
    return [format_ for format_ in formats if _kind(format_) not in (None, "text")]


def _kind(format_: object) -> object:
    return format_.get("type") if isinstance(format_, Mapping) else format_


def _inner(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None


def system(text: object) -> tuple[Turn, ...]:
    """What Responses calls `instructions` and Messages `system`, as the turn that it is."""
    return turns([{"role": "system", "content": text}]) if text else ()


def turns(messages: object, roles: Container[str] | None = None) -> tuple[Turn, ...]:
    """The turns before the answer, or those of these roles; of a turn made of parts, the text parts."""
    if not isinstance(messages, (list, tuple)):
        return ()
    by_role = ((str(m.get("role") or ""), m) for m in messages if isinstance(m, Mapping))
    return tuple(Turn(role, _text(m.get("content"))) for role, m in by_role if roles is None or role in roles)


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
    given = request.get("headers") if isinstance(request, Mapping) else None
    return {str(name).lower(): str(value) for name, value in given.items()} if isinstance(given, Mapping) else {}


def no_store(data: Mapping[str, Any], response: object = None) -> bool:
    """`Cache-Control: no-store` of client or upstream, or LiteLLM's own body field for the same wish."""
    control = data.get("cache")
    if isinstance(control, Mapping) and control.get("no-store"):
        return True
    details = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    received = _inner(_inner(details, "response_headers"), "cache-control")
    controls = (headers(data).get("cache-control"), received, _upstream_cache_control(response))
    return any(_NO_STORE in str(control or "").lower() for control in controls)


def _upstream_cache_control(response: object) -> object:
    """The upstream's Cache-Control, which LiteLLM keeps beside a response, a chunk or a whole stream."""
    hidden = getattr(response, "_hidden_params", None)
    given = hidden.get("additional_headers") if hidden is not None and hasattr(hidden, "get") else None
    return _inner(given, "llm_provider-cache-control")


def buckets(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """LiteLLM's metadata dicts, the one that the proxy itself filled first. Which of the two depends on the route."""
    both = [data.get(name) for name in ("metadata", "litellm_metadata")]
    given = [bucket for bucket in both if isinstance(bucket, dict)]
    return sorted(given, key=lambda bucket: not any(str(name).startswith("user_api_key") for name in bucket))
