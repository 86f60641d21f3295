"""Draft lengths: what pays by the model of costs and acceptance, and that it does, on synthetic answers."""

from __future__ import annotations

import random
import statistics
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.engine.decoding.proposer import DraftProposer, count_matching
from aligner_proxy.engine.scheduling.draft_length import (
    FLAT,
    PROBE,
    Acceptance,
    CostCurve,
    LengthRule,
    Round,
    choose_draft_length,
)
from tests.engine.decoding.test_proposer import EOS, answers, edited, word
from tests.support.tiny import at_most, whole

EFFORT = 0.05
"""What proposing a draft costs, in forwards of one token."""
# Of a 1.1B model on one core: 4-bit, and bf16.
NF4 = CostCurve(((1, 1.0), (4, 1.0), (8, 1.52), (16, 2.48), (32, 4.38), (64, 8.24)))
BF16 = CostCurve(((1, 1.0), (4, 1.0), (8, 1.07), (16, 1.36), (32, 1.96), (64, 2.99), (128, 5.39)))

CURVES = st.lists(st.tuples(st.integers(1, 600), st.floats(0.001, 50)), min_size=1, max_size=8).map(
    CostCurve.from_samples
)
STEPS = st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=30)


def seen(steps: list[tuple[int, bool, bool]]) -> Acceptance:
    """After runs of such lengths, each fed with two tokens too many; whether they ended, and the next was found."""
    what = Acceptance()
    for run, ended, found in steps:
        what = what.add_step(run, run_ended=ended, step_round=Round(run + 3, run + 1, found))
    return what


@given(CURVES, STEPS, st.integers(0, 400), st.integers(1, 32))
def test_a_length_is_there_is_room_for_and_no_other_of_those_compared_is_worth_more(
    costs: CostCurve, steps: list[tuple[int, bool, bool]], room: int, sequence_count: int
) -> None:
    what = seen(steps)
    length = choose_draft_length(costs, what, room, sequence_count)
    assert 0 <= length <= room
    assert 0 < what.first_token_chance <= 1
    assert 0 < what.continuation_chance <= 1
    if what.ended_runs:
        price = what.estimate_price(costs, sequence_count)

        def worth(length: int) -> float:
            effort = 0.05 * costs.estimate_cost(sequence_count) / sequence_count if length else 0.0
            cost = costs.estimate_cost(sequence_count * (length + 1)) / sequence_count + effort
            return price * what.expect_tokens(length) - cost

        assert all(worth(length) >= worth(other) for other in {0, min(3, room), room})


def test_a_draft_that_costs_nothing_is_left_out_where_nothing_is_ever_right() -> None:
    rewritten = seen([(0, True, False)] * 60)
    free = CostCurve(((1, 1.0), (64, 1.0)))
    assert choose_draft_length(free, rewritten, 200) == 0
    copied = seen([(12, True, True)] * 3)
    assert choose_draft_length(free, copied, 200) > 12


def test_a_token_is_worth_what_tokens_have_cost_of_late() -> None:
    costs = CostCurve(((1, 2.0), (4, 2.0), (8, 4.0)))
    assert Acceptance().estimate_price(costs) == 2.0 / 4
    cheap = seen([(7, False, False)] * 50)  # ten fed for 5.0, eight written, of which the last twelve count
    assert cheap.estimate_price(costs) == pytest.approx((2.0 + 12 * 5.0) / (4 + 12 * 8))
    assert seen([(0, True, False)] * 50).estimate_price(costs) == pytest.approx((2.0 + 12 * 2.0) / (4 + 12))
    assert cheap.estimate_price(FLAT, sequence_count=4) == pytest.approx(cheap.estimate_price(FLAT) / 4)


def test_a_place_that_was_found_is_believed_more_than_one_that_is_supposed_until_it_is_wrong_more_often() -> None:
    found = seen([(5, True, True)])
    blind = seen([(5, True, False)])
    assert found.first_token_chance == pytest.approx(0.8)
    assert blind.first_token_chance == pytest.approx(0.25)
    assert choose_draft_length(BF16, found, 100) > choose_draft_length(BF16, blind, 100)
    assert seen([(5, True, True)] + [(0, True, True)] * 20).first_token_chance < 0.2
    assert seen([(5, True, False)] + [(5, True, False)] * 20).first_token_chance > 0.8


@given(CURVES, st.integers(1, 700), st.integers(1, 700))
def test_more_tokens_never_cost_less(costs: CostCurve, one: int, other: int) -> None:
    assert 0 < costs.estimate_cost(min(one, other)) <= costs.estimate_cost(max(one, other))


