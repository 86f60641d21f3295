"""What the losses of the head reward and punish, with a head whose scores are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.scheduling.sequence import Spans
from models.train.detector_loss import bag_loss, collect_facts, detection_loss, read_rows
from models.train.features import EncodedExample


class Given:
    """A head that says what it is told, for every segment of the batch and every objective."""

    def __init__(self, scores: list[list[float]]) -> None:
        self.scores = torch.tensor(scores, requires_grad=True)

    def __call__(self, _segments: Tensor, _objectives: Tensor) -> Tensor:
        return self.scores


def example(
    relations: list[list[int]],
    kinds: tuple[str, ...] = (),
    themes: tuple[str, ...] = (),
    label: int | None = None,
    doubts: tuple[frozenset[str], ...] = (),
) -> EncodedExample:
    objectives = tuple(range(i, i + 1) for i in range(len(relations[0])))
    segments = tuple(range(i, i + 1) for i in range(len(relations)))
    labels = tuple(max(row) if label is None else label for row in relations)
    told = tuple(map(tuple, relations))
    return EncodedExample(
        [0], [0.0], Spans(objectives, segments), labels, told, kinds, themes, doubts or (frozenset(),) * len(kinds)
    )


def gradient(head: Any, batch: list[EncodedExample]) -> Tensor:
    states = torch.zeros(len(batch), 4, 2, 1)
    detection_loss(head, states, batch, collect_facts(batch, other_prompts=0.15)).backward()  # type: ignore[no-untyped-call]
    found: Tensor = head.scores.grad
    return found


def test_what_is_asked_for_goes_up_and_the_rest_down() -> None:
    head = Given([[0.0, 0.0], [0.0, 0.0]])
    pushed = gradient(head, [example([[0, 0], [1, 0]], ("", "insult"), ("harmless", "concise"))])
    assert (pushed < 0).tolist() == [[False, False], [True, False]]
    assert (pushed > 0).tolist() == [[True, True], [False, True]]


def test_what_nobody_could_say_is_left_alone() -> None:
    pushed = gradient(Given([[0.0]]), [example([[-1]], ("insult",), ("formal",))])
    assert pushed.tolist() == [[0.0]]


def test_a_defect_is_compared_with_the_objectives_of_other_prompts_and_a_good_segment_is_not() -> None:
    first = example([[0], [0]], ("", "insult"), ("concise",))
    second = example([[0]], ("",), ("harmless",))
    pushed = gradient(Given([[0.0, 0.0]] * 3), [first, second])
    assert pushed[0, 1] == 0  # a good segment: nobody knows what a foreign objective would say
    assert pushed[1, 1] < 0  # the insult goes against harmless, wherever harmless stands
    assert pushed[2, 0] == 0
    assert abs(pushed[1, 1]) < abs(pushed[1, 0])


def test_a_good_segment_is_spared_by_a_foreign_objective_against_what_it_does_not_speak_of() -> None:
    first = example([[0], [0]], ("", ""), ("concise",), doubts=(frozenset(), frozenset({"insult"})))
    second = example([[0]], ("",), ("insult",))
    pushed = gradient(Given([[0.0, 0.0]] * 3), [first, second])
    assert 0 < pushed[0, 1] < pushed[0, 0]
    assert pushed[1, 1] == 0  # it speaks of something of that kind: nobody knows


def test_without_kinds_the_strongest_objective_has_to_ask() -> None:
    pushed = gradient(Given([[0.5, -0.5]]), [example([[-1, -1]], label=1)])
    assert pushed[0, 0] < 0
    assert pushed[0, 1] == 0


def test_the_answer_that_people_preferred_gets_the_lower_worst_score() -> None:
    # What one reply's segment scores under the other's objective says nothing.
    head: Any = Given([[1.0, 9.0], [9.0, 0.0]])
    loss = bag_loss(head, torch.zeros(2, 4, 2, 1), [example([[-1]]), example([[-1]])])
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == torch.nn.functional.softplus(torch.tensor(1.0))
    assert head.scores.grad[0, 0] > 0 > head.scores.grad[1, 1]
    assert head.scores.grad[0, 1] == head.scores.grad[1, 0] == 0


def test_of_a_reply_of_which_nobody_said_what_goes_against_it_all_segments_are_pushed_up() -> None:
    whole = replace(example([[-1, -1], [-1, -1]]), whole=(False, True))
    pushed = gradient(Given([[0.0, 0.0, 0.0]] * 3), [whole, example([[-1]])])
    assert (pushed[:2, 1] < 0).all()
    assert (pushed[:, [0, 2]] == 0).all()
    assert pushed[2, 1] == 0


def test_rows_of_a_batch_are_those_that_the_head_reads_of_each_answer() -> None:
    torch.manual_seed(1)
    states = torch.randn(2, 9, 4, 16)
    first = Spans((range(0, 2), range(2, 3)), (range(3, 5), range(5, 6), range(6, 9)))
    second = Spans((range(1, 4),), (range(4, 8),))
    batch = [replace(example([[0]]), spans=spans) for spans in (first, second)]
    segments, objectives = read_rows(states, batch)
    read = [DetectorHead.read(states[row], one.spans) for row, one in enumerate(batch)]
    assert torch.allclose(segments, torch.cat([s for s, _ in read]), atol=1e-5)
    assert torch.allclose(objectives, torch.cat([o for _, o in read]), atol=1e-5)
