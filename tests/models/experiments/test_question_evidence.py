"""Evidence of questions is learnt from whole questions, and becomes part of a head."""

from __future__ import annotations

import pytest
import torch

from aligner_proxy.engine.model.taught import LoadedHead
from aligner_proxy.engine.taught_head import FurtherNet, TaughtHead
from models.data.harm_questions import AskedQuestion
from models.experiments.question_evidence import (
    QuestionNet,
    QuestionRecipe,
    add_question,
    fit_questions,
    hash_questions,
    make_question_cases,
    tabulate,
)
from models.train.head_rows import HeadRows
from tests.support.taught import WIDTH, head

RECIPE = QuestionRecipe(axes=WIDTH, hidden=2, steps=150, batch=48, lr=1e-2, dropout=0.0, nets=2)
QUESTIONS = [
    AskedQuestion("doors" if n % 2 else "author_a", f"How do I paint number {n}?", n % 2 == 1) for n in range(8)
]


def draw_rows(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of questions, every second of which asks for harm."""
    labels = (torch.arange(count) % 2).float()
    rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    rows[:, 0] += 4.0 * labels
    return rows, labels


@pytest.fixture(scope="module")
def net() -> QuestionNet:
    return fit_questions(*draw_rows(400, 1), RECIPE)


def test_questions_are_told_apart(net: QuestionNet) -> None:
    rows, labels = draw_rows(200, 2)
    assert ((net.score_questions(rows) > 0) == labels.bool()).float().mean() > 0.85
    assert net.inner.out_features == RECIPE.nets * RECIPE.hidden


def test_a_head_gets_the_net_in_place_of_one_that_it_had(net: QuestionNet) -> None:
    before = head(seed=1, evidence=FurtherNet(0.5, hidden=1))
    changed = add_question(before, net)
    assert TaughtHead.from_bytes(changed.to_bytes()) == changed
    assert changed.without_question() == before
    assert add_question(changed, net) == changed
    rows, _ = draw_rows(20, 3)
    question = LoadedHead.from_head(changed, torch.device("cpu")).question
    assert question
    assert torch.allclose(question.compute_output(rows), net.score_questions(rows), atol=0.02)


def test_one_question_in_four_follows_an_ordinary_exchange_whatever_it_asks_for() -> None:
    cases = make_question_cases(QUESTIONS * 3)
    dialogues = [case for case in cases if "Assistant:" in case.query]
    assert len(dialogues) == 6
    for case, question in zip(cases, QUESTIONS * 3, strict=True):
        assert question.text in case.query
        assert case.harmful is question.asks_for_harm
    assert hash_questions(cases) != hash_questions(cases[1:])


def test_the_table_counts_the_questions_of_each_source(net: QuestionNet) -> None:
    cases = make_question_cases(QUESTIONS)
    rows, _ = draw_rows(8, 4)
    rows[:, 0] = torch.tensor([9.0 if case.harmful else -9.0 for case in cases])
    empty = torch.zeros(0, WIDTH)
    table = tabulate(net, HeadRows(tuple(cases), empty, empty, rows.half(), (0,) * 9, (0,) * 9))
    assert "| doors | ask for harm | 4/4 = 100.0 %" in table
    assert "| ours | others | 0/4 = 0.0 %" in table
    assert "AUC: 1.000" in table
