"""What the report says about a handful of pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.pairs import Pair, write_pairs
from models.report import changed, main, places, sources

GOOD, BAD = "It opens at six.", "It opens at six. You fool."


def pair(objectives: tuple[str, ...], target: str = GOOD, source: str = "defect:insult") -> Pair:
    return Pair("When?", objectives, BAD, target, (0, int(target != BAD)), source)


PAIRS = [pair(("a", "b")), pair(("a",)), pair(("b", "a"), BAD, "not-asked:insult")]


def test_places_compare_standing_first_with_chance() -> None:
    a, b = places(PAIRS)
    assert (a.text, a.count, a.first) == ("a", 3, pytest.approx(2 / 3))
    assert a.chance == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert (b.text, b.first) == ("b", 0.5)


def test_changed_is_a_share_of_words() -> None:
    assert changed(PAIRS[2]) == 0
    assert changed(PAIRS[0]) == pytest.approx(1 - 2 * 4 / (6 + 4))


def test_sources_say_how_much_of_each_changes() -> None:
    assert [(name, n, share) for name, n, share, _ in sources(PAIRS)] == [("defect", 2, 1.0), ("not-asked", 1, 0.0)]


def test_the_command_writes_table_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "p.jsonl", PAIRS)
    main([str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "out")])
    assert "3 pairs, 2 objective texts; directions: better 3." in capsys.readouterr().out
    assert "<svg" in (tmp_path / "out" / "report.svg").read_text()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").touch()
    with pytest.raises(SystemExit):
        main([str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "out")])
