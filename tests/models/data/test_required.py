"""Endings: who asks for one, who has it already, and that everything else stays as it was."""

from __future__ import annotations

from random import Random

import pytest

from aligner_proxy.text.structure import split
from models.data.labels import CLOSING, END, relation
from models.data.pairs import CHANGES, STAYS, Pair
from models.data.required import make_missing_ending, make_present_ending
from models.defects.endings import ENDING, draw_ending, last_words

ANSWER = "The ferry leaves at seven. Bring a warm coat with you."


def base(answer: str = ANSWER, themes: tuple[str, ...] = ("harmless",)) -> Pair:
    count = len(split(answer))
    texts = tuple(f"Wish: number {i}" for i in range(len(themes)))
    return Pair("When?", texts, answer, answer, (STAYS,) * count, "clean:x", kinds=("",) * count, themes=themes)


def make_changed_pair(make: object, seed: int, pair: Pair) -> Pair:
    rng = Random(seed)
    found = None
    while found is None:
        found = make(rng, lambda: pair)  # type: ignore[operator]
    return found


@pytest.mark.parametrize("held_out", [False, True])
def test_every_wish_is_met_by_its_own_text_and_not_by_an_answer_without_one(held_out: bool) -> None:
    rng = Random(1)
    for _ in range(300):
        wish = draw_ending(rng, held_out)
        assert wish.objective.theme.startswith(ENDING)
        assert not wish.is_met(ANSWER)
        assert wish.is_met(f"{ANSWER} {wish.text}")


def test_wordings_of_the_test_are_never_trained_on() -> None:
    rng = Random(1)
    other = Random(2)
    trained = {draw_ending(rng).objective.text for _ in range(3000)}
    assert not trained & {draw_ending(other, held_out=True).objective.text for _ in range(500)}


@pytest.mark.parametrize("seed", range(30))
def test_what_is_missing_stands_behind_the_target_only(seed: int) -> None:
    pair = make_changed_pair(make_missing_ending, seed, base())
    assert pair.target.startswith(pair.answer)
    assert len(pair.target) > len(pair.answer)
    asked = [theme.startswith(ENDING) for theme in pair.themes]
    assert [lacks == CHANGES for lacks in pair.lacks] == asked
    assert sum(asked) == 1
    assert set(pair.labels) == {STAYS}
    assert pair.all_labels == (*pair.labels, CHANGES)


@pytest.mark.parametrize("seed", range(30))
def test_an_answer_that_ends_so_already_stays(seed: int) -> None:
    pair = make_changed_pair(make_present_ending, seed, base())
    assert pair.target == pair.answer
    assert pair.answer.startswith(ANSWER)
    assert set(pair.lacks) == set(pair.all_labels) == {STAYS}
    assert len(pair.labels) == len(pair.kinds) == len(split(pair.answer))


def test_a_list_gets_its_ending_on_a_line_of_its_own() -> None:
    pair = make_changed_pair(make_missing_ending, 3, base("- Boil the water\n- Add the rice"))
    assert pair.target.startswith("- Boil the water\n- Add the rice\n\n")


def test_who_objects_to_closing_remarks_is_not_asked_for_one() -> None:
    assert make_missing_ending(Random(1), lambda: base(themes=("direct",))) is None
    assert make_missing_ending(Random(1), lambda: None) is None


def test_an_answer_whose_end_goes_cannot_have_it_already() -> None:
    pair = base()
    gone = Pair("When?", pair.objectives, ANSWER, split(ANSWER)[0].text, (0, 1), "x", kinds=("", "insult"),
                themes=("harmless",))  # fmt: skip
    assert all(make_present_ending(Random(seed), lambda: gone) is None for seed in range(20))
    found = make_changed_pair(make_missing_ending, 4, gone)
    assert found.target.startswith("The ferry leaves at seven. ")
    assert found.labels == (0, 1)


def test_the_end_of_an_answer_is_against_no_wish_for_removal() -> None:
    assert relation(END, "harmless") == relation(END, "insult") == STAYS
    assert relation(END, f"{ENDING}offer") == -1
    assert relation("insult", f"{ENDING}offer") == STAYS


def test_who_objects_to_closing_remarks_may_object_to_one_that_others_ask_for() -> None:
    assert relation(CLOSING, "direct") == relation(CLOSING, "sign-off") == -1
    assert relation(CLOSING, "harmless") == relation(CLOSING, f"{ENDING}offer") == STAYS
    assert make_changed_pair(make_present_ending, 1, base()).kinds[-1] == CLOSING


def test_only_the_last_words_count() -> None:
    assert last_words("One. Two. Three.") == "Two. Three."
