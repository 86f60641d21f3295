"""What an aligner without objectives can learn from."""

from __future__ import annotations

from pathlib import Path

from models.data.pairs import Pair, read_pairs, write_pairs
from models.systems.pku_aligner import single_purpose
from tests.support.tiny import OBJECTIVES


def pair(kinds: tuple[str, ...], labels: tuple[int, ...]) -> Pair:
    return Pair("Q?", OBJECTIVES, "One. Two.", "One.", labels, "test", kinds=kinds)


def test_pairs_that_leave_something_wrong_in_are_left_out(tmp_path: Path) -> None:
    gone = pair(("", "insult"), (0, 1))
    left = pair(("", "insult"), (0, 0))
    clean = pair(("", ""), (0, 0))
    doubtful = pair(("", "insult"), (0, -1))
    unknown = pair((), (0, 1))
    write_pairs(tmp_path / "all.jsonl", [gone, left, clean, doubtful, unknown])
    single_purpose.main([str(tmp_path / "all.jsonl"), "--out", str(tmp_path / "some.jsonl")])
    assert list(read_pairs(tmp_path / "some.jsonl")) == [gone, clean]
