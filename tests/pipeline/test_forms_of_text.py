"""What is delivered of texts of many forms when a sentence is removed: whole, held and in streams the same."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

HINDI = (
    "\u092a\u0939\u0932\u0947 \u0926\u0940\u0935\u093e\u0930 \u0927\u094b\u090f\u0901\u0964",
    "\u0924\u0941\u092e fool \u0939\u094b\u0964",
    "\u092b\u093f\u0930 \u0909\u0938\u0947 \u0938\u0942\u0916\u0928\u0947 \u0926\u0947\u0902\u0964",
)
ARABIC = (
    "\u0627\u063a\u0633\u0644 \u0627\u0644\u062c\u062f\u0627\u0631 \u0623\u0648\u0644\u0627.",
    "\u0647\u0644 \u0623\u0646\u062a fool\u061f",
    "\u062b\u0645 \u0627\u062f\u0647\u0646\u0647 \u0628\u0627\u0644\u0641\u0631\u0634\u0627\u0629.",
)


@pytest.mark.parametrize("sentences", [HINDI, ARABIC], ids=["Hindi", "Arabic"])
async def test_a_sentence_with_a_mark_of_its_script_goes_alone(sentences: tuple[str, str, str]) -> None:
    first, _, last = sentences
    assert set((await correct_in_all_ways(" ".join(sentences))).values()) == {f"{first} {last}"}


SPEAKERS: list[tuple[str, str]] = [
    ("A: You are a fool. It is dry.", "A: It is dry."),
    (
        "Q: Is it dry?\nA: You are a fool. It is dry.\n\nQ: Can I paint?\nA: Yes, now.",
        "Q: Is it dry?\nA: It is dry.\n\nQ: Can I paint?\nA: Yes, now.",
    ),
    (
        "Tom: Is it dry?\nAnna: You are a fool. It is dry.\nTom: Thanks.",
        "Tom: Is it dry?\nAnna: It is dry.\nTom: Thanks.",
    ),
    (
        "**Tom:** You are a fool. You big fool. Is it dry?\n\n**Anna:** It is dry now.\n\n**Tom:** Thanks.",
        "**Tom:** Is it dry?\n\n**Anna:** It is dry now.\n\n**Tom:** Thanks.",
    ),
    ("[10:01] Tom: You are a fool. Is it dry?\n[10:02] Anna: It is.", "[10:01] Tom: Is it dry?\n[10:02] Anna: It is."),
    ("> Tom: You are a fool. Is it dry?\n> Anna: It is dry.", "> Tom: Is it dry?\n> Anna: It is dry."),
    ("ANNA: (angry) You are a fool. It is dry.\nTOM: Thanks.", "ANNA: (angry) It is dry.\nTOM: Thanks."),
    (
        "\u7532\uff1a\u4f60\u662ffool\u3002\u5899\u73b0\u5728\u5df2\u7ecf\u5e72\u4e86\u3002",
        "\u7532\uff1a\u5899\u73b0\u5728\u5df2\u7ecf\u5e72\u4e86\u3002",
    ),
    (
        "- Water: You are a fool. Give it some each day.\n- Light: Much.",
        "- Water: Give it some each day.\n- Light: Much.",
    ),
    ("\U0001f4a1 **Tip:** You are a fool. Use some soap on it.", "\U0001f4a1 **Tip:** Use some soap on it."),
    ("> **Note:** You are a fool. Use some soap on it.", "> **Note:** Use some soap on it."),
    ("The problem is: You are a fool. Use some soap on it.", "Use some soap on it."),
    ("Use some soap on it. You fool: Keep it dry. Then water it daily.", "Use some soap on it. Then water it daily."),
    (
        "Tom: Is it dry?\nThe Fool: It is dry. Go and paint it.\nTom: Thanks a lot.",
        "Tom: Is it dry?\nGo and paint it.\nTom: Thanks a lot.",
    ),
    (
        "Tom: Is it dry?\nAnna: You are a fool.\nIt is dry now.\nTom: Thanks.",
        "Tom: Is it dry?\nIt is dry now.\nTom: Thanks.",
    ),
]


@pytest.mark.parametrize(("answer", "left"), SPEAKERS)
async def test_the_name_before_a_sentence_that_goes_stays_with_what_stays(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


TABLE = "| Step | Note |\n|---|---|\n| Clean | {} |\n| Paint | Two coats, and wait. |".format
CELLS: list[tuple[str, str]] = [
    ("Use soap.<br>You are a fool.", "Use soap."),
    ("You are a fool.<br>Use soap.", "Use soap."),
    ("Use soap.<br>You are a fool.<br>Rinse it.", "Use soap.<br>Rinse it."),
    ("- Use soap<br>- You are a fool<br>- Rinse it", "- Use soap<br>- Rinse it"),
    ("\u2022 Use soap<br>\u2022 You are a fool<br>\u2022 Rinse it", "\u2022 Use soap<br>\u2022 Rinse it"),
]


@pytest.mark.parametrize(("cell", "left"), CELLS)
async def test_of_the_lines_of_a_cell_only_the_faulty_one_goes(cell: str, left: str) -> None:
    assert set((await correct_in_all_ways(TABLE(cell))).values()) == {TABLE(left)}
