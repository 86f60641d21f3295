"""Quoted words of an objective are dictated; the rest of it is an instruction."""

from __future__ import annotations

import pytest

from aligner_proxy.text.structure import dictated_text, dictated_texts, is_dictated, repeats_objective

NOTICE = "This is general information, don't take it as advice."


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (f"Notice: every answer ends with '{NOTICE}'", NOTICE),
        (f"Notice: every answer ends with \u201c{NOTICE}\u201d.", NOTICE),
        (f'End with "{NOTICE}", please', NOTICE),
        (f"Notice: every answer ends with: {NOTICE}", None),
        ("Manner: the response should avoid the word 'sorry'", None),
        ("Manner: don't let the user's patience run out", None),
        ("", None),
    ],
)
def test_what_stands_in_quotation_marks_is_dictated(objective: str, said: str | None) -> None:
    assert dictated_text(objective) == said


def test_a_sentence_is_dictated_or_an_instruction_written_out() -> None:
    asked = ["Last sentence: thank the reader for asking.", f"Notice: end with '{NOTICE}'"]
    assert dictated_texts(asked) == [NOTICE]
    assert is_dictated(NOTICE, dictated_texts(asked))
    assert not repeats_objective(NOTICE, asked)
    assert repeats_objective("Thank the reader for asking.", asked)
    assert not repeats_objective("Thank you for asking.", asked)
    assert not repeats_objective("Yes.", asked)
