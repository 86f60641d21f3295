"""Examples of three tiers: what is in force, what meets it, and that no preference is on both sides."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from aligner_proxy_systems.metaalign.checks import is_met
from aligner_proxy_systems.metaalign.parser import parse
from aligner_proxy_systems.metaalign.types import MOST, PreferenceSource
from models.data.answers import PoolAnswer
from models.data.pairs import CHANGES, read_pairs, write_pairs
from models.systems.metaalign.data import (
    PARTS,
    PreferenceExample,
    count_preferences,
    draw_examples,
    is_on_test_side,
    main,
    write_dpo,
)
from models.train import train
from tests.models.train.test_train import log, stage

TEXTS = (
    "You need:\n\n- flour\n- eggs\n- salt\n\nDon't wait! Mix it well. Bake it for 30 minutes. It's done when brown.",
    "**The harbour** opens at six! Bring a coat, it's cold. The ferry leaves at seven. Boats stay close. \U0001f600",
    "It is so. It was so. It will be so. Nobody knows why. Many have tried to find out. None of them came back.",
)
ANSWERS = [PoolAnswer(f"Question {i}?", text, "test") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def drawn_examples() -> list[PreferenceExample]:
    return list(draw_examples(ANSWERS, 400, 1))


def test_all_parts_are_there_and_every_target_meets_what_is_in_force(drawn_examples: list[PreferenceExample]) -> None:
    assert len(drawn_examples) == 400
    assert min(Counter(one.part for one in drawn_examples)[part] for part in PARTS) > 40
    for one in drawn_examples:
        assert one.objectives
        if one.part == "helpful":
            assert all(
                is_met(w, one.target) for w in parse(one.dialogue.meta.preference, PreferenceSource.REQUEST).preferences
            )


def test_where_the_tiers_contradict_the_systems_word_is_met(drawn_examples: list[PreferenceExample]) -> None:
    told = [one for one in drawn_examples if one.part == "priority"]
    for one in told:
        (above,) = parse(one.dialogue.meta.system, PreferenceSource.SYSTEM).preferences
        assert is_met(above, one.target)
        if above.kind in MOST:
            assert "Fullness" not in " ".join(one.objectives)


def test_most_examples_ask_for_a_change_and_labels_say_where(drawn_examples: list[PreferenceExample]) -> None:
    same = [one for one in drawn_examples if one.answer == one.target]
    assert 0 < len(same) <= 100
    for one in drawn_examples:
        labels = one.to_pair().labels
        assert (CHANGES in labels) or one.answer.rstrip() == one.target.rstrip() or len(one.target) != len(one.answer)
    assert all(CHANGES not in one.to_pair().labels for one in same)


def test_no_preference_is_on_both_sides(drawn_examples: list[PreferenceExample]) -> None:
    trained = {one.preference for one in drawn_examples}
    kept = {one.preference for one in draw_examples(ANSWERS, 100, 2, test=True)}
    assert not trained & kept
    assert not any(map(is_on_test_side, trained))
    assert all(map(is_on_test_side, kept))


def test_there_is_a_preference_in_every_second_example(drawn_examples: list[PreferenceExample]) -> None:
    assert count_preferences(drawn_examples) > 200


@pytest.mark.long
def test_there_are_thousands_of_preferences() -> None:
    assert count_preferences(draw_examples(ANSWERS, 4000, 3)) > 2000


def test_the_same_seed_gives_the_same_examples(drawn_examples: list[PreferenceExample]) -> None:
    assert list(islice(draw_examples(ANSWERS, 400, 1), 60)) == drawn_examples[:60]
    assert list(draw_examples(ANSWERS, 40, 2)) != drawn_examples[:40]


def test_comparisons_prefer_what_meets_the_preference(tmp_path: Path, drawn_examples: list[PreferenceExample]) -> None:
    changed = [one for one in drawn_examples if one.target != one.answer]
    assert write_dpo(tmp_path / "dpo.jsonl", drawn_examples, "ultrafeedback") == len(changed)


def test_one_stage_on_a_tiny_model(tmp_path: Path, drawn_examples: list[PreferenceExample]) -> None:
    config = stage(tmp_path, steps=30, checkpoint_every=30)
    write_pairs(tmp_path / "data.jsonl", [one.to_pair() for one in drawn_examples[:60]])
    train.main(config)
    rows = log(tmp_path)
    assert sum(row["correction"] for row in rows[-5:]) < sum(row["correction"] for row in rows[:5])


def test_the_command(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.jsonl"
    dpo = tmp_path / "dpo.jsonl"
    main(["--data", str(data_dir), "--seed", "1", "--n", "30", "--out", str(out), "--dpo", str(dpo)])
    assert len(list(read_pairs(out))) == 30
    assert "preferences" in capsys.readouterr().out
