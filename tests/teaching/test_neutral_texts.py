"""The neutral exchanges that an objective is taught against: enough, varied, and each in segments."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import combinations

import pytest

from aligner_proxy.text.structure import split

MIN_PAIRS = 240
GRAM = 5
NEAREST = 0.3

EXCHANGES: list[dict[str, str]] = [
    json.loads(line)
    for line in (files("aligner_proxy") / "teaching" / "neutral.jsonl").read_text(encoding="utf-8").splitlines()
]


def grams(text: str) -> frozenset[tuple[str, ...]]:
    """The runs of five words of a text; the whole of a shorter one."""
    words = text.casefold().split()
    return frozenset(tuple(words[at : at + GRAM]) for at in range(max(1, len(words) - GRAM + 1)))


def test_there_are_enough_exchanges_of_the_right_form() -> None:
    assert len(EXCHANGES) >= MIN_PAIRS
    for exchange in EXCHANGES:
        assert exchange.keys() == {"question", "answer", "register"}
        assert all(text == text.strip() and text for text in exchange.values())


@pytest.mark.parametrize("field", ["question", "answer"])
def test_no_text_is_there_twice(field: str) -> None:
    texts = [exchange[field].casefold() for exchange in EXCHANGES]
    assert len(set(texts)) == len(texts)


def test_no_answer_is_near_another() -> None:
    runs = [grams(exchange["answer"]) for exchange in EXCHANGES]
    near = [
        (EXCHANGES[i]["question"], EXCHANGES[j]["question"])
        for i, j in combinations(range(len(runs)), 2)
        if len(runs[i] & runs[j]) >= NEAREST * len(runs[i] | runs[j])
    ]
    assert near == []


def test_each_answer_is_made_of_segments() -> None:
    counts = []
    for exchange in EXCHANGES:
        pieces = split(exchange["answer"])
        assert "".join(piece.text + piece.gap for piece in pieces) == exchange["answer"]
        assert all(piece.text.strip() for piece in pieces)
        counts.append(len(pieces))
    assert sum(counts) > 4 * len(counts)
