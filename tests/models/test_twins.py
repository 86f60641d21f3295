"""Twins: one answer, other objectives, other labels."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from models.pairs import Pair
from models.twins import LONGEST, build


@pytest.fixture(scope="module")
def made(data_dir: Path) -> list[Pair]:
    return list(build(data_dir, 1, 200))


def test_twins_share_the_answer_and_nothing_that_goes(made: list[Pair]) -> None:
    families = [list(group) for _, group in groupby(made, key=lambda pair: (pair.query, pair.answer))]
    twins = [family for family in families if family[0].source.startswith("twin")]
    assert len(twins) > 30
    for family in twins:
        assert len(family) in (2, 3)
        changed = [{i for i, label in enumerate(pair.labels) if label == 1} for pair in family]
        assert changed[0]
        assert changed[1]
        assert not changed[0] & changed[1]
        assert len({pair.objectives for pair in family}) == len(family)


def test_a_third_twin_asks_for_nothing(made: list[Pair]) -> None:
    none = [pair for pair in made if pair.source == "twin:none"]
    assert none
    assert all(pair.target == pair.answer and not any(pair.labels) for pair in none)


def test_some_answers_are_simply_good(made: list[Pair]) -> None:
    clean = [pair for pair in made if pair.source.startswith("clean")]
    assert len(made) / 10 < len(clean) < len(made) / 2


def test_the_answers_are_short(made: list[Pair]) -> None:
    assert max(len(pair.answer) for pair in made if pair.source.startswith("twin")) < 4 * LONGEST


def test_the_same_seed_gives_the_same_twins(data_dir: Path, made: list[Pair]) -> None:
    assert list(build(data_dir, 1, 30))[:30] == made[:30]
