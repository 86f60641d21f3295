"""The setting `judge`: its forms, its errors, where it may stand, and which of two judges is stricter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.model_schema import JudgeSetting
from aligner_proxy.policy.shares import shadow_policy
from aligner_proxy.policy.strictness import stricter_policy
from aligner_proxy.types import NO_JUDGE, AlignerShare, AskAbout, GuardForm, Judge, JudgeKind, Objective, Policy

SETTING: TypeAdapter[Judge] = TypeAdapter(JudgeSetting)
FORMS: tuple[tuple[object, Judge, str], ...] = (
    ({"chat": "strong"}, Judge(JudgeKind.CHAT, "strong"), "chat: strong, ask: doubt, band: 0.5"),
    (
        {"guard": "g", "form": "qwen3guard", "ask": "flagged"},
        Judge(JudgeKind.GUARD, "g", GuardForm.QWEN3GUARD, AskAbout.FLAGGED),
        "guard: g, form: qwen3guard, ask: flagged",
    ),
    ({"decisions": "d", "band": 2.0}, Judge(JudgeKind.DECISIONS, "d", band=2.0), "decisions: d, ask: doubt, band: 2"),
    (
        {"chat": "strong", "answer_band": 2.8},
        Judge(JudgeKind.CHAT, "strong", answer_band=2.8),
        "chat: strong, ask: doubt, band: 0.5, answer_band: 2.8",
    ),
    ({"tokens": "facts", "ask": "all"}, Judge(JudgeKind.TOKENS, "facts", ask=AskAbout.ALL), "tokens: facts, ask: all"),
    ("off", NO_JUDGE, "off"),
    (False, NO_JUDGE, "off"),
)


def test_judge_is_read_from_each_form_and_shown() -> None:
    for value, judge, shown in FORMS:
        assert SETTING.validate_python(value) == judge
        assert str(judge) == shown


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("strong", "must be off, or a block"),
        (True, "must be off, or a block"),
        ({}, "must name one model"),
        ({"chat": "a", "decisions": "b"}, "must name one model"),
        ({"chat": "a", "tokens": "b"}, "must name one model"),
        ({"tokens": "a", "form": "qwen3guard"}, "guard and form belong together"),
        ({"guard": "a"}, "guard and form belong together"),
        ({"chat": "a", "form": "nemotron"}, "guard and form belong together"),
        ({"guard": "a", "form": "wildguard"}, "llama_guard"),
        ({"chat": "a", "ask": "never"}, "doubt"),
        ({"chat": "a", "band": 0}, "greater than 0"),
        ({"chat": "a", "answer_band": -1.0}, "greater than or equal to 0"),
        ({"chat": "a", "model": "b"}, "model"),
    ],
)
def test_judge_is_refused_with_a_reason(value: object, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SETTING.validate_python(value)


def test_stricter_policy_takes_the_judge_that_only_flags() -> None:
    flags = Judge(group="a")
    clears = Judge(group="b", ask=AskAbout.FLAGGED)
    other = Judge(group="c", ask=AskAbout.ALL)
    policy = Policy("p", (Objective("kind", "Kindness: never insult"),))
    cases = [
        (NO_JUDGE, NO_JUDGE, NO_JUDGE),
        (NO_JUDGE, flags, flags),
        (flags, NO_JUDGE, flags),
        (NO_JUDGE, clears, NO_JUDGE),
        (clears, NO_JUDGE, NO_JUDGE),
        (clears, flags, flags),
        (clears, clears, clears),
        (clears, other, NO_JUDGE),
    ]
    for first, second, expected in cases:
        assert stricter_policy(replace(policy, judge=first), replace(policy, judge=second)).judge == expected


def test_a_judge_without_a_detector_head_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("aligner: {engine: http://a/v1, template: imhi}\nroutes:\n- match: {}\n  judge: {chat: strong}\n")
    with pytest.raises(ConfigError, match=r"p\.yaml:4: judge: .* has none; set aligner\.engine\.scorer"):
        config.load(file)


def test_an_objective_has_a_judge_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "objectives:\n"
        "  kind: 'Kind: the response should be kind'\n"
        "  calm: {text: 'Calm: the response should be calm', judge: {guard: g, form: shieldgemma}}\n"
        "  third: {text: 'Third: the response should be short', judge: off}\n"
        "defaults: {judge: {chat: strong}}\n"
    )
    objectives = config.objectives(config.load(file))
    judges = {name: objectives[name].judge for name in ("kind", "calm", "third")}
    assert judges == {"kind": None, "calm": Judge(JudgeKind.GUARD, "g", GuardForm.SHIELDGEMMA), "third": NO_JUDGE}
    policy = Policy("p", tuple(objectives[name] for name in judges), judge=Judge(group="strong"))
    assert [judge.group for judge in policy.judges] == ["strong", "g"]
    assert not policy.drop_judges().judges


def test_a_judge_of_an_objective_is_checked_like_others(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    own = "objectives:\n  calm:\n    text: 'Calm: the response should be calm'\n    judge: {chat: strong}\n"
    file.write_text(f"aligner: {{engine: http://a/v1, template: imhi}}\n{own}")
    with pytest.raises(ConfigError, match=r"p\.yaml:5: judge: .* has none; set aligner\.engine\.scorer"):
        config.load(file)
    file.write_text(own.replace("{chat: strong}", "{guard: g}"))
    with pytest.raises(ConfigError, match="guard and form belong together"):
        config.load(file)


def test_a_comparison_asks_no_judge_of_an_objective() -> None:
    calm = Objective("calm", "Calm: be calm", judge=Judge(group="a"))
    compared = shadow_policy(Policy("p", (calm,), shadow_aligner=AlignerShare("other", 100)))
    assert compared is not None
    assert not compared.judges


def test_a_token_classifier_is_one_that_the_engine_here_loads(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    asks = "objectives:\n  calm:\n    text: 'Calm: be calm'\n    judge: {tokens: fcats}\n"
    cases = {
        "": r"p\.yaml:4: aligner\.judges has no 'fcats'; name its model there",
        "aligner: {judges: {facts: ./facts}}\n": r"p\.yaml:5: aligner\.judges has no 'fcats'; did you mean 'facts",
    }
    for head, problem in cases.items():
        file.write_text(head + asks)
        with pytest.raises(ConfigError, match=problem):
            config.load(file)
    # an engine elsewhere has judges of its own
    file.write_text("aligner: {engine: http://gpu:8080}\n" + asks)
    config.load(file)
    file.write_text("aligner: {judges: {facts: ./facts, fcats: owner/name}}\n" + asks)
    loaded = config.load(file)
    assert config.aligner_judges(loaded) == {"facts": tmp_path / "facts", "fcats": "owner/name"}
