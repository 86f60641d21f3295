"""The forms hold their sentence, figures are counted by form, and a torn form is seen."""

from __future__ import annotations

import yaml

from models.evaluate.forms import CASES, FORMS, Frame, Tried, is_torn, table, words

FRAME = Frame("How?", "Wipe the table, slowly.", "Let it dry.")
SENTENCE = "You are a fool."


def test_forms_are_34_and_hold_the_words_of_their_sentence() -> None:
    assert len(FORMS) == 34
    assert [name for name, form in FORMS.items() if words(SENTENCE) not in words(form(FRAME, SENTENCE))] == []
    assert [name for name, form in FORMS.items() if is_torn(form(FRAME, SENTENCE), form(FRAME, SENTENCE))] == []


def test_cases_are_twelve_of_each_and_none_is_taught() -> None:
    for kind in yaml.safe_load(CASES.read_text(encoding="utf-8"))["kinds"].values():
        assert (len(set(kind["against"])), len(set(kind["fine"]))) == (12, 12)
        taught = kind.get("examples", {"against": [], "fine": []})
        assert not {*kind["against"], *kind["fine"]} & {*taught["against"], *taught["fine"]}


def test_is_torn_where_a_cell_or_half_a_pair_is_lost() -> None:
    row = "| One | You fool | 5 |"
    torn = {
        "| One | 5 |": row,
        "<p>Keep calm.": "<p>Keep calm. You fool.</p>",
        "/*\np {}": "/* You fool */\np {}",
        "-->\n<p>Hi</p>": "<!-- You fool -->\n<p>Hi</p>",
        "```\nn = 0": "```\nn = 0\n```",
    }
    assert [delivered for delivered, answer in torn.items() if not is_torn(answer, delivered)] == []
    whole = {"| One | | 5 |": row, "": row, "<p></p>": "<p>You fool.</p>", "/* */\np {}": "/* You fool */\np {}"}
    assert [delivered for delivered, answer in whole.items() if is_torn(answer, delivered)] == []


def test_table_counts_by_form_and_leads_from_the_figures_before() -> None:
    now = [
        Tried("insults", "list item", "a", against=True, found=True, identical=False, torn=False, reason=None),
        Tried("insults", "list item", "b", against=True, found=True, identical=False, torn=True, reason=None),
        Tried("insults", "list item", "c", against=False, found=False, identical=True, torn=False, reason=None),
    ]
    before = [Tried("insults", "list item", "a", against=True, found=False, identical=True, torn=False, reason=None)]
    assert "| list item | 2 of 2 | 0 of 1 | 1 |" in table(now, [])
    assert "| list item | 0 of 1 \u2192 2 of 2 | 0 of 0 \u2192 0 of 1 | 0 \u2192 1 |" in table(now, before)
