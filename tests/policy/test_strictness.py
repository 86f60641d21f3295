"""What is stricter: of two values, of two policies, and what untrusted metadata may change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.policy.strictness import may_tighten, stricter_policy, takes_away, tightens
from aligner_proxy.types import FailurePolicy, JsonStrings, Mode, Objective, OnError, Policy, StreamMode

KIND = Objective("kind", "Kindness: be kind")
BRIEF = Objective("brief", "Brevity: be brief")
LAX = Policy("lax", (KIND,), Mode.SHADOW, StreamMode.SENTENCE, sample=0.5)
STRICT = Policy("strict", (BRIEF,), Mode.ENFORCE, StreamMode.HOLD, after_retry=OnError.BLOCK)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("mode", ["off", "shadow", "enforce"]),
        ("stream", ["passthrough", "sentence", "hold"]),
        ("on_error.gate", ["passthrough", "retry", "block"]),
        ("after_retry", ["passthrough", "block"]),
    ],
)
def test_each_scale_goes_from_lax_to_strict(name: str, order: list[str]) -> None:
    for low, first in enumerate(order):
        for high, second in enumerate(order):
            assert tightens(name, second, first) == may_tighten(name, second, first) == (high > low)


@pytest.mark.parametrize("name", ["caution", "deadline_s", "gate", "sample", "corrector", "anything"])
def test_what_has_no_scale_never_tightens(name: str) -> None:
    assert not may_tighten(name, 1, 0)


def test_a_grant_takes_rights_away_or_gives_them() -> None:
    assert takes_away("enforce", ("kind",))
    assert takes_away("deny", ("kind",))
    assert takes_away("allow_bypass", False)
    assert not takes_away("allow_bypass", True)
    assert not takes_away("quota", 0.0)


@pytest.mark.parametrize(("first", "second"), [(LAX, STRICT), (STRICT, LAX)])
def test_the_stricter_mode_leads_whatever_the_order(first: Policy, second: Policy) -> None:
    policy = stricter_policy(first, second)
    assert (policy.name, policy.mode, policy.objectives) == ("strict", Mode.ENFORCE, (BRIEF,))
    assert (policy.stream, policy.after_retry, policy.sample) == (StreamMode.HOLD, OnError.BLOCK, 1.0)


def test_between_equal_modes_the_first_leads_and_takes_over_what_is_stricter() -> None:
    blocking = replace(
        LAX, name="b", objectives=(BRIEF,), on_error=FailurePolicy(bug=OnError.BLOCK), max_answer_chars=7
    )
    blocking = replace(blocking, origins=(("on_error.bug", "there"), ("on_error.gate", "there")))
    policy = stricter_policy(replace(LAX, on_error=FailurePolicy(gate=OnError.RETRY)), blocking)
    assert (policy.name, policy.objectives, policy.max_answer_chars) == ("lax", (KIND,), LAX.max_answer_chars)
    assert (policy.on_error.bug, policy.on_error.gate) == (OnError.BLOCK, OnError.RETRY)
    assert policy.origins == (("on_error.bug", "there"),)


def test_a_policy_that_corrects_nothing_adds_nothing() -> None:
    for nothing in (Policy("none", after_retry=OnError.BLOCK), replace(STRICT, mode=Mode.OFF)):
        assert stricter_policy(LAX, nothing) == stricter_policy(nothing, LAX) == LAX


def test_a_bypass_needs_both() -> None:
    assert not stricter_policy(replace(LAX, bypass=True), STRICT).bypass
    assert stricter_policy(replace(LAX, bypass=True), replace(STRICT, bypass=True)).bypass


POLICIES = st.builds(
    Policy,
    st.sampled_from("abc"),
    st.sampled_from([(), (KIND,), (KIND, BRIEF)]),
    st.sampled_from(Mode),
    st.sampled_from(StreamMode),
    sample=st.sampled_from([0.0, 0.5, 1.0]),
    on_error=st.builds(FailurePolicy, st.sampled_from(OnError), gate=st.sampled_from(OnError)),
    json_strings=st.sampled_from(JsonStrings),
)


@given(POLICIES, POLICIES)
def test_no_setting_is_laxer_than_in_either_that_corrects(first: Policy, second: Policy) -> None:
    policy = stricter_policy(first, second)
    for one in (first, second):
        if one.objectives and one.mode is not Mode.OFF:
            assert policy.objectives
            assert policy.sample >= one.sample
            for name in ("mode", "stream", "json_strings"):
                assert not tightens(name, getattr(one, name), getattr(policy, name))
            assert not tightens("on_error", one.on_error.gate, policy.on_error.gate)
    assert stricter_policy(policy, policy) == policy
