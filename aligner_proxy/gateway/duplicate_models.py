"""Bodies of requests with several `model` keys, of which LiteLLM's parser keeps the last one.

Another reader may take the first, so every one of the names counts where a policy is chosen.
"""

from __future__ import annotations

import json
from contextvars import ContextVar

from litellm.proxy._types import ProxyException

_KEY = b'"model"'
_ESCAPED = b"\\u006"
"""How each letter of the key begins where it is written by its number."""
names: ContextVar[tuple[str, ...]] = ContextVar("aligner_proxy_doubled_models", default=())
"""The names in the body of this request, where it has the key several times."""


def note_models(body: bytes) -> None:
    """Note the names of a JSON body before it is parsed; raises HTTP 400 where it cannot be read for certain."""
    names.set(_all_models(body) if body.count(_KEY) > 1 or _ESCAPED in body else ())


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
