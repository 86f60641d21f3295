"""Eligibility stage: finds the reason why an answer is not to be corrected; of several, the first is reported.

Order: tool calls, structured output, token probabilities, parts that are not text, annotations, events that disagree,
upstream error, background, filtered, refusal (explicit), truncated, empty, refusal (by its wording), too long. Reasons
from the policy alone (off, bypass, no objectives) are checked before these; the guardrail checks sampling before that.
The number of texts in a JSON answer is checked last. Nothing here changes an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from aligner_proxy.errors import Unreadable
from aligner_proxy.plugins.stage import AnswerSoFar, Hold, Stage, Stop
from aligner_proxy.text import program_text
from aligner_proxy.text.json_answer import JsonString, text_literals
from aligner_proxy.text.refusals import is_refusal
from aligner_proxy.types import Exchange, JsonStrings, Mode, OnError, OnSkip, Policy, SkipReason, Status

_ALWAYS_SKIPPED = (SkipReason.INCONSISTENT,)
"""Reasons that apply even if the policy says judge, because an edit could not be placed."""
BEGUN = "Begun."
"""Placeholder for an answer that has only begun, because its wording and length say nothing yet."""
_BESIDE_TEXT = (SkipReason.NON_TEXT, SkipReason.BACKGROUND, SkipReason.INCONSISTENT)
"""Reasons for which something may be delivered although the answer has no text."""
LONGEST_JSON = 200_000
"""Maximum length parsed as JSON, in characters; takes some ten milliseconds in the event loop."""
_AT_ONCE_CHARS = 2_000
"""Answers up to this length are parsed in the event loop; some ten milliseconds if texts of JSON are obfuscated."""
MAX_JSON_TEXTS = 32
"""Maximum number of texts corrected in one JSON answer; each is a separate request to the engine."""

# Finish reasons of chat and text completions, stop reasons of Messages, and states of Responses.
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


class AnswerForm:
    """Whether a program reads the answer. The answer is parsed on first use, and only once."""

    def __init__(self, exchange: Exchange, *, is_one_of_several: bool = False) -> None:
        self._exchange = exchange
        self.is_one_of_several = is_one_of_several
        """Whether the answer may have other texts."""

    @property
    def is_structured(self) -> bool:
        """Whether a program reads the answer: the client said so, or all of it is JSON, YAML or a table of values."""
        return self._exchange.structured or self.is_json() or self._is_data

    def is_json(self, *, unread: bool = True) -> bool:
        """Whether the answer is a JSON object or array; `unread` is returned for one too deep or too long to parse."""
        return unread if self._read_as_json is None else self._read_as_json

    @cached_property
    def _read_as_json(self) -> bool | None:
        """Whether the answer is a JSON object or array; None if it is too deep or too long to parse."""
        return reads_as_json(self._exchange.answer or "")

    @cached_property
    def _is_data(self) -> bool:
        """Whether all of the answer is YAML or a table of values."""
        answer = self._exchange.answer or ""
        return program_text.DATA_SIGN.match(answer) is not None and program_text.is_data(answer)


class Eligibility(Stage):
    """Stops an answer that is not to be corrected, and holds a growing one that may be JSON or other data."""

    order = 0

    def __init__(self, form: AnswerForm | None = None) -> None:
        self._form = form
        """The form of a whole answer; None for a growing one, whose form is not known yet."""

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        """Stop a whole answer for the first reason that applies; None if there is none.

        A growing answer is held here, and stopped where it begins to call a program. `find_early_reason` stops it if
        something other than text arrives, and `check` stops it before an edit goes out.
        """
        if not answer.is_whole:
            return _admit_more(answer)
        form = self._form or AnswerForm(answer.exchange)
        if len(answer.text) > _AT_ONCE_CHARS and _takes_long(answer.text, answer.policy):
            # In a thread, because all texts of a long JSON answer may have to be checked.
            reason = await asyncio.to_thread(skip_reason, answer.exchange, answer.policy, form)
        else:
            reason = skip_reason(answer.exchange, answer.policy, form)
        return None if reason is None else Stop(Status.SKIPPED, reason.value)


def _admit_more(answer: AnswerSoFar) -> Stop | Hold | None:
    """Stop a growing answer that has begun to call a program; hold one that may be structured; None for any other."""
    if answer.exchange.tool_calls and not is_judged(SkipReason.TOOL_CALLS, answer.policy):
        return Stop(Status.SKIPPED, SkipReason.TOOL_CALLS.value)
    return Hold() if not answer.sent_chars and may_be_structured(answer.exchange) else None


def _takes_long(text: str, policy: Policy) -> bool:
    """Whether a long text has to be parsed to know what form it has."""
    if text.lstrip().startswith(("{", "[")) or program_text.DATA_SIGN.match(text):
        return True
    # to find calls, the text is cut into segments
    return not is_judged(SkipReason.TOOL_CALLS, policy) and any(sign in text for sign in program_text.CALL_SIGNS)


def find_early_reason(exchange: Exchange, policy: Policy) -> SkipReason | None:
    """The reason why an answer that has only begun will not be corrected, or None."""
    reason = check(replace(exchange, answer=BEGUN), policy)
    # JSON whose strings are corrected cannot be recognised by its beginning, and waits for its end
    waits = reason is SkipReason.STRUCTURED_OUTPUT and policy.json_strings is JsonStrings.CORRECT
    return None if waits else reason


def skip_reason(exchange: Exchange, policy: Policy, form: AnswerForm) -> SkipReason | None:
    """The reason not to correct a whole answer, or None; raises `Unreadable` if its response could not be read."""
    reason = find_policy_reason(policy)
    if reason is None and exchange.fault is not None:
        raise Unreadable(exchange.fault)
    return reason or check(note_calls(exchange, policy), policy, form)


def note_calls(exchange: Exchange, policy: Policy) -> Exchange:
    """The exchange of a whole answer, with `tool_calls` set if its text begins a call.

    The text is not read for calls if the policy judges such answers anyway.
    """
    if exchange.tool_calls or is_judged(SkipReason.TOOL_CALLS, policy):
        return exchange
    return replace(exchange, tool_calls=True) if program_text.has_call(exchange.answer or "") else exchange


def find_policy_reason(policy: Policy) -> SkipReason | None:
    """The reason known before there is an answer, or None; a stream skipped here is not held back."""
    if policy.mode is Mode.OFF:
        return SkipReason.MODE_OFF
    if policy.bypass:
        return SkipReason.BYPASS
    return None if policy.objectives or policy.requirements else SkipReason.NO_OBJECTIVES


def check(exchange: Exchange, policy: Policy, form: AnswerForm | None = None) -> SkipReason | None:
    """The reason not to correct `exchange`, or None; reasons that the policy says to judge anyway are ignored.

    Calls in the text count if `exchange.tool_calls` says so (`note_calls`). Without text there is nothing to judge. The
    reason is then, if any, one for which other content may be delivered.
    """
    if exchange.hidden_text and is_judged(SkipReason.NON_TEXT, policy) and _hidden_text_counts(exchange, policy):
        return SkipReason.NON_TEXT
    reasons = _find_reasons(exchange, policy, form or AnswerForm(exchange))
    if _has_text(exchange):
        # lazily, because the last reasons are expensive to find
        counting_reasons = (reason for reason in reasons if reason in _ALWAYS_SKIPPED or not is_judged(reason, policy))
        return next(counting_reasons, None)
    all_reasons = tuple(reasons)
    first_reason = all_reasons[0] if all_reasons else None
    # a reason that the policy judges anyway says that there is other content than text
    content_reasons = (reason for reason in all_reasons if reason in _BESIDE_TEXT and is_judged(reason, policy))
    return next(content_reasons, first_reason)


def _hidden_text_counts(exchange: Exchange, policy: Policy) -> bool:
    """Whether hidden text matters: there is no other text, or the policy blocks unjudged content."""
    return not _has_text(exchange) or policy.on_error.unjudged is OnError.BLOCK


def is_judged(reason: SkipReason, policy: Policy) -> bool:
    """Whether the policy judges answers in spite of this reason."""
    return policy.on_skip.reaction_to(reason) is OnSkip.JUDGE


def _find_reasons(exchange: Exchange, policy: Policy, form: AnswerForm) -> Iterator[SkipReason]:
    """Yield the reasons that apply, in order; the expensive ones come last and are computed only if needed."""
    structured = form.is_structured
    by_finish = _BY_FINISH.get(exchange.finish_reason or "")
    answer = exchange.answer or ""
    flags = (
        # The response holds more than its text, and an edited text would contradict the rest.
        (exchange.tool_calls or by_finish is SkipReason.TOOL_CALLS, SkipReason.TOOL_CALLS),
        (structured and not _may_be_edited(exchange, policy, form), SkipReason.STRUCTURED_OUTPUT),
        (exchange.logprobs, SkipReason.LOGPROBS),
        (exchange.non_text, SkipReason.NON_TEXT),
        (exchange.annotations, SkipReason.ANNOTATIONS),
        (exchange.inconsistent, SkipReason.INCONSISTENT),
        # The upstream did not finish the answer. A missing or unknown finish reason counts as finished.
        # The two reasons left out here have their own place in the order.
        (by_finish not in (None, SkipReason.TRUNCATED, SkipReason.TOOL_CALLS), by_finish),
        (exchange.refusal, SkipReason.REFUSAL),
        (by_finish is SkipReason.TRUNCATED, SkipReason.TRUNCATED),
        (not _has_text(exchange), SkipReason.EMPTY),
    )
    yield from (reason for holds, reason in flags if holds and reason is not None)
    if is_refusal(answer):
        yield SkipReason.REFUSAL
    if len(answer.rstrip()) > policy.max_answer_chars:
        yield SkipReason.TOO_LONG
    # If JSON is to be judged, all of its strings are.
    if structured and not is_judged(SkipReason.STRUCTURED_OUTPUT, policy):
        yield from _check_json_texts(answer)


def _has_text(exchange: Exchange) -> bool:
    """Whether the answer has more than white space."""
    return exchange.answer is not None and bool(exchange.answer.strip())


def reads_as_json(answer: str) -> bool | None:
    """Whether a whole answer is a JSON object or array; None if it is too deep or too long to parse."""
    if not answer.lstrip().startswith(("{", "[")):
        return False
    if len(answer) > LONGEST_JSON:
        return None
    try:
        # numbers stay text, since int() refuses one of thousands of digits, which JSON allows
        json.loads(answer, parse_int=str, parse_float=str)
    except RecursionError:
        return None
    except ValueError:
        return False
    return True


def texts_in_json(answer: str) -> list[JsonString]:
    """The texts of a JSON answer that may be corrected; refusals are left out."""
    return [literal for literal in text_literals(answer) if not is_refusal(literal.text)]


def may_be_structured(beginning: Exchange) -> bool:
    """Whether an answer with this beginning may be data, such as JSON, so that only the whole can be edited."""
    answer = beginning.answer or ""
    if answer.lstrip().startswith(("{", "[", "```")) or beginning.structured:
        return True
    return program_text.DATA_SIGN.match(answer) is not None and program_text.may_become_data(answer)


def _may_be_edited(exchange: Exchange, policy: Policy, form: AnswerForm) -> bool:
    """Whether JSON may be edited: the route says so, and no grammar that we cannot check constrained the upstream."""
    is_wanted = policy.json_strings is JsonStrings.CORRECT and not exchange.constrained
    return is_wanted and form.is_json()


def _check_json_texts(answer: str) -> Iterator[SkipReason]:
    """Yield the reason to skip a JSON answer, if there is one: it has no texts that could be edited, or too many."""
    count = len(texts_in_json(answer))
    if count == 0:
        yield SkipReason.STRUCTURED_OUTPUT
    if count > MAX_JSON_TEXTS:
        yield SkipReason.TOO_LONG
