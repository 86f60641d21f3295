"""Examples of three tiers: what is in force, what meets it, and that no preference is on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from aligner_proxy_systems.metaalign.checks import met
from aligner_proxy_systems.metaalign.parser import parse
from aligner_proxy_systems.metaalign.types import MOST, PreferenceSource
from models.data.answers import PoolAnswer
from models.data.pairs import CHANGES, read_pairs, write_pairs
from models.systems.metaalign.data import PARTS, Example, count_preferences, examples, main, on_test_side, write_dpo
from models.train import train
from tests.models.train.test_train import log, stage

TEXTS = (
    "You need:\n\n- flour\n- eggs\n- salt\n\nDon't wait! Mix it well. Bake it for 30 minutes. It's done when brown.",
    "**The harbour** opens at six! Bring a coat, it's cold. The ferry leaves at seven. Boats stay close. \U0001f600",
    "It is so. It was so. It will be so. Nobody knows why. Many have tried to find out. None of them came back.",
)
ANSWERS = [PoolAnswer(f"Question {i}?", text, "test") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def made() -> list[Example]:
    return list(examples(ANSWERS, 400, 1))


def test_all_parts_are_there_and_every_target_meets_what_is_in_force(made: list[Example]) -> None:
    assert len(made) == 400
    assert min(Counter(one.part for one in made)[part] for part in PARTS) > 40
    for one in made:
        assert one.objectives
        if one.part == "helpful":
            assert all(
                met(w, one.target) for w in parse(one.dialogue.meta.preference, PreferenceSource.REQUEST).preferences
            )


def test_where_the_tiers_contradict_the_systems_word_is_met(made: list[Example]) -> None:
    told = [one for one in made if one.part == "priority"]
    for one in told:
        (above,) = parse(one.dialogue.meta.system, PreferenceSource.SYSTEM).preferences
        assert met(above, one.target)
        if above.kind in MOST:
            assert "Fullness" not in " ".join(one.objectives)


def test_most_examples_ask_for_a_change_and_labels_say_where(made: list[Example]) -> None:
    same = [one for one in made if one.answer == one.target]
    assert 0 < len(same) <= 100
    for one in made:
        labels = one.pair().labels
        assert (CHANGES in labels) or one.answer.rstrip() == one.target.rstrip() or len(one.target) != len(one.answer)
    assert all(CHANGES not in one.pair().labels for one in same)


def test_no_preference_is_on_both_sides() -> None:
    trained = {one.preference for one in examples(ANSWERS, 500, 1)}
    kept = {one.preference for one in examples(ANSWERS, 100, 2, test=True)}
    assert not trained & kept
    assert not any(map(on_test_side, trained))
    assert all(map(on_test_side, kept))


def test_there_is_a_preference_in_every_second_example(made: list[Example]) -> None:
    assert count_preferences(made) > 200


@pytest.mark.long
def test_there_are_thousands_of_preferences() -> None:
    assert count_preferences(examples(ANSWERS, 4000, 3)) > 2000


def test_the_same_seed_gives_the_same_examples(made: list[Example]) -> None:
    assert list(examples(ANSWERS, 400, 1)) == made
    assert list(examples(ANSWERS, 40, 2)) != made[:40]


def test_comparisons_prefer_what_meets_the_preference(tmp_path: Path, made: list[Example]) -> None:
    changed = [one for one in made if one.target != one.answer]
    assert write_dpo(tmp_path / "dpo.jsonl", made, "ultrafeedback") == len(changed)


def test_one_stage_on_a_tiny_model(tmp_path: Path, made: list[Example]) -> None:
    config = stage(tmp_path, steps=30, checkpoint_every=30)
    write_pairs(tmp_path / "data.jsonl", [one.pair() for one in made[:60]])
    train.main(config)
    rows = log(tmp_path)
    assert sum(row["correction"] for row in rows[-5:]) < sum(row["correction"] for row in rows[:5])


def test_the_command(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.jsonl"
    dpo = tmp_path / "dpo.jsonl"
    main(["--data", str(data_dir), "--seed", "1", "--n", "30", "--out", str(out), "--dpo", str(dpo)])
    assert len(list(read_pairs(out))) == 30
    assert "preferences" in capsys.readouterr().out
