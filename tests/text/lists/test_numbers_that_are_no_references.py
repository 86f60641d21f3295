"""Numbers and counts behind a shortened list that mean something else, and so stay."""

from __future__ import annotations

import pytest

from tests.support.fools import without_fools


def _renumber_behind(above: str, behind: str, *, numbered: bool) -> str:
    """What becomes of the text behind a list of three items, of which the second is removed."""
    marks = ("1.", "2.", "3.") if numbered else ("-", "-", "-")
    items = "".join(f"{mark} {text}\n" for mark, text in zip(marks, ("Walk.", "You fool.", "Sleep."), strict=True))
    return without_fools(f"{above}\n\n{items}\n{behind}").rpartition("\n\n")[2]


@pytest.mark.parametrize(
    ("above", "behind"),
    [
        ("Exercises:", "Exercise 3 times a week."),
        ("Exercises:", "Do the exercises 3 or 4 times a day."),
        ("Exercises:", "Do these exercises 3 to 5 minutes each."),
        ("Appointments:", "We moved your appointment 3 May to June."),
        ("Appointments:", "Is an appointment 3 pm or later possible?"),
        ("Tickets:", "We sell each ticket 3 euros below the price."),
        ("Offers:", "This is offer 3 of 7."),
        ("步骤：", "重复以上步骤3次。"),
        ("步骤：", "他在第三步兵师。"),
    ],
)
def test_amounts_and_names_are_no_references(above: str, behind: str) -> None:
    assert _renumber_behind(above, behind, numbered=True) == behind


def test_references_by_noun_still_change() -> None:
    assert _renumber_behind("Exercises:", "Repeat exercise 3 every day.", numbered=True) == (
        "Repeat exercise 2 every day."
    )
    assert _renumber_behind("步骤：", "第三步最重要。", numbered=True) == "第二步最重要。"


@pytest.mark.parametrize(
    ("above", "behind", "expected"),
    [
        ("Voici les dates :", "Les trois dates sont après les 3 mai.", "Les deux dates sont après les 3 mai."),
        ("Our courses:", "The three courses fill the three halls.", "The two courses fill the three halls."),
        ("Tips:", 'Print `"these three tips"` now.', 'Print `"these three tips"` now.'),
        ("Conseils :", "Ces trois dernières années furent bonnes.", "Ces trois dernières années furent bonnes."),
        ("Tipps:", "Diese drei Jahrzehnte waren gut.", "Diese drei Jahrzehnte waren gut."),
        ("Dicas:", "Estes três reais bastam.", "Estes três reais bastam."),
        ("Tips:", "These three centuries were calm.", "These three centuries were calm."),
        ("以下三点：", "这三点钟的会议。", "这三点钟的会议。"),
    ],
)
def test_counts_of_something_else_stay(above: str, behind: str, expected: str) -> None:
    assert _renumber_behind(above, behind, numbered=False) == expected
