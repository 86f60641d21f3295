"""The fits of the weights of grounded answers, on one business."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from aligner_proxy_grounding.evidence import FOR_NONE, FOR_REPLACING, FOR_STATEMENT
from models.evaluate.grounded import FOLDER, list_cases
from models.experiments import grounded_certainty
from models.experiments.grounding import EvidenceWeights, choose_values, fit_weights, list_examples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One business alone."""
    shutil.copy(FOLDER / "shop.yaml", tmp_path)
    return tmp_path


def test_fitted_weights_find_more_than_no_weights(folder: Path) -> None:
    rows = list(list_examples([folder]))
    assert {row.sort for row in rows} >= {"outdated", "confirmed", "removed", "unknown"}

    def right(weights: EvidenceWeights) -> int:
        return sum(ok and likely >= 0.5 for row, likely, ok in choose_values(rows, weights) if row.sort == "outdated")

    none = EvidenceWeights(torch.zeros(len(FOR_STATEMENT)), torch.zeros(len(FOR_NONE)))
    assert right(fit_weights(rows)) > right(none)


def test_the_file_has_a_weight_for_all_that_is_counted(folder: Path) -> None:
    row = next(list_examples([folder]))
    assert list(row.statements[0]) == list(FOR_STATEMENT)
    assert list(row.none) == list(FOR_NONE)


def test_what_puts_a_fact_right_is_more_certain_than_what_does_not(folder: Path) -> None:
    rows = [row for case in list_cases(folder) for row in grounded_certainty.list_replacements(case)]
    assert list(rows[0].counts) == list(FOR_REPLACING)
    certain = grounded_certainty.estimate_certainties(rows, grounded_certainty.fit_weights(rows))
    right = [value for row, value in zip(rows, certain, strict=True) if row.is_right]
    wrong = [value for row, value in zip(rows, certain, strict=True) if not row.is_right]
    assert len(right) >= 8
    assert sum(right) / len(right) > 0.5 > sum(wrong) / len(wrong)


def test_a_table_counts_what_a_threshold_touches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    all_cases = list(list_cases(folder))
    rows = [row for case in all_cases for row in grounded_certainty.list_replacements(case)]
    grounded_certainty.print_table(all_cases, rows, [1.0] * len(rows))
    touched = len({row.case for row in rows if row.case.kind == "clean"})
    assert f"right touched {touched}/8" in capsys.readouterr().out
