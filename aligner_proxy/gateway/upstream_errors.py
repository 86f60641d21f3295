"""Errors of an upstream, and how their message is withheld: it may quote an answer, or say what may not be said."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

import httpx
from fastapi import HTTPException
from litellm.proxy._types import ProxyException

# An upstream stream may break with any exception. LiteLLM maps provider errors to its own types, but its internal
# errors (ValueError, KeyError) end a stream as well. All are raised again after the items that had arrived.
UPSTREAM_ERRORS = (Exception,)
_QUOTING_ATTRIBUTES = ("message", "body", "litellm_debug_info", "provider_specific_fields")
"""Attributes of errors that may quote an upstream's text."""
_ANSWER_FIELD = re.compile(
    r"""["'](?:choices|output|output_text|content|content_block|delta|completion|candidates)\\*["']\s*:\s*[\\"'\[{]"""
)
"""A field of an answer, as JSON, escaped JSON or a Python value."""
_REFUSAL_STATUSES = range(400, 500)
"""With these, the upstream says what is wrong with the request, which it may quote, and answers nothing."""


class UpstreamItems:
    """Iterator over a stream's items that ends without an error even if the stream breaks.

    So its reader can first pass on what it still holds; then it calls `raise_error`, which raises the error.
    """

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._items = aiter(source)
        self.error: Exception | None = None
        """The error that broke the stream; None if it is intact, and after `raise_error`."""
        self._is_broken = False

    def __aiter__(self) -> UpstreamItems:
        return self

    async def __anext__(self) -> Any:
        if self._is_broken:
            raise StopAsyncIteration
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            raise
        except UPSTREAM_ERRORS as error:
            self.error = error
            self._is_broken = True
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close the stream, if it is a generator."""
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()

    def raise_error(self) -> None:
        """Raise the error that broke the stream, if one did."""
        # the traceback refers to frames that refer to this object, so keeping the error would keep a stream's texts
        error = self.error
        self.error = None
        if error is None:
            return
        try:
            raise error
        finally:
            del error


def is_from_upstream(error: Exception) -> bool:
    """Whether an error may quote an upstream, which is any error not raised by the proxy or its guardrails."""
    return not isinstance(error, ProxyException | HTTPException)


def quotes_answer(error: Exception) -> bool:
    """Whether an error holds an answer that LiteLLM could not read, such as one that was cut off."""
    if not is_from_upstream(error) or getattr(error, "status_code", None) in _REFUSAL_STATUSES:
        return False
    return _ANSWER_FIELD.search(str(error)) is not None


def withhold_message(error: Exception) -> HTTPException | None:
    """Remove an upstream's text from its error in place, since not every endpoint accepts a new error from the hook.

    Returns the error to raise instead if the text cannot be removed in place, else None.
    """
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        status = 500
    message = f"the upstream failed ({type(error).__name__}, status {status}); its message is withheld"
    if isinstance(error, httpx.HTTPStatusError):  # holds the whole response, which LiteLLM would read
        return HTTPException(error.response.status_code, message)
    error.args = (message,)
    for name in _QUOTING_ATTRIBUTES:
        if getattr(error, name, None) is not None:
            setattr(error, name, message if name == "message" else None)
    # The errors that led to this one may quote the upstream, too.
    error.__cause__ = None
    error.__context__ = None
    return None
