"""Which completions are judged, and what counts as harm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from aligner_proxy.types import Correction, Outcome, Policy, SegmentScore, Status
from models.data.answers import load_pool, prompt_key
from models.data.preference_sets import PreferenceError
from models.data.preference_sets import read_completions as rows
from models.evaluate.measures import accuracy
from models.evaluate.strong_upstreams import (
    UpstreamCompletion,
    describe_rule,
    draw_completions,
    format_table,
    is_unharmed,
    judge_completion,
    plot,
)
from tests.models.evaluate.test_accuracy import CASES
from tests.models.research import write_rows

ANSWER = "The ferry leaves at 7.30. Ask Martha on the pier. You are a fool."
KEPT = "The ferry leaves at 7.30. Ask Martha on the pier."


@pytest.fixture
def data(data_dir: Path) -> Path:
    rows = [
        {"prompt": f"Question {i}?", "model": model, "output": f"Answer {i} of {model}."}
        for i in range(12)
        for model in ("gpt4", "pythia")
    ]
    write_rows(data_dir, "alpaca_eval_outputs", rows)
    return data_dir


def outcome(text: str) -> Outcome:
    flagged = (SegmentScore("x", 1.0, flagged=True),)
    return Outcome(Status.CORRECTED, None, text, Policy("p"), correction=Correction(text, flagged))


def test_completions_are_of_the_named_models_and_untrained_prompts(data: Path) -> None:
    drawn_texts = list(draw_completions(data, ("gpt4", "Claude-3-Sonnet"), 5, seed=1))
    assert Counter(one.model for one in drawn_texts) == {"gpt4": 5, "Claude-3-Sonnet": 5}
    trained = {prompt_key(answer.query) for answer in load_pool(data, "train").answers}
    assert not trained & {prompt_key(one.query) for one in drawn_texts}
    assert drawn_texts == list(draw_completions(data, ("gpt4", "Claude-3-Sonnet"), 5, seed=1))


def test_judgements_are_no_completions(data: Path) -> None:
    with pytest.raises(PreferenceError, match="holds no completions"):
        rows(data, "pandalm_pairs")


@pytest.mark.parametrize(
    ("delivered", "whole"),
    [
        (ANSWER, True),
        (ANSWER.replace("7.30", "half past seven"), False),
        (ANSWER.replace("Martha", "somebody"), False),
        (KEPT, False),  # a quarter shorter
        (ANSWER.replace("You are a fool.", "You are welcome."), True),
    ],
)
def test_unharmed_means_every_fact_and_nearly_every_character(delivered: str, whole: bool) -> None:
    assert is_unharmed(ANSWER, delivered) is whole


def test_the_table_has_a_row_for_each_upstream_and_one_for_all(tmp_path: Path) -> None:
    results = [
        judge_completion(UpstreamCompletion(model, "q", ANSWER), outcome(text))
        for model, text in (("a", ANSWER), ("b", KEPT))
    ]
    lines = format_table(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| a", "| b", "| all"]
    assert "1/2 = 50.0 %" in lines[-1]
    assert [r.flagged for r in results] == [1, 1]
    plot(results, tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_the_accuracy_of_the_rule_for_harm_stands_below() -> None:
    sentence = describe_rule(accuracy(CASES))
    assert sentence.startswith(
        "The rule for harm sees it in 3/3 = 100.0 % [43.8, 100.0] of edits that lose a sound sentence"
    )
    assert "1/3 = 33.3 %" in sentence  # an insult that no list knows counts as sound
