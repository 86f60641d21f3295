"""A head trained alone learns what is labelled, and stays where it was wherever nothing is."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from aligner_proxy.engine.model.detector import DetectorHead
from models.data.labelled_replies import AGAINST, FINE, HARMLESS
from models.train import head_alone, head_rows
from models.train.head_alone import HeadRecipe
from models.train.head_rows import HeadRowReader, HeadRows
from models.train.labelled_cases import LabelledCase
from tests.support import tiny
from tests.support.head_rows import HIDDEN, LAYERS, rows


@pytest.fixture
def before() -> DetectorHead:
    torch.manual_seed(3)
    return DetectorHead(HIDDEN, LAYERS, 16).eval()


def middle(head: DetectorHead, read: HeadRows) -> torch.Tensor:
    return torch.stack([scores[1, 0] for scores in read.scores(head)])


@pytest.mark.some(2)
@pytest.mark.parametrize("wider", [0, 4])
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_labelled_is_learnt(before: DetectorHead, *, whole: bool, wider: int) -> None:
    taught = rows("taught", 80, 1, against=AGAINST, whole=whole)
    recipe = HeadRecipe(shares={"taught": 1.0}, steps=150, lr=5e-3, wider=wider, bag=2.0)
    kept = copy.deepcopy(before.state_dict())
    head = head_alone.train_head(before, {"taught": taught}, recipe)
    scores = middle(head, rows("test", 40, 2, against=AGAINST))
    assert bool((scores[::2] > 0).all())
    assert bool((scores[1::2] < 0).float().mean() > 0.9)
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in kept.items())


def test_a_pull_holds_the_scores_where_nothing_is_known(before: DetectorHead) -> None:
    sets = {"taught": rows("taught", 80, 1, against=FINE), "held": rows("held", 80, 4)}
    test = rows("test", 40, 5)
    ways = {}
    for pull in (0.0, 5.0):
        recipe = HeadRecipe(
            shares={"taught": 1.0, "held": 1.0}, held=frozenset({"held"}), pull=pull, steps=150, lr=2e-3, batch=16
        )
        ways[pull] = (middle(head_alone.train_head(before, sets, recipe), test) - middle(before, test)).abs().mean()
    assert ways[5.0] < ways[0.0] / 2


def test_where_the_head_before_is_wrong_it_is_no_model(before: DetectorHead) -> None:
    read = rows("held", 20, 4, against=AGAINST)
    data = head_alone.make_batch([head_alone.DrawnCase(read, number, may_hold=True) for number in range(20)])
    wrong = copy.deepcopy(before)
    with torch.no_grad():
        wrong.score.bias.fill_(-50.0)
    recipe = HeadRecipe(shares={"held": 1.0}, pull=1.0)
    only_known = recipe.model_copy(update={"pull": 0.0})
    head = copy.deepcopy(wrong)
    # All that must change is scored low by both: nothing but the labels speaks, and they say the same either way.
    assert torch.equal(
        head_alone.compute_loss(head, wrong, data, recipe).detach(),
        head_alone.compute_loss(head, wrong, data, only_known).detach(),
    )
    moved = copy.deepcopy(wrong)
    with torch.no_grad():
        moved.score.bias.fill_(50.0)
    both = head_alone.compute_loss(moved, wrong, data, recipe)
    assert both > head_alone.compute_loss(moved, wrong, data, only_known)


def test_more_hidden_units_say_nothing_at_first(before: DetectorHead) -> None:
    read = rows("any", 6, 9)
    wide = head_alone.widen_head(before, 5)
    assert wide.score.in_features == before.score.in_features + 5
    for old, new in zip(read.scores(before), read.scores(wide), strict=True):
        assert torch.allclose(old, new, atol=1e-5)


def test_two_heads_as_one_score_what_both_score_together(before: DetectorHead) -> None:
    read = rows("any", 6, 9)
    lowered = copy.deepcopy(before)
    lowered.store_neutral(read.segments.float() + 3)
    lowered.floor.fill_(-20.0)
    addition = DetectorHead(HIDDEN, LAYERS, 5)
    together = head_alone.add_heads(lowered, addition)
    assert together.score.in_features == before.score.in_features + 5
    assert any(not torch.equal(old, new) for old, new in zip(read.scores(before), read.scores(lowered), strict=True))
    for old, added, new in zip(read.scores(lowered), read.scores(addition), read.scores(together), strict=True):
        torch.testing.assert_close(old + added, new, atol=1e-5, rtol=1e-5)


def answers() -> list[LabelledCase]:
    texts = ("The harbour opens at nine.", "You are wrong. Go away.", "Yes.")
    return [
        LabelledCase(f"r{n}", "s", f"Question {n}?", text, (HARMLESS, "Brevity: be short.")[: 1 + n % 2], (), (False,))
        for n, text in enumerate(texts)
    ]


@pytest.fixture
def reader() -> HeadRowReader:
    return HeadRowReader(tiny.model(), PreTrainedTokenizerFast(tokenizer_object=tiny.backend()), LAYERS)


def test_rows_do_not_depend_on_what_they_were_read_with_and_are_read_once(
    reader: HeadRowReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = reader.read(answers(), tmp_path / "together")
    alone = head_rows.join_rows([reader.read([one], tmp_path / "alone") for one in answers()])
    assert together.cases == alone.cases
    assert together.segment_starts == alone.segment_starts == (0, 1, 3, 4)
    assert together.objective_starts == alone.objective_starts == (0, 1, 3, 4)
    assert torch.allclose(together.segments.float(), alone.segments.float(), atol=5e-3)
    assert torch.allclose(together.objectives.float(), alone.objectives.float(), atol=5e-3)
    assert torch.allclose(together.questions.float(), alone.questions.float(), atol=5e-3)
    assert len(together.questions) == 3
    monkeypatch.setattr(HeadRowReader, "_write", None)
    again = reader.read(answers(), tmp_path / "together")
    assert torch.equal(again.segments, together.segments)


def test_scores_are_those_of_each_case_alone(before: DetectorHead) -> None:
    read = rows("any", 6, 9)
    picked = read.pick_cases([4, 1])
    both = read.scores(before)
    assert picked.cases == (read.cases[4], read.cases[1])
    assert all(
        torch.allclose(scores, both[n], atol=1e-5) for scores, n in zip(picked.scores(before), (4, 1), strict=True)
    )
