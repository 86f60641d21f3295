"""Segments add up to the text, stay where they are while it grows, and join again after one is gone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text.splitter import Splitter
from aligner_proxy.text.structure import firm_length, join, join_so_far, split
from tests.support.counting import growth
from tests.support.growth import grows_linearly

TEXT = st.text(st.sampled_from(list("aB1 .!?\n`-*\"'\u2026\u3002\u300c\u300d~\u00e9)")), max_size=80)
WORDS = ["e.g.", "A.", "Dr.", "12.", "-", "x", "B", " ", "\t", "\n", "```", "~~~~", "`", ".", "\uff1f", ")", "\r"]
RUNNING = [
    "word",
    "and",
    "You",
    "you,",
    "\u2014",
    "No.",
    "U.S.",
    "plan B.",
    "Dr.",
    "a.m.",
    "etc.",
    "am 3.",
    "Mai",
    "z. B.",
    "The",
]
RUNNING += ["ok.", "don't", "that's", "[1]\u201c"]
RUNNING += ["Army", "\U0001f600", "\u2764\ufe0f", "\U0001f1e9\U0001f1ea", "|", "x" * 60, "done.", "\uff0e", "\n", "``"]
RUN_ON = st.lists(st.sampled_from(RUNNING), min_size=30, max_size=140).map(" ".join)
CLUSTER_PARTS = ["a", "B", " ", ".", "\u3002", "\u300c", "\u300d", '"', "\n", "\U0001f600", "\ufe0f", "\u200d"]
CLUSTER_PARTS += ["You are it"]
CLUSTERS = st.lists(st.sampled_from(CLUSTER_PARTS), max_size=50).map("".join)
GROWING = CLUSTERS | RUN_ON | TEXT | st.lists(st.sampled_from(WORDS), max_size=40).map("".join)


def texts(text: str) -> list[str]:
    return [segment.text for segment in split(text)]


@given(TEXT)
def test_nothing_is_lost(text: str) -> None:
    assert "".join(segment.text + segment.gap for segment in split(text)) == text


@given(TEXT)
def test_offsets_point_at_the_text(text: str) -> None:
    assert all(text[segment.start : segment.end] == segment.text for segment in split(text))


@given(TEXT | RUN_ON | CLUSTERS, st.integers(0, 600))
def test_a_boundary_stays_when_the_text_grows(text: str, length: int) -> None:
    """Every segment of a prefix but the last is a segment of the whole: its end was decided by what stands there."""
    prefix = split(text[:length])
    whole = split(text)
    assert [(s.start, s.text) for s in prefix[:-1]] == [(s.start, s.text) for s in whole[: len(prefix[:-1])]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Ask Dr. Moss, e.g. about tea. Then go.", ["Ask Dr. Moss, e.g. about tea.", "Then go."]),
        ("1. Boil it. Stir.\n2. Serve", ["1. Boil it.", "Stir.", "2. Serve"]),
        ("It costs 3.50 today. Fine.", ["It costs 3.50 today.", "Fine."]),
        ('He said "go." She went.', ['He said "go."', "She went."]),
        ("Wait... what now?", ["Wait... what now?"]),
        ("Try:\n```py\nx = 1. \n\ny = 2\n```\nDone.", ["Try:", "```py\nx = 1. \n\ny = 2\n```", "Done."]),
        ("\u300c\u884c\u3002\u300d\u300c\u6765\u3002\u300d", ["\u300c\u884c\u3002\u300d", "\u300c\u6765\u3002\u300d"]),
        ("\u300c\u884c\u3002\u300d\u3068\u8a00\u3002", ["\u300c\u884c\u3002\u300d\u3068\u8a00\u3002"]),
        ("", []),
        ("   ", ["   "]),
        (" Lead.", [" Lead."]),
    ],
)
def test_where_segments_end(text: str, expected: list[str]) -> None:
    assert texts(text) == expected


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        (0, "Two.\n\nThree.\n"),
        (1, "One.\n\nThree.\n"),
        (2, "One. Two."),
    ],
)
def test_a_removed_piece_leaves_the_larger_break(removed: int, expected: str) -> None:
    pieces = [(s.text, s.gap) for s in split("One. Two.\n\nThree.\n")]
    pieces[removed] = ("", pieces[removed][1])
    assert join(pieces) == expected.rstrip()


@given(GROWING, st.lists(st.integers(0, 600), max_size=12))
def test_a_growing_text_is_cut_like_the_whole(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    splitter = Splitter()
    told = []
    for start, end in itertools.pairwise(edges):
        told += splitter.feed(text[start:end])
        assert told == split(text[:end])[:-1]
    assert told + splitter.end() == split(text)


@given(RUN_ON | CLUSTERS)
def test_a_growing_text_is_cut_alike_character_by_character(text: str) -> None:
    splitter = Splitter()
    segments = [segment for char in text for segment in splitter.feed(char)]
    assert segments + splitter.end() == split(text)


def feed_in_pieces(text: str, size: int) -> None:
    """Cut a text that comes in pieces of `size` characters."""
    splitter = Splitter()
    for at in range(0, len(text), size):
        splitter.feed(text[at : at + size])
    splitter.end()


def test_a_long_line_is_split_in_linear_time() -> None:
    """A quadratic splitter would take minutes here; the suite's own time limit is the assertion."""
    assert len(split("Short one. " * 50_000)) == 50_000


@pytest.mark.parametrize(
    "line",
    [
        "word ",
        "Short one. ",
        "No. ",
        "x\U0001f600",
        "\U0001f600 a ",
        "e.g. B",
        "\ufe0f",
        ". ",
        ".",
        "\u3002",
        ")",
        "- 1",
        "`` x",
        "```\nx",
    ],
)
def test_a_growing_line_is_cut_in_linear_time(line: str) -> None:
    assert growth(lambda size: feed_in_pieces(line * size, 4), 200) < 2.2


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        ("", "\u3002a"),
        ("", "\u3002b/c?d=1"),
        ("Hi", "!\U0001f600"),
        ("a?", "\u201c"),
        ("a?", "\u201c\u201d"),
        ("a?\u3002", "\u201c\u201d"),
        ("Hello.\n", " "),
        ("", "`"),
    ],
)
def test_a_line_without_words_is_read_in_linear_time(head: str, unit: str) -> None:
    """Whole, and in pieces of twenty characters."""

    def make(size: int) -> str:
        return head + unit * (size // len(unit))

    assert grows_linearly(make, split)
    assert grows_linearly(make, lambda text: feed_in_pieces(text, 20))


@pytest.mark.parametrize("indent", [" ", "1"])
def test_what_a_line_begins_with_is_looked_at_once(indent: str) -> None:
    """Looked at again behind every sentence it would take minutes."""
    assert len(split(indent * 100_000 + "a. B" * 50_000)) == 50_001


def test_the_last_word_is_found_in_linear_time() -> None:
    """Tried from each of its marks, a run of them would take minutes."""
    assert firm_length("\u3002" * 300_000) == 0


def test_what_is_gone_takes_its_gap_along_before_the_next_piece() -> None:
    assert join_so_far([("One.", " "), ("", "\n\n"), ("Two.", "\n")]) == "One. Two.\n"
    assert join_so_far([]) == ""


def test_a_full_width_stop_ends_a_sentence_like_a_plain_one() -> None:
    pieces = [segment.text for segment in split("Ｐｒｅｓｓ ｓｔａｒｔ． Then wait. Version Ｖ１．２ is out.")]
    assert pieces == ["Ｐｒｅｓｓ ｓｔａｒｔ．", "Then wait.", "Version Ｖ１．２ is out."]
