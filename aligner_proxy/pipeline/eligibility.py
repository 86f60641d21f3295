"""The reasons for which an answer is not looked at; the first that applies is the one reported.

Order: tool calls, structured output, token probabilities, parts that are not text, annotations, events that disagree,
upstream error, background, filtered, refusal (explicit), truncated, empty, refusal (by its words), too long. What the
policy alone decides (off, bypass, no objectives) comes before, and so does sampling, which is the guardrail's; how many
texts a JSON answer holds comes last. Nothing here changes an answer.
"""

from __future__ import annotations

import json

from aligner_proxy.errors import Unreadable
from aligner_proxy.text.json_answer import Literal, texts
from aligner_proxy.text.refusals import is_refusal
from aligner_proxy.types import Exchange, JsonStrings, Mode, Policy, SkipReason

LONGEST_JSON = 200_000
"""Characters that are read as JSON in the event loop: some ten milliseconds."""
MOST_JSON_TEXTS = 32
"""Texts of one JSON answer that are corrected; each is a request to the engine."""

# The finish reasons of chat and text, the stop reasons of Messages, the states of Responses.
_BY_FINISH = {
    "tool_calls": SkipReason.TOOL_CALLS,
    "function_call": SkipReason.TOOL_CALLS,
    "tool_use": SkipReason.TOOL_CALLS,
    "error": SkipReason.UPSTREAM_ERROR,
    "failed": SkipReason.UPSTREAM_ERROR,
    "cancelled": SkipReason.UPSTREAM_ERROR,
    "queued": SkipReason.BACKGROUND,
    "in_progress": SkipReason.BACKGROUND,
    "content_filter": SkipReason.FILTERED,
    "refusal": SkipReason.REFUSAL,
    "length": SkipReason.TRUNCATED,
    "max_tokens": SkipReason.TRUNCATED,
    "max_output_tokens": SkipReason.TRUNCATED,
    "incomplete": SkipReason.TRUNCATED,
    "pause_turn": SkipReason.TRUNCATED,
    "compaction": SkipReason.TRUNCATED,
    "model_context_window_exceeded": SkipReason.TRUNCATED,
}


def skip_reason(exchange: Exchange, policy: Policy) -> SkipReason | None:
    """Why a whole answer is not to be corrected, or None; raises `Unreadable` where its response could not be read."""
    reason = by_policy(policy)
    if reason is None and exchange.fault is not None:
        raise Unreadable(exchange.fault)
    return reason or check(exchange, policy)


def by_policy(policy: Policy) -> SkipReason | None:
    """What is known before there is an answer; a stream that is skipped here is not withheld."""
    if policy.mode is Mode.OFF:
        return SkipReason.MODE_OFF
    if policy.bypass:
        return SkipReason.BYPASS
    return None if policy.objectives else SkipReason.NO_OBJECTIVES


def check(exchange: Exchange, policy: Policy) -> SkipReason | None:
    """Why `exchange` is not to be corrected, or None."""
    structured = is_structured(exchange)
    return (
        _not_plain_text(exchange, policy, structured=structured)
        or _not_whole(exchange)
        or _not_worth(exchange, policy, structured=structured)
    )


def is_structured(exchange: Exchange) -> bool:
    """Whether a program reads the answer: the client said so, or it is JSON from end to end."""
    return exchange.structured or (exchange.answer is not None and is_json(exchange.answer))


def is_json(answer: str) -> bool:
    """Whether a whole answer is a JSON object or array; one that is too deep or too long to be read counts as such."""
    if not answer.lstrip().startswith(("{", "[")):
        return False
    if len(answer) > LONGEST_JSON:
        return True
    try:
        json.loads(answer, parse_int=str, parse_float=str)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def texts_in_json(answer: str) -> list[Literal]:
    """The texts of a JSON answer that may be corrected."""
    return [literal for literal in texts(answer) if not is_refusal(literal.text)]


def may_be_structured(begun: Exchange) -> bool:
    """Whether an answer of which this is the beginning is JSON or may become it: only the whole can be edited then."""
    return (begun.answer or "").lstrip().startswith(("{", "[", "```")) or is_structured(begun)


def _may_be_edited(exchange: Exchange, policy: Policy) -> bool:
    """JSON alone, where the route says so, and not where a grammar bound the upstream that nobody could check."""
    wanted = policy.json_strings is JsonStrings.CORRECT and not exchange.constrained
    return wanted and exchange.answer is not None and is_json(exchange.answer)


def _not_plain_text(exchange: Exchange, policy: Policy, *, structured: bool) -> SkipReason | None:
    """The response means more than its text: a change of the text would contradict the rest of it."""
    if exchange.tool_calls or _BY_FINISH.get(exchange.finish_reason or "") is SkipReason.TOOL_CALLS:
        return SkipReason.TOOL_CALLS
    flags = (
        (structured and not _may_be_edited(exchange, policy), SkipReason.STRUCTURED_OUTPUT),
        (exchange.logprobs, SkipReason.LOGPROBS),
        (exchange.non_text, SkipReason.NON_TEXT),
        (exchange.annotations, SkipReason.ANNOTATIONS),
        (exchange.inconsistent, SkipReason.INCONSISTENT),
    )
    return next((reason for holds, reason in flags if holds), None)


def _not_whole(exchange: Exchange) -> SkipReason | None:
    """The upstream did not finish an answer. A finish reason that is missing or not known here counts as finished."""
    reason = _BY_FINISH.get(exchange.finish_reason or "")
    if reason is not SkipReason.TRUNCATED and reason is not None:
        return reason
    return SkipReason.REFUSAL if exchange.refusal else reason


def _not_worth(exchange: Exchange, policy: Policy, *, structured: bool) -> SkipReason | None:
    if exchange.answer is None or not exchange.answer.strip():
        return SkipReason.EMPTY
    if is_refusal(exchange.answer):
        return SkipReason.REFUSAL
    if len(exchange.answer) > policy.max_answer_chars:
        return SkipReason.TOO_LONG
    return _without_texts(exchange.answer) if structured else None


def _without_texts(answer: str) -> SkipReason | None:
    """Why a JSON answer is left alone where its texts may be edited: it holds none, or too many."""
    count = len(texts_in_json(answer))
    if count == 0:
        return SkipReason.STRUCTURED_OUTPUT
    return SkipReason.TOO_LONG if count > MOST_JSON_TEXTS else None
