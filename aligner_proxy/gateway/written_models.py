"""Every name of a model that a client wrote into one request: in its path, its query and its body, there even twice.

LiteLLM answers by one of them: that of the path, else of the query (chat and text completions), else the last one of
the body. Which it was, its `data` says; what else was written only makes the policy stricter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from litellm.proxy._types import ProxyException
from starlette.requests import Request

_IN_PATH = re.compile(r"/(?:engines|openai/deployments)/(.+?)(?:/chat)?/completions/?\s*\Z", re.DOTALL)
_KEY = b'"model"'
_ESCAPED = b"\\u006"
"""How each letter of the key begins where it is written by its number."""
_doubled: ContextVar[tuple[str, ...]] = ContextVar("aligner_proxy_doubled_models", default=())
"""The names in a body with several `model` keys; LiteLLM's parser keeps the last one."""


def of_data(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a request as LiteLLM hands it to hooks, each once."""
    request = data.get("proxy_server_request")
    if not isinstance(request, Mapping):
        return ()
    body = request.get("body")
    in_body = (body.get("model"),) if isinstance(body, Mapping) else ()
    names = (*_in_address(str(request.get("url") or "")), *in_body, *_doubled.get())
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def outside_the_body(request: Request) -> tuple[str, ...]:
    """The names in the path and the query of a request, by which LiteLLM routes without comparing them with a key's."""
    in_path = request.path_params.get("model")
    names = (*request.query_params.getlist("model"), *((in_path,) if isinstance(in_path, str) else ()))
    return tuple(dict.fromkeys(names))


def note_doubled(body: bytes) -> None:
    """Note the names of a JSON body before it is parsed; raises HTTP 400 where it cannot be read for certain."""
    _doubled.set(_all_models(body) if body.count(_KEY) > 1 or _ESCAPED in body else ())


def _in_address(url: str) -> Iterator[str]:
    if "?" not in url and "/completions" not in url:
        return
    parts = urlsplit(url)
    match = _IN_PATH.search(unquote(parts.path))
    if match is not None:
        yield match[1]
    yield from (value for name, value in parse_qsl(parts.query) if name == "model")


def _all_models(body: bytes) -> tuple[str, ...]:
    """The values of all `model` keys of the object itself, not of those inside it."""
    try:
        # Numbers are never looked at, and one of many digits would be refused as an int.
        pairs = json.loads(body, object_pairs_hook=tuple, parse_int=float)
    except (ValueError, RecursionError):
        kind = "invalid_request_error"
        raise ProxyException("the body is no JSON that is the same to every reader", kind, "body", 400) from None
    top = pairs if isinstance(pairs, tuple) else ()
    return tuple(value for key, value in top if key == "model" and isinstance(value, str))
