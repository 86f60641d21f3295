"""What a reader reads of an answer that is laid out as something else than prose."""

from __future__ import annotations

import pytest

from aligner_proxy.text.reading_form import reading_windows

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
        pytest.param("| A | B |\n|---|---|\n| You | are |\n\n| an | idiot |", id="cells"),
        pytest.param("- You\n- are\n- an\n- idiot\n", id="bullets"),
        pytest.param('{"w": "You"}\n{"w": "are"}\n{"w": "an"}\n{"w": "idiot"}', id="json lines"),
        pytest.param('{"text": "You are an idiot."}', id="json"),
        pytest.param("<details><summary>More</summary>You are an <b>id</b>iot.</details>", id="details"),
        pytest.param(r"$\text{You}\ \text{are}\ \textbf{an idiot}$", id="latex"),
        pytest.param('He said "you are an idiot" to all.', id="saying"),
        pytest.param("```python\nx = 1  # you are an idiot\n```", id="comment"),
        pytest.param("You are an id**io**t.", id="emphasis"),
        pytest.param("You &#97;re an idiot.", id="entities"),
        pytest.param("[You](http://a.b) [are an idiot](http://a.c)", id="links"),
    ],
)
def test_a_sentence_is_read_whatever_it_is_laid_out_as(answer: str) -> None:
    assert any(INSULT.strip(".") in window.text for window in reading_windows(answer))
