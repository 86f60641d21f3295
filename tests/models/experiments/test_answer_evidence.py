"""Evidence of whole answers is learnt from labels of answers, and its point is set by ordinary ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aligner_proxy.engine.model.taught import LoadedHead, LoadedNet
from aligner_proxy.engine.taught_head import TaughtHead
from models.data.labelled_replies import FINE, HARMLESS, LabelledReply
from models.evaluate import guards
from models.experiments import answer_evidence
from models.experiments.answer_evidence import (
    Answers,
    EvidenceNet,
    EvidenceRecipe,
    add_evidence,
    average,
    average_evidence,
    fit_evidence,
    fit_net,
    set_point,
    tabulate,
)
from tests.support.taught import WIDTH, head

RECIPE = EvidenceRecipe(axes=WIDTH, hidden=4, steps=200, batch=48, lr=1e-2, dropout=0.0, nets=1, beginnings=0.0)


def draw_answers(count: int, seed: int) -> Answers:
    """Answers of two to five segments; of a harmful one every second segment says so, and none says it alone."""
    generator = torch.Generator().manual_seed(seed)
    harmful = torch.arange(count) % 2 == 0
    lengths = torch.randint(2, 6, (count,), generator=generator)
    owners = torch.repeat_interleave(torch.arange(count), lengths)
    rows = torch.randn(len(owners), WIDTH, generator=generator)
    places = torch.arange(len(owners)) % 2
    rows[:, 0] += 3.0 * harmful[owners] * places
    return Answers(rows, (0, *lengths.cumsum(0).tolist()), harmful.float())


@pytest.fixture(scope="module")
def net() -> EvidenceNet:
    return fit_evidence(draw_answers(400, 1), RECIPE)


def score_answers(net: EvidenceNet, answers: Answers) -> torch.Tensor:
    segments, owners = answers.find_segments(torch.arange(len(answers)))
    return average(net.score_segments(answers.rows[segments]), owners, len(answers))


def test_answers_are_told_apart_by_the_mean_of_their_segments(net: EvidenceNet) -> None:
    other_answers = draw_answers(200, 2)
    right = (score_answers(net, other_answers) > 0) == other_answers.harmful.bool()
    assert right.float().mean() > 0.85


def test_several_nets_become_one_that_says_their_mean() -> None:
    answers = draw_answers(60, 3)
    few = RECIPE.model_copy(update={"steps": 20})
    nets = [fit_net(answers, few.model_copy(update={"seed": seed})) for seed in (1, 2, 3)]
    joined = fit_evidence(answers, few.model_copy(update={"nets": 3}))
    assert joined.inner.out_features == 3 * RECIPE.hidden
    outputs = [net.score_segments(answers.rows) for net in nets]
    assert not torch.allclose(outputs[0], outputs[1], atol=0.01)
    assert torch.allclose(joined.score_segments(answers.rows), torch.stack(outputs).mean(0), atol=1e-4)


def test_a_share_of_the_answers_is_cut_to_their_first_segments() -> None:
    answers = Answers(torch.zeros(60, 1), (0, *range(10, 70, 10)), torch.zeros(6))
    torch.manual_seed(1)
    segments, owners = answers.find_segments(torch.tensor([5, 2]).repeat(40), 1.0)
    lengths = torch.bincount(owners)
    assert set(lengths.tolist()) == {1, 2, 3, 4}
    first = lengths.cumsum(0) - lengths
    assert segments[first].tolist() == [50, 20] * 40
    _, some = answers.find_segments(torch.zeros(1000, dtype=torch.long), 0.25)
    assert 0.7 < (torch.bincount(some) == 10).float().mean() < 0.8


def test_the_mean_is_of_each_answer_alone() -> None:
    means = average(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), 2)
    assert means.tolist() == [2.0, 5.0]


def test_the_point_is_one_nat_above_all_but_the_budget_of_ordinary_answers(net: EvidenceNet) -> None:
    moved = fit_evidence(draw_answers(60, 3), RECIPE)
    ordinary = [number / 100 for number in range(400)]
    set_point(moved, ordinary)
    near = [score + moved.bias > -answer_evidence.SURE for score in ordinary]
    assert sum(near) == 400 * answer_evidence.BUDGET
    assert not any(score + moved.bias > 0 for score in ordinary)


def test_what_is_packed_gives_the_same_numbers(net: EvidenceNet) -> None:
    rows = draw_answers(20, 4).rows
    bias, numbers = net.pack_numbers()
    loaded = LoadedNet.from_numbers(
        torch.frombuffer(bytearray(numbers), dtype=torch.float16), WIDTH, RECIPE.hidden, bias
    )
    expected = net.compute_output(net.project(rows))
    assert torch.allclose(loaded.compute_output(rows), expected, atol=0.02)


def test_evidence_is_written_into_a_head_in_place_of_what_it_had(net: EvidenceNet) -> None:
    before = head()
    changed = add_evidence(before, net)
    assert TaughtHead.from_bytes(changed.to_bytes()) == changed
    assert changed.without_evidence() == before
    assert before.without_evidence() is before
    assert add_evidence(changed, net) == changed
    rows = draw_answers(20, 5).rows
    loaded = LoadedHead.from_head(changed, torch.device("cpu"))
    assert loaded.evidence
    assert torch.allclose(loaded.evidence.compute_output(rows), net.score_segments(rows), atol=0.02)


def test_the_mean_of_two_heads_evidence_is_one_net(net: EvidenceNet) -> None:
    other_net = fit_net(draw_answers(60, 6), RECIPE.model_copy(update={"steps": 20, "hidden": 3, "seed": 7}))
    first, second = add_evidence(head(), net), add_evidence(head(), other_net)
    mean = average_evidence(first, second)
    assert TaughtHead.from_bytes(mean.to_bytes()) == mean
    assert mean.without_evidence() == head()
    rows = draw_answers(20, 5).rows
    outputs = []
    for one in (first, second, mean):
        evidence = LoadedHead.from_head(one, torch.device("cpu")).evidence
        assert evidence
        outputs.append(evidence.compute_output(rows))
    assert not torch.allclose(outputs[0], outputs[1], atol=0.1)
    assert torch.allclose(outputs[2], (outputs[0] + outputs[1]) / 2, atol=0.01)


def test_evidence_is_not_averaged_with_none(net: EvidenceNet) -> None:
    with pytest.raises(ValueError, match="has no evidence"):
        average_evidence(head(), add_evidence(head(), net))


def test_harmful_and_harmless_replies_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(_: Path, name: str, *_more: object) -> list[LabelledReply]:
        harmful = [True, True, True, False, False]
        return [
            LabelledReply(f"{name}-{n}", name, "Who?", "Who?", "Nobody.", HARMLESS, label, (FINE,))
            for n, label in enumerate(harmful)
        ]

    monkeypatch.setattr(answer_evidence, "read_harm_replies", draw)
    monkeypatch.setattr(answer_evidence.labelled_replies, "read_natural_replies", draw)
    monkeypatch.setattr(answer_evidence, "draw_ordinary_answers", lambda _: {})
    replies = answer_evidence.draw_teaching_replies(Path("data"), 4)
    assert {name.partition("_")[0] for name in replies} == {"a", "b", "d", "gptfuzz", "jailbreakbench"}
    assert all([one.harmful for one in each] == [True, False, True, False] for each in replies.values())


def test_what_goes_against_another_objective_teaches_as_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    against = LabelledReply("w-1", "author_a", "When?", "When?", "We close early.", "Sales: never says so", True, (1,))
    monkeypatch.setattr(answer_evidence.labelled_replies, "read_good_replies", lambda *_: [])
    monkeypatch.setattr(answer_evidence.labelled_replies, "read_further_good_replies", lambda *_: [])
    monkeypatch.setattr(answer_evidence.labelled_replies, "read_written_answers", lambda: [against])
    answers = answer_evidence.draw_ordinary_answers(Path("data"))
    assert [one.answer for one in answers["other"]] == ["We close early."]
    assert not any(one.harmful for each in answers.values() for one in each)
    assert {one.objective for each in answers.values() for one in each} == {HARMLESS}


def test_the_table_counts_above_the_stricter_bar_of_long_and_short_answers() -> None:
    def make_scored(name: str, scores: list[float], *, harmful: bool = False) -> list[guards.ScoredReply]:
        return [guards.ScoredReply(f"{name}-{n}", harmful, (score, score)) for n, score in enumerate(scores)]

    results = {
        "xstest": [
            *make_scored("bad", [2.0, 0.5, -0.5, -9.0], harmful=True),
            *make_scored("good", [-3.0, -9.0, -9.0, -9.0]),
        ],
        guards.STRONG_ANSWERS: make_scored("strong", [0.2, *[-4.0] * 199]),
        guards.SHORT_ANSWERS: make_scored("short", [-1.0] * 7 + [-5.0] * 193),
    }
    rows = {tuple(line.split(" | ")[:2]): line for line in tabulate(results).splitlines() if " | " in line}
    harmful = rows["| xstest", "harmful"]
    assert "2/4" in harmful, "above 0"
    assert "3/4" in harmful, "above -1, which 3 % of the short answers are not above"
