"""The fit of the evidence weights of grounded answers, on one business."""

from __future__ import annotations

import torch

from aligner_proxy.grounding.evidence import FOR_NONE, FOR_STATEMENT
from models.experiments.grounding import Weights, examples, fitted, found


def test_fitted_weights_find_more_than_no_weights() -> None:
    rows = list(examples(["shop"]))
    assert {row.sort for row in rows} >= {"outdated", "confirmed", "removed", "unknown"}

    def right(weights: Weights) -> int:
        return sum(ok and likely >= 0.5 for row, likely, ok in found(rows, weights) if row.sort == "outdated")

    none = Weights(torch.zeros(len(FOR_STATEMENT)), torch.zeros(len(FOR_NONE)))
    assert right(fitted(rows)) > right(none)


def test_the_file_has_a_weight_for_all_that_is_counted() -> None:
    row = next(examples(["shop"]))
    assert list(row.statements[0]) == list(FOR_STATEMENT)
    assert list(row.none) == list(FOR_NONE)
