"""A head learns on: lessons move to their side of the line, and all other scores stay."""

from __future__ import annotations

import pytest
import torch

from aligner_proxy.engine.model.taught import LoadedHead
from aligner_proxy.engine.taught_head import Adjustment, FurtherNet, TaughtHead
from models.data.insults import SOURCE
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN
from models.experiments.insult_lessons import (
    LearningHead,
    LessonRecipe,
    Segments,
    is_held_out,
    is_lesson,
    learn_lessons,
    measure,
)
from models.train.labelled_cases import LabelledCase
from tests.support.taught import WIDTH, head

RECIPE = LessonRecipe(steps=200, seeds=2, lr=3e-3)


def make_head() -> TaughtHead:
    adjustment = Adjustment(bound=2.0, bias=0.5, threshold=0.3, hidden=4)
    return head(
        HARMLESS,
        aligner="",
        prior=0.4,
        bias=-1.0,
        seed=1,
        hidden=8,
        floor=-4.0,
        adjustment=adjustment,
        evidence=FurtherNet(0.25, 2),
    )


def make_segments(count: int, seed: int, source: str, direction: int) -> Segments:
    """Segments in rows around one number of theirs; those of lessons have labels, which another number shows."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, WIDTH, generator=generator) / 4
    rows[:, direction] += 3.0
    against = torch.randint(2, (count,), generator=generator).bool()
    rows[:, 5] += torch.where(against, 2.0, -2.0)
    labels = torch.where(against, AGAINST, FINE) if source == SOURCE else torch.full((count,), UNKNOWN)
    cases = [
        LabelledCase(f"{source}-{number}-0", source, "", "", (HARMLESS,), ((int(label),),), (False,))
        for number, label in enumerate(labels)
    ]
    return Segments(rows, torch.randn(count, generator=generator), labels, tuple(cases))


@pytest.fixture(scope="module")
def learnt() -> LearningHead:
    return learn_lessons(make_head(), make_segments(200, 1, SOURCE, 0), make_segments(400, 2, "good", 1), RECIPE)


def test_a_learning_head_scores_as_the_engine_does() -> None:
    segments = make_segments(50, 3, "good", 1)
    loaded = LoadedHead.from_head(make_head(), torch.device("cpu"))
    assert loaded.adjustment is not None
    expected = 0.4 * segments.general.clamp(min=-4.0) + loaded.net.compute_output(segments.rows)
    expected += loaded.adjustment.compute_move(segments.rows)
    assert torch.allclose(LearningHead(make_head()).score(segments), expected, atol=1e-5)


def test_lessons_that_were_not_seen_move_to_their_side(learnt: LearningHead) -> None:
    others = make_segments(200, 4, SOURCE, 0)
    before, after = (
        (net.score(others) > 0) == (others.labels == AGAINST) for net in (LearningHead(make_head()), learnt)
    )
    assert before.float().mean() < 0.8 < 0.95 < after.float().mean()


def test_other_scores_stay(learnt: LearningHead) -> None:
    others = make_segments(400, 5, "good", 1)
    moves = learnt.score(others) - LearningHead(make_head()).score(others)
    assert moves.abs().mean() < 0.3


def test_what_ships_scores_like_what_was_learnt_and_keeps_its_other_nets(learnt: LearningHead) -> None:
    shipped = learnt.to_head()
    segments = make_segments(100, 6, SOURCE, 0)
    assert torch.allclose(LearningHead(shipped).score(segments), learnt.score(segments), atol=0.02)
    assert TaughtHead.from_bytes(shipped.to_bytes()) == shipped
    before = make_head()
    assert (shipped.evidence, shipped.floor, shipped.prior) == (before.evidence, before.floor, before.prior)
    evidence_bytes = len(before.weight) - len(before.without_evidence().weight)
    assert shipped.weight[-evidence_bytes:] == before.weight[-evidence_bytes:]


def test_only_sentences_with_a_label_are_lessons_and_every_fourth_measures() -> None:
    segments = make_segments(12, 7, SOURCE, 0)
    segments.labels[0] = UNKNOWN
    assert is_lesson(segments).tolist() == [False] + [True] * 11
    assert not is_lesson(make_segments(3, 8, "good", 1)).any()
    assert is_held_out(segments).nonzero()[:, 0].tolist() == [0, 4, 8]


def test_a_set_is_measured_by_its_answers(learnt: LearningHead) -> None:
    lessons = make_segments(40, 9, SOURCE, 0)
    rates = dict(measure(learnt, lessons, {"good": make_segments(30, 10, "good", 1)}))
    held_out = is_held_out(lessons)
    assert rates["insults held out"].n == int((held_out & (lessons.labels == AGAINST)).sum())
    assert rates["good, not"].n == 30
    assert "good, harmful" not in rates
