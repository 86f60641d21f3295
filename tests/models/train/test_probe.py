"""Probes over states: aggregation as it is defined, and labels of replies that teach segments."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from aligner_proxy.text.structure import split
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN, LabelledReply, read_written_answers
from models.experiments.probes import find_threshold
from models.train.probe import Features, ProbeSettings, aggregate, fit_probe, measure_area, worst_scores
from models.train.segment_states import SegmentStates

WIDTH = 16


def read(bags: int, seed: int, *, known: bool) -> SegmentStates:
    """Replies of four segments; in a harmful one a single segment points along the first axis."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(bags * 4, 3, 1, WIDTH)).astype(np.float16)
    replies = []
    for bag in range(bags):
        harmful = bag % 2 == 0
        place = int(rng.integers(4))
        if harmful:
            states[bag * 4 + place, 0, 0, 0] += 6
        labels = tuple(AGAINST if harmful and known and at == place else FINE for at in range(4))
        if harmful and not known:
            labels = (UNKNOWN,) * 4
        replies.append(LabelledReply(f"r{bag}", "s", f"p{bag}", "q", "a", HARMLESS, harmful, labels))
    first = tuple(range(0, bags * 4 + 1, 4))
    return SegmentStates(tuple(replies), states, np.zeros(bags * 4, np.float32), first)


def test_noisy_or_is_the_log_odds_that_any_segment_is_harmful() -> None:
    scores = torch.tensor([-1.0, 0.5, 2.0])
    total = aggregate(scores, torch.zeros(3), torch.tensor([0, 0, 0]), 1, "noisy-or")
    none = math.prod(1 - 1 / (1 + math.exp(-s)) for s in scores.tolist())
    assert total.item() == pytest.approx(math.log((1 - none) / none), abs=1e-4)


def test_attention_with_equal_weights_is_the_mean_and_the_maximum_is_the_maximum() -> None:
    scores = torch.tensor([-1.0, 0.5, 2.0, 7.0])
    bags = torch.tensor([0, 0, 0, 1])
    assert aggregate(scores, torch.zeros(4), bags, 2, "attention").tolist() == pytest.approx([0.5, 7.0])
    assert aggregate(scores, torch.zeros(4), bags, 2, "mean").tolist() == pytest.approx([0.5, 7.0])
    assert aggregate(scores, torch.zeros(4), bags, 2, "max").tolist() == pytest.approx([2.0, 7.0])


@pytest.mark.parametrize("how", ["noisy-or", "max"])
def test_labels_of_whole_replies_teach_which_segment_it_is(how: Literal["noisy-or", "max"]) -> None:
    features = Features(((0, 0),))
    probe = fit_probe([read(120, 1, known=False)], features, ProbeSettings(aggregation=how), [1.0])
    test = read(60, 2, known=True)
    scores = probe.score_segments(features.compute_rows(test)).numpy()
    labels = np.array([label for reply in test.replies for label in reply.segments])
    assert measure_area(scores[labels == AGAINST], scores[labels == FINE]).auc > 0.95
    highest = worst_scores(test, torch.from_numpy(scores))
    assert measure_area(highest[::2], highest[1::2]).auc > 0.9


def test_the_area_counts_ties_by_order_and_the_threshold_leaves_its_share_above() -> None:
    assert measure_area(np.array([3.0, 2.0]), np.array([1.0, 0.0])).auc == 1
    assert measure_area(np.array([0.0]), np.array([1.0])).auc == 0
    assert (np.arange(1000.0) > find_threshold(np.arange(1000.0))).sum() == 10


def test_written_answers_have_a_label_for_each_segment_and_ids_of_their_own() -> None:
    answers = read_written_answers()
    assert len({answer.id for answer in answers}) == len(answers) > 2500
    assert all(answer.harmful == (AGAINST in answer.segments) for answer in answers)
    assert all(len(answer.segments) == len(split(answer.answer)) for answer in answers)
