"""The space to teach in: learned from made-up kinds whose faults share a few directions, and whose subjects do not."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch

from models.data.labelled_replies import AGAINST, FINE, UNKNOWN
from models.experiments.teaching_space import (
    KindRows,
    LearnedSpace,
    TeachingSpaceRecipe,
    draw_task,
    join_spaces,
    learn_space,
    measure_space,
    score_task,
)

WIDTH = 24
FAULTS = 4
"""Of these many numbers every fault consists; all others tell the subject."""


def make_kind(seed: int) -> KindRows:
    """Ten answers with a fault, and twelve with an allowed sentence on its subject; each has two other segments."""
    generator = torch.Generator().manual_seed(seed)
    subject = torch.randn(WIDTH, generator=generator) * 2
    subject[:FAULTS] = 0
    fault = torch.zeros(WIDTH)
    fault[:FAULTS] = torch.randn(FAULTS, generator=generator) * 2
    rows = []
    labels = []
    answers = []
    for answer in range(22):
        label = AGAINST if answer < 10 else FINE
        sentence = subject + (fault if label == AGAINST else 0)
        rows += [sentence, torch.zeros(WIDTH), torch.zeros(WIDTH)]
        labels += [label, UNKNOWN, UNKNOWN]
        answers += [answer] * 3
    noise = torch.randn(len(rows), WIDTH, generator=generator) * 0.7
    general_scores = torch.randn(len(rows), generator=generator) - 1
    return KindRows(torch.stack(rows) + noise, torch.tensor(labels), torch.tensor(answers), general_scores)


@pytest.fixture(scope="module")
def kinds() -> list[KindRows]:
    return [make_kind(seed) for seed in range(60)]


def test_a_learned_space_tells_faults_from_subjects_in_kinds_that_it_has_not_seen(kinds: list[KindRows]) -> None:
    recipe = TeachingSpaceRecipe(
        size=4, steps=100, batch=6, lr=4e-2, decay=1.0, dropout=0.0, row_factor=0.15, threshold=0.3
    )
    learned = learn_space(kinds[:45], recipe, seed=0)
    joined = join_spaces([learned], torch.ones(WIDTH), recipe)
    space_rates = measure_space(joined, kinds[45:], 4)
    # without a space, and with the same threshold
    row_rates = measure_space(replace(joined, projection=torch.zeros(1, WIDTH), row_factor=1.0), kinds[45:], 4)
    assert row_rates["allowed"].percent > 80  # it has learned the subject
    assert space_rates["allowed"].percent < 45
    assert space_rates["against"].percent > 80
    assert space_rates["beside"].percent < 10


def test_a_task_judges_what_it_does_not_teach(kinds: list[KindRows]) -> None:
    kind = kinds[0]
    for example_count, allowed_count in ((2, 0), (4, 0), (6, 4), (8, 2)):
        task = draw_task(kind, example_count, allowed_count, Random(1))
        taught_labels = kind.labels[task.is_teaching].tolist()
        assert taught_labels.count(AGAINST) == example_count
        assert taught_labels.count(FINE) == allowed_count
        # the segments beside the examples, and those of half of the answers with allowed sentences
        assert taught_labels.count(UNKNOWN) == 2 * (example_count + 6)
        assert kind.labels[task.is_judged].tolist().count(FINE) == 12 - allowed_count


def test_products_in_a_joined_space_are_the_mean_of_those_in_its_parts(kinds: list[KindRows]) -> None:
    recipe = TeachingSpaceRecipe(size=3, steps=3, batch=2)
    spaces = [learn_space(kinds[:4], recipe, seed) for seed in range(2)]
    spread = torch.rand(WIDTH) + 0.5
    joined = join_spaces(spaces, spread, recipe)
    rows = kinds[5].rows
    products = [(rows / spread) @ space.projection.T for space in spaces]
    expected = recipe.space_factor**2 * sum(part @ part.T for part in products) / 2
    coordinates = rows @ joined.projection.T
    torch.testing.assert_close(coordinates @ coordinates.T, expected, atol=1e-4, rtol=1e-4)


def test_a_task_is_solved_as_the_penalised_squares_ask(kinds: list[KindRows]) -> None:
    """No other slope has a smaller loss, which is written out here as it is defined."""
    space = LearnedSpace(3, WIDTH).requires_grad_(False)
    numbers = space.find_numbers()
    kind = kinds[5]
    task = draw_task(kind, 4, 2, Random(0))
    scores = score_task(kind, task, kind.rows, space.projection, numbers)
    general = kind.general_scores[:, None] * numbers.general_factor
    coordinates = torch.cat([kind.rows @ space.projection.T, general, torch.ones(len(kind.rows), 1)], 1)
    labels = kind.labels[task.is_teaching]
    other = torch.where(labels == FINE, numbers.allowed_weight, torch.ones(())) * (labels != AGAINST)
    violating = (labels == AGAINST).float()
    weights = numbers.share * violating / violating.sum() + (1 - numbers.share) * other / other.sum()
    design = coordinates[task.is_teaching]
    penalty = torch.diag(numbers.penalty * torch.tensor([1.0] * 4 + [0.0]))
    best = torch.linalg.solve(
        design.T @ (weights[:, None] * design) + penalty, design.T @ (weights * (2 * violating - 1))
    )
    expected = numbers.scale * (coordinates[task.is_judged] @ best) + numbers.bias
    expected = expected + numbers.prior * kind.general_scores[task.is_judged]
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)
