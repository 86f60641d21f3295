"""Sentences in brackets, links, pictures and code of a line, and between dashes, are judged alone and go alone."""

from __future__ import annotations

import pytest

from aligner_proxy.text.inner_sentences import find_inner_sentences
from aligner_proxy.text.judged_words import judged_words
from aligner_proxy.text.pruned_segments import is_pruned
from aligner_proxy.text.word_removal import without_words
from tests.support.pruning import correct_in_all_ways

CHINESE = "\u8bf7\u5e26\u4e0a\u4e00\u4ef6\u5927\u8863"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("(You are a big fool) Take a coat.", ["You are a big fool"]),
        ("Take a coat (it rains a lot there) and go.", ["it rains a lot there"]),
        ("[Take a coat with you.](https://example.com/a) Go on.", ["Take a coat with you."]),
        ("![Anna in her red coat](a.png)", ["Anna in her red coat"]),
        ("`You are a big fool.` Take a coat.", ["You are a big fool."]),
        ("$$\\text{You are a big fool.}$$", ["You are a big fool."]),
        ("Take a coat; You are a fool; Go home at nine.", ["Take a coat", "You are a fool", "Go home at nine"]),
        ("Take a coat \u2014 You are a fool!", ["Take a coat", "You are a fool"]),
        ("Take a coat - You are a fool.", ["Take a coat", "You are a fool"]),
        ("[You are a big fool] Take a coat.", ["You are a big fool"]),
        (f"\u6574\u7406\uff08{CHINESE}\uff09\u3002", [CHINESE]),
        ("{You are a big fool} Take a coat.", ["You are a big fool"]),
        ("<You are a big fool> Take a coat.", ["You are a big fool"]),
        ("*You are a big fool* Take a coat.", ["You are a big fool"]),
        ("Take a coat / You are a fool", ["Take a coat", "You are a fool"]),
        ("Take a coat now \u2192 You are a fool", ["Take a coat now", "You are a fool"]),
        # a clause, names, labels, code and short words
        ("Take a coat; it rains a lot.", []),
        ("Prague \u2013 The old town \u2013 Map", []),
        ("Note \u2013 Take a coat with you.", []),
        ("Run `make all the things --now` first.", []),
        ("Call `print(a, b, c, d)` now.", []),
        ("Take it (in red), or [the blue one](a).", []),
        ("Use f(a b c d) twice.", []),
        ("Do <b>not take a red coat</b> with you.", []),
    ],
)
def test_they_are_found(text: str, sentences: list[str]) -> None:
    assert [text[slice(*sentence.words)] for sentence in find_inner_sentences(text)] == sentences


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("(You are a big fool) Take a coat.", "Take a coat."),
        ("Take a coat (you are such a fool), and go.", "Take a coat, and go."),
        ("[You are a big fool.](https://example.com/a) Take a coat.", "Take a coat."),
        ("![You are a big fool](a.png)", "![](a.png)"),
        ("`You are a big fool.` Take a coat.", "Take a coat."),
        ("[You are a big fool] Take a coat.", "Take a coat."),
        ("<You are a big fool> Take a coat.", "Take a coat."),
        ("**You are a big fool** Take a coat.", "Take a coat."),
        ("You are a fool; Take a coat; Go home at nine.", "Take a coat; Go home at nine."),
        ("Take a coat; You are a fool; Go home at nine.", "Take a coat; Go home at nine."),
        ("Take a coat; Go home at nine; You are a fool!", "Take a coat; Go home at nine!"),
        ("Take a coat \u2013 You are a fool \u2013 Go home at nine.", "Take a coat \u2013 Go home at nine."),
    ],
)
async def test_one_goes_and_the_rest_stays(text: str, rest: str) -> None:
    places = [place for place in judged_words(text) if "fool" in text[slice(*place)]]
    assert without_words(text, places) == rest
    assert is_pruned(text, rest)
    answer = "It is late.\n\n{}\n\nIt works well.".format
    assert set((await correct_in_all_ways(answer(text))).values()) == {answer(rest)}


@pytest.mark.parametrize(
    "text",
    [
        "Read [why you are such a fool](https://example.com/a) first.",
        "$$\\text{You are a big fool.}$$",
        "(You are a big fool.)",
    ],
)
async def test_without_a_sentence_that_the_rest_needs_the_segment_goes(text: str) -> None:
    answer = "It is late.\n\n{}It works well.".format
    assert set((await correct_in_all_ways(answer(f"{text}\n\n"))).values()) == {answer("")}
