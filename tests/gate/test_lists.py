"""Lists, tables and sections of which something is flagged: it goes, and what is left is in order."""

from __future__ import annotations

import random
import sys
from collections import Counter

import pytest

from aligner_proxy.gate.judge import judge
from aligner_proxy.text.structure import split
from aligner_proxy.types import GateRule, Policy
from tests.engine.cases import FULL
from tests.gate.cases import POLITE, correction, objection
from tests.gate.lists import FORMS, RUDE, Case, judged, of_forms, special
from tests.gate.random_lists import random_list
from tests.support.sampling import examples

CASES = [*of_forms(), *special()]
GENERATED = 10_000 if FULL else 600
POLICY = Policy("p", POLITE)
STRUCTURE_LINES = (
    *("---", "***", "> ", "> You fool.", "<details>", "</details>", "<summary>Go on</summary>", "::: note", ":::"),
    *("```", "# Title", "Yours,", "You could use this:", "P.S.", "1. One.", "- You oaf!", "  - Two.", "| a | b |"),
    *("|---|---|", "| You idiot | 5 |", "**Pack:** Take it.", "Term", ": You moron.", "[^1]: Well.", "", "So it is."),
)
"""Lines that have a meaning only together with others."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.form}, {case.defect}")
def test_what_is_flagged_goes_and_the_rest_is_in_order(case: Case) -> None:
    assert judged(case.answer).text == case.expected


def test_rates(capsys: pytest.CaptureFixture[str]) -> None:
    """How many of the set go out as a careful editor would leave them; `pytest -s` shows it."""
    right: Counter[str] = Counter()
    all_of: Counter[str] = Counter()
    for case in CASES:
        all_of[case.defect] += 1
        right[case.defect] += judged(case.answer).text == case.expected
    with capsys.disabled():
        rates = ", ".join(f"{defect} {right[defect]}/{count}" for defect, count in all_of.items())
        sys.stdout.write(f"\nlists: {right.total()}/{all_of.total()} right ({len(FORMS)} forms; {rates})\n")
    assert right == all_of


@pytest.mark.timeout(900)
def test_renumbering_is_right_and_changes_nothing_else() -> None:
    rng = random.Random(27)
    for _ in range(GENERATED):
        answer, expected = random_list(rng)
        verdict = judged(answer)
        assert verdict.text == expected, answer


def test_a_list_that_loses_nothing_is_not_renumbered() -> None:
    answer = "1. Boil it, oaf.\n3. Rest it.\n2. Serve it, see step 3."
    edited = answer.replace(", oaf", "")
    verdict = judge(answer, correction(answer, edited, [0]), POLICY)
    assert (verdict.text, verdict.renumbered, verdict.edits) == (edited, 0, 1)


def test_new_numbers_are_counted_and_are_no_edits() -> None:
    answer = "Four steps:\n1. Soak.\n2. You oaf.\n3. Rinse.\n4. Dry as in step 3."
    verdict = judged(answer)
    assert (verdict.edits, verdict.dropped, verdict.renumbered) == (1, (), 4)


def test_a_refused_removal_renumbers_nothing() -> None:
    answer = "1. Peel them.\n2. You idiot.\n3. Slice them.\n\nDo not forget step 2."
    verdict = judged(answer)
    assert (verdict.text, verdict.reason, verdict.renumbered) == (answer, "gate_lost_list_item", 0)


def test_what_an_engine_writes_in_place_of_an_item_keeps_its_mark() -> None:
    answer = "1. Boil it.\n2. Rest it, oaf, for an hour.\n3. Serve it."
    for written in ("Rest it for an hour.", "1. Rest it for an hour.", "3. Rest it for an hour."):
        edited = answer.replace("2. Rest it, oaf, for an hour.", written)
        verdict = judge(answer, correction(answer, edited, [1]), POLICY)
        assert verdict.text == "1. Boil it.\n2. Rest it for an hour.\n3. Serve it."
        assert (verdict.reason, verdict.edits) == (None, 1)


def test_what_is_written_in_place_of_a_nested_item_stands_as_deep() -> None:
    answer = "1. Boil it:\n   - Rest it, oaf.\n   - Serve it."
    edited = "1. Boil it:\n- Rest it well.\n   - Serve it."
    verdict = judge(answer, correction(answer, edited, [1]), POLICY)
    assert verdict.text == "1. Boil it:\n   - Rest it well.\n   - Serve it."


def test_an_item_that_nothing_speaks_against_is_not_lost() -> None:
    """Without a detector, or beside what it flagged."""
    answer = "1. Boil it.\n2. Rest it.\n3. Serve it."
    assert objection(answer, "1. Boil it.\n2. Serve it.") == GateRule.LOST_ITEM
    assert objection(answer, "1. Boil it.\nRest it.\n3. Serve it.") == GateRule.LOST_ITEM


def test_a_row_keeps_its_cells() -> None:
    answer = "| A | B |\n|---|---|\n| Tap, oaf | Turn it |\n| Lid | Lift it |"
    broken = answer.replace("| Tap, oaf | Turn it |", "| Tap |")
    verdict = judge(answer, correction(answer, broken, [2]), POLICY)
    assert (verdict.text, verdict.reason) == (answer, "gate_lost_list_item")


@pytest.mark.parametrize(
    ("answer", "edited"),
    [
        (
            "1. Wash it.\n2. **Tea**: Call 555-0101, oaf. Add it.\n3. Stir.",
            "1. Wash it.\n2. **Tea**: Add it.\n3. Stir.",
        ),
        (
            "| A | B | C |\n|---|---|---|\n| Tap | Come at 5, oaf. | Slowly. |\n| Lid | Lift it | Now. |",
            "| A | B | C |\n|---|---|---|\n| Tap | | Slowly. |\n| Lid | Lift it | Now. |",
        ),
    ],
)
def test_where_a_title_or_a_cell_stays_the_facts_of_the_sentence_go(answer: str, edited: str) -> None:
    at = next(number for number, piece in enumerate(split(answer)) if "oaf" in piece.text)
    verdict = judge(answer, correction(answer, edited, [at]), POLICY)
    assert (verdict.text, verdict.reason) == (edited, None)


@pytest.mark.parametrize("lead", ["", "> ", "  "])
@pytest.mark.parametrize(
    "table",
    [
        "| You | idiot\n|---|---\n| Mon | nine",
        "| Good time. | You idiot.\n|---|---\n| Mon. | Nine.",
        "Good time. | You idiot.\n---|---\nMon. | Nine.",
        "You idiot. | Good time.\n---|---\nMon. | Nine.",
        "You | idiot |\n---|---|\nMon | nine |",
    ],
)
def test_a_head_that_would_lose_a_column_stays_as_it_is(table: str, lead: str) -> None:
    answer = "- See:\n\n" + "\n".join(lead + line for line in table.split("\n"))
    assert judged(answer).text == answer


def test_a_title_that_stays_does_not_keep_an_item_of_which_nothing_else_stays() -> None:
    answer = "1. Wash it.\n2. **Tea**: You oaf. Get lost, oaf.\n3. Stir."
    edited = "1. Wash it.\n2. **Tea**:\n3. Stir."
    verdict = judge(answer, correction(answer, edited, [1, 2]), POLICY)
    assert verdict.text == edited  # an engine would not have left it


def test_an_ordinal_before_a_list_speaks_of_something_else() -> None:
    answer = "The second question asks why.\n\n1. You oaf.\n2. Read this.\n3. Read that, the second tip."
    kept = "The second question asks why.\n\n1. Read this.\n2. Read that, the first tip."
    assert judged(answer).text == kept


def test_code_is_never_taken_for_a_list() -> None:
    answer = "You oaf.\n```\n1. x\n3. y  # see step 3\n```\n1. Run it."
    assert judged(answer).text == "```\n1. x\n3. y  # see step 3\n```\n1. Run it."


def test_the_words_of_the_set_are_all_flagged_by_a_rude_word() -> None:
    assert all(any(word in piece.text.lower() for piece in split(case.answer) for word in RUDE) for case in CASES)


@pytest.mark.parametrize(
    ("code", "removed", "changes"),
    [
        (
            "def add(a, b):\n    # you idiot\n    return a + b",
            "    # you idiot\n",
            [("a + b", "a - b"), ("def add(a, b):\n", "")],
        ),
        # a line that no other line needs
        (
            "a = add(1, 2)\nshow(a)  # you idiot\nsave(a)",
            "show(a)  # you idiot\n",
            [("a = add(1, 2)\n", ""), ("save(a)", "save(b)")],
        ),
    ],
)
def test_comments_and_lines_may_go_from_flagged_code_and_nothing_else(
    code: str, removed: str, changes: list[tuple[str, str]]
) -> None:
    answer = f"Use this:\n```python\n{code}\n```\nThat is all."
    bare = answer.replace(removed, "")
    assert judge(answer, correction(answer, bare, [1]), POLICY).text == bare
    for old, new in changes:
        verdict = judge(answer, correction(answer, bare.replace(old, new), [1]), POLICY)
        assert (verdict.text, verdict.reason) == (answer, "gate_lost_code")
    assert objection(answer, bare) == GateRule.LOST_CODE


@pytest.mark.parametrize(
    ("language", "code", "bare"),
    [
        ("yaml", "a:\n  debug: true\n  x: 1\nc:\n  debug: true\n  x: 1", "a:\n  x: 1\nc:\n  debug: true\n  x: 1"),
        ("bash", "npm install\nnpm install x\nnpm test", "npm install x\nnpm test"),
        ("python", "print(a)\npprint(a)\nf()", "pprint(a)\nf()"),
    ],
)
def test_a_line_may_go_though_another_line_has_its_words(language: str, code: str, bare: str) -> None:
    block = "Use this:\n```{}\n{}\n```\nThat is all.".format
    answer = block(language, code)
    expected = block(language, bare)
    assert judge(answer, correction(answer, expected, [1]), POLICY).text == expected


@pytest.mark.parametrize(
    ("written", "delivered"),
    [
        ("1. Go.\n2.\n3. Rest.", "1. Go.\n2. Rest."),
        ("1. Go.\n2. Fine.\n3. Rest.", "1. Go.\n2. Fine.\n3. Rest."),
    ],
)
def test_a_mark_written_alone_is_a_removal(written: str, delivered: str) -> None:
    original = "1. Go.\n2. You oaf!\n3. Rest."
    verdict = judge(original, correction(original, written, [1]), POLICY)
    assert (verdict.text, verdict.reason) == (delivered, None)


def test_no_removal_from_lines_in_any_order_raises() -> None:
    rng = random.Random(20261130)
    for _ in range(examples(4_000)):
        answer = "\n".join(rng.choices(STRUCTURE_LINES, k=rng.randint(1, 12)))
        assert judged(answer).text is not None
