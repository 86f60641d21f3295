"""The sets that measure an aligner: all there, nothing in them ever trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.answers import prompt_key
from models.data.mixture import build_examples
from models.data.pairs import Pair
from models.data.test_sets import make_held_out_sets
from models.defects import UNSEEN_KINDS
from tests.support.sampling import examples

pytestmark = pytest.mark.timeout(600)  # making a side takes ten seconds on an idle core

SETS = {
    "clean", "clean_long", "insult", "other_wordings", "unseen_kinds", "not_asked", "innocent",
    "invented_turns_real", "invented_turns_default",
    "inside_sentence", "on_topic", "compared_replies", "marked",
    "clean_after_insults", "insult_after_insults",
    "written", "written_not_asked", "written_unseen", "alike", "alike_unseen", "natural",
    "marked_factual", "marked_specific",
    "ending_missing", "ending_there", "wanted_there", "dialogue",
}  # fmt: skip
UNCHANGED = {
    "clean",
    "clean_long",
    "clean_after_insults",
    "not_asked",
    "written_not_asked",
    "innocent",
    "alike",
    "alike_unseen",
    "ending_there",
    "wanted_there",
    "dialogue",
}
TEST_ONLY = {"marked_factual", "marked_specific", "dialogue"}
MIXED = {"compared_replies", "marked", "natural", "marked_factual", "marked_specific"}


@pytest.fixture(scope="module")
def trained(data_dir: Path) -> list[Pair]:
    return list(build_examples(data_dir, 1, examples(500)))


@pytest.fixture(scope="module")
def tested(data_dir: Path, set_size: int) -> dict[str, list[Pair]]:
    return make_held_out_sets(data_dir, 1, "test", set_size)


def test_all_test_sets_are_there_and_repeat_no_answer(tested: dict[str, list[Pair]]) -> None:
    assert set(tested) == SETS
    assert all(tested.values())
    assert all(
        len({p.answer for p in made}) == len(made) for name, made in tested.items() if name != "compared_replies"
    )


def test_no_test_prompt_is_trained_on(trained: list[Pair], tested: dict[str, list[Pair]]) -> None:
    seen = {prompt_key(p.query) for p in trained}
    assert not seen & {prompt_key(p.query) for made in tested.values() for p in made}


def test_development_and_test_have_no_prompt_in_common(
    dev_sets: dict[str, list[Pair]], tested: dict[str, list[Pair]]
) -> None:
    chosen = {prompt_key(p.query) for made in dev_sets.values() for p in made}
    assert chosen
    assert not chosen & {prompt_key(p.query) for made in tested.values() for p in made}


@pytest.mark.parametrize("name", sorted(UNCHANGED))
def test_sets_in_which_nothing_may_change(tested: dict[str, list[Pair]], name: str) -> None:
    assert all(p.target == p.answer for p in tested[name])


@pytest.mark.parametrize(
    "name",
    sorted(SETS - UNCHANGED - MIXED),
)
def test_sets_in_which_something_must_change(tested: dict[str, list[Pair]], name: str) -> None:
    assert all(p.target != p.answer and any(p.all_labels) for p in tested[name])


def test_unseen_kinds_never_occur_in_training(trained: list[Pair], tested: dict[str, list[Pair]]) -> None:
    names = {kind.name for kind in UNSEEN_KINDS}
    assert {p.source.split(":")[1] for p in tested["unseen_kinds"]} <= names
    assert not any(name in p.source for p in trained for name in names)


def test_the_command_writes_the_sets_of_a_side(dev_folder: Path) -> None:
    assert {path.name for path in dev_folder.iterdir()} == {f"{name}.jsonl" for name in SETS - TEST_ONLY}


@pytest.mark.shared_data
def test_the_real_data_fill_every_set(shared_data: Path) -> None:
    assert all(10 <= len(made) <= 600 for made in make_held_out_sets(shared_data, 1, "test").values())
