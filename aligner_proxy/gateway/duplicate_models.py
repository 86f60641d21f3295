"""Finds duplicate `model` keys in a request body, of which LiteLLM's parser keeps only the last.

Another parser may use the first, so every name counts when the policy is chosen.
"""

from __future__ import annotations

import json
from contextvars import ContextVar

from litellm.proxy._types import ProxyException

_KEY = b'"model"'
_ESCAPED = b"\\u006"
"""Start of an escaped letter, which could hide the key."""
body_model_names: ContextVar[tuple[str, ...]] = ContextVar("aligner_proxy_doubled_models", default=())
"""All model names in the body of this request, if the key may occur several times."""


def note_model_names(body: bytes) -> None:
    """Store the model names of a JSON body in `body_model_names` before it is parsed; HTTP 400 if it is ambiguous."""
    body_model_names.set(_all_models(body) if body.count(_KEY) > 1 or _ESCAPED in body else ())


def _all_models(body: bytes) -> tuple[str, ...]:
    """The values of all `model` keys of the outer object, without those of nested objects."""
    try:
        # Numbers are not used here, and parsing one with very many digits as an int would fail.
        pairs = json.loads(body, object_pairs_hook=tuple, parse_int=float)
    except (ValueError, RecursionError):
        kind = "invalid_request_error"
        raise ProxyException(
            "the body is not JSON that every parser reads in the same way", kind, "body", 400
        ) from None
    top_pairs = pairs if isinstance(pairs, tuple) else ()
    return tuple(value for key, value in top_pairs if key == "model" and isinstance(value, str))
