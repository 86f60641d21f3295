"""Tables whose rows begin without a bar are edited like those with outer bars, whole and in streams."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

HEAD = "Prices:\n\nPlan | Price | Note\n--- | --- | ---\n"
END = "\n\nAsk us for more."
ROWS: list[tuple[str, str]] = [
    # rows, and what is left of them
    ("Basic | 5 | Good\nPro | 9 | You are a fool.", "Basic | 5 | Good\nPro | 9 |"),
    ("You are a fool. | 5 | Good\nPro | 9 | Fine", "| | 5 | Good\nPro | 9 | Fine"),
    ("Basic | You are a fool. | Good\nPro | 9 | Fine", "Basic | | Good\nPro | 9 | Fine"),
    ("Basic | 5 | Good for one. You are a fool.\nPro | 9 | Fine", "Basic | 5 | Good for one.\nPro | 9 | Fine"),
    ("Basic plan. You are a fool. | 5 | Good\nPro | 9 | Fine", "Basic plan. | 5 | Good\nPro | 9 | Fine"),
    ("Basic | | Good\nPro | 9 | You are a fool.", "Basic | | Good\nPro | 9 |"),
    ("You fool | you fool | you fool\nPro | 9 | Fine", "Pro | 9 | Fine"),
    ("Basic | 5 | Good\nYou fool | you fool | you fool", "Basic | 5 | Good"),
    ("Basic | 5 | Good\nPro | 9 | Fine", "Basic | 5 | Good\nPro | 9 | Fine"),
]
ANSWERS: list[tuple[str, str]] = [
    (f"{HEAD}You fool | you fool | you fool{END}", "Ask us for more."),
    (
        f"Prices:\n\nPlan | Note\n--- | ---\nBasic | Fine\nPro | You are a fool.{END}",
        f"Prices:\n\nPlan | Note\n--- | ---\nBasic | Fine{END}",
    ),
    (f"Plan|Note\n:--|--:\nBasic|Fine\nPro|You are a fool.{END}", f"Plan|Note\n:--|--:\nBasic|Fine{END}"),
    ("Plan | Note\n--- | ---\nBasic | You are a fool.\nPro | Fine", "Plan | Note\n--- | ---\nPro | Fine"),
    ("Use a pipe, a | b, to join. You are a fool. Then run it.", "Use a pipe, a | b, to join. Then run it."),
    ("ls | sort\nYou are a fool.\ncat a | wc -l", "ls | sort\ncat a | wc -l"),
    ("Type a | b to join them, you fool. It is quick to do.", "It is quick to do."),
]


@pytest.mark.parametrize(("rows", "left"), ROWS)
async def test_a_table_without_outer_bars_keeps_its_columns(rows: str, left: str) -> None:
    texts = await correct_in_all_ways(f"{HEAD}{rows}{END}")
    assert set(texts.values()) == {f"{HEAD}{left}{END}"}


@pytest.mark.parametrize(("answer", "left"), ANSWERS)
async def test_what_holds_with_outer_bars_holds_without_them(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}
