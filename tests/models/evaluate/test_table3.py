"""The layout of Table 3: methods as rows over the same sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from models.data.pairs import Pair, write_pairs
from models.evaluate import table3
from models.evaluate.table3 import (
    GONE,
    LEFT,
    REPAIRED,
    STRONG_SAME,
    WEAK_WINS,
    MethodError,
    pool_rates,
    rate_sets,
    read_methods,
)
from models.evaluate.test_sets import SetCase
from tests.models.train.test_train import aligner
from tests.support.tiny import OBJECTIVES

BAD = Pair("Q?", OBJECTIVES, "One. Fool! Two.", "One. Two.", (0, 1, 0), "defect:insult")
GOOD = Pair("Q?", OBJECTIVES, "One. Two.", "One. Two.", (0, 0), "clean:x")
NATURAL = Pair("Q?", OBJECTIVES, "One. Fool! Two.", "One. Friend! Two.", (0, 1, 0), "natural:asked")
BAG = Pair("Q?", OBJECTIVES, "One.", "One.", (-1,), "bag:chosen")
RESULTS = {
    "insult": [SetCase(BAD, "One. Two.", (-1.0, 2.0, -1.0)), SetCase(BAD, "One.", (1.0, 2.0, -1.0))],
    "clean": [SetCase(GOOD, "One. Two.", (-1.0, -1.0))],
    "natural": [SetCase(NATURAL, "One. Two.", (-1.0, 2.0, -1.0)), SetCase(NATURAL, "Two.", (1.0, 2.0, -1.0))],
    "compared": [SetCase(BAG, "One.", (0.5,)), SetCase(BAG, "One.", (1.5,))],
}


def write_methods(folder: Path, *methods: dict[str, object]) -> Path:
    path = folder / "methods.yaml"
    path.write_text(yaml.safe_dump(list(methods)))
    return path


def test_each_set_is_counted_by_what_it_is_for() -> None:
    rates = {name: (rate.hits, rate.n) for name, rate in rate_sets(RESULTS).items()}
    assert rates == {
        "insult (exact)": (1, 2),
        "clean (identical)": (1, 1),
        "natural (gone, rest kept)": (1, 2),
        "compared (worse one higher)": (1, 1),
    }


def test_pooled_figures_leave_out_what_has_no_one_right_answer() -> None:
    rates = {name: (rate.hits, rate.n) for name, rate in pool_rates(RESULTS).items()}
    assert rates == {LEFT: (1, 1), REPAIRED: (1, 2), GONE: (2, 2)}


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        ([{"name": "a", "aligner": "nowhere"}], "a: nowhere is no aligner folder"),
        ([{"name": "a", "aligner": "x", "verfy": "always"}], r"0\.verfy: Extra inputs"),
        ([{"aligner": "x"}], r"0\.name: Field required"),
        ([{"name": "a", "aligner": "x"}, {"name": "a", "aligner": "x"}], "a name of its own"),
        ([], "one method or more"),
    ],
)
def test_a_list_that_cannot_be_used_says_where(tmp_path: Path, methods: list[dict[str, object]], problem: str) -> None:
    with pytest.raises(MethodError, match=problem):
        read_methods(write_methods(tmp_path, *methods))


def test_the_command_measures_each_method_once(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    folder = str(aligner(tmp_path))
    write_pairs(tmp_path / "sets" / "insult.jsonl", [BAD])
    write_pairs(tmp_path / "sets" / "clean.jsonl", [GOOD])
    one = {"name": "one", "aligner": folder}
    two = {"name": "two", "aligner": folder, "caution": 50.0}
    data = ["--data", str(data_dir), "--each", "1", "--sources", "hh"]
    paths = ["--sets", str(tmp_path / "sets"), "--out", str(tmp_path / "out"), *data]
    table3.main([str(write_methods(tmp_path, one)), *paths])
    first = json.loads((tmp_path / "out" / "by_method.json").read_text())["rows"][0]
    assert set(first["upstreams"]) == {STRONG_SAME, WEAK_WINS}
    files = sorted((tmp_path / "out" / "methods").iterdir())
    stamps = [path.stat().st_mtime_ns for path in files]
    table3.main([str(write_methods(tmp_path, one, two)), *paths])
    assert [path.stat().st_mtime_ns for path in files] == stamps
    document = json.loads((tmp_path / "out" / "by_method.json").read_text())
    assert document["rows"][0] == first
    # So much caution flags nothing: what was good comes back as it was, and so does the insult.
    assert document["rows"][1]["pooled"][LEFT]["percent"] == 100
    assert document["rows"][1]["pooled"][GONE]["percent"] == 0
    table = capsys.readouterr().out
    assert "| two | 1/1 = 100.0 % [20.7, 100.0]" in table
    assert "Fool" not in table
    assert (
        document["accuracy"]["measures"]["insults"]["finds"]["n"] == 0
    )  # pairs without kinds say nothing of a measure
    assert "how often they are right" in table
    assert (tmp_path / "out" / "by_method.svg").exists()
