"""The measured forms of outdated facts, and what words and an editor may never do to right ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.evaluate.grounded import OUTDATED
from models.evaluate.grounded_forms import FOLDER, count_case, read_forms

SETS = [
    ("development.yaml", False),
    ("fresh.yaml", True),
    ("trades.yaml", False),
    ("operators.yaml", True),
    ("development.yaml", True),
    ("fresh.yaml", False),
    ("trades.yaml", True),
    ("operators.yaml", False),
]


PAGE = """
- form: table
  page: |
    Returns are accepted within 30 days of delivery.
  cases:
    - question: How long do I have for returns?
      answer: "Returns are accepted within {14|30} days of delivery."
      twins: ["Returns are accepted within about a month."]
  right:
    - question: Three weeks, is that fine?
      answer: "Yes, three weeks are within the 30 days."
  unknown:
    - question: May I call?
      answer: "Ring +45 33 12 80 44."
"""


def test_read_forms_has_the_outdated_answer_and_its_twins(tmp_path: Path) -> None:
    path = tmp_path / "forms.yaml"
    path.write_text(PAGE, encoding="utf-8")
    cases = list(read_forms(path))
    assert [case.kind for case in cases] == [OUTDATED, "clean", "clean", "clean", "unknown"]
    assert cases[0].answer == "Returns are accepted within 14 days of delivery."
    assert cases[0].right == cases[1].answer == "Returns are accepted within 30 days of delivery."


def test_count_case_counts_what_is_put_right_and_what_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "forms.yaml"
    path.write_text(PAGE, encoding="utf-8")
    outdated, *others = (count_case(case, streams=False, show=False) for case in read_forms(path))
    assert outdated["cases"] == outdated["right"] == outdated["right+"] == 1
    assert all(counts["twins"] == 1 and not counts["touched"] for counts in others)


@pytest.mark.covering("name", "streams")
@pytest.mark.parametrize(("name", "streams"), SETS)
def test_no_right_answer_of_any_form_is_touched(name: str, streams: bool) -> None:
    touched = [
        (case.question, case.answer)
        for case in read_forms(FOLDER / name)
        if case.kind != OUTDATED
        and (counts := count_case(case, streams=streams, show=False))["touched"] + counts["touched+"]
    ]
    assert touched == []
