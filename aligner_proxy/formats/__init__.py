"""Wire formats, one per file: convert LiteLLM's objects to exchanges and back, and change only the text.

`wire(route)` is the format of a proxy route; None means that the gateway does not touch the route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar

from aligner_proxy.formats import chat, messages, responses, text
from aligner_proxy.formats.base import Wire
from aligner_proxy.formats.calls import ChatCalls, MessagesCalls, ResponsesCalls, SafeCalls
from aligner_proxy.formats.reasoning import ChatReasoning, MessagesReasoning, ResponsesReasoning, SafeReasoning
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

_Format = TypeVar("_Format")
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


@lru_cache(_MAX_REMEMBERED)
def wire(route: str | None) -> SafeFormat | None:
    """The wire format of a proxy route; None if the route is not corrected."""
    return _find_format(route, _WIRES)


@lru_cache(_MAX_REMEMBERED)
def reasoning(route: str | None) -> SafeReasoning | None:
    """The format in which a route's answers contain reasoning; None if they contain none."""
    return _find_format(route, _REASONING)


@lru_cache(_MAX_REMEMBERED)
def calls(route: str | None) -> SafeCalls | None:
    """The format in which a route's answers call tools; None if they call none."""
    return _find_format(route, _CALLS)


def _find_format(route: str | None, formats: Iterable[tuple[re.Pattern[str], _Format]]) -> _Format | None:
    """Return the format of the first pair (pattern, format) whose pattern matches a route; None if none matches."""
    path = _strip_line_break(route)  # an empty path, which no pattern matches, if `route` is None
    for pattern, format_ in formats:
        if pattern.fullmatch(path):
            return format_
    return None


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


_CHAT_WIRE = SafeFormat(chat)
_TEXT_WIRE = SafeFormat(text)
_RESPONSES_WIRE = SafeFormat(responses)
_MESSAGES_WIRE = SafeFormat(messages)
_WIRES: tuple[tuple[re.Pattern[str], SafeFormat], ...] = (
    (_CHAT_ROUTE, _CHAT_WIRE),
    (_TEXT_ROUTE, _TEXT_WIRE),
    (_RESPONSES_ROUTE, _RESPONSES_WIRE),
    (_STORED_ROUTE, _RESPONSES_WIRE),
    (_MESSAGES_ROUTE, _MESSAGES_WIRE),
    # An answer that a client sends is judged as one choice of a chat completion.
    (_OWN_ROUTE, _CHAT_WIRE),
)
_REASONING = (
    (_CHAT_ROUTE, SafeReasoning(ChatReasoning(), _CHAT_WIRE)),
    # Text completions have no field for reasoning, but LiteLLM's response cache may return chunks of chat.
    (_TEXT_ROUTE, SafeReasoning(ChatReasoning(), _TEXT_WIRE)),
    (_RESPONSES_ROUTE, SafeReasoning(ResponsesReasoning(), _RESPONSES_WIRE)),
    (_STORED_ROUTE, SafeReasoning(ResponsesReasoning(), _RESPONSES_WIRE)),
    (_MESSAGES_ROUTE, SafeReasoning(MessagesReasoning(), _MESSAGES_WIRE)),
    (_OWN_ROUTE, SafeReasoning(ChatReasoning(), _CHAT_WIRE)),
)
_RESPONSES_CALLS = SafeCalls(ResponsesCalls())
_CALLS = (
    (_CHAT_ROUTE, SafeCalls(ChatCalls())),
    (_RESPONSES_ROUTE, _RESPONSES_CALLS),
    (_STORED_ROUTE, _RESPONSES_CALLS),
    (_MESSAGES_ROUTE, SafeCalls(MessagesCalls())),
    (_OWN_ROUTE, SafeCalls(ChatCalls())),
)
