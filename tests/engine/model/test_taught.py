"""Taught heads beside a detector head: a head that adds nothing changes nothing, another only its own column."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.taught import LoadedHead, LoadedHeads, TaughtColumns, select_heads
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.engine.taught_head import Adjustment, FurtherNet, count_numbers
from aligner_proxy.errors import HeadRefused, UnknownHead
from tests.support.taught import OBJECTIVE, WIDTH, head, weights

CPU = torch.device("cpu")
WISHES = (OBJECTIVE, "Brevity: no more than needed", "Kindness: be kind")
WHERE = Spans((range(0, 2), range(2, 4), range(4, 6)), (range(6, 9), range(9, 10), range(10, 14)))


@pytest.fixture
def detector() -> DetectorHead:
    torch.manual_seed(3)
    return DetectorHead(64, (0, 1), 16).eval()


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(14, 3, 64, generator=torch.Generator().manual_seed(4))


def columns(*heads: object, at: tuple[int, ...] = (0,)) -> TaughtColumns:
    return TaughtColumns({place: LoadedHead.from_head(each, CPU) for place, each in zip(at, heads, strict=True)})  # type: ignore[arg-type]


@torch.inference_mode()
def test_a_head_that_adds_nothing_changes_not_one_bit(detector: DetectorHead, states: torch.Tensor) -> None:
    general = detector.judge(states, WHERE)
    taught = detector.judge(states, WHERE, columns(head(), head(WISHES[2]), at=(0, 2)))
    assert torch.equal(general, taught)


@torch.inference_mode()
def test_only_the_column_of_its_objective_changes(detector: DetectorHead, states: torch.Tensor) -> None:
    general = detector.judge(states, WHERE)
    heads = head(WISHES[1], prior=0.5, bias=-0.75, seed=7)
    taught = detector.judge(states, WHERE, columns(heads, at=(1,)))
    assert torch.equal(taught[:, [0, 2]], general[:, [0, 2]])
    rows, _ = detector.read(states, WHERE)
    expected = 0.5 * general[:, 1] + rows @ torch.tensor(weights(heads)) - 0.75
    torch.testing.assert_close(taught[:, 1], expected)
    assert not torch.allclose(taught[:, 1], general[:, 1], atol=1e-2)


@torch.inference_mode()
def test_with_either_the_higher_of_both_scores_counts(detector: DetectorHead, states: torch.Tensor) -> None:
    general = detector.judge(states, WHERE)
    rows, _ = detector.read(states, WHERE)
    plain = head(WISHES[1], prior=0.5, seed=7)
    own = 0.5 * general[:, 1] + rows @ torch.tensor(weights(plain))
    # So that each of the two is the higher one of some segments.
    middle = float((general[:, 1] - own).median())
    heads = [head(WISHES[at], prior=0.5, bias=middle, seed=7, either=at == 1) for at in (1, 2)]
    taught = detector.judge(states, WHERE, columns(*heads, at=(1, 2)))
    expected = [max(float(g), float(o) + middle) for g, o in zip(general[:, 1], own, strict=True)]
    torch.testing.assert_close(taught[:, 1], torch.tensor(expected))
    assert len({float(t) == float(g) for t, g in zip(taught[:, 1], general[:, 1], strict=True)}) == 2
    assert torch.equal(taught[:, 0], general[:, 0])
    torch.testing.assert_close(taught[:, 2], detector.judge(states, WHERE, columns(heads[1], at=(2,)))[:, 2])


@torch.inference_mode()
def test_below_its_floor_the_general_score_counts_no_less(detector: DetectorHead, states: torch.Tensor) -> None:
    general = detector.judge(states, WHERE)
    floor = float(general[:, 1].median())
    heads = [head(WISHES[at], prior=0.5, floor=floor if at else None) for at in (0, 1)]
    taught = detector.judge(states, WHERE, columns(*heads, at=(0, 1)))
    assert float(general[:, 1].min()) < floor < float(general[:, 1].max())
    torch.testing.assert_close(taught[:, 1], 0.5 * general[:, 1].clamp(min=floor))
    torch.testing.assert_close(taught[:, 0], 0.5 * general[:, 0])


@torch.inference_mode()
def test_hidden_units_add_what_they_say(detector: DetectorHead, states: torch.Tensor) -> None:
    general = detector.judge(states, WHERE)
    rows, _ = detector.read(states, WHERE)
    deep = head(WISHES[1], prior=0.5, bias=-0.75, seed=7, hidden=3)
    numbers = torch.tensor(weights(deep))
    inner = numbers[WIDTH : 4 * WIDTH].view(3, WIDTH)
    offsets, outer = numbers[4 * WIDTH :].view(2, 3)
    linear = 0.5 * general[:, 1] + rows @ numbers[:WIDTH] - 0.75
    added = torch.nn.functional.gelu(rows @ inner.T + offsets) @ outer
    taught = detector.judge(states, WHERE, columns(head(WISHES[0], seed=5), deep, at=(0, 1)))
    torch.testing.assert_close(taught[:, 1], linear + added)
    assert not torch.allclose(taught[:, 1], linear, atol=1e-3)
    torch.testing.assert_close(taught[:, 0], detector.judge(states, WHERE, columns(head(WISHES[0], seed=5)))[:, 0])


@torch.inference_mode()
@pytest.mark.parametrize("hidden", [0, 3])
def test_an_adjustment_lowers_a_score_by_its_net_within_its_bound(
    detector: DetectorHead, states: torch.Tensor, hidden: int
) -> None:
    adjusted = head(prior=0.5, seed=7, hidden=2, adjustment=Adjustment(0.5, 0.25, 0.125, hidden))
    plain = detector.judge(states, WHERE, columns(adjusted.without_adjustment()))
    # The same net alone as a head of its own says what the adjustment adds.
    own_bytes = len(adjusted.without_adjustment().weight)
    net = replace(head(prior=0.0, bias=0.25, hidden=hidden), weight=adjusted.weight[own_bytes:])
    output = detector.judge(states, WHERE, columns(net))[:, 0]
    moved = detector.judge(states, WHERE, columns(adjusted))
    torch.testing.assert_close(moved[:, 0], plain[:, 0] + (0.5 * torch.tanh(output / 0.5) - 0.125).clamp(max=0.0))
    assert torch.equal(moved[:, 1:], plain[:, 1:])
    assert int((moved[:, 0] < plain[:, 0]).sum()) > 0
    assert float((plain - moved).max()) <= 0.625


@torch.inference_mode()
def test_several_heads_score_as_each_alone(detector: DetectorHead, states: torch.Tensor) -> None:
    heads = [head(wish, prior=0.3 * i, bias=i, seed=i) for i, wish in enumerate(WISHES)]
    together = detector.judge(states, WHERE, columns(*heads[::-1], at=(2, 1, 0)))
    for at, each in enumerate(heads):
        torch.testing.assert_close(together[:, at], detector.judge(states, WHERE, columns(each, at=(at,)))[:, at])


@torch.inference_mode()
def test_the_place_behind_the_last_segment_keeps_the_general_score(
    detector: DetectorHead, states: torch.Tensor
) -> None:
    detector.end_shift.fill_(0.5)
    behind = Spans(WHERE.objectives, WHERE.segments, has_end=True)
    general = detector.judge(states, behind)
    taught = detector.judge(states, behind, columns(head(bias=9.0)))
    assert torch.equal(taught[-1], general[-1])
    torch.testing.assert_close(taught[:-1, 0], general[:-1, 0] + 9.0)
    alone = Spans(WHERE.objectives, WHERE.segments[-1:], has_end=True)
    assert torch.equal(detector.judge(states, alone, columns(head(bias=9.0))), detector.judge(states, alone))


def test_the_heads_not_used_for_longest_make_room() -> None:
    loaded_heads = LoadedHeads(CPU, limit=3)
    names = [loaded_heads.put(head(bias=float(i))) for i in range(3)]
    assert loaded_heads.get(names[0]).net.bias == 0.0
    loaded_heads.put(head(bias=3.0))
    assert len(loaded_heads._heads) == 3
    with pytest.raises(UnknownHead, match=f"no taught head {names[1][:8]}; upload"):
        loaded_heads.get(names[1])
    assert [loaded_heads.get(name).net.bias for name in (names[0], names[2])] == [0.0, 2.0]
    assert loaded_heads.put(head(bias=2.0)) == names[2]
    assert len(loaded_heads._heads) == 3


def test_a_request_gets_its_own_head_before_one_that_the_aligner_came_with() -> None:
    loaded_heads = LoadedHeads(CPU)
    shipped = {wish: LoadedHead.from_head(head(wish, aligner="", bias=9.0), CPU) for wish in WISHES[:2]}
    own = loaded_heads.put(head(bias=1.0))
    assert {at: each.net.bias for at, each in select_heads(loaded_heads, shipped, "hash0", WISHES, ()).items()} == {
        0: 9.0,
        1: 9.0,
    }
    named = select_heads(loaded_heads, shipped, "hash0", WISHES, (own, "", ""))
    assert {at: each.net.bias for at, each in named.items()} == {0: 1.0, 1: 9.0}
    assert select_heads(loaded_heads, {}, "hash0", WISHES, ()) == {}


def test_a_head_of_another_aligner_or_objective_judges_nothing() -> None:
    loaded_heads = LoadedHeads(CPU)
    name = loaded_heads.put(head())
    with pytest.raises(HeadRefused, match=f"{name[:8]} is for aligner hash0, but the request is for hash1"):
        select_heads(loaded_heads, {}, "hash1", WISHES, (name, "", ""))
    with pytest.raises(HeadRefused, match=f"{name[:8]} is for another objective"):
        select_heads(loaded_heads, {}, "hash0", WISHES, ("", name, ""))
    with pytest.raises(UnknownHead, match="ffffffff"):
        select_heads(loaded_heads, {}, "hash0", WISHES, ("", "", "f" * 64))


def test_a_row_has_as_many_numbers_as_the_head_says(detector: DetectorHead, states: torch.Tensor) -> None:
    rows, _ = detector.read(states, WHERE)
    assert rows.shape[1] == detector.row_width == WIDTH


@torch.inference_mode()
@pytest.mark.parametrize("hidden", [0, 3])
@pytest.mark.parametrize("adjustment", [None, Adjustment(0.5, 0.25, 0.125, hidden=2)])
def test_evidence_is_what_its_net_says_of_each_segment_and_changes_no_score(
    detector: DetectorHead, states: torch.Tensor, hidden: int, adjustment: Adjustment | None
) -> None:
    telling = head(WISHES[1], seed=7, hidden=1, adjustment=adjustment, evidence=FurtherNet(0.25, hidden))
    net_bytes = 2 * count_numbers(WIDTH, hidden)
    silent = replace(telling, weight=telling.weight[:-net_bytes], evidence=None)
    scores, evidence = detector.judge_with_evidence(states, WHERE, columns(telling, at=(1,)))
    assert torch.equal(scores, detector.judge(states, WHERE, columns(silent, at=(1,))))
    assert detector.judge_with_evidence(states, WHERE, columns(silent, at=(1,)))[1] == []
    # the same net alone, as a head of its own, gives the same nats as its scores
    net = replace(head(prior=0.0, bias=0.25, hidden=hidden), weight=telling.weight[-net_bytes:])
    expected = detector.judge(states, WHERE, columns(net))[:, 0].tolist()
    assert evidence == [(pytest.approx(nats, abs=1e-5), 1, 0.0) for nats in expected]


@torch.inference_mode()
def test_what_the_question_asks_for_stands_beside_what_the_segments_say(
    detector: DetectorHead, states: torch.Tensor
) -> None:
    telling = head(WISHES[1], seed=7, evidence=FurtherNet(0.25), question=FurtherNet(-0.5, hidden=2))
    asked = replace(WHERE, question=range(1, 5))
    scores, evidence = detector.judge_with_evidence(states, asked, columns(telling, at=(1,)))
    silent_scores, silent = detector.judge_with_evidence(states, WHERE, columns(telling, at=(1,)))
    assert torch.equal(scores, silent_scores)
    # the same net alone, as a head of its own, scores the same tokens as a segment
    net = replace(head(prior=0.0, bias=-0.5, hidden=2), weight=telling.weight[-2 * count_numbers(WIDTH, 2) :])
    [expected] = detector.judge(states, Spans(WHERE.objectives, (range(1, 5),)), columns(net))[:, 0].tolist()
    assert [one.question for one in evidence] == [pytest.approx(expected, abs=1e-5)] * 3
    assert [one._replace(question=0.0) for one in evidence] == silent
    plain = columns(telling.without_question(), at=(1,))
    assert detector.judge_with_evidence(states, asked, plain)[1] == silent


@torch.inference_mode()
def test_neither_inner_words_nor_the_end_of_an_answer_have_evidence(
    detector: DetectorHead, states: torch.Tensor
) -> None:
    telling = columns(head(seed=7, evidence=FurtherNet(0.25)))
    _, evidence = detector.judge_with_evidence(states, WHERE, telling)
    expected = [(pytest.approx(one.nats, abs=1e-5), 0, 0.0) for one in evidence]
    assert len(expected) == 3
    inner_words = (range(6, 7), range(7, 9)), (), (range(10, 12),)
    with_words = replace(WHERE, inner_words=inner_words)
    assert detector.judge_with_evidence(states, with_words, telling)[1] == expected
    with_end = replace(with_words, inner_words=inner_words[:2], has_end=True)
    assert detector.judge_with_evidence(states, with_end, telling)[1] == expected[:-1]
    only_end = replace(WHERE, segments=(range(10, 14),), has_end=True)
    assert detector.judge_with_evidence(states, only_end, telling)[1] == []


def test_evidence_is_of_the_first_objective_whose_head_has_it() -> None:
    telling = [head(wish, seed=at, evidence=FurtherNet(float(at))) for at, wish in enumerate(WISHES)]
    rows = torch.zeros(2, WIDTH)
    both = columns(telling[2], head(WISHES[0]), telling[1], at=(2, 0, 1))
    assert both.find_evidence(rows) == [(1.0, 1, 0.0), (1.0, 1, 0.0)]
    assert columns(head()).find_evidence(rows) == []
