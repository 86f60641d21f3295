"""From people's spans to labelled segments."""

from __future__ import annotations

from random import Random
from typing import Any

from aligner_proxy.text.structure import split
from models.data.human_spans import MarkedAnswer, make_error_pair, make_marked_pair, read_marked_answers
from models.data.pairs import CHANGES, STAYS, UNKNOWN

TEXT = "The bridge opened in 1931. It has two towers. Bridges are nice. It has two towers."


def row(errors: list[dict[str, Any]], pair: tuple[int, int] = (1, 2)) -> dict[str, Any]:
    ours, other = ("response_1", "response_2") if pair[0] == 1 else ("response_2", "response_1")
    return {"prompt": "When did the bridge open?", "pair": list(pair), ours: TEXT, other: "No.",
            "prediction_1_errors": errors}  # fmt: skip


def mark(text: str, sort: str, last: bool = False) -> dict[str, Any]:
    start = TEXT.rindex(text) if last else TEXT.index(text)
    return {"error type": sort, "start": start, "end": start + len(text)}


def test_a_segment_takes_the_sort_of_the_mark_that_covers_it() -> None:
    errors = [mark("Bridges are nice.", "Irrelevant"), mark("It has two towers.", "Redundant", last=True)]
    (found,) = read_marked_answers([row(errors), row(errors)])
    assert found.kinds == ("", "", "marked-irrelevant", "marked-redundant")


def test_half_a_mark_is_no_knowledge() -> None:
    (found,) = read_marked_answers([row([mark("in 1931.", "Wrong-Grounding")])])
    assert found.kinds[0] == "mixed"


def test_the_marks_are_those_of_the_first_prediction_wherever_it_stands() -> None:
    (found,) = read_marked_answers([row([mark("Bridges are nice.", "Irrelevant")], pair=(3, 1))])
    assert found.text == TEXT
    assert not list(read_marked_answers([row([], pair=(2, 3))]))


def test_what_is_asked_for_goes_and_everything_else_stays() -> None:
    answer = MarkedAnswer("When?", TEXT, ("", "", "marked-irrelevant", "marked-redundant"))
    texts = [segment.text for segment in split(TEXT)]
    made = [pair for seed in range(60) if (pair := make_marked_pair(Random(seed), answer))]
    assert {len(pair.objectives) for pair in made} >= {1, 2}
    assert any(CHANGES in pair.labels for pair in made)
    assert any(pair.target == pair.answer for pair in made)
    for pair in made:
        kept = [text for text, label in zip(texts, pair.labels, strict=True) if label != CHANGES]
        assert " ".join(kept) == pair.target


def test_under_one_objective_every_mark_is_an_error_and_half_a_mark_is_no_knowledge() -> None:
    answer = MarkedAnswer("When?", TEXT, ("", "mixed", "marked-irrelevant", "marked-redundant"))
    pair = make_error_pair(Random(1), answer, "factual")
    assert pair is not None
    assert pair.themes == ("factual",)
    assert pair.labels == (STAYS, UNKNOWN, CHANGES, CHANGES)
    assert pair.target == "The bridge opened in 1931. It has two towers."
    assert make_error_pair(Random(1), MarkedAnswer("When?", TEXT, ("marked-redundant",) * 4), "factual") is None