@given(STEPS, st.integers(0, 400))
def test_where_forwards_cost_the_same_the_draft_is_as_long_as_it_can_be(
    steps: list[tuple[int, bool, bool]], room: int
) -> None:
    """Or none is proposed, where what it would save is less than proposing one costs."""
    acceptance = seen(steps)
    saved = acceptance.estimate_price(FLAT) * (acceptance.expect_tokens(room) - 1)
    assert choose_draft_length(FLAT, acceptance, room) in {
        room if saved > EFFORT + close else 0 for close in (-1e-9, 1e-9)
    }


@given(st.integers(1, 60), st.integers(1, 400))
def test_what_was_all_copied_so_far_is_drafted_to_the_end(run: int, room: int) -> None:
    assert choose_draft_length(NF4, Acceptance().add_step(run, run_ended=False), room) == room


@given(CURVES, st.integers(1, 400))
def test_a_first_draft_that_is_all_wrong_costs_three_percent_or_is_a_probe(costs: CostCurve, room: int) -> None:
    length = choose_draft_length(costs, Acceptance(), room)
    assert length in (room, PROBE)
    if length == room > PROBE:
        assert costs.estimate_cost(room + 1) <= (1 + 0.03 * room) * costs.estimate_cost(1)


def test_beyond_the_largest_recorded_forward_costs_go_on_rising() -> None:
    """A recorded forward costs the same from the size before it, so its two points say nothing of what is beyond."""
    recorded = CostCurve(((1, 3.0), (257, 10.0), (384, 10.0), (385, 13.0), (512, 13.0)))
    assert recorded.estimate_cost(512) == 13
    assert recorded.estimate_cost(1024) == pytest.approx(13 + 512 * 3 / 128)
    assert recorded.estimate_cost(300) == 10
    assert CostCurve(((1, 2.0), (9, 2.0))).estimate_cost(100) == 2
    assert CostCurve(((4, 2.0),)).estimate_cost(100) == 2


def test_many_first_drafts_at_once_are_probes_where_one_alone_would_not_be() -> None:
    """As measured for 7B on an H100: 16 drafts of 256 tokens cost as much as a fifth of writing the answers."""
    costs = CostCurve(((1, 3.2), (16, 3.5), (257, 10.6), (384, 10.6), (385, 12.9), (512, 12.9)))
    assert choose_draft_length(costs, Acceptance(), 256) == 256
    assert choose_draft_length(costs, Acceptance(), 256, sequence_count=16) == PROBE
    # what was copied so far is drafted to the end, in any company
    copied = Acceptance().add_step(PROBE, run_ended=False)
    assert choose_draft_length(costs, copied, 224, sequence_count=16) == 224


def test_edits_shorten_drafts_and_copies_lengthen_them() -> None:
    short = seen([(0, True, False)] * 6)
    long = seen([(0, True, False)] * 6 + [(60, False, False)])
    assert choose_draft_length(NF4, short, 200) <= 3
    assert choose_draft_length(NF4, long, 200) >= 8
    assert choose_draft_length(NF4, long, 200, sequence_count=16) < choose_draft_length(NF4, long, 200)


def cost(target: list[int], lookup: list[int], rule: LengthRule, costs: CostCurve) -> float:
    """Of the forwards until an oracle that wants exactly `target` has written it; the first goes with the prompt."""
    proposer = DraftProposer(lookup, rule)
    written = list[int]()
    total = -costs.estimate_cost(1)
    while len(written) < len(target):
        draft = proposer.propose(1 << 30)
        total += costs.estimate_cost(len(draft) + 1)
        wanted = target[len(written) : len(written) + len(draft) + 1]
        accepted = count_matching(draft, wanted)
        written += wanted[: accepted + 1]
        proposer.update(written, len(draft), accepted)
    return total


@pytest.mark.slow
@pytest.mark.covering("costs", "rate")
@pytest.mark.parametrize("costs", [NF4, BF16, FLAT], ids=["nf4", "bf16", "flat"])
@pytest.mark.parametrize("rate", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0])
def test_it_keeps_up_with_the_best_fixed_length_at_every_edit_rate(costs: CostCurve, rate: float) -> None:
    """And where the whole answer is rewritten it is no slower than without drafts, beyond 3 %."""
    rng = random.Random(1)
    pairs = [([*edited(answer, rate, rng), EOS], [*answer, EOS]) for answer in answers()]
    if rate == 1.0:
        pairs = [([word(rng) for _ in lookup], lookup) for _, lookup in pairs]

    def mean(rule: LengthRule) -> float:
        return statistics.mean(cost(target, lookup, rule, costs) for target, lookup in pairs)

    ours = mean(partial(choose_draft_length, costs))
    fixed = [mean(rule) for rule in (at_most(0), at_most(3), at_most(8), at_most(16), whole)]
    assert ours <= 1.03 * fixed[0]
    assert ours <= 1.25 * min(fixed)  # on 4 bits a guess at the whole answer is dear, and right where nothing changes
    if rate == 0.0:
        assert ours <= fixed[-1] + costs.estimate_cost(1)
