"""Floors and estimates of corrections on a GPU: beside what an H100 showed, and by card."""

from __future__ import annotations

import pytest

from aligner_proxy.engine.weights import floors
from aligner_proxy.engine.weights.memory import ModelSize
from tests.engine.weights.test_memory import LLAMA_7B, LLAMA_13B, TINY_LLAMA

H100 = "NVIDIA H100 80GB HBM3"
MEASURED = {
    "one token, 1.1B": (TINY_LLAMA, 1, 0.22, 1.0),
    "one token, 7B": (LLAMA_7B, 1, 1.35, 3.1),
    "many rows, 1.1B": (TINY_LLAMA, 768, 2.0, 4.3),
    "many rows, 7B": (LLAMA_7B, 768, 13.0, 19.6),
}
"""Rows of a forward at a context of 768 tokens, its floor, and its time on an H100, in milliseconds."""


@pytest.mark.parametrize("name", MEASURED)
def test_an_estimate_is_close_to_what_was_measured(name: str) -> None:
    sizes, rows, floor_ms, measured_ms = MEASURED[name]
    rates = floors.find_card(H100)
    assert rates
    costs = floors.estimate_forward(sizes, rates, rows, 768)
    assert costs.floor_ms == pytest.approx(floor_ms, rel=0.05)
    assert costs.expected_ms == pytest.approx(measured_ms, rel=0.25)


@pytest.mark.parametrize("sizes", [TINY_LLAMA, LLAMA_7B, LLAMA_13B])
def test_writing_costs_more_than_reading_and_nothing_is_below_its_floor(sizes: ModelSize) -> None:
    for rates in floors._CARDS.values():
        nothing_flagged, all_written = floors.estimate_costs(sizes, rates)
        assert nothing_flagged.expected_ms > nothing_flagged.floor_ms
        assert all_written.expected_ms > all_written.floor_ms
        assert all_written.floor_ms > nothing_flagged.floor_ms


@pytest.mark.parametrize(
    ("name", "terabytes"),
    [
        ("NVIDIA GeForce RTX 3060", 0.36),
        ("NVIDIA GeForce RTX 4090", 1.008),
        ("NVIDIA A100-SXM4-80GB", 2.0),
        ("NVIDIA L4", 0.3),
        (H100, 2.96),
        ("NVIDIA H200", 4.3),
        ("NVIDIA GeForce RTX 3060 Ti", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA L40", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H100 PCIe", None),
    ],
)
def test_a_card_is_known_by_the_end_of_its_name(name: str, terabytes: float | None) -> None:
    rates = floors.find_card(name)
    assert (rates.bandwidth / 1e12 if rates else None) == terabytes
