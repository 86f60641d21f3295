"""Wire formats, one per file: convert LiteLLM's objects to exchanges and back, and change only the text.

`wire(route)` is the format of a proxy route; None means that the gateway does not touch the route.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from aligner_proxy.formats import chat, messages, responses, text
from aligner_proxy.formats.base import Wire
from aligner_proxy.formats.calls import CallForm, ChatCalls, MessagesCalls, ResponsesCalls, SafeCalls
from aligner_proxy.formats.reasoning import (
    ChatReasoning,
    MessagesReasoning,
    ReasoningForm,
    ResponsesReasoning,
    SafeReasoning,
)
from aligner_proxy.formats.safe import SafeFormat

__all__ = [
    "ALIGN",
    "ANSWERS",
    "DECISIONS",
    "GENERIC_GUARDRAIL",
    "SYSTEM_ONE",
    "WEBHOOK",
    "Wire",
    "calls",
    "count_choices",
    "is_stored_answer",
    "reasoning",
    "wire",
]

_CHAT_ROUTE = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/chat/completions/?")
_TEXT_ROUTE = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/completions/?")
_RESPONSES_ROUTE = re.compile(r"(?:/openai)?(?:/v1)?/responses/?")
_STORED_ROUTE = re.compile(r"(?:/openai)?(?:/v1)?/responses/\{response_id\}")
_MESSAGES_ROUTE = re.compile(r"/v1/messages/?")
ALIGN = "/v1/align"
WEBHOOK = "/v1/align/webhook"
GENERIC_GUARDRAIL = "/beta/litellm_basic_guardrail_api"
DECISIONS = "/aligner/v1/decisions"
SYSTEM_ONE = "/aligner/v1/systemone"
ANSWERS = (ALIGN, WEBHOOK, GENERIC_GUARDRAIL, DECISIONS, SYSTEM_ONE)
"""The gateway's own routes, to which a client sends the answer itself."""
_OWN_ROUTE = re.compile("|".join(re.escape(route) for route in ANSWERS))
_MAX_REMEMBERED = 64
"""Most routes whose formats are remembered; few, because a client may call long paths."""


class _RouteFormats(NamedTuple):
    """The formats of the answers of a route."""

    wire: SafeFormat | None = None
    reasoning: SafeReasoning | None = None
    calls: SafeCalls | None = None


@lru_cache(_MAX_REMEMBERED)
def wire(route: str | None) -> SafeFormat | None:
    """The wire format of a proxy route; None if the route is not corrected."""
    return _find_formats(route).wire


@lru_cache(_MAX_REMEMBERED)
def reasoning(route: str | None) -> SafeReasoning | None:
    """The format in which a route's answers contain reasoning; None if they contain none."""
    return _find_formats(route).reasoning


@lru_cache(_MAX_REMEMBERED)
def calls(route: str | None) -> SafeCalls | None:
    """The format in which a route's answers call tools; None if they call none."""
    return _find_formats(route).calls


def _find_formats(route: str | None) -> _RouteFormats:
    """Return the formats of a route; none if the route is not corrected."""
    path = _strip_line_break(route)  # an empty path, which no pattern matches, if `route` is None
    return next((formats for pattern, formats in _FORMATS if pattern.fullmatch(path)), _RouteFormats())


@lru_cache(_MAX_REMEMBERED)
def is_stored_answer(route: str | None) -> bool:
    """Whether the route fetches an answer stored upstream, whose model is known only once the answer arrives."""
    return _STORED_ROUTE.fullmatch(_strip_line_break(route)) is not None


def _strip_line_break(route: str | None) -> str:
    """Return the route without a final line break, with which Starlette finds the same endpoint; "" for None."""
    return (route or "").removesuffix("\n")


def count_choices(response: object) -> int:
    """The number of choices in a whole response; 1 if it has no list of choices, or an empty one."""
    choices = getattr(response, "choices", None)
    return len(choices) if isinstance(choices, list) and choices else 1


def _combine_formats(wire: Wire, reasoning: ReasoningForm, calls: CallForm | None = None) -> _RouteFormats:
    safe_wire = SafeFormat(wire)
    return _RouteFormats(safe_wire, SafeReasoning(reasoning, safe_wire), SafeCalls(calls) if calls else None)


_CHAT = _combine_formats(chat, ChatReasoning(), ChatCalls())
_RESPONSES = _combine_formats(responses, ResponsesReasoning(), ResponsesCalls())
_FORMATS = (
    (_CHAT_ROUTE, _CHAT),
    # Text completions have no field for reasoning, but LiteLLM's response cache may return chunks of chat.
    (_TEXT_ROUTE, _combine_formats(text, ChatReasoning())),
    (_RESPONSES_ROUTE, _RESPONSES),
    (_STORED_ROUTE, _RESPONSES),
    (_MESSAGES_ROUTE, _combine_formats(messages, MessagesReasoning(), MessagesCalls())),
    # An answer that a client sends is judged as one choice of a chat completion.
    (_OWN_ROUTE, _CHAT),
)
