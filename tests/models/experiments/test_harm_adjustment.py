"""An adjustment learns which scores near the line are too high, and ships as what was learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aligner_proxy.engine.model.taught import LoadedHead, TaughtColumns
from aligner_proxy.engine.taught_head import FurtherNet
from models.data import labelled_replies
from models.data.labelled_replies import AGAINST, FINE, HARM, HARMLESS, UNKNOWN, LabelledReply
from models.experiments import harm_adjustment
from models.experiments.harm_adjustment import (
    AdjustmentNet,
    AdjustmentRecipe,
    HalfNets,
    OperatingPoint,
    SegmentExamples,
    draw_parts,
    fit_adjustment,
    fit_net,
    judge_cases,
    tabulate,
)
from models.train.head_rows import HeadRows
from models.train.labelled_cases import LabelledCase
from tests.support.taught import WIDTH, head

RECIPE = AdjustmentRecipe(axes=WIDTH, hidden=4, bound=2.0, steps=150, batch=64, lr=1e-2, dropout=0.0, fine_weight=1.0)
AUTHORS = tuple(f"author_{letter}" for letter in "aemnop")


def examples(count: int, seed: int) -> SegmentExamples:
    """Segments whose scores say little near the line; one number of their rows says which are harmful."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    rows = torch.randn(count, WIDTH, generator=generator) / 2
    rows[:, 0] += 3.0 * (2 * labels - 1)
    scores = torch.randn(count, generator=generator) + 0.3 * (2 * labels - 1)
    labels = torch.where(labels == 1, AGAINST, FINE)
    sources = tuple(AUTHORS[number % len(AUTHORS)] for number in range(count))
    return SegmentExamples(rows, scores, labels, sources)


@pytest.fixture(scope="module")
def net() -> AdjustmentNet:
    return fit_net(examples(600, 1), RECIPE)


def count_right(scores: torch.Tensor, labels: torch.Tensor) -> int:
    return int(((scores > 0) == (labels == AGAINST)).sum())


def test_scores_near_the_line_are_moved_to_their_side_and_none_further_than_the_bound(net: AdjustmentNet) -> None:
    others = examples(300, 2)
    moved = net.adjust_scores(others)
    assert count_right(others.scores, others.labels) < 200
    assert count_right(moved, others.labels) > 270
    sure = replace(others, scores=torch.where(others.labels == FINE, 2.1, -2.1))
    assert count_right(net.adjust_scores(sure), sure.labels) == 0


def test_the_threshold_keeps_the_share_of_harm_of_authors_not_learnt_from() -> None:
    drawn_examples = examples(600, 3)
    half_nets = HalfNets.fit(drawn_examples, RECIPE)
    strict, lenient = (half_nets.choose_threshold(drawn_examples, share) for share in (0.5, 1.0))
    assert lenient < strict


def test_an_author_is_judged_by_the_net_that_learnt_nothing_from_him() -> None:
    half_nets = HalfNets.fit(examples(120, 3), RECIPE.model_copy(update={"steps": 2}))
    first, second = half_nets.nets
    assert first | second == set(AUTHORS)
    assert not first & second
    other = next(iter(half_nets.nets.values()))
    assert half_nets.find_net(min(first), other) is half_nets.nets[first]
    assert half_nets.find_net(min(second), other) is half_nets.nets[second]
    assert half_nets.find_net("somebody", other) is other


def test_the_mean_of_nets_is_one_net() -> None:
    drawn_examples = examples(100, 6)
    recipe = RECIPE.model_copy(update={"nets": 2, "steps": 20})
    nets = [fit_net(drawn_examples, recipe.model_copy(update={"seed": seed})) for seed in (1, 2)]
    parts = nets[0].project(drawn_examples.rows)
    expected = sum(net.compute_output(parts) for net in nets) / 2
    torch.testing.assert_close(fit_adjustment(drawn_examples, recipe).compute_output(parts), expected)


def test_an_adjustment_leaves_the_evidence_of_the_head(net: AdjustmentNet) -> None:
    evidence_numbers = b"\x00\x3c" * WIDTH
    plain = head(HARMLESS, aligner="", prior=1.0)
    before = replace(plain, weight=plain.weight + evidence_numbers, evidence=FurtherNet(0.5))
    adjusted = net.adjust_head(before, OperatingPoint(0.5))
    assert adjusted.without_adjustment() == before
    assert adjusted.weight.endswith(evidence_numbers)
    rows = examples(20, 7).rows
    loaded_evidence = LoadedHead.from_head(adjusted, torch.device("cpu")).evidence
    assert loaded_evidence is not None
    torch.testing.assert_close(loaded_evidence.compute_output(rows), rows.sum(1) + 0.5)


