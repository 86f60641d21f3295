"""What is said about a GPU: what fits it, what a correction costs there, and how to get what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from aligner_proxy.cli.gpu_fit import describe_fit, suggest_fix
from aligner_proxy.engine.weights.memory import ModelSize
from aligner_proxy.errors import WeightsError
from tests.engine.weights.test_memory import LLAMA_7B, LLAMA_13B, TINY_LLAMA

H100 = "NVIDIA H100 80GB HBM3"


def describe(
    name: str, memory_gb: float, model: ModelSize, quantization: str = "nf4", *, has_kernels: bool = True, **about: Any
) -> list[str]:
    card = {"name": name, "memory_gb": memory_gb}
    facts = {"obstacle": None, "sizes": asdict(model), "head_states": 4} | about
    return describe_fit(card, facts, quantization, has_head=True, has_kernels=has_kernels)


def test_a_known_card_gets_what_fits_and_an_estimate_that_says_so() -> None:
    fits, estimate = describe(H100, 79.2, LLAMA_7B)
    assert fits.startswith("on NVIDIA H100 80GB HBM3 (79.2 GB): 3.8 GB of weights, ")
    assert fits.endswith("tokens of KV cache, a bf16 copy of the weights, with which prompts are read faster")
    assert estimate.startswith(
        "an estimate, not measured here: correcting an answer of 256 tokens after a prompt of 512"
    )
    assert "takes about 19 ms (floor 13) where nothing is flagged, and about " in estimate


@pytest.mark.parametrize(
    ("name", "quantization", "has_kernels", "obstacle"),
    [
        ("NVIDIA GeForce RTX 9999", "nf4", True, None),
        (H100, "none", True, None),
        (H100, "nf4", False, None),
        (H100, "nf4", True, "the activation gelu"),
    ],
)
def test_nothing_is_estimated_that_no_measured_ratio_applies_to(
    name: str, quantization: str, has_kernels: bool, obstacle: str | None
) -> None:
    [fits] = describe(name, 24, TINY_LLAMA, quantization, has_kernels=has_kernels, obstacle=obstacle)
    assert "tokens of KV cache" in fits
    assert ("copy" in fits) is (has_kernels and quantization == "nf4" and obstacle is None)


def test_a_card_without_room_for_the_copy_or_the_model_says_so() -> None:
    assert "no room for a bf16 copy" in describe("card", 12, LLAMA_7B)[0]
    with pytest.raises(WeightsError, match=r"does not fit card \(6 GB\): not enough memory: it needs .* would fit"):
        describe("card", 6, LLAMA_13B)


def test_an_aligner_of_unknown_sizes_gets_no_line_and_an_unreadable_one_its_error() -> None:
    assert describe("card", 24, TINY_LLAMA, sizes=None) == []
    with pytest.raises(WeightsError, match="no config"):
        describe("card", 24, TINY_LLAMA, error="no config")


@pytest.mark.parametrize(
    ("missing", "fix"),
    [
        ("no package triton", "pip install triton"),
        ("kernels that cannot be compiled (RuntimeError: Failed to find C compiler.)", "apt install gcc libc6-dev"),
        ("a GPU of compute capability below 8.0", "nothing to install"),
        ("ROCm in place of CUDA", "nothing to install"),
    ],
)
def test_each_missing_part_has_a_fix(missing: str, fix: str) -> None:
    assert fix in suggest_fix(missing)
