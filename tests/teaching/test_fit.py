"""The coordinates in which a taught head is fitted, and the space that an aligner may bring for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.teaching_space import TeachingSpace
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.teaching import fit

WIDTH = 12


def make_table(segments: int = 60, violations: int = 6) -> fit.Table:
    """Random rows, of which the first ones violate and lie to one side in the first number."""
    generator = torch.Generator().manual_seed(segments)
    rows = torch.randn(segments, WIDTH, generator=generator) * 3 + 1
    labels = (torch.arange(segments) < violations).float()
    rows[:, 0] += 9 * labels
    general_scores = torch.randn(segments, generator=generator) - 2
    return fit.Table(rows, general_scores, labels, torch.ones(segments))


def make_space(size: int = 5, row_factor: float = 0.5) -> TeachingSpace:
    projection = torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(1)) / 3
    return TeachingSpace(projection, row_factor, threshold=-0.5)


def no_space() -> TeachingSpace:
    return TeachingSpace.from_bytes(b"", WIDTH)


@pytest.mark.parametrize("space", [no_space(), make_space(), make_space(row_factor=0.0)])
def test_a_head_for_rows_scores_like_the_head_for_coordinates(space: TeachingSpace) -> None:
    table = make_table()
    coordinates = table.find_coordinates(table.labels == 0, space)
    converted = coordinates.convert_rows(table.rows)
    heads = fit.fit(table, converted, torch.ones(60, 1))
    scores = heads.scores(converted, table.general_scores)[:, 0]
    prior, bias, weight = fit.make_row_head(heads, 0, coordinates, shift=0.7, scale=2.0)
    numbers = torch.frombuffer(bytearray(weight), dtype=torch.float16).float()
    row_scores = prior * table.general_scores + table.rows @ numbers + bias
    torch.testing.assert_close(row_scores, 2 * (scores - 0.7), atol=0.05, rtol=0.01)


def test_without_a_space_the_coordinates_are_the_standardised_rows() -> None:
    table = make_table()
    neutral = table.labels == 0
    converted = table.find_coordinates(neutral, no_space()).convert_rows(table.rows)
    assert converted.shape == table.rows.shape
    torch.testing.assert_close(converted[neutral].mean(0), torch.zeros(WIDTH), atol=1e-5, rtol=0)
    torch.testing.assert_close(converted[neutral].std(0), torch.ones(WIDTH))
    assert no_space().threshold is None


def test_a_number_that_never_varies_is_not_blown_up() -> None:
    table = make_table()
    table.rows[:, 3] = 2.0
    converted = table.find_coordinates(table.labels == 0, no_space()).convert_rows(table.rows)
    assert converted[:, 3].abs().max() == 0.0


def test_a_space_adds_coordinates_to_the_weaker_rows() -> None:
    table = make_table()
    plain = table.find_coordinates(table.labels == 0, no_space()).convert_rows(table.rows)
    space = make_space()
    converted = table.find_coordinates(table.labels == 0, space).convert_rows(table.rows)
    torch.testing.assert_close(converted[:, :WIDTH], plain * 0.5)
    expected = (table.rows - table.rows[table.labels == 0].mean(0)) @ space.projection.T
    torch.testing.assert_close(converted[:, WIDTH:], expected)


def test_examples_get_their_share_of_the_weight() -> None:
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    weights = fit.scale_examples(torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0]), labels, 6)
    assert weights.tolist() == [3.0, 3.0, 1.0, 2.0, 3.0]
    many = fit.scale_examples(torch.ones(5), labels, 1000)
    assert float(many[:2].sum() / many.sum()) == pytest.approx(0.2)


def test_a_space_survives_its_bytes_and_the_file_of_its_head(tmp_path: Path) -> None:
    space = make_space()
    head = DetectorHead(hidden_size=4, layers=(1, 2), width=3)
    assert head.teaching_space.to_bytes() == b""
    assert head.teaching_space.row_factor == 1.0
    head.store_space(space)
    path = tmp_path / "head.safetensors"
    head.save(path)
    received = TeachingSpace.from_bytes(DetectorHead.load(path).teaching_space.to_bytes(), WIDTH)
    torch.testing.assert_close(received.projection, space.projection, atol=1e-3, rtol=1e-3)
    assert (received.row_factor, received.threshold) == pytest.approx((0.5, -0.5))


def test_a_head_of_an_earlier_version_has_no_space(tmp_path: Path) -> None:
    head = DetectorHead(hidden_size=4, layers=(1, 2), width=3)
    path = tmp_path / "head.safetensors"
    tensors = {name: tensor for name, tensor in head.state_dict().items() if not name.startswith("teaching")}
    save_file(tensors, str(path))
    assert DetectorHead.load(path).teaching_space.threshold is None


def test_bytes_of_anything_else_are_refused() -> None:
    data = make_space().to_bytes()
    for wrong in (b"{}", data[:40], data[:-3], b"\x00" * 64):
        with pytest.raises(InvalidOutput, match="no teaching space"):
            TeachingSpace.from_bytes(wrong, WIDTH)
    with pytest.raises(InvalidOutput, match=f"a teaching space of 5x{WIDTH} numbers for rows of 7"):
        TeachingSpace.from_bytes(data, 7)
