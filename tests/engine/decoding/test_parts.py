"""Answers in parts: each fits, each piece is judged once, and a growing answer is divided like the whole."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy import prompts
from aligner_proxy.engine.decoding.parts import Division, keep_end
from aligner_proxy.engine.decoding.prompt_fit import TokenRuler
from aligner_proxy.text import structure
from aligner_proxy.text.splitter import Splitter
from tests.engine.decoding.test_incremental import PIECES
from tests.support import tiny
from tests.support.sampling import examples

RULER = TokenRuler(tiny.runner().tokenizer, prompts.TEMPLATES["ultrafeedback"])
ODD = (
    "x" * 900,
    "\u200b" * 200,
    " ".join(["word"] * 300),
    " " * 500,
    "\n" * 90,
    "```\n" + "code line\n" * 60 + "```\n",
    "\u4f60\u597d" * 80,
)


def answers() -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*PIECES, *ODD]), min_size=1, max_size=14).map("".join)


@settings(deadline=None, max_examples=examples(120))
@given(answers(), st.integers(40, 200))
def test_every_piece_is_judged_once_and_every_part_fits(answer: str, room: int) -> None:
    segments = structure.split(answer)
    division = Division(RULER, room, segments)
    assert "".join(piece.text + piece.gap for piece in division.pieces) == answer
    assert [at for part in division.parts for at in range(part.first_own, part.stop)] == list(
        range(len(division.pieces))
    )
    for part in division.parts:
        passage = division.make_passage(part)
        assert RULER.count(passage.undisguised.text.rstrip()) <= room + 4 * len(passage.pieces)
        assert all(passage.text[piece.start : piece.end] == piece.text for piece in passage.pieces)
        assert passage.undisguised.length == len(passage.text)
    for number, segment in enumerate(segments):
        text, pieces = division.find_segment(number)
        assert text == segment.text
        joined = "".join(piece.text + piece.gap for piece in division.pieces[pieces.start : pieces.stop])
        assert joined == segment.text + segment.gap


@settings(deadline=None, max_examples=examples(60))
@given(answers(), st.integers(40, 200), st.integers(0, 10**6))
def test_a_growing_answer_is_divided_like_the_whole(answer: str, room: int, seed: int) -> None:
    splitter, growing = Splitter(), Division(RULER, room)
    whole = Division(RULER, room, structure.split(answer))
    rng = random.Random(seed)
    at = 0
    while at < len(answer):
        size = rng.randrange(1, 200)
        for segment in splitter.feed(answer[at : at + size]):
            growing.add(segment)
        at += size
        parts = growing.parts
        assert parts[:-1] == whole.parts[: len(parts) - 1]
        assert (parts[-1].first, parts[-1].first_own) == (
            whole.parts[len(parts) - 1].first,
            whole.parts[len(parts) - 1].first_own,
        )
    for segment in splitter.end():
        growing.add(segment)
    assert growing.parts == whole.parts


def test_a_short_answer_is_one_part_with_all_of_it() -> None:
    division = Division(RULER, 400, structure.split(tiny.ANSWER + "\n"))
    [part] = division.parts
    assert division.make_passage(part).text == tiny.ANSWER + "\n"
    assert division.make_passage(part).context_count == 0


def test_a_part_begins_with_the_end_of_the_one_before() -> None:
    division = Division(RULER, 100, structure.split(" ".join(tiny.CORPUS) * 4))
    assert len(division.parts) > 3
    for before, part in zip(division.parts, division.parts[1:], strict=False):
        assert before.stop == part.first_own
    assert sum(part.first < part.first_own for part in division.parts) >= len(division.parts) // 2


def test_an_answer_without_a_piece_is_one_part() -> None:
    [part] = Division(RULER, 100).parts
    assert (part.first, part.first_own, part.stop) == (0, 0, 0)


def test_the_place_behind_all_segments_is_in_the_last_part() -> None:
    division = Division(RULER, 100, structure.split(" ".join(tiny.CORPUS) * 3))
    before = division.parts
    division.add_end()
    assert division.parts[:-1] == before[:-1]
    assert division.make_passage(division.parts[-1]).own_pieces[-1].text == ""
    assert division.find_segment(len(division) - 1)[0] == ""


@pytest.mark.parametrize(
    ("edited", "original", "expected"),
    [
        ("One. Two. Three.", "Two. Three.", "Two. Three."),
        ("One. Two. Three.", "wo. Three.", "Three."),
        ("One. Two. Three.", " Two. Three.", "Two. Three."),
        ("Short.", "A longer one.", "Short."),
        ("One. Two.", "", ""),
    ],
)
def test_of_an_edited_text_the_end_is_given(edited: str, original: str, expected: str) -> None:
    assert keep_end(edited, original) == expected
