"""The table of an aligner's quality: what holds, what is kept, and the command over a tiny aligner."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from models.data.preference_sets import GUARD_SETS
from models.data.test_sets import make_held_out_sets
from models.evaluate import all as quality
from models.evaluate.quality import rows
from models.evaluate.quality.page import Sheet, format_misses, format_table, plot
from models.evaluate.quality.results import Bound, ResultFolder, RowResult, compare_figures, hash_data
from models.evaluate.quality.rows import AUTHORS, ROWS, QualityBench
from models.reporting.statistics import Area, Rate
from tests.models.evaluate.test_strong_upstreams import data
from tests.models.train.test_train import aligner
from tests.support.sampling import examples

__all__ = ["data"]
_EXACT = "repaired exactly"
FEW = ("own-voice", "strong", "insults", "good")


@pytest.mark.parametrize(
    ("bound", "figure", "verdict"),
    [
        (Bound(90), Rate.from_counts(990, 1000), "yes"),
        (Bound(90), Rate.from_counts(10, 11), "yes, not sure"),
        (Bound(90), Rate.from_counts(8, 9), "**no**, not sure"),
        (Bound(90), Rate.from_counts(10, 1000), "**no**"),
        (Bound(10, is_ceiling=True), Rate.from_counts(10, 1000), "yes"),
        (Bound(10, is_ceiling=True), Rate.from_counts(990, 1000), "**no**"),
        (Bound(85), Area(0.95, 400, 400), "yes"),
        (Bound(85), Area(0.86, 20, 20), "yes, not sure"),
        (Bound(90), Rate.from_outcomes(()), "not measured"),
    ],
)
def test_a_figure_holds_by_itself_and_is_sure_by_its_interval(bound: Bound, figure: Rate | Area, verdict: str) -> None:
    assert bound.judge(figure) == verdict


def test_a_difference_has_the_interval_of_both() -> None:
    # Newcombe 1998, table II, case (a), method 10: 56/70 against 48/80.
    assert compare_figures(Rate.from_counts(56, 70), Rate.from_counts(48, 80)) == "+20.0 [+5.2, +33.4]"
    assert compare_figures(Area(0.9, 100, 100), Area(0.8, 100, 100)).startswith("+10.0 [+")
    assert compare_figures(Rate.from_outcomes(()), Rate.from_counts(1, 2)) == "-"


def test_a_result_of_a_larger_sample_of_the_same_aligner_and_data_is_kept(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path)
    small = RowResult(
        "own-voice", "a" * 64, "d" * 64, 20, {"found": Rate.from_counts(1, 3), "AUC": Area(0.7, 4, 5)}, "people"
    )
    large = RowResult("own-voice", "a" * 64, "d" * 64, 200, {"found": Rate.from_counts(9, 30)})
    results.write(large)
    results.write(small)
    assert results.find("own-voice", "a" * 64, "d" * 64, 20) == large
    assert results.find("own-voice", "a" * 64, "d" * 64, 201) is None
    assert results.find("own-voice", "b" * 64, "d" * 64) is None
    assert results.find("own-voice", "a" * 64, "e" * 64) is None
    [file] = tmp_path.glob("*-20.json")
    assert ResultFolder(tmp_path).find("own-voice", "a" * 64, "d" * 64) == large
    assert json.loads(file.read_text())["figures"] == {
        "found": {"hits": 1, "n": 3},
        "AUC": {"auc": 0.7, "high": 4, "low": 5},
    }


def test_a_change_of_the_data_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"one")
    before = hash_data(tmp_path)
    assert hash_data(tmp_path) == before
    (tmp_path / "a.jsonl.gz").write_bytes(b"two")
    assert hash_data(tmp_path) != before


def test_two_aligners_stand_beside_each_other(tmp_path: Path) -> None:
    kinds = next(row for row in ROWS if row.name == "kinds")
    sheets = [
        Sheet(
            name,
            name * 64,
            {"kinds": RowResult("kinds", name, "d", 100, {"repaired exactly": Rate.from_counts(hits, 100)})},
        )
        for name, hits in (("new", 90), ("old", 50))
    ]
    [*_, line] = format_table([kinds], *sheets).splitlines()
    assert [cell.split(" [")[0].strip() for cell in line.strip("| ").split(" | ")] == [
        "`kinds`", "repaired exactly", "90/100 = 90.0 %", ">= 82 %", "yes", "50/100 = 50.0 %", "+40.0",
    ]  # fmt: skip
    assert "repaired exactly: 50/100 = 50.0 %" in format_misses([kinds], sheets[1])
    assert "Not measured: `guards` (`--only guards`)" in format_misses(ROWS, sheets[0])
    plot(tmp_path / "quality.svg", ROWS, *sheets)
    assert "<svg" in (tmp_path / "quality.svg").read_text()


def test_every_bound_names_a_row_that_is_there_once() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
    with pytest.raises(quality.ConfigError, match="unknown row 'guard'; known: guards, own-voice"):
        quality.select_rows(["guard"])
    assert [row.name for row in quality.select_rows(["lists", "guards"])] == ["guards", "lists"]
    assert len([name for row in ROWS if row.name == "guards" for name in row.bounds]) == 2 * len(GUARD_SETS)


@pytest.mark.slow
def test_the_command_measures_each_row_once_and_writes_the_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(quality, "PAGE", tmp_path / "quality.md")
    few = partial(make_held_out_sets, limit=examples(10_000, 5))
    monkeypatch.setattr(rows, "make_held_out_sets", few)  # making whole ones takes as long as all the rest
    folder = aligner(tmp_path / "made")
    out = tmp_path / "out"
    options = [str(folder), "--data", str(data), "--out", str(out), "--sample", "2", "--page"]
    quality.main([*options, "--only", *FEW])
    page = (tmp_path / "quality.md").read_text()
    for name in FEW:
        row = next(row for row in ROWS if row.name == name)
        assert set(row.bounds) <= {line.split(" | ")[1] for line in page.splitlines() if line.startswith(f"| `{name}`")}
    assert "Not measured: `guards`" in page
    assert (tmp_path / "quality.svg").stat().st_size > 1000
    capsys.readouterr()
    monkeypatch.setattr(quality, "ROWS", [row for row in ROWS if row.name in FEW])
    quality.main(options)
    assert capsys.readouterr().out.count(": kept, sample 2") == len(FEW), "nothing is measured again"
    texts = list((out / "texts").rglob("*.jsonl"))
    assert texts
    assert (out / "texts" / ".gitignore").read_text() == "*\n"
    answers = [json.loads(line)["answer"] for path in texts for line in path.read_text().splitlines()[:1]]
    assert not [answer for answer in answers if answer in page or answer in (out / "quality.json").read_text()]


@pytest.mark.shared_data
@pytest.mark.full
@pytest.mark.slow
def test_every_set_of_the_rows_is_in_the_shared_data(shared_data: Path, tmp_path: Path) -> None:
    bench = QualityBench(tmp_path, shared_data, tmp_path / "texts", tmp_path / "sets", 2)
    for row in ROWS:
        source = getattr(row.measure, "keywords", {}).get("name")
        if source:
            assert len(bench.read_test_set(source, 2)) == 2, row.name
    assert len(bench.read_test_set("compared_replies", 200)) == 200
    assert set(AUTHORS) == {"l", "t", "ae"}
