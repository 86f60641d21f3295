"""Tables and plots as files: the same result gives the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.reporting import output
from models.reporting.statistics import Rate


def draw(path: Path) -> bytes:
    with output.plot(path, columns=2) as ((left, right),):
        left.plot([0, 1], [1, 0], label="a line")
        output.whiskers(right, [Rate.from_counts(3, 4), Rate.from_counts(0, 0)], ["some", "none"])
    return path.read_bytes()


def test_a_plot_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    first = draw(tmp_path / "a.svg")
    assert first == draw(tmp_path / "b.svg")
    assert b"<svg" in first


def test_a_plot_that_fails_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output.plot(tmp_path / "a.svg"):
        _ = 1 / 0
    assert not (tmp_path / "a.svg").exists()


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_no_cell_ends_its_row_or_opens_another(cells: list[str]) -> None:
    lines = output.table(["x"] * len(cells), [cells]).split("\n")
    assert len(lines) == 3
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert bars[1] == len(cells) + 1
    assert bars[2] <= len(cells) + 1  # a cell that ends in a backslash hides the bar that follows; none can be added


def test_a_result_becomes_a_table_and_a_document(tmp_path: Path) -> None:
    output.write(tmp_path / "new", "figures", "| a |", {"rate": Rate.from_counts(1, 2)})
    assert (tmp_path / "new" / "figures.md").read_text() == "| a |\n"
    assert json.loads((tmp_path / "new" / "figures.json").read_text())["rate"]["hits"] == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["figures.json", "figures.md"]


def test_what_has_no_plain_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="set has no place"):
        output.write(tmp_path, "figures", "", {"x": {1}})
