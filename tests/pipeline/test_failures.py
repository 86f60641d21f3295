"""The table of failures, and one choice's budget of time and tries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.errors import (
    BY_REASON,
    AnswerTooLong,
    BreakerOpen,
    CorrectionError,
    DeadlineExceeded,
    EngineOverloaded,
    Shed,
    StatesUnavailable,
)
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.outcomes import Budget, blocks, class_of, finalize_outcome, lets_through, reason_of
from aligner_proxy.types import (
    GOVERNED_SKIPS,
    FailureClass,
    FailurePolicy,
    Mode,
    Objective,
    OnError,
    OnSkip,
    Outcome,
    Policy,
    SideKind,
    SideTreatment,
    SkipPolicy,
    SkipReason,
    Status,
    StreamMode,
)

ALL_BLOCK = FailurePolicy(*[OnError.BLOCK] * len(FailureClass))
ALL_RETRY = FailurePolicy(*[OnError.RETRY] * len(FailureClass))
FAILURES = [reason for reason in (*BY_REASON, outcomes.INTERNAL, "gate_empty") if class_of(reason) is not None]


def kinds(error: type[CorrectionError]) -> set[type[CorrectionError]]:
    """An error and everything that is made from it."""
    return {error}.union(*(kinds(child) for child in error.__subclasses__()))


def test_every_error_of_ours_has_a_class_or_is_a_skip() -> None:
    # What needs states of texts does without where there are none: no outcome ever has that for its reason.
    skips = {StatesUnavailable.reason, *(reason.value for reason in SkipReason)}
    ours = [kind for kind in kinds(CorrectionError) if kind.__module__.startswith("aligner_proxy.")]
    assert len(ours) > len(FailureClass)
    for kind in ours:
        assert (class_of(kind.reason) is None) == (kind.reason in skips), kind
    assert class_of("gate_whatever_it_found") is FailureClass.GATE
    assert class_of("gate_partly:lost_name") is None
    # The gate's verdicts, and skips that a policy wants judged, are no errors.
    assert {kind.failure for kind in ours} - {None} | {FailureClass.GATE, FailureClass.UNJUDGED} == set(FailureClass)


@pytest.mark.parametrize("reason", [None, "", "cancelled", "would_correct", *SkipReason])
def test_what_is_no_failure_has_no_class(reason: str | None) -> None:
    assert class_of(reason) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Shed("x"), "shed"),
        (BreakerOpen("x", 1), "breaker_open"),
        (TimeoutError(), "timeout"),
        (DeadlineExceeded("x"), "timeout"),
        (AnswerTooLong("x"), "too_long"),
        (KeyError("x"), "internal_error"),
    ],
)
def test_reasons_of_errors(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def outcome(reason: str | None, status: Status = Status.FAILED, **policy: Any) -> Outcome:
    return Outcome(status, reason, "text", Policy("p", **policy))


@pytest.mark.parametrize("kind", list(FailureClass))
def test_each_class_is_blocked_by_itself(kind: FailureClass) -> None:
    only = replace(FailurePolicy(), **{kind.value: OnError.BLOCK})
    reasons = {reason: class_of(reason) for reason in FAILURES}
    for reason, of in reasons.items():
        assert blocks(outcome(reason, on_error=only)) is (of is kind)
        assert not blocks(outcome(reason, on_error=only, mode=Mode.SHADOW))


def test_a_retry_that_did_not_help_ends_as_after_retry_says() -> None:
    assert not blocks(outcome("timeout", on_error=ALL_RETRY))
    assert blocks(outcome("timeout", on_error=ALL_RETRY, after_retry=OnError.BLOCK))
    assert not blocks(outcome("timeout", after_retry=OnError.BLOCK))


ALL_JUDGED = SkipPolicy(*[OnSkip.JUDGE] * len(GOVERNED_SKIPS))


@pytest.mark.parametrize("reason", list(SkipReason))
def test_what_should_have_been_judged_and_was_not_is_a_failure(reason: SkipReason) -> None:
    skipped = outcome(reason.value, Status.SKIPPED, on_error=ALL_BLOCK, on_skip=ALL_JUDGED)
    assert blocks(skipped) is (reason in outcomes.UNJUDGED)
    assert finalize_outcome(skipped).status is (Status.FAILED if blocks(skipped) else Status.SKIPPED)
    assert not blocks(replace(skipped, policy=replace(skipped.policy, on_error=FailurePolicy())))
    assert not blocks(replace(skipped, policy=replace(skipped.policy, mode=Mode.SHADOW)))
    # An answer of which a part was corrected before it turned out to be too long was not judged as a whole.
    assert blocks(replace(skipped, status=Status.CORRECTED)) is blocks(skipped)


@pytest.mark.parametrize("reason", list(SkipReason))
def test_a_reason_that_blocks_blocks_without_any_failure(reason: SkipReason) -> None:
    every = SkipPolicy(*[OnSkip.BLOCK] * len(GOVERNED_SKIPS))
    assert blocks(outcome(reason.value, Status.SKIPPED, on_skip=every)) is (reason in GOVERNED_SKIPS)
    only = replace(SkipPolicy(), quota=OnSkip.BLOCK)
    assert blocks(outcome(reason.value, Status.SKIPPED, on_skip=only)) is (reason is SkipReason.QUOTA)


def test_what_could_not_be_judged_is_not_tried_again() -> None:
    skipped = outcome("quota", Status.SKIPPED, on_error=ALL_RETRY, on_skip=ALL_JUDGED, after_retry=OnError.BLOCK)
    assert Budget(skipped.policy).pause_before_retry(skipped, None) is None
    assert blocks(skipped)


def test_what_lets_an_original_through_is_listed() -> None:
    kind = (Objective("kind", "Kind: the response should never insult"),)
    beside = {side.value: SideTreatment.JUDGE for side in SideKind}
    strict = Policy("p", kind, on_error=ALL_BLOCK, on_skip=ALL_JUDGED, **beside)
    assert lets_through(strict) == []
    assert lets_through(replace(strict, transcripts=SideTreatment.PASS)) == ["transcripts"]
    assert lets_through(replace(strict, on_error=replace(ALL_BLOCK, bug=OnError.RETRY))) == ["bug"]
    assert lets_through(replace(strict, on_skip=replace(ALL_JUDGED, quota=OnSkip.PASSTHROUGH))) == ["quota"]
    assert lets_through(replace(strict, mode=Mode.SHADOW)) == ["mode shadow"]
    assert lets_through(replace(strict, objectives=())) == ["no_objectives"]
    assert lets_through(replace(strict, stream=StreamMode.PASSTHROUGH)) == ["streams (stream: passthrough)"]


@pytest.mark.parametrize("reason", [None, "quota", "too_long", "cancelled", "mode_off"])
def test_what_is_no_failure_is_never_blocked(reason: str | None) -> None:
    assert not blocks(outcome(reason, Status.SKIPPED, on_error=ALL_BLOCK))


def test_a_correction_that_is_delivered_is_no_failure_even_if_the_gate_took_something_out_of_it() -> None:
    delivered = outcome("gate_lost_name", Status.CORRECTED, on_error=ALL_BLOCK)
    assert not blocks(delivered)
    assert finalize_outcome(delivered) is delivered
    assert Budget(Policy("p", on_error=ALL_RETRY)).pause_before_retry(replace(delivered), None) is None


def test_a_refused_correction_failed_only_where_it_blocks() -> None:
    refused = outcome("gate_lost_name", Status.UNCHANGED)
    assert finalize_outcome(refused) is refused
    blocking = outcome("gate_lost_name", Status.UNCHANGED, on_error=ALL_BLOCK)
    assert finalize_outcome(blocking) == replace(blocking, status=Status.FAILED)


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(outcomes, "time", made)
    return made


def test_a_try_gets_what_is_left(clock: Clock) -> None:
    budget = Budget(Policy("p", deadline_s=10))
    assert budget.start_attempt() == 10
    clock.now += 4
    assert budget.start_attempt() == 6
    clock.now += 100
    assert (budget.start_attempt(), budget.attempts) == (0, 3)


def test_where_timeouts_are_tried_again_the_first_try_leaves_time_for_the_second(clock: Clock) -> None:
    budget = Budget(Policy("p", deadline_s=10, on_error=ALL_RETRY))
    assert budget.start_attempt() == 5
    clock.now += 5
    assert budget.pause_before_retry(outcome("timeout"), TimeoutError()) == 0
    assert budget.start_attempt() == 5
    clock.now += 4
    assert budget.pause_before_retry(outcome("timeout"), TimeoutError()) is None


def test_nothing_is_tried_again_that_the_policy_does_not_name(clock: Clock) -> None:
    only = FailurePolicy(overload=OnError.RETRY)
    budget = Budget(Policy("p", on_error=only))
    budget.start_attempt()
    for reason in ("timeout", "engine_unavailable", "internal_error", "gate_empty", "quota", None):
        assert budget.pause_before_retry(outcome(reason), None) is None
    assert budget.pause_before_retry(outcome("overloaded"), EngineOverloaded("x", 1.0)) is not None


def test_a_wait_is_as_long_as_was_asked_for_and_never_past_the_deadline(clock: Clock) -> None:
    budget = Budget(Policy("p", deadline_s=10, on_error=ALL_RETRY))
    budget.start_attempt()
    for error in (EngineOverloaded("x", 3.0), Shed("x", 3.0), BreakerOpen("x", 3.0)):
        pause = budget.pause_before_retry(outcome(error.reason), error)
        assert pause is not None
        assert 3.0 <= pause < 3.2
    assert budget.pause_before_retry(outcome("overloaded"), EngineOverloaded("x", 10.0)) is None
    clock.now += 9.95
    assert budget.pause_before_retry(outcome("engine_unavailable"), None) is None


def test_the_gate_is_asked_about_a_more_careful_correction_once(clock: Clock) -> None:
    budget = Budget(Policy("p", caution=1.0, on_error=ALL_RETRY))
    budget.start_attempt()
    assert budget.attempt_policy is budget.policy
    assert budget.pause_before_retry(outcome("gate_lost_name"), None) == 0
    assert budget.attempt_policy == replace(budget.policy, caution=1.0 + outcomes.MORE_CAUTION)
    budget.start_attempt()
    assert budget.pause_before_retry(outcome("gate_lost_name"), None) is None


REASONS = st.sampled_from(FAILURES)


@given(st.lists(st.tuples(REASONS, st.floats(0, 3)), max_size=60), st.floats(0.1, 30))
def test_no_try_begins_past_the_deadline_and_tries_are_bounded(steps: list[tuple[str, float]], deadline: float) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcomes, "time", clock)
        budget = Budget(Policy("p", deadline_s=deadline, on_error=ALL_RETRY))
        counted: dict[FailureClass | None, int] = {}
        for reason, took in steps:
            assert clock.now < budget.until
            assert budget.start_attempt() <= budget.until - clock.now
            clock.now += took
            kind = class_of(reason)
            counted[kind] = counted.get(kind, 0) + 1
            error = BreakerOpen("x", 0.3) if reason == "breaker_open" else None
            pause = budget.pause_before_retry(outcome(reason), error)
            if pause is None:
                break
            assert counted[kind] < outcomes.MAX_ATTEMPTS.get(kind, math.inf)  # type: ignore[arg-type]
            clock.now += pause
