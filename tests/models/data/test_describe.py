"""What the report says about a handful of pairs, and about those of the reformulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data import metaaligner
from models.data.describe import compute_facts, main, summarise_objectives, summarise_sources
from models.data.pairs import Pair, write_pairs

GOOD = "It opens at six."
BAD = "It opens at six. You fool."


def pair(objectives: tuple[str, ...], target: str = GOOD, source: str = "defect:insult") -> Pair:
    return Pair("When?", objectives, BAD, target, (0, int(target != BAD)), source)


PAIRS = [pair(("a", "b")), pair(("a",)), pair(("b", "a"), BAD, "not-asked:insult")]


def test_standing_first_is_compared_with_chance() -> None:
    a, b = summarise_objectives(compute_facts(PAIRS))
    assert a.first is not None
    assert b.first is not None
    assert (a.name, a.count, a.first.hits, a.first.n) == ("a", 3, 2, 3)
    assert a.chance == pytest.approx(100 * (0.5 + 1 + 0.5) / 3)
    assert (b.name, b.first.percent) == ("b", 50)


def test_sources_say_how_much_of_each_changes_and_by_how_much() -> None:
    defect, kept = summarise_sources(compute_facts(PAIRS))
    assert (defect.name, defect.sorts) == ("defect", {"better": 2, "equal": 0, "identity": 0})
    assert (kept.name, kept.sorts) == ("not-asked", {"better": 0, "equal": 0, "identity": 1})
    assert (defect.distance, kept.distance) == (pytest.approx(2 / 6), 0)
    assert (defect.longer.hits, defect.longer.n, kept.longer.n) == (0, 2, 0)
    assert (defect.answer, defect.target) == (len(BAD), len(GOOD))


def test_the_command_writes_table_document_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "p.jsonl", PAIRS)
    main([str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "3 pairs, 2 objective texts; better 2, identity 1." in said
    assert BAD not in said
    assert "<svg" in (tmp_path / "out" / "report.svg").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["objectives"][0]["first"]["n"] == 3


def test_all_parts_of_a_reformulation_are_reported_together(tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    rows = [
        {
            "query": f"q{i}",
            "responses": [
                {"text": "Go left.", "scores": {"Helpful": 1, "Honest": 0, "Short": 1}},
                {"text": "Go left, then turn right at the mill.", "scores": {"Helpful": 1, "Honest": 1, "Short": 0}},
            ],
        }
        for i in range(60)
    ]
    scored.write_text("\n".join(map(json.dumps, rows)))
    parts = {}
    for part in metaaligner.PARTS:
        parts[part] = str(tmp_path / f"{part}.jsonl")
        metaaligner.main(["--scored", str(scored), "--better", "0.5", "--part", part, "--out", parts[part]])
    main([*parts.values(), "--out", str(tmp_path / "out")])
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    objectives = {entry["name"]: entry for entry in told["objectives"]}
    n = objectives["Helpful"]["sorts"]["equal"]
    assert n > 40
    assert (objectives["Honest"]["sorts"]["better"], objectives["Short"]["sorts"]["better"]) == (n, n)
    assert objectives["Helpful"]["sorts"]["better"] == 0
    # Both directions of every pair: whole answers are another text, so most of the words change.
    preference = next(entry for entry in told["sources"] if entry["name"] == "preference")
    assert preference["distance"] == pytest.approx(7 / 8)
    assert objectives["Honest"]["longer"]["percent"] > objectives["Short"]["longer"]["percent"]
    assert all(entry["sorts"]["identity"] > 0 for entry in objectives.values())


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").touch()
    with pytest.raises(SystemExit):
        main([str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "out")])