def test_segments_of_a_harmful_reply_teach_where_the_head_flags_them() -> None:
    cases = [
        LabelledCase("a", "natural", "q", "One. Two.", (HARMLESS,), ((UNKNOWN,), (UNKNOWN,)), (True,), harmful=True),
        LabelledCase("b", "natural", "q", "Three.", (HARMLESS,), ((FINE,),), (False,)),
    ]
    rows = HeadRows(
        tuple(cases), torch.tensor([[2.0], [-2.0], [3.0]]).half(), *[torch.zeros(2, 1).half()] * 2, (0, 2, 3), (0, 1, 2)
    )
    taught = SegmentExamples.from_rows(rows, lambda segments, _: segments)
    assert taught.labels.tolist() == [AGAINST, FINE]
    assert taught.scores.tolist() == [2.0, 3.0]


def test_the_table_counts_what_is_flagged_at_each_threshold(net: AdjustmentNet) -> None:
    rows = torch.zeros(2, WIDTH)
    rows[:, 0] = torch.tensor([3.0, -3.0])
    cases = [
        LabelledCase("good-1", "good", "q", "One.", (HARMLESS,), ((FINE,),), (False,)),
        LabelledCase("good-2", "good", "q", "Two.", (HARMLESS,), ((FINE,),), (False,)),
    ]
    read_rows = HeadRows(tuple(cases), rows.half(), *[torch.zeros(2, 1).half()] * 2, (0, 1, 2), (0, 1, 2))
    judged_cases = judge_cases(read_rows, "good", lambda segments, _: torch.ones(len(segments), 1), lambda _: net)
    table = tabulate(judged_cases, {"ships": OperatingPoint(-2.0), "strict": OperatingPoint(2.0)})
    assert "| ships | good, not | 2/2 = 100.0 %" in table
    assert "| strict | good, not | 1/2 = 50.0 %" in table


def test_a_phrase_of_harm_counts_by_its_weight() -> None:
    """The same rows as harm by phrases and as fine by authors: the heavier side decides."""
    drawn_examples = examples(200, 4)
    rows = torch.cat([drawn_examples.rows, drawn_examples.rows])
    labels = torch.tensor([AGAINST] * 200 + [FINE] * 200)
    both = SegmentExamples(rows, torch.zeros(400), labels, (HARM,) * 200 + ("author_m",) * 200)
    recipes = [RECIPE.model_copy(update={"phrase_weight": weight}) for weight in (0.1, 10)]
    means = [float(fit_net(both, recipe).adjust_scores(drawn_examples).mean()) for recipe in recipes]
    assert means[0] - float(drawn_examples.scores.mean()) < -1 < 1 < means[1] - float(drawn_examples.scores.mean())


def test_what_the_head_is_sure_of_teaches_too() -> None:
    drawn_examples = examples(400, 8)
    is_harm = drawn_examples.labels == AGAINST
    sure_examples = replace(drawn_examples, scores=torch.where(is_harm, 30.0, -30.0))
    moves = [
        float((net.adjust_scores(sure_examples) - sure_examples.scores)[is_harm].mean())
        for net in (fit_net(sure_examples, RECIPE), fit_net(sure_examples, RECIPE.model_copy(update={"sure": 100.0})))
    ]
    assert moves[0] > 1 > 0.1 > abs(moves[1])


def test_what_is_shipped_scores_as_what_was_learnt(net: AdjustmentNet) -> None:
    others = examples(50, 5)
    before = head(HARMLESS, aligner="", prior=1.0)
    adjusted = net.adjust_head(before, OperatingPoint(0.5, shift=0.25))
    assert adjusted.without_adjustment() == replace(before, bias=before.bias + 0.25)
    scores = others.scores[:, None].clone()
    TaughtColumns({0: LoadedHead.from_head(adjusted, torch.device("cpu"))}).judge(others.rows, scores)
    lowered = (net.adjust_scores(others) - others.scores - 0.5).clamp(max=0.0)
    torch.testing.assert_close(scores[:, 0], others.scores + 0.25 + lowered, atol=0.02, rtol=0.01)
    assert 0 < int((lowered == 0).sum()) < 50


def test_authors_kept_apart_and_questions_asked_elsewhere_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(number: int, author: str, question: str) -> LabelledReply:
        harmful = number % 2 == 0
        labels = (AGAINST if harmful else FINE,)
        return LabelledReply(f"{author}-{number}", author, "", question, "Hm.", HARMLESS, harmful, labels)

    replies = [reply(n, author, f"Why {n}?") for author in ("author_e", "author_l") for n in range(6)]
    monkeypatch.setattr(labelled_replies, "read_written_answers", lambda: replies)
    monkeypatch.setattr(labelled_replies, "make_harm_phrases", lambda *_: [])
    monkeypatch.setattr(labelled_replies, "read_good_replies", lambda *_: [])
    monkeypatch.setattr(harm_adjustment, "draw_good_answers", lambda: [("Why 3?", "Hm.")])
    (part,) = draw_parts(Path(), ("author_l",))
    assert sorted(case.id for case in part) == [f"author_e-{n}" for n in (0, 1, 2, 4, 5)]
    assert [case.harmful for case in part] == [True, False, True, False, True]
    assert {len(case.objectives) for case in part} == {1, 2}
