"""The general head learns on: lessons move to their side of the line, and all other scores stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aligner_proxy.engine.model.detector import DetectorHead
from models.data.labelled_replies import AGAINST, HARMLESS, UNKNOWN
from models.experiments.objective_lessons import (
    HELD,
    LESSONS,
    ObjectiveLessonRecipe,
    hide_labels,
    learn_objectives,
    measure_exact,
    measure_lessons,
)
from models.train.head_rows import HeadRows
from tests.support.head_rows import HIDDEN, LAYERS, rows

RECIPE = ObjectiveLessonRecipe(
    width=16,
    steps=300,
    lr=1e-2,
    dropout=0.0,
    hold=0.1,
    seeds=2,
    batch={LESSONS: 8, HELD: 8},
    learnt=frozenset({LESSONS}),
    held_by_side=frozenset(),
)


def make_head() -> DetectorHead:
    """The head before, always with the same numbers."""
    torch.manual_seed(3)
    return DetectorHead(HIDDEN, LAYERS, 16).eval()


@pytest.fixture(scope="module")
def before() -> DetectorHead:
    return make_head()


def make_held_rows(against: int | None = None) -> HeadRows:
    """Cases under another objective, without the mark of lessons: nothing says that their scores should move."""
    held = rows("held", 80, 4, against=against)
    held.segments[:, 0] = 0
    return replace(held, objectives=-held.objectives)


def learn(before: DetectorHead, held: HeadRows) -> DetectorHead:
    lessons = rows("lessons", 80, 1, against=AGAINST)
    return learn_objectives(before, {LESSONS: lessons, HELD: held}, RECIPE)


@pytest.fixture(scope="module")
def learnt(before: DetectorHead) -> DetectorHead:
    """The head that has learnt from lessons beside held rows without labels."""
    return learn(before, make_held_rows())


def test_unseen_lessons_move_to_their_side_and_the_head_before_stays_as_it_was(
    before: DetectorHead, learnt: DetectorHead
) -> None:
    unseen = rows("test", 40, 2, against=AGAINST)
    assert measure_exact(learnt, unseen).hits > measure_exact(before, unseen).hits + len(unseen) / 4
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in make_head().state_dict().items())


def test_the_mean_of_what_several_heads_learn_is_added(before: DetectorHead) -> None:
    lessons = rows("lessons", 80, 1, against=AGAINST)
    sets = {LESSONS: lessons, HELD: make_held_rows()}
    once, twice = (
        learn_objectives(before, sets, RECIPE.model_copy(update={"steps": 20, "seeds": count})) for count in (1, 2)
    )
    assert once.score.in_features == before.score.in_features + RECIPE.width
    assert twice.score.in_features == before.score.in_features + 2 * RECIPE.width
    width = before.score.in_features
    torch.testing.assert_close(twice.score.weight[:, width : width + RECIPE.width], once.score.weight[:, width:] / 2)


def test_labels_of_a_held_set_teach_nothing(before: DetectorHead, learnt: DetectorHead) -> None:
    with_labels = learn(before, make_held_rows(AGAINST))
    for name, tensor in with_labels.state_dict().items():
        assert torch.equal(tensor, learnt.state_dict()[name])


def test_held_scores_stay(before: DetectorHead) -> None:
    """Another objective than the lessons': nothing says that its scores should move."""
    held = rows("held", 80, 4)
    held = replace(held, objectives=-held.objectives)
    lessons = rows("lessons", 80, 1, against=AGAINST)
    moves = {}
    for hold in (0.0, 0.1):
        recipe = RECIPE.model_copy(update={"hold": hold, "steps": 100, "seeds": 1})
        head = learn_objectives(before, {LESSONS: lessons, HELD: held}, recipe)
        pairs = zip(held.scores(head), held.scores(before), strict=True)
        moves[hold] = float(torch.cat([(after - score).flatten().abs() for after, score in pairs]).mean())
    assert moves[0.1] < moves[0.0] / 2


def test_scores_that_are_held_by_their_side_move_but_do_not_cross_the_line(before: DetectorHead) -> None:
    # of the same objective as the lessons, which pull these scores over the line
    sets = {LESSONS: rows("lessons", 80, 1, against=AGAINST), HELD: rows("held", 80, 4)}
    before_scores = torch.cat([scores.flatten() for scores in sets[HELD].scores(before)])
    moves = {}
    crossed_counts = {}
    for name, changes in {
        "free": {"hold": 0.0},
        "exact": {"hold": 10.0},
        "side": {"hold": 10.0, "held_by_side": frozenset({HELD})},
    }.items():
        head = learn_objectives(before, sets, RECIPE.model_copy(update={"steps": 100, "seeds": 1} | changes))
        scores = torch.cat([of_case.flatten() for of_case in sets[HELD].scores(head)])
        moves[name] = float((scores - before_scores).abs().mean())
        crossed_counts[name] = int(((scores > 0) != (before_scores > 0)).sum())
    assert moves["exact"] < moves["side"] / 2
    assert crossed_counts["side"] < crossed_counts["free"] / 4


def test_a_hidden_label_is_unknown() -> None:
    hidden = hide_labels(rows("held", 4, 4, against=AGAINST))
    assert {label for case in hidden.cases for labels in case.labels for label in labels} == {UNKNOWN}


def test_a_lesson_is_measured_by_the_label_of_each_segment(before: DetectorHead) -> None:
    cases = rows("lessons", 10, 1, against=AGAINST)
    owned = replace(cases, cases=tuple(replace(case, own=HARMLESS) for case in cases.cases))
    rates = measure_lessons(before, owned)
    assert (rates["against"].n, rates["allowed"].n) == (5, 25)
    assert "beside" not in rates
