"""Finds duplicate `model` keys in a request body, of which LiteLLM's parser keeps only the last.

Another parser may use the first, so every name counts when the policy is chosen.
"""

from __future__ import annotations

import json
from contextvars import ContextVar

from litellm.proxy._types import ProxyException

_MODEL_KEY = b'"model"'
_ESCAPED_LETTER = b"\\u006"
"""Start of an escape of one of the key's letters, which could hide the key."""
body_model_names: ContextVar[tuple[str, ...]] = ContextVar("aligner_proxy_doubled_models", default=())
"""All model names in the body of this request, if the key may occur several times."""


def note_model_names(body: bytes) -> None:
    """Store the body's model names in `body_model_names` if it may have several; HTTP 400 for ambiguous JSON."""
    may_have_duplicates = body.count(_MODEL_KEY) > 1 or _ESCAPED_LETTER in body
    body_model_names.set(_list_model_names(body) if may_have_duplicates else ())


def _list_model_names(body: bytes) -> tuple[str, ...]:
    """The values of all `model` keys of the outer object, without those of nested objects."""
    try:
        # Numbers are not used here, and parsing one with very many digits as an int would fail.
        data = json.loads(body, object_pairs_hook=tuple, parse_int=float)
    except (ValueError, RecursionError):
        message = "the body is not JSON that every parser reads in the same way"
        raise ProxyException(message, type="invalid_request_error", param="body", code=400) from None
    # With the hook, each object is a tuple of (key, value) pairs.
    top_pairs = data if isinstance(data, tuple) else ()
    return tuple(value for key, value in top_pairs if key == "model" and isinstance(value, str))
