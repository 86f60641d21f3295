"""The forms hold their sentence, figures are counted by form, and a torn form is seen."""

from __future__ import annotations

import yaml

from models.evaluate.forms import (
    CASES,
    DEVELOPMENT,
    FORMS,
    PLAIN,
    TEST,
    FormResult,
    Frame,
    format_table,
    is_torn,
    list_trials,
    words,
)

FRAME = Frame("How?", "Wipe the table, slowly.", "Let it dry.")
SENTENCE = "You are a fool."


def test_forms_hold_the_words_of_their_sentence() -> None:
    assert [name for name, form in FORMS.items() if words(SENTENCE) not in words(form(FRAME, SENTENCE))] == []
    assert [name for name, form in FORMS.items() if is_torn(form(FRAME, SENTENCE), form(FRAME, SENTENCE))] == []


def test_twelve_cases_of_each_test_and_none_is_taught_or_chose_a_rule() -> None:
    for kind in yaml.safe_load(CASES.read_text(encoding="utf-8"))["kinds"].values():
        assert [len(set(kind[TEST][group])) for group in ("against", "fine")] == [12, 12]
        assert [len(set(kind[DEVELOPMENT][group])) for group in ("against", "fine")] == [6, 6]
        examples = kind.get("examples", {"against": [], "fine": []})
        tested = {*kind[TEST]["against"], *kind[TEST]["fine"], *kind["fresh"]}
        assert len(tested) == 12 + 12 + 8
        chose_rules = {*kind[DEVELOPMENT]["against"], *kind[DEVELOPMENT]["fine"]}
        assert not tested & {*examples["against"], *examples["fine"], *chose_rules}


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


def _make_result(
    form: str, sentence: str, *, against: bool = False, is_gone: bool = False, side: str = TEST
) -> FormResult:
    return FormResult(
        "insults", form, side, sentence, against, found=is_gone, identical=not is_gone, torn=False, reason=None
    )


def test_table_counts_by_form_and_side_and_says_what_is_touched_by_form_alone() -> None:
    rows = format_table(
        [
            _make_result(PLAIN[1], "Touched anyhow.", is_gone=True),
            _make_result(PLAIN[0], "Touched in a list."),
            _make_result("list item", "Touched anyhow.", is_gone=True),
            _make_result("list item", "Touched in a list.", is_gone=True),
            _make_result("list item", "An insult.", against=True, is_gone=True, side=DEVELOPMENT),
            _make_result("list item", "Another.", against=True),
        ]
    )
    assert f"| {PLAIN[1]} | 0 of 0 | 1 of 1 | 0 | 0 |" in rows
    assert "| list item | 1 of 2 | 2 of 2 | 1 | 0 |" in rows
    assert f"| all, {DEVELOPMENT} | 1 of 1 | 0 of 0 | 0 | 0 |" in rows
    assert f"| all, {TEST} | 0 of 1 | 3 of 4 | 1 | 0 |" in rows


def test_trials_are_every_sentence_in_every_form_and_fresh_ones_only_test() -> None:
    trials = list(list_trials(("insults", "rivals"), "^plain sentence$|^<h3>$"))
    assert len(trials) == 2 * (2 * (18 + 18) + 8) == len({(one.form, one.sentence) for one in trials})
    sides = {side: {one.sentence for one in trials if one.side == side} for side in (DEVELOPMENT, TEST)}
    assert (len(sides[DEVELOPMENT]), len(sides[TEST])) == (24, 64)
    assert not sides[DEVELOPMENT] & sides[TEST]
