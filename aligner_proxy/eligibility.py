"""May this answer be looked at at all? Each no has its own name, and the first that applies is the one reported.

Order: tool calls, structured output, token probabilities, parts that are not text, upstream error, filtered, refusal
(explicit), truncated, empty, refusal (by its words), too long. What the policy alone decides (off, bypass, no
objectives, sampling) comes before and is the pipeline's. Nothing here changes an answer.
"""

from __future__ import annotations

import re

from aligner_proxy.types import Exchange, Policy, SkipReason

_BY_FINISH = {
    "tool_calls": SkipReason.TOOL_CALLS,
    "function_call": SkipReason.TOOL_CALLS,
    "error": SkipReason.UPSTREAM_ERROR,
    "content_filter": SkipReason.FILTERED,
    "refusal": SkipReason.REFUSAL,
    "length": SkipReason.TRUNCATED,
    "max_tokens": SkipReason.TRUNCATED,
}
_REFUSAL_CHARS = 240
_SORRY = r"(?:(?:i(?:'m| am) )?(?:very |really |so )?sorry|i apologi[sz]e|unfortunately|my apologies)"
_CANNOT = r"(?:can(?:'t|not| not)|won't|will not|(?:am|'m) (?:not able|unable) to|am not allowed to|must decline to)"
_DO = (
    r"(?:help|assist|answer|do|comply|continue|provide|share|fulfil+|discuss|talk about|respond to|support|engage in|"
    r"generate|create|write|complete|process)"
)
_WHAT = (
    r"(?: you)?(?: with| to)?(?: (?:that|this|it|these|those|your|the|such|a|any|requests?|questions?|topics?|content|"
    r"information|kind|type|sort|of|or|like|here|matter|task|one|thing|conversation|discussion|response)){0,8}"
)
_MORE = (
    r"(?:(?:is there|can i help(?: you)?|may i help(?: you)?|let me know|feel free|please (?:ask|let me)|"
    r"i'm happy to help|i am happy to help|i'd be happy to help)(?: [a-z']+){0,14})"
)
_REFUSAL = re.compile(
    rf"(?:{_SORRY}[,;.]? ?(?:but )?)?(?:as an ai(?: [a-z]+){{0,4}},? )?"
    rf"i ?{_CANNOT} {_DO}{_WHAT}[.!]?(?: {_MORE}[.?!]?)?"
)


def check(exchange: Exchange, policy: Policy) -> SkipReason | None:
    """Why `exchange` is not to be corrected, or None."""
    return _not_plain_text(exchange) or _not_whole(exchange) or _not_worth(exchange, policy)


def _not_plain_text(exchange: Exchange) -> SkipReason | None:
    """The response means more than its text: a change of the text would contradict the rest of it."""
    if exchange.tool_calls or _BY_FINISH.get(exchange.finish_reason or "") is SkipReason.TOOL_CALLS:
        return SkipReason.TOOL_CALLS
    if exchange.structured:
        return SkipReason.STRUCTURED_OUTPUT
    if exchange.logprobs:
        return SkipReason.LOGPROBS
    return SkipReason.NON_TEXT if exchange.non_text else None


def _not_whole(exchange: Exchange) -> SkipReason | None:
    """The upstream did not finish an answer. A finish reason that is missing or not known here counts as finished."""
    reason = _BY_FINISH.get(exchange.finish_reason or "")
    if reason is not SkipReason.TRUNCATED and reason is not None:
        return reason
    return SkipReason.REFUSAL if exchange.refusal else reason


def _not_worth(exchange: Exchange, policy: Policy) -> SkipReason | None:
    if exchange.answer is None or not exchange.answer.strip():
        return SkipReason.EMPTY
    if is_refusal(exchange.answer):
        return SkipReason.REFUSAL
    return SkipReason.TOO_LONG if len(exchange.answer) > policy.max_answer_chars else None


def is_refusal(answer: str) -> bool:
    """Whether the whole answer says no more than "I can't help with that".

    Careful on purpose: one short sentence of the usual words, perhaps with an apology before and an offer after it. A
    refusal with a reason, a suggestion or an insult in it is not taken for one, nor is one in another language.
    """
    text = " ".join(answer.replace("\u2019", "'").lower().split())
    return len(text) <= _REFUSAL_CHARS and _REFUSAL.fullmatch(text) is not None
