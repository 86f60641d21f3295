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


START = "Paint needs a clean wall and some patience.\n\n"
LEADS: list[tuple[str, str]] = [
    ("> You are a fool. Rinse it.\n> Dry it.", "> Rinse it.\n> Dry it."),
    ("> > You are a fool. You big fool. Rinse it.", "> > Rinse it."),
    ("> You are a fool.\n>\n> Rinse it.\n\nDry it.", "> Rinse it.\n\nDry it."),
    ("- Water it.\n  You are a fool. Daily is best.\n- Feed it.", "- Water it.\n  Daily is best.\n- Feed it."),
    ("1. Water it.\n\n\tYou are a fool. Daily is best.\n\n2. Go.", "1. Water it.\n\n\tDaily is best.\n\n2. Go."),
    ("!!! note\n    You are a fool. Use soap.\n\nDry it.", "!!! note\n    Use soap.\n\nDry it."),
    ("<div>\n  You are a fool. Use soap.\n</div>", "<div>\n  Use soap.\n</div>"),
    ("Primer\n: You are a fool. A first coat.", "Primer\n: A first coat."),
    ("## You are a fool. Clean it well\n\nUse soap.", "## Clean it well\n\nUse soap."),
    ("- [ ] You are a fool. Use soap.\n- [x] Dry it.", "- [ ] Use soap.\n- [x] Dry it."),
    ("\u2705 You are a fool. Use soap.\n\u2705 Dry it.", "\u2705 Use soap.\n\u2705 Dry it."),
    ("- 08:00: You are a fool. Wake up.\n- 09:00: Eat.", "- 08:00: Wake up.\n- 09:00: Eat."),
    ("[^1]: You are a fool. Berg, 2001.", "[^1]: Berg, 2001."),
    ("\\item You are a fool. Use soap.\n\\item Dry it.", "\\item Use soap.\n\\item Dry it."),
]


@pytest.mark.parametrize(("answer", "left"), LEADS)
async def test_what_stands_before_the_words_of_a_line_stays_while_the_line_goes_on(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(START + answer)).values()) == {START + left}


SECTIONS: list[tuple[str, str]] = [
    ("> **Note**\n> You are a fool.\n\nDry it.", "Dry it."),
    ("> **Note**\n>\n> You are a fool.\n> You big fool.\n\nDry it.", "Dry it."),
    ("> [!NOTE]\n> You are a fool.\n\nDry it.", "Dry it."),
    ("> [!TIP]\n> You are a fool. Rinse it.\n\nDry it.", "> [!TIP]\n> Rinse it.\n\nDry it."),
    ("**Pros:**\n- Quick.\n\n**Cons:**\n- You are a fool.\n\nDry it.", "**Pros:**\n- Quick.\n\nDry it."),
    ("**Cost:**\n\n| a | b |\n|---|---|\n| You fool | you fool |\n\nDry it.", "Dry it."),
    ("**Cons:**\n\nYou are a fool.\n\nIt smells.", "**Cons:**\n\nIt smells."),
]


@pytest.mark.parametrize(("answer", "left"), SECTIONS)
async def test_a_title_goes_with_the_quotation_or_list_that_it_heads(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(START + answer)).values()) == {START + left}


FRAMES: list[tuple[str, str]] = [
    ("## Tone\n\nYou are a fool.\n\n---\n\nBe polite.", "## Tone\n\n---\n\nBe polite."),
    ("## Tone\n\n<ul>\n<li>You are a fool.</li>\n</ul>\n\nBe polite.", "## Tone\n\nBe polite."),
    ("Anna says:\n\n> You are a fool.\n>\n> Be polite.\n\nDry it.", "Anna says:\n\n> Be polite.\n\nDry it."),
    ("<details>\n<summary>More</summary>\n\nYou are a fool.\n\n</details>\n\nDry it.", "Dry it."),
    ("<div>\n<p>You are a fool.</p>\n</div>\n<p>Dry it.</p>", "<p>Dry it.</p>"),
    ("Anna says:\n\n> You are a fool.\n>\n> \u2014 Anna Berg\n\nDry it.", "Dry it."),
    ("> *You are a fool.*\n> -- *Anna Berg*, 1999\n\nDry it.", "Dry it."),
    ("> You are a fool. Use soap.\n> \u2014 Anna\n\nDry it.", "> Use soap.\n> \u2014 Anna\n\nDry it."),
    ("> \u2014 You are a fool.\n> \u2014 It is dry.\n\nDry it.", "> \u2014 It is dry.\n\nDry it."),
    ("Use soap.\n\nYou are a fool.\n===\n\nDry it.", "Use soap.\n\nDry it."),
]


@pytest.mark.parametrize(("answer", "left"), FRAMES)
async def test_a_frame_goes_with_all_that_it_frames_and_a_stream_waits_for_it(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(START + answer)).values()) == {START + left}


COMMENTS: list[tuple[str, str]] = [
    ("Keep it dry.<!-- You are a fool. --> Water it.", "Keep it dry. Water it."),
    ("Keep it dry. <!-- You are a fool. --> Water it.", "Keep it dry. Water it."),
    ("Keep it dry.\n<!-- You are a fool. -->\nWater it.", "Keep it dry.\nWater it."),
    ("Keep it dry. <!-- You are a fool. -->\n\nWater it.", "Keep it dry.\n\nWater it."),
    ("Keep it dry.\n\n<!--\nYou are a fool.\n-->\n\nWater it.", "Keep it dry.\n\nWater it."),
    ("<p>Keep it dry.</p><!-- You are a fool. --><p>Go.</p>", "<p>Keep it dry.</p><p>Go.</p>"),
    ("Keep it dry. <!-- Fine. You are a fool. --> Go.", "Keep it dry. <!-- Fine. --> Go."),
]


@pytest.mark.parametrize(("answer", "left"), COMMENTS)
async def test_a_comment_between_sentences_goes_with_its_words(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(START + answer)).values()) == {START + left}


ROWS: list[tuple[str, str]] = [
    ("| 1 | You are a fool. |\n| 2 | Good work. |", "| 2 | Good work. |"),
    ("| 2 | Good work. |\n| 1 | You are a fool. |\n\nDry it.", "| 2 | Good work. |\n\nDry it."),
    ("| a | You are a fool. | c |\n| b | Good work. | d |", "| a | | c |\n| b | Good work. | d |"),
]


@pytest.mark.parametrize(("answer", "left"), ROWS)
async def test_rows_without_a_rule_keep_and_lose_their_bars_as_in_a_table(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(START + answer)).values()) == {START + left}
