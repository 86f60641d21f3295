"""Hidden states by which Meal's shipped net weighs objectives as a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from aligner_proxy.engine.api import StatesRequest
from aligner_proxy_systems.meal.net import WEIGHTS

WeightOf = Callable[[str, int], float]
"""What an objective's text weighs for prompts of one kind, beside the others."""


def rows_weighing(
    weight_of: WeightOf, kind_of: Callable[[str], int] = lambda _: 0, kinds: int = 1
) -> Callable[[StatesRequest], list[list[float]]]:
    """A script of hidden states. Objectives are told from prompts by what they are: "Name: description"."""

    def row(text: str) -> list[float]:
        if ": " in text:
            return _row("text", [np.log(weight_of(text, kind)) for kind in range(kinds)])
        return _row("prompt", [float(kind == kind_of(text)) for kind in range(kinds)], sharpened=True)

    _inverse("text"), _inverse("prompt")  # before anything waits for it
    return lambda request: [row(text) for text in request.texts]


def _row(side: str, projected: Sequence[float], *, sharpened: bool = False) -> list[float]:
    """A row that the net projects to these numbers, with zeros behind them."""
    net = _net()
    width = net["prompt.weight"].shape[0]
    target = np.zeros(width)
    target[: len(projected)] = np.asarray(projected) * (width**0.5 if sharpened else 1.0)
    solved = _inverse(side) @ (target - net[f"{side}.bias"])
    row: list[float] = (net[f"centre_{side}"] + net[f"spread_{side}"] * solved).tolist()
    return row


@cache
def _net() -> dict[str, Any]:
    return {name: tensor.astype(np.float64) for name, tensor in load_file(str(WEIGHTS)).items()}


@cache
def _inverse(side: str) -> Any:
    return np.linalg.pinv(_net()[f"{side}.weight"])
