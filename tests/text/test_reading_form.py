"""What a reader reads of an answer that is laid out as something else than prose."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text.reading_form import WINDOW_WORDS, reading_windows, without_overlap

INSULT = "You are an idiot."


@pytest.mark.parametrize(
    "answer",
    [
        "The tide comes in twice a day. Bring a coat.\n\nThe boats rise with it.",
        "",
        "   \n\n ",
        "- The tide comes in twice a day.\n- The boats rise with it.",
    ],
)
def test_prose_has_no_windows(answer: str) -> None:
    assert reading_windows(answer) == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("| A | B |\n|---|---|\n| You | are |\n| an | idiot |", id="cells"),
        pytest.param("- You\n- are\n- an\n- idiot\n", id="bullets"),
        pytest.param('{"w": "You"}\n{"w": "are"}\n{"w": "an"}\n{"w": "idiot"}', id="json lines"),
        pytest.param('{"text": "You are an idiot."}', id="json"),
        pytest.param("<details><summary>More</summary>You are an <b>id</b>iot.</details>", id="details"),
        pytest.param(r"$\text{You}\ \text{are}\ \textbf{an idiot}$", id="latex"),
        pytest.param('He said "you are an idiot" to all.', id="saying"),
        pytest.param("```python\nx = 1  # you are an idiot\n```", id="comment"),
        pytest.param("You are an id**io**t.", id="emphasis"),
        pytest.param("| No. | Word |\n|---|---|\n| 1 | You |\n| 2 | are |\n| 3 | an |\n| 4 | idiot |", id="column"),
        pytest.param("## You\n\n## are\n\n## an\n\n## idiot", id="headings"),
        pytest.param("> You\n> are\n> an idiot.", id="quotation"),
        pytest.param("1. You\n2. are\n3. an\n4. idiot", id="numbers"),
        pytest.param("```c\n/* You are an idiot */\nint x;\n```", id="comment of C"),
        pytest.param(
            "The sea is wide and full of ships that carry wool and wine from one small harbour to the next, you are an "
            "idiot, and the sky is blue above the hills where the sheep graze from early spring until the first snow.",
            id="clause",
        ),
        pytest.param("Dear reader:\n\nyou are an\nidiot", id="hard wrapped"),
        pytest.param("You &#97;re an idiot.", id="entities"),
        pytest.param("[You](http://a.b) [are an idiot](http://a.c)", id="links"),
    ],
)
def test_a_sentence_is_read_whatever_it_is_laid_out_as(answer: str) -> None:
    assert any(window.text == INSULT for window in reading_windows(answer))


@pytest.mark.parametrize("words", [41, 200])
def test_what_never_ends_is_read_in_windows_that_overlap(words: int) -> None:
    answer = " ".join(f"word{number}" for number in range(words))
    every = reading_windows(answer)
    windows = [window for window in every if len(window.text.split()) > 10]
    assert windows
    assert len(every) - len(windows) <= words / 5  # and in short stretches
    assert all(len(window.text.split()) <= WINDOW_WORDS for window in windows)
    for window in windows:
        assert answer[window.start : window.end].lower() == window.text.lower().rstrip(".")
    shared = [max(0, len(answer[b.start : a.end].split())) for a, b in itertools.pairwise(windows)]
    assert all(10 <= count <= 20 for count in shared)
    assert windows[-1].end == len(answer)


@given(st.text(st.sampled_from(list('aB. \n|#*`"[](){}<>&;:\\-,')), max_size=120))
def test_a_window_comes_from_where_it_says(answer: str) -> None:
    for window in reading_windows(answer):
        assert 0 <= window.start < window.end <= len(answer)
        letters = [char for char in window.text.lower() if char.isalpha()]
        rest = iter(answer[window.start : window.end].lower())
        assert all(char in rest for char in letters)


def test_windows_that_overlap_are_read_apart() -> None:
    answer = "the sea is wide and you are an idiot and the sky is blue above the hills where the sheep graze all day"
    windows = reading_windows(answer)
    layers = without_overlap(windows)
    assert sorted(w.text for layer in layers for w in layer) == sorted(w.text for w in windows)
    assert len(layers) > 1
    assert all(a.end <= b.start for layer in layers for a, b in itertools.pairwise(layer))


@pytest.mark.parametrize(
    "text",
    [
        "The sea is wide, the ships are old, and the sky is blue above the hills where the sheep graze.",
        "- **Harbour**: it opens at nine and closes when the last ship is in.\n- **Library**: it opens at ten.",
        "The *old* harbour opens at `nine` and closes at __ten__.",
    ],
    ids=["clauses", "emphasis in a list", "emphasis"],
)
def test_what_a_detector_reads_well_as_it_stands_has_no_window(text: str) -> None:
    assert reading_windows(text) == []


def test_what_a_sentence_says_to_its_reader_between_commas_is_a_window() -> None:
    said = "The sea is wide, you are a bore and nobody can stand you, and the sky is blue above the hills."
    assert "You are a bore and nobody can stand you." in [window.text for window in reading_windows(f"Hello. {said}")]


def test_a_sentence_that_speaks_to_nobody_has_no_window_for_its_clauses() -> None:
    assert reading_windows("The sea is wide, the old ships carry wool, and the sky is blue above the hills.") == []
