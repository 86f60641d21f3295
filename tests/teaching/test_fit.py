"""The ridge regression that makes a taught head, and the space in which it is done."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.teaching_space import DEFAULT_SPACE, FitNumbers, TeachingSpace
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.teaching import fit

WIDTH = 12
NUMBERS = FitNumbers(
    penalty=0.5,
    share=0.7,
    allowed_weight=5.0,
    general_factor=0.2,
    scale=3.0,
    prior=0.6,
    bias=0.1,
    bias_per_doubling=-0.3,
)


def make_table(segments: int, violations: int) -> fit.Table:
    """Random rows, of which the first ones violate and lie to one side in the first number."""
    generator = torch.Generator().manual_seed(segments)
    rows = torch.randn(segments, WIDTH, generator=generator)
    labels = (torch.arange(segments) < violations).float()
    rows[:, 0] += 2 * labels
    general_scores = torch.randn(segments, generator=generator) - 2
    return fit.Table(rows, general_scores, labels, torch.rand(segments, generator=generator) + 0.5)


def fit_one(space: TeachingSpace, table: fit.Table, examples: int = 4) -> fit.Heads:
    projection = space.choose_projection(table.rows[table.labels == 0])
    return fit.fit(space, projection, table, torch.ones(len(table.labels), 1), [examples])


def make_space(size: int = 5) -> TeachingSpace:
    return TeachingSpace(torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(1)) / 3, NUMBERS)


@pytest.mark.parametrize("segments", [4, 40])  # fewer segments than coordinates, and more
def test_a_fit_minimises_the_penalised_squares(segments: int) -> None:
    """No other slope and constant have a smaller loss, which is written out here as it is defined."""
    table = make_table(segments, 2)
    space = make_space()
    heads = fit_one(space, table)
    assert space.projection is not None
    coordinates = torch.cat([table.rows @ space.projection.T, table.general_scores[:, None] * 0.2], 1).double()
    violating = table.segment_weights * table.labels
    other = table.segment_weights * (1 - table.labels)
    weights = (0.7 * violating / violating.sum() + 0.3 * other / other.sum()).double()

    def compute_loss(numbers: torch.Tensor) -> torch.Tensor:
        errors = coordinates @ numbers[:-1] + numbers[-1] - (2 * table.labels - 1)
        return (weights * errors**2).sum() + 0.5 * (numbers[:-1] ** 2).sum()

    best = torch.zeros(coordinates.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([best], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def evaluate() -> torch.Tensor:
        optimizer.zero_grad()
        loss = compute_loss(best)
        loss.backward()
        return loss

    optimizer.step(evaluate)
    expected = 3.0 * (coordinates @ best[:-1] + best[-1]) + 0.6 * table.general_scores + 0.1
    scores = heads.scores(table.rows, table.general_scores)[:, 0]
    torch.testing.assert_close(scores, expected.detach().float(), atol=1e-3, rtol=1e-3)


def test_a_head_learns_only_from_its_segments() -> None:
    table = make_table(40, 6)
    space = make_space()
    is_learned = torch.arange(40) % 3 > 0
    both = torch.stack([torch.ones(40), is_learned.float()], 1)
    heads = fit.fit(space, space.choose_projection(table.rows), table, both, [6, 4])
    part = fit.Table(
        *(tensor[is_learned] for tensor in (table.rows, table.general_scores, table.labels, table.segment_weights))
    )
    alone = fit_one(space, part)
    torch.testing.assert_close(heads.weights[:, 1], alone.weights[:, 0])
    torch.testing.assert_close(heads.biases[1], alone.biases[0])


def test_scores_do_not_depend_on_the_mean_of_the_rows() -> None:
    table = make_table(40, 6)
    moved = replace(table, rows=table.rows + 5.0)
    scores = fit_one(make_space(), table).scores(table.rows, table.general_scores)
    moved_scores = fit_one(make_space(), moved).scores(moved.rows, moved.general_scores)
    torch.testing.assert_close(scores, moved_scores, atol=1e-3, rtol=1e-3)


def test_the_bias_follows_the_number_of_examples_up_to_eight() -> None:
    table = make_table(40, 6)
    biases = [float(fit_one(make_space(), table, examples).biases[0]) for examples in (2, 4, 8, 12, 26)]
    assert biases[0] - biases[1] == pytest.approx(0.3, abs=1e-5)
    assert biases[2] - biases[1] == pytest.approx(-0.3, abs=1e-5)
    assert biases[3] == biases[4] == biases[2]


def test_the_default_space_takes_rows_of_any_width() -> None:
    """Its products are those of the standardised numbers, divided by the width."""
    rows = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(2)) * 7
    projection = DEFAULT_SPACE.choose_projection(rows)
    coordinates = rows @ projection.T
    assert coordinates.std(0).tolist() == pytest.approx([1 / math.sqrt(WIDTH)] * WIDTH)
    assert DEFAULT_SPACE.width is None


def test_a_column_that_never_varies_is_not_blown_up() -> None:
    projection = DEFAULT_SPACE.choose_projection(torch.ones(5, WIDTH))
    assert projection.isfinite().all()


def test_a_space_survives_its_bytes_and_the_file_of_its_head(tmp_path: Path) -> None:
    space = make_space()
    head = DetectorHead(hidden_size=4, layers=(1, 2), width=3)
    assert head.teaching_space is DEFAULT_SPACE
    assert space.projection is not None
    head.store_space(space.projection, space.numbers)
    path = tmp_path / "head.safetensors"
    head.save(path)
    loaded = DetectorHead.load(path).teaching_space
    received = TeachingSpace.from_bytes(loaded.to_bytes())
    assert received.projection is not None
    assert received.width == WIDTH
    torch.testing.assert_close(received.projection.float(), space.projection, atol=1e-3, rtol=1e-3)
    assert list(received.numbers) == pytest.approx(list(NUMBERS))


def test_no_bytes_are_the_default_space_and_others_are_refused() -> None:
    assert TeachingSpace.from_bytes(DEFAULT_SPACE.to_bytes()) is DEFAULT_SPACE
    data = make_space().to_bytes()
    for wrong in (b"{}", data[:40], data[:-3], b"\x00" * 64):
        with pytest.raises(InvalidOutput, match="no teaching space"):
            TeachingSpace.from_bytes(wrong)
