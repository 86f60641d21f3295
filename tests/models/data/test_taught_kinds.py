"""The objectives that no aligner was trained on: each file has its form, and no sentence stands in two places."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

import models.data
import models.defects
from aligner_proxy.text.structure import split
from models.defects.phrases import read_yaml
from tests.support.tables import for_every

DATA = Path(models.data.__file__).parent
FILES = sorted((DATA / "taught_kinds").glob("*.yaml"))
TRAINED = sorted((Path(models.defects.__file__).parent / "written").glob("*.yaml"))
MIN_FILES = 30
AGAINST, FINE = 26, 10
SAME_OPENINGS = 2
by_file = for_every(FILES, lambda path: path.stem)


def rows(path: Path) -> dict[str, Any]:
    """One file."""
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def sentences(path: Path) -> list[str]:
    """All sentences of one file."""
    row = rows(path)
    return [*row["against"], *row["fine"]]


def plain(sentence: str) -> str:
    """The words of a sentence alone."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))


def test_there_are_enough_objectives() -> None:
    assert len(FILES) >= MIN_FILES


@by_file
def test_a_file_has_its_form(path: Path) -> None:
    row = rows(path)
    assert row["slug"] == path.stem
    assert row.keys() - {"shared"} == {"objective", "slug", "against", "fine"}
    assert re.fullmatch(r"[A-Z][^:\n]{2,40}: the answer [^\n]{30,200}\.", row["objective"])
    assert (len(row["against"]), len(row["fine"])) == (AGAINST, FINE)
    assert row.get("shared", True) is True


@by_file
def test_each_sentence_is_one_segment(path: Path) -> None:
    for sentence in sentences(path):
        assert [piece.text for piece in split(sentence)] == [sentence]


@by_file
def test_sentences_begin_in_different_ways(path: Path) -> None:
    openings = Counter(" ".join(plain(sentence).split()[:2]) for sentence in rows(path)["against"])
    assert max(openings.values()) <= SAME_OPENINGS


def test_no_sentence_and_no_objective_is_there_twice() -> None:
    counts = Counter(plain(sentence) for path in FILES for sentence in sentences(path))
    counts.update(plain(rows(path)["objective"]) for path in FILES)
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_objective_and_no_sentence_was_trained() -> None:
    written = [row for path in TRAINED for row in read_yaml(path)]
    trained = {plain(text) for row in written for text in (*row["objectives"], *row["goes"], *row["stays"])}
    names = {row["name"] for row in written} | {path.stem for path in (DATA / "own_answers").glob("*/*.jsonl")}
    assert trained
    for path in FILES:
        assert path.stem not in names or rows(path).get("shared")
        assert [text for text in (rows(path)["objective"], *sentences(path)) if plain(text) in trained] == []
