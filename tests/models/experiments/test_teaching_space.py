"""The space to teach in: learned from made-up kinds whose faults share a few directions, and whose subjects do not."""

from __future__ import annotations

from random import Random

import pytest
import torch

from aligner_proxy.engine.model.teaching_space import DEFAULT_SPACE, TeachingSpace
from models.data.labelled_replies import AGAINST, FINE, UNKNOWN
from models.experiments.teaching_space import (
    KindRows,
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
    recipe = TeachingSpaceRecipe(size=4, steps=100, batch=6, lr=4e-2, decay=1.0, dropout=0.0)
    space = learn_space(kinds[:45], recipe, seed=0)
    learned = measure_space(space, kinds[45:], 4)
    plain = measure_space(DEFAULT_SPACE, kinds[45:], 4)
    assert plain["allowed"].percent > 50  # it has learned the subject
    assert learned["allowed"].percent < 25
    assert learned["against"].percent > 85
    assert learned["beside"].percent < 10
    assert learn_space(kinds[:45], recipe.model_copy(update={"steps": 2}), seed=0).numbers != space.numbers


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


def test_scores_in_a_joined_space_have_the_mean_products(kinds: list[KindRows]) -> None:
    recipe = TeachingSpaceRecipe(size=3, steps=3, batch=2)
    spaces = [learn_space(kinds[:4], recipe, seed) for seed in range(2)]
    joined = join_spaces(spaces)
    rows = kinds[5].rows
    products = [rows @ space.choose_projection(rows).T for space in (*spaces, joined)]
    expected = sum(part @ part.T for part in products[:2]) / 2
    torch.testing.assert_close(products[2] @ products[2].T, expected, atol=1e-4, rtol=1e-4)
    assert joined.numbers.scale == pytest.approx(sum(float(space.numbers.scale) for space in spaces) / 2)


def test_a_task_is_scored_alike_with_the_space_that_is_stored(kinds: list[KindRows]) -> None:
    """The stored projection has 16 bits, which moves a score by little."""
    space = learn_space(kinds[:4], TeachingSpaceRecipe(size=3, steps=3, batch=2), seed=0)
    stored = TeachingSpace.from_bytes(space.to_bytes())
    task = draw_task(kinds[5], 4, 0, Random(0))
    scores = [score_task(kinds[5], task, one, kinds[5].rows) for one in (space, stored)]
    torch.testing.assert_close(*scores, atol=0.02, rtol=0.02)
