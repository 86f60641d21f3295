"""Wire formats, one a file: from LiteLLM's objects to exchanges and back, touching nothing but the text.

`wire(route)` is the format of a proxy route; None means that we leave it alone.
"""

from __future__ import annotations

import re

from aligner_proxy.formats import chat, messages, responses, text
from aligner_proxy.formats.base import SafeFormat, Wire
from aligner_proxy.formats.reasoning import ChatReasoning, MessagesReasoning, ResponsesReasoning, SafeReasoning

__all__ = ["ALIGN", "ANSWERS", "GENERIC_GUARDRAIL", "WEBHOOK", "Wire", "choices", "reasoning", "stored", "wire"]

_CHAT = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/chat/completions/?")
_TEXT = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/completions/?")
_RESPONSES = re.compile(r"(?:/openai)?(?:/v1)?/responses/?")
_STORED = re.compile(r"(?:/openai)?(?:/v1)?/responses/\{response_id\}")
_MESSAGES = re.compile(r"/v1/messages/?")
ALIGN = "/v1/align"
WEBHOOK = "/v1/align/webhook"
GENERIC_GUARDRAIL = "/beta/litellm_basic_guardrail_api"
ANSWERS = (ALIGN, WEBHOOK, GENERIC_GUARDRAIL)
"""Routes of the gateway's own, at which a client brings the answer itself."""
_ANSWERS = re.compile("|".join(re.escape(route) for route in ANSWERS))


def wire(route: str | None) -> SafeFormat | None:
    """The wire format behind a request route of the proxy."""
    path = _strip_line_break(route)
    return next((format_ for pattern, format_ in _WIRES if pattern.fullmatch(path)), None)


def reasoning(route: str | None) -> SafeReasoning | None:
    """Where the answers of a route show reasoning; None: nowhere."""
    path = _strip_line_break(route)
    return next((form for pattern, form in _REASONING if pattern.fullmatch(path)), None)


def is_stored_answer(route: str | None) -> bool:
    """Whether the route fetches an answer that the upstream kept: which model gave it is known only with the answer."""
    return _STORED.fullmatch(_strip_line_break(route)) is not None


def _strip_line_break(route: str | None) -> str:
    """The path without a line break at its end, which Starlette overlooks: such a path reaches the same endpoint."""
    return (route or "").removesuffix("\n")


def count_choices(response: object) -> int:
    """The number of answers in a whole response that is not looked at; one where they are not listed."""
    answers = getattr(response, "choices", None)
    return len(answers) if isinstance(answers, list) and answers else 1


_WIRES: tuple[tuple[re.Pattern[str], SafeFormat], ...] = (
    (_CHAT, SafeFormat(chat)),
    (_TEXT, SafeFormat(text)),
    (_RESPONSES, SafeFormat(responses)),
    (_STORED, SafeFormat(responses)),
    (_MESSAGES, SafeFormat(messages)),
    # An answer that a client brings is judged as one choice of a chat completion.
    (_ANSWERS, SafeFormat(chat)),
)
_REASONING = (
    (_CHAT, SafeReasoning(ChatReasoning())),
    (_RESPONSES, SafeReasoning(ResponsesReasoning())),
    (_STORED, SafeReasoning(ResponsesReasoning())),
    (_MESSAGES, SafeReasoning(MessagesReasoning())),
)
