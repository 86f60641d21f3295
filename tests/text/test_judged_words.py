"""Cells, elements, comments and clauses are judged by their words, and go without the marks around them."""

from __future__ import annotations

import pytest

from aligner_proxy.text.judged_words import clauses, judged_words, marked_words, sentence_of, without_last_marks
from aligner_proxy.text.pruned_segments import is_pruned
from aligner_proxy.text.structure import split
from aligner_proxy.text.word_removal import without_words

FENCED = "```{}\n{}\n```".format
MARKED: list[tuple[str, list[str], str]] = [
    # segment, its words, what is left when all of them are gone
    ("| Two | You are a fool | 10 |", ["You are a fool"], "| Two | | 10 |"),
    # amounts, or a single word, say nothing without the name of what has them
    ("| You are a fool | Go on here | 10 |", ["You are a fool", "Go on here"], ""),
    ("| You are a fool | Go on here | Monday |", ["You are a fool", "Go on here"], ""),
    ("| You are a fool | Monday | 9:00 |", ["You are a fool"], "| | Monday | 9:00 |"),
    ("| You are a fool | Monday | Paris |", ["You are a fool"], "| | Monday | Paris |"),
    ("| 1 | You are a fool | 9 km |", ["You are a fool"], ""),
    ("| You are a fool | 4 GB | 60 minutes |", ["You are a fool"], ""),
    ("| You are a fool | \u00a35 | on request | 2.5% charge |", ["You are a fool", "on request"], ""),
    ("| You are a fool | By bus | free |", ["You are a fool", "By bus"], ""),
    ("| Free | you are a fool | 5 GB |", ["you are a fool"], "| Free | | 5 GB |"),
    ("| 1 | Two | You are a fool | 9 km |", ["You are a fool"], "| 1 | Two | | 9 km |"),
    ("| You are a fool. |", ["You are a fool."], ""),
    ("Two | You are a fool | 10", ["You are a fool"], "Two | | 10"),
    ("<p>You are a fool.</p>", ["You are a fool."], ""),
    ("<p>Keep calm.</p><p>You are a fool.</p>", ["Keep calm.", "You are a fool."], ""),
    ('<div class="note"><b>You fool</b></div>', ["You fool"], ""),
    ("<tr><td>Two</td><td>You fool</td><td>10</td></tr>", ["You fool"], "<tr><td>Two</td><td></td><td>10</td></tr>"),
    ("You are a fool \U0001f600", ["You are a fool"], ""),
    (FENCED("python", "n = 0\n# You fool.\nn += 1"), ["You fool."], FENCED("python", "n = 0\nn += 1")),
    (FENCED("python", "n = 0  # You fool\nn += 1"), ["You fool"], FENCED("python", "n = 0\nn += 1")),
    (FENCED("js", "let n;\n// You fool\nn = 1;"), ["You fool"], FENCED("js", "let n;\nn = 1;")),
    (FENCED("css", "/* You fool. */\np { top: 0 }"), ["You fool."], FENCED("css", "p { top: 0 }")),
    (FENCED("html", "<!-- You fool -->\n<p>Hi</p>"), ["You fool"], FENCED("html", "<p>Hi</p>")),
    (FENCED("sql", "-- You fool\nSELECT 1;"), ["You fool"], FENCED("sql", "SELECT 1;")),
    (FENCED("", "n = 0\n# You fool\nn += 1"), ["You fool"], FENCED("", "n = 0\nn += 1")),
]


@pytest.mark.parametrize(
    ("row", "left"),
    [
        ("| For comparison: Acme Bank | holds longer files | Monday |", ""),
        ("| Acme Cloud Store | by bus | Monday |", ""),
        ("| Versus Acme | by bus | Monday |", ""),
        ("| You are a Fool | by bus | Monday |", "| | by bus | Monday |"),
        ("| Du bist ein Tor | mit dem Bus | Montag |", "| | mit dem Bus | Montag |"),
        ("| Get lost, Karen | by bus | Monday |", "| | by bus | Monday |"),
        ("| DO NOT ASK | by bus | Monday |", "| | by bus | Monday |"),
        ("| Only a Fool asks. | by bus | Monday |", "| | by bus | Monday |"),
        ("| Keep calm | by bus | Monday |", "| | by bus | Monday |"),
    ],
)
def test_a_row_goes_with_the_name_of_a_company_or_product(row: str, left: str) -> None:
    assert without_words(row, judged_words(row)[:1]) == left


@pytest.mark.parametrize(("segment", "expected", "left"), MARKED)
def test_marked_words_are_those_between_the_marks(segment: str, expected: list[str], left: str) -> None:
    places = marked_words(segment)
    assert [segment[start:end] for start, end in places] == expected
    assert without_words(segment, places) == left


def test_marked_words_are_none_in_plain_text_labels_and_code() -> None:
    plain = [
        "You are a fool.",
        "- **Water**: every day",
        "| 1 | 2 |",
        "|---|---|",
        "a < b and c > d",
        FENCED("py", "n = 0"),
    ]
    assert [segment for segment in plain if marked_words(segment)] == []


