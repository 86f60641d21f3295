"""What an objective asks for stays, although other objectives would have it go."""

from __future__ import annotations

from random import Random

import pytest

from aligner_proxy.text.structure import split
from models.data.labels import END, relation, relation_in_text
from models.data.pairs import STAYS, UNKNOWN, Pair
from models.data.required import make_present_wish
from models.defects import ALL_KINDS
from models.defects.wanted import WANTED, draw_wish

ANSWER = "The ferry leaves at seven. What a fool must ask such a thing! Why did the ferry cross the sea?"


def base(themes: tuple[str, ...] = ("padding",), labels: tuple[int, ...] = (0, 0, 0)) -> Pair:
    kept = [segment.text for segment, label in zip(split(ANSWER), labels, strict=True) if label == STAYS]
    texts = tuple(f"Wish: number {i}" for i in range(len(themes)))
    kinds = ("", "insult", "joke")
    return Pair("When?", texts, ANSWER, " ".join(kept), labels, "not-asked:x", kinds=kinds, themes=themes)


def test_wordings_of_the_test_are_never_trained_on() -> None:
    rng = Random(1)
    other = Random(2)
    trained = {draw_wish(rng, kind).text for kind in ALL_KINDS for _ in range(60)}
    assert not trained & {draw_wish(other, kind, held_out=True).text for kind in ALL_KINDS for _ in range(4)}


@pytest.mark.parametrize("seed", range(20))
def test_the_example_stays_as_it_was_under_one_wish_more(seed: int) -> None:
    pair = make_present_wish(Random(seed), base)
    assert pair is not None
    assert (pair.answer, pair.target, pair.labels) == (ANSWER, ANSWER, (STAYS,) * 3)
    assert {*pair.themes} - {"padding"} in ({f"{WANTED}insult"}, {f"{WANTED}joke"})
    assert len(pair.objectives) == len(pair.lacks) == 2
    assert set(pair.all_labels) == {STAYS}


def test_nothing_is_asked_for_that_has_to_go() -> None:
    made = [make_present_wish(Random(seed), lambda: base(("insult",), (0, 1, 0))) for seed in range(20)]
    assert {theme for pair in made if pair for theme in pair.themes} == {"insult", f"{WANTED}joke"}
    assert make_present_wish(Random(1), lambda: base(("insult & joke",), (0, 1, 1))) is None
    assert make_present_wish(Random(1), lambda: None) is None


def test_no_segment_goes_on_account_of_such_a_wish() -> None:
    assert relation("insult", f"{WANTED}insult") == relation("", f"{WANTED}insult") == STAYS
    assert relation_in_text("", f"{WANTED}insult", frozenset({"joke"})) == STAYS
    assert relation("insult", f"harmless & {WANTED}insult") == 1


def test_whether_it_is_missing_elsewhere_is_not_known() -> None:
    assert relation(END, f"{WANTED}insult") == UNKNOWN
