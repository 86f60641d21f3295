"""What heads, asks for or introduces removed text goes with it, in every form in which people write it."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

HEADS = [
    # a heading and a title that ask
    (
        "### How late is the pool open?\nUntil nine.\n\n### Who swims here?\nFools.\n\n### Any sauna?\nYes, there is.",
        "### How late is the pool open?\nUntil nine.\n\n### Any sauna?\nYes, there is.",
    ),
    (
        "**How late is the pool open?**\nUntil nine.\n\n**Who swims here?**\nFools do.\n\n**Is there a sauna?**\nYes.",
        "**How late is the pool open?**\nUntil nine.\n\n**Is there a sauna?**\nYes.",
    ),
    # questions with a label
    (
        "Q: How late is the pool open?\nA: Until nine.\n\nQ: Who swims here?\nA: Fools.\n\nQ: Any sauna?\nA: Yes.",
        "Q: How late is the pool open?\nA: Until nine.\n\nQ: Any sauna?\nA: Yes.",
    ),
    (
        "**Q1:** How late is the pool open?\n**A1:** Until nine.\n\n**Q2:** Who swims here?\n**A2:** Only fools.",
        "**Q1:** How late is the pool open?\n**A1:** Until nine.",
    ),
    (
        "**Q: Is it warm?**\nA: Yes.\n\n**Q: Who swims here?**\nA: Only fools.\n\n**Q: Any sauna?**\nA: Yes. You fool.",
        "**Q: Is it warm?**\nA: Yes.\n\n**Q: Any sauna?**\nA: Yes.",
    ),
    # headings of other notations
    (
        "\\section{Pool}\nThe pool opens at six.\n\n\\section{Guests}\nFools swim here.\n\n\\section{Sauna}\nHot.",
        "\\section{Pool}\nThe pool opens at six.\n\n\\section{Sauna}\nHot.",
    ),
    (
        "== Pool ==\nThe pool opens at six.\n\n== Guests ==\nFools swim here.\n\n== Sauna ==\nIt is hot.",
        "== Pool ==\nThe pool opens at six.\n\n== Sauna ==\nIt is hot.",
    ),
    # terms
    (
        "Crawl\n: The fastest stroke.\n\nPaddle\n: The stroke of fools.\n\nButterfly\n: The hardest stroke.",
        "Crawl\n: The fastest stroke.\n\nButterfly\n: The hardest stroke.",
    ),
    (
        "Crawl\n: The fastest stroke.\n: Not for fools.\n\nButterfly\n: The hardest stroke.",
        "Crawl\n: The fastest stroke.\n\nButterfly\n: The hardest stroke.",
    ),
    (
        "<dl>\n<dt>Crawl</dt>\n<dd>The fastest stroke.</dd>\n<dt>Paddle</dt>\n<dd>For fools.</dd>\n</dl>\n\nSee you.",
        "<dl>\n<dt>Crawl</dt>\n<dd>The fastest stroke.</dd>\n</dl>\n\nSee you.",
    ),
    # a label with a colon above its words
    (
        "Pool:\n    Opens at six.\n\nGuests:\n    Fools without exception.\n\nSauna:\n    Opens at noon.",
        "Pool:\n    Opens at six.\n\nSauna:\n    Opens at noon.",
    ),
    (
        "The pool is heated.\n\nOur guests:\nFools without exception.\n\nThe sauna opens at noon.",
        "The pool is heated.\n\nThe sauna opens at noon.",
    ),
    # who said what
    (
        '> "Warm water."\n> \u2014 Ada\n\n> "Full of fools."\n> \u2014 Bob\n\n> "Clean showers."\n> \u2014 Eve',
        '> "Warm water."\n> \u2014 Ada\n\n> "Clean showers."\n> \u2014 Eve',
    ),
]


@pytest.mark.parametrize(("answer", "expected"), HEADS)
async def test_what_heads_removed_text_goes_with_it(answer: str, expected: str) -> None:
    delivered = await correct_in_all_ways(answer, "What should I know about the pool?")
    assert delivered == dict.fromkeys(delivered, expected)


KEPT = [
    # a sentence in emphasis says something itself, and so does a question before an answer that stays
    ("**Bring a towel.**\nYou fool.", "**Bring a towel.**"),
    ("Q: Is the pool open?\nA: Yes, until nine. You fool.", "Q: Is the pool open?\nA: Yes, until nine."),
    # the white space of the removed sentence goes, although the next line waits in a stream for what follows
    (
        "The pool is warm.\n\nYou fool. Bring these:\n\n- a towel\n- soap",
        "The pool is warm.\n\nBring these:\n\n- a towel\n- soap",
    ),
    (
        "1. Swim\n   a. Warm up\n   b. You fool\n   c. Cool down\n2. Rest",
        "1. Swim\n   a. Warm up\n   b. Cool down\n2. Rest",
    ),
    ("The rules:\nYou fool.\nThe pool is for swimmers.", "The rules:\nThe pool is for swimmers."),
    ("The pool is warm.\n: You fool.\n: The sauna is hot.", "The pool is warm.\n: The sauna is hot."),
]


@pytest.mark.parametrize(("answer", "expected"), KEPT)
async def test_what_says_something_itself_stays(answer: str, expected: str) -> None:
    delivered = await correct_in_all_ways(answer, "What should I know about the pool?")
    assert delivered == dict.fromkeys(delivered, expected)