def test_words_are_read_as_a_sentence_behind_the_text_before_the_marks() -> None:
    assert sentence_of("you are a fool,") == "You are a fool."
    assert sentence_of("You are a fool!") == "You are a fool!"
    before = {
        "Look:\n\n| A | B |\n|---|---|\n": "Look:\n\n",
        "Look:\n\n<ul>\n<li>Boil it.</li>\n": "Look:\n\n",
        "| A | B |\n\nLook at this. ": "| A | B |\n\nLook at this. ",
        "": "",
    }
    assert {text: without_last_marks(text) for text in before} == before


def test_is_pruned_knows_a_segment_of_which_only_marked_words_are_gone() -> None:
    row = "| Be kind to me | You are a fool | 10 |"
    assert is_pruned(row, "| Be kind to me | | 10 |")
    assert is_pruned(row, "| | You are a fool | 10 |")
    assert not is_pruned(row, "| | | 10 |")
    assert not is_pruned(row, row)
    # the mark of a block alone is no segment that lost its words
    assert not is_pruned("Be kind.", "```")
    assert not is_pruned(row, "| Be kind to me | You are kind | 10 |")
    assert not is_pruned(row, "| Be kind to me | | 11 |")
    assert not is_pruned("You are a fool.", "You are.")


def test_clauses_of_a_long_segment_without_an_end_are_judged_alone() -> None:
    text = "wipe the top with a damp cloth once a week and then you are a fool and oil the wood twice a year"
    parts = [text[start:end] for start, end in clauses(text)]
    assert parts[0] == "wipe the top with a damp cloth once a week"
    assert " ".join(parts) == text
    assert judged_words(text) == clauses(text)
    [fool] = [place for place in clauses(text) if "fool" in text[slice(*place)]]
    rest = without_words(text, [fool])
    assert "fool" not in rest
    assert is_pruned(text, rest)
    assert clauses(f"{text}.") == []
    spliced = f"{text}, and let it dry, because you are a fool, you see."
    assert without_words(spliced, clauses(spliced)[-2:]).endswith("twice a year, and let it dry.")
    assert clauses("wipe the top and you are a fool") == []


def test_the_comma_behind_a_clause_stays_if_it_ends_the_words_before() -> None:
    text = (
        "The bakery, a small house since 1987 and the kindest employer the town has ever seen, is looking for two "
        "bakers to start on the first of May."
    )
    place = next(place for place in judged_words(text) if text.startswith("since", place[0]))
    rest = without_words(text, [place])
    assert rest == "The bakery, a small house, is looking for two bakers to start on the first of May."
    assert is_pruned(text, rest)
    # a place without characters behind the last letter has no comma
    assert without_words(text[:-1], [(len(text) - 1, len(text) - 1)]) == text[:-1]


def test_clauses_begin_at_a_capital_where_no_mark_stands() -> None:
    text = (
        "Wipe the top with a damp cloth once a week It is not hard once you know how You are a fool Go home now please"
    )
    assert any(text[start:end].startswith("You are a fool") for start, end in clauses(text))


def test_text_that_runs_on_is_divided_at_its_best_place() -> None:
    words = "wipe the top with a damp cloth "
    by_comma = f"{words * 5}, and more {words * 3}"
    assert [segment.text for segment in split(by_comma)] == [f"{words * 5},", f"and more {words * 3}".strip()]
    by_capital = f"{words * 5}You may rest, and {words * 3}"
    assert split(by_capital)[1].text.startswith("You may rest")
    assert [len(segment.text.split()) for segment in split("word " * 100)] == [40, 40, 20]
    assert len(split(f"{words * 5}, and more.")) == 1
    assert len(split("| " + "a cell | " * 60)) == 1
    assert len(split("f o o l " * 60)) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>We open at ten. <b>You are a fool.</b> Bring a coat.</p>", "<p>We open at ten. Bring a coat.</p>"),
        ("We open at ten. <b>You are a fool.</b></p>", "We open at ten.</p>"),
        ("<p><i>You are a fool.</i> Bring a coat.</p>", "<p>Bring a coat.</p>"),
        ("We open at ten.<br>You are a fool.<br>Bring a coat.", "We open at ten.<br>Bring a coat."),
        ("<tr><td>Monday</td><td>You are a fool.</td></tr>", "<tr><td>Monday</td><td></td></tr>"),
        ("| Monday | You are a fool. |", ""),
        ("| Monday | You are a fool. | 10 |", "| Monday | | 10 |"),
        ("We <i class='open'></i> open <b>You are a fool.</b>", "We <i class='open'></i> open"),
        ("One<br><br>two <u>You are a fool.</u>", "One<br><br>two"),
        ("<p>We open at ten.<br>You are a fool.</p>", "<p>We open at ten.</p>"),
        ("<p>You are a fool.<br/>We open at ten.<br></p>", "<p>We open at ten.</p>"),
        ("<p>We open at ten.<br></p><b>You are a fool.</b>", "<p>We open at ten.<br></p>"),
        ("| Monday | We open.<br>You are a fool. |", "| Monday | We open. |"),
        ("| Monday | You are a fool.<br>We open at ten.", "| Monday | We open at ten."),
    ],
)
def test_nothing_is_left_that_only_enclosed_what_went(text: str, expected: str) -> None:
    start = text.index("You are a fool.")
    assert without_words(text, [(start, start + len("You are a fool."))]) == expected
