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
_DELIVERED_WITHOUT_TEXT = (SkipReason.NON_TEXT, SkipReason.BACKGROUND, SkipReason.INCONSISTENT)
"""Reasons for which something other than text may be delivered although the answer has no text."""
LONGEST_JSON = 200_000
"""Maximum length in characters of an answer that is parsed as JSON; this takes some ten milliseconds."""
_EVENT_LOOP_CHARS = 2_000
"""Answers up to this length are read in the event loop, longer ones in a thread if reading them may take long."""
MAX_JSON_TEXTS = 32
"""Maximum number of texts corrected in one JSON answer; each is a separate request to the engine."""

# The keys are finish reasons of chat and text completions, stop reasons of Messages, and states of Responses.
_SKIP_BY_FINISH = {
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
        """Whether a program reads the answer: the request prescribed its format, or it is JSON, YAML or a table."""
        return self._exchange.structured or self.is_json() or self._is_data

    def is_json(self, *, if_unparsed: bool = True) -> bool:
        """Whether the answer is a JSON object or array; `if_unparsed` for an answer too deep or too long to parse."""
        return if_unparsed if self._parses_as_json is None else self._parses_as_json

    @cached_property
    def _parses_as_json(self) -> bool | None:
        """Whether the answer is a JSON object or array; None if it is too deep or too long to parse."""
        return reads_as_json(self._exchange.answer or "")

    @cached_property
    def _is_data(self) -> bool:
        """Whether all of the answer is YAML or a table of values."""
        answer = self._exchange.answer or ""
        return program_text.DATA_SIGN.match(answer) is not None and program_text.is_data(answer)


class Eligibility(Stage):
    """Stops an answer that is not to be corrected, and holds a growing answer that may be JSON or other data."""

    order = 0

    def __init__(self, answer_form: AnswerForm | None = None) -> None:
        self._answer_form = answer_form
        """Whether a program reads the whole answer; None for a growing answer, of which this is not known yet."""

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        """Stop a whole answer if there is a reason to skip it; None if there is none.

        A growing answer is stopped where it begins to call a program, and held if it may be data. All other reasons
        stop a growing answer elsewhere: `find_early_reason` when something other than text arrives, and `check` before
        an edit goes out.
        """
        if not answer.is_whole:
            return _admit_growing(answer)
        answer_form = self._answer_form or AnswerForm(answer.exchange)
        if len(answer.text) > _EVENT_LOOP_CHARS and _needs_parsing(answer.text, answer.policy):
            # In a thread, because all texts of a long JSON answer may have to be checked.
            reason = await asyncio.to_thread(skip_reason, answer.exchange, answer.policy, answer_form)
        else:
            reason = skip_reason(answer.exchange, answer.policy, answer_form)
        return None if reason is None else Stop(Status.SKIPPED, reason.value)


def _admit_growing(answer: AnswerSoFar) -> Stop | Hold | None:
    """Stop a growing answer that has begun to call a program, hold one that may be data, and admit (None) any other.

    An answer of which something has gone out is no longer held.
    """
    if answer.exchange.tool_calls and not is_judged(SkipReason.TOOL_CALLS, answer.policy):
        return Stop(Status.SKIPPED, SkipReason.TOOL_CALLS.value)
    return Hold() if not answer.sent_chars and may_be_structured(answer.exchange) else None


def _needs_parsing(text: str, policy: Policy) -> bool:
    """Whether a text has to be parsed as JSON or data, or searched for calls, to find the reasons to skip it."""
    if text.lstrip().startswith(("{", "[")) or program_text.DATA_SIGN.match(text):
        return True
    # a text that may call a program is cut into segments to find the call, unless such answers are judged anyway
    return not is_judged(SkipReason.TOOL_CALLS, policy) and any(sign in text for sign in program_text.CALL_SIGNS)


def find_early_reason(exchange: Exchange, policy: Policy) -> SkipReason | None:
    """The reason why an answer that has only begun will not be corrected; None if no reason is known yet."""
    reason = check(replace(exchange, answer=BEGUN), policy)
    # Whether the answer is JSON whose strings can be corrected is only known at its end, so it is not skipped before.
    is_decided_at_end = reason is SkipReason.STRUCTURED_OUTPUT and policy.json_strings is JsonStrings.CORRECT
    return None if is_decided_at_end else reason


def skip_reason(exchange: Exchange, policy: Policy, answer_form: AnswerForm) -> SkipReason | None:
    """The reason not to correct a whole answer; None if there is none.

    Raises `Unreadable` if the response could not be read.
    """
    reason = find_policy_reason(policy)
    if reason is None and exchange.fault is not None:
        raise Unreadable(exchange.fault)
    return reason or check(note_calls(exchange, policy), policy, answer_form)


def note_calls(exchange: Exchange, policy: Policy) -> Exchange:
    """Return the exchange of a whole answer, with `tool_calls` set if its text contains the beginning of a call.

    If the policy judges answers with calls anyway, the text is not searched.
    """
    if exchange.tool_calls or is_judged(SkipReason.TOOL_CALLS, policy):
        return exchange
    return replace(exchange, tool_calls=True) if program_text.has_call(exchange.answer or "") else exchange


def find_policy_reason(policy: Policy) -> SkipReason | None:
    """The reason not to correct that follows from the policy alone, before there is an answer; None if none does."""
    if policy.mode is Mode.OFF:
        return SkipReason.MODE_OFF
    if policy.bypass:
        return SkipReason.BYPASS
    return None if policy.objectives or policy.requirements else SkipReason.NO_OBJECTIVES


def check(exchange: Exchange, policy: Policy, answer_form: AnswerForm | None = None) -> SkipReason | None:
    """The reason not to correct the answer of `exchange`; None if there is none, or the policy judges in spite of it.

    The text is not searched for calls: only `exchange.tool_calls` counts (`note_calls` sets it). An answer without text
    is skipped even for a reason that the policy judges, since there is nothing to judge. Of its reasons, one that says
    that the answer has content other than text is preferred, because this content may be delivered unjudged.
    """
    if exchange.hidden_text and is_judged(SkipReason.NON_TEXT, policy) and _hidden_text_counts(exchange, policy):
        return SkipReason.NON_TEXT
    reasons = _find_reasons(exchange, policy, answer_form or AnswerForm(exchange))
    if _has_text(exchange):
        # `reasons` is a generator of which only the beginning is used, because the last reasons are expensive to find
        counting_reasons = (reason for reason in reasons if reason in _ALWAYS_SKIPPED or not is_judged(reason, policy))
        return next(counting_reasons, None)
    all_reasons = tuple(reasons)
    first_reason = all_reasons[0] if all_reasons else None
    content_reasons = (
        reason for reason in all_reasons if reason in _DELIVERED_WITHOUT_TEXT and is_judged(reason, policy)
    )
    return next(content_reasons, first_reason)


def _hidden_text_counts(exchange: Exchange, policy: Policy) -> bool:
    """Whether text in a field that is delivered unread is a reason to skip: it is the only text, or must be judged."""
    return not _has_text(exchange) or policy.on_error.unjudged is OnError.BLOCK


def is_judged(reason: SkipReason, policy: Policy) -> bool:
    """Whether the policy judges answers in spite of this reason."""
    return policy.on_skip.reaction_to(reason) is OnSkip.JUDGE


def _find_reasons(exchange: Exchange, policy: Policy, answer_form: AnswerForm) -> Iterator[SkipReason]:
    """Yield the reasons that apply, in order; the expensive ones come last and are computed only if needed."""
    structured = answer_form.is_structured
    finish_skip = _SKIP_BY_FINISH.get(exchange.finish_reason or "")
    answer = exchange.answer or ""
    # pairs of whether a reason applies, and the reason
    reason_checks = (
        # The response holds more than its text, and an edited text would contradict the rest.
        (exchange.tool_calls or finish_skip is SkipReason.TOOL_CALLS, SkipReason.TOOL_CALLS),
        (structured and not _may_be_edited(exchange, policy, answer_form), SkipReason.STRUCTURED_OUTPUT),
        (exchange.logprobs, SkipReason.LOGPROBS),
        (exchange.non_text, SkipReason.NON_TEXT),
        (exchange.annotations, SkipReason.ANNOTATIONS),
        (exchange.inconsistent, SkipReason.INCONSISTENT),
        # The upstream did not finish the answer. A missing or unknown finish reason counts as finished.
        # Truncated and tool calls are excepted here, because they have their own places in the order.
        (finish_skip not in (None, SkipReason.TRUNCATED, SkipReason.TOOL_CALLS), finish_skip),
        (exchange.refusal, SkipReason.REFUSAL),
        (finish_skip is SkipReason.TRUNCATED, SkipReason.TRUNCATED),
        (not _has_text(exchange), SkipReason.EMPTY),
    )
    yield from (reason for applies, reason in reason_checks if applies and reason is not None)
    if is_refusal(answer):
        yield SkipReason.REFUSAL
    if len(answer.rstrip()) > policy.max_answer_chars:
        yield SkipReason.TOO_LONG
    # If the policy judges JSON, all strings are judged, and their number is checked elsewhere.
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
        # numbers stay text, because int() refuses numbers of thousands of digits, which JSON allows
        json.loads(answer, parse_int=str, parse_float=str)
    except RecursionError:
        return None
    except ValueError:
        return False
    return True


def texts_in_json(answer: str) -> list[JsonString]:
    """The strings of a JSON answer that are texts and no refusals, so that they may be corrected."""
    return [literal for literal in text_literals(answer) if not is_refusal(literal.text)]


def may_be_structured(beginning: Exchange) -> bool:
    """Whether the answer that begins like this may turn out to be data, such as JSON, which is corrected as a whole."""
    answer = beginning.answer or ""
    if answer.lstrip().startswith(("{", "[", "```")) or beginning.structured:
        return True
    return program_text.DATA_SIGN.match(answer) is not None and program_text.may_become_data(answer)


def _may_be_edited(exchange: Exchange, policy: Policy, answer_form: AnswerForm) -> bool:
    """Whether the answer is JSON whose strings the policy corrects; a grammar that we cannot check forbids edits."""
    is_wanted = policy.json_strings is JsonStrings.CORRECT and not exchange.constrained
    return is_wanted and answer_form.is_json()


def _check_json_texts(answer: str) -> Iterator[SkipReason]:
    """Yield the reason to skip a JSON answer if it has no texts that could be edited, or too many."""
    count = len(texts_in_json(answer))
    if count == 0:
        yield SkipReason.STRUCTURED_OUTPUT
    if count > MAX_JSON_TEXTS:
        yield SkipReason.TOO_LONG
