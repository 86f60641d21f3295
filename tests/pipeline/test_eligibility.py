"""Each skip reason by itself, their order, and how careful the refusal detector is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aligner_proxy.pipeline.stages.eligibility import check
from aligner_proxy.text.refusals import is_refusal
from aligner_proxy.types import (
    GOVERNED_SKIPS,
    Exchange,
    FailurePolicy,
    OnError,
    OnSkip,
    Policy,
    SkipPolicy,
    SkipReason,
    Turn,
)

POLICY = Policy("p", max_answer_chars=100)
GOOD = Exchange("id", 0, (Turn("user", "When does the library open?"),), "It opens at nine.")


def test_a_plain_answer_is_looked_at() -> None:
    assert check(GOOD, POLICY) is None


@pytest.mark.parametrize("finish", ["stop", None, "eos", "end_turn", "stop_sequence", "completed"])
def test_finished_answers_are_looked_at(finish: str | None) -> None:
    assert check(replace(GOOD, finish_reason=finish), POLICY) is None


# In the order in which they are asked; each case also carries the causes of all that come after it.
CASES: list[tuple[dict[str, object], SkipReason]] = [
    ({"tool_calls": True, "answer": None}, SkipReason.TOOL_CALLS),
    ({"structured": True}, SkipReason.STRUCTURED_OUTPUT),
    ({"logprobs": True}, SkipReason.LOGPROBS),
    ({"non_text": True}, SkipReason.NON_TEXT),
    ({"annotations": True}, SkipReason.ANNOTATIONS),
    ({"inconsistent": True}, SkipReason.INCONSISTENT),
    ({"refusal": True}, SkipReason.REFUSAL),
    ({"finish_reason": "length"}, SkipReason.TRUNCATED),
    ({"answer": None}, SkipReason.EMPTY),
]


@pytest.mark.parametrize("first", range(len(CASES)))
def test_the_first_reason_in_the_documented_order_is_reported(first: int) -> None:
    changes = {name: value for change, _ in CASES[first:] for name, value in change.items()}
    assert check(replace(GOOD, **changes), POLICY) is CASES[first][1]  # type: ignore[arg-type]


def judging(*reasons: str) -> Policy:
    """The policy that judges answers with these reasons for skipping."""
    return replace(POLICY, on_skip=SkipPolicy(**dict.fromkeys(reasons, OnSkip.JUDGE)))


EVERY = tuple(reason.value for reason in GOVERNED_SKIPS)


@pytest.mark.parametrize(
    "changes",
    [
        {"tool_calls": True},
        {"finish_reason": "tool_calls"},
        {"structured": True},
        {"answer": '{"note": "It opens at nine."}'},
        {"logprobs": True},
        {"non_text": True},
        {"annotations": True},
        {"refusal": True},
        {"answer": "I can't help with that. Let me know you utter and complete moron"},
        {"finish_reason": "length"},
        {"finish_reason": "content_filter"},
        {"finish_reason": "refusal"},
        {"finish_reason": "in_progress"},
        {"answer": "It opens at nine." + " " * 24_001},
        {"answer": "It opens at nine. " * 10_000},
    ],
)
def test_text_is_judged_whatever_stands_beside_it(changes: dict[str, object]) -> None:
    exchange = replace(GOOD, **changes)  # type: ignore[arg-type]
    assert check(exchange, judging(*EVERY)) is None
    passing = check(exchange, judging())
    assert passing is None or check(exchange, judging(*(set(EVERY) - {passing.value}))) is passing


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inconsistent": True}, SkipReason.INCONSISTENT),
        ({"answer": None, "structured": True, "non_text": True}, SkipReason.NON_TEXT),
        ({"answer": None, "finish_reason": "queued"}, SkipReason.BACKGROUND),
        ({"answer": "", "inconsistent": True}, SkipReason.INCONSISTENT),
        ({"answer": None, "finish_reason": "error"}, SkipReason.UPSTREAM_ERROR),
        ({"answer": " "}, SkipReason.EMPTY),
    ],
)
def test_what_cannot_be_judged_keeps_its_reason(changes: dict[str, object], reason: SkipReason) -> None:
    assert check(replace(GOOD, **changes), judging(*EVERY)) is reason  # type: ignore[arg-type]


def test_what_came_before_the_upstream_failed_is_judged_as_cut_off() -> None:
    assert check(replace(GOOD, finish_reason="failed"), judging(*EVERY)) is None


def test_what_stands_in_the_field_for_refusals_counts_where_it_would_be_delivered() -> None:
    hidden = replace(GOOD, refusal=True, hidden_text=True)
    lax = judging(*EVERY)
    strict = replace(lax, on_error=FailurePolicy(unjudged=OnError.BLOCK))
    assert check(replace(hidden, answer=None), lax) is SkipReason.NON_TEXT
    assert check(hidden, lax) is None, "the answer beside it is judged"
    assert check(hidden, strict) is SkipReason.NON_TEXT
    assert check(replace(hidden, hidden_text=False), strict) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"finish_reason": "tool_calls", "answer": None}, SkipReason.TOOL_CALLS),
        ({"finish_reason": "function_call", "answer": ""}, SkipReason.TOOL_CALLS),
        ({"finish_reason": "content_filter"}, SkipReason.FILTERED),
        ({"finish_reason": "content_filter", "refusal": True}, SkipReason.FILTERED),
        ({"finish_reason": "content_filter", "answer": None}, SkipReason.FILTERED),
        ({"finish_reason": "refusal"}, SkipReason.REFUSAL),
        ({"finish_reason": "max_tokens"}, SkipReason.TRUNCATED),
        ({"finish_reason": "max_output_tokens"}, SkipReason.TRUNCATED),
        ({"finish_reason": "pause_turn"}, SkipReason.TRUNCATED),
        ({"finish_reason": "model_context_window_exceeded"}, SkipReason.TRUNCATED),
        ({"finish_reason": "tool_use", "answer": " "}, SkipReason.TOOL_CALLS),
        ({"finish_reason": "queued", "answer": None}, SkipReason.BACKGROUND),
        ({"finish_reason": "in_progress"}, SkipReason.BACKGROUND),
        ({"finish_reason": "failed"}, SkipReason.UPSTREAM_ERROR),
        ({"finish_reason": "error"}, SkipReason.UPSTREAM_ERROR),
        ({"answer": " \n\t"}, SkipReason.EMPTY),
        ({"answer": "I can't help with that."}, SkipReason.REFUSAL),
        ({"answer": "x" * 101}, SkipReason.TOO_LONG),
        ({"answer": "y" * 200_000}, SkipReason.TOO_LONG),
    ],
)
def test_each_reason(changes: dict[str, object], reason: SkipReason) -> None:
    assert check(replace(GOOD, **changes), POLICY) is reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "Sorry, I cannot help you with this.",
        "I'm unable to answer that question.",
        "As an AI language model, I cannot provide that information.",
        "Unfortunately, I won't do that.",
        "I apologize, but I am not able to discuss this topic. Is there anything else I can help you with?",
        "  i cannot comply  ",
        "I can't help with that. Let me know what else you need!",
    ],
)
def test_refusals_are_known(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help with that, you fool.",
        "I can't help with that because the shop closes at six.",
        "I can't help with that. Ask your doctor about the dose of 20 mg instead.",
        "I can help with that.",
        "You can't help with that.",
        "She said: I can't help with that.",
        "I cannot recommend this film enough.",
        "I can't help with that. Human: then who can?",
        "I can't help with that " + "request " * 60,
        "",
    ],
)
def test_anything_more_than_a_refusal_is_an_answer(answer: str) -> None:
    assert not is_refusal(answer)
