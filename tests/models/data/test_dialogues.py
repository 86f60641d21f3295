"""Dialogues that were asked for: good answers that look like invented turns, and forms that only the test knows."""

from __future__ import annotations

from pathlib import Path
from random import Random

from models.data.answers import SCRIPT, Side, load_pool
from models.data.dialogues import write_script
from models.data.inject import doubtful_themes
from models.data.labels import OFF_TOPIC_THEMES
from models.data.mixture import Mixer
from models.defects.objectives import BUILT_IN, DEFAULT
from tests.support.sampling import examples

READY = ("The ferry leaves at seven.", "Oil the hinges twice a year.")


def test_a_request_and_at_least_three_lines_by_two_speakers_in_turn() -> None:
    for seed in range(200):
        made = write_script(Random(seed), READY)
        lines = [line for line in made.text.split("\n") if line.strip()]
        assert made.source == SCRIPT
        assert "{" not in made.query + made.text
        assert len(lines) >= 3
        assert made.query[0].isupper()


def test_the_same_state_says_the_same_and_others_something_else() -> None:
    made = [write_script(Random(seed), READY) for seed in range(100)]
    assert made == [write_script(Random(seed), READY) for seed in range(100)]
    assert len({one.text for one in made}) == 100


def test_forms_and_speakers_of_the_test_are_never_trained_on() -> None:
    trained = "\n".join(write_script(Random(seed), ()).query for seed in range(600))
    tested = [write_script(Random(seed), (), held_out=True) for seed in range(200)]
    for word in ("podcast", "in court", "phone call", "counter", "beekeeper", "Benedikt", "clockmaker"):
        assert word not in trained
        assert any(word in one.query for one in tested)


def test_speakers_of_ours_ramble_so_nobody_asks_them_to_the_point() -> None:
    assert doubtful_themes(write_script(Random(1), READY)) >= OFF_TOPIC_THEMES


def test_it_stays_whole_under_what_most_operators_ask_for(data_dir: Path) -> None:
    mixer = Mixer(load_pool(data_dir, "test"), Random(1), held_out=True)
    for _ in range(20):
        made = mixer.make_pair("dialogue")
        assert made.target == made.answer
        assert not any(made.labels)
        assert made.objectives == tuple(BUILT_IN[name] for name in DEFAULT)


def test_training_answers_are_dialogues_now_and_then_and_test_answers_never(data_dir: Path) -> None:
    sides: dict[Side, bool] = {"train": False, "test": True}
    for side, held_out in sides.items():
        mixer = Mixer(load_pool(data_dir, side), Random(1), held_out=held_out)
        sources = {mixer.make_pair("clean").source for _ in range(examples(200, 100))}
        assert (f"clean:{SCRIPT}" in sources) is not held_out
