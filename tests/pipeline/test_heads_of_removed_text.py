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
    # a word with a number and a title
    (
        "\u00a7 1 Pool\nThe pool opens at six.\n\n\u00a7 2 Guests\nBeat all fools there.\n\n\u00a7 3 Sauna\nIt is hot.",
        "\u00a7 1 Pool\nThe pool opens at six.\n\n\u00a7 3 Sauna\nIt is hot.",
    ),
    (
        "Article 1 \u2013 Pool\n\nThe pool opens at six.\n\nArticle 2 \u2013 Guests\n\nFools swim.\n\nArticle 3\n\nN.",
        "Article 1 \u2013 Pool\n\nThe pool opens at six.\n\nArticle 3\n\nN.",
    ),
    (
        "Day 1: Pool\nSwim in the pool.\n\nDay 2: Guests\nBeat all fools there.\n\nDay 3: Sauna\nIt is hot.",
        "Day 1: Pool\nSwim in the pool.\n\nDay 3: Sauna\nIt is hot.",
    ),
    # the title of an item whose neighbours have text below theirs, too
    (
        "1. Pool\nIt opens at six.\n\n2. Guests\nBeat all fools there.\n\n3. Sauna\nIt is hot.\n\n4. Bar\nIt is open.",
        "1. Pool\nIt opens at six.\n\n2. Sauna\nIt is hot.\n\n3. Bar\nIt is open.",
    ),
    (
        "- Pool\n  - It opens at six.\n- Guests\n  - Beat all fools there.\n- Sauna\n  - It is hot.",
        "- Pool\n  - It opens at six.\n- Sauna\n  - It is hot.",
    ),
    (
        "1. **Is it warm?**\n   Yes, always.\n2. **Who swims?**\n   Beat all fools.\n3. **Any sauna?**\n   It is hot.",
        "1. **Is it warm?**\n   Yes, always.\n2. **Any sauna?**\n   It is hot.",
    ),
    # a title in the line of its text
    (
        "**Pool.** It opens at six.\n\n**Our guests.** They are fools.\n\n**Sauna.** It is hot. You fool.",
        "**Pool.** It opens at six.\n\n**Sauna.** It is hot.",
    ),
    (
        "1. **Pool.** It opens at six.\n2. **Guests.** Beat all fools there.\n3. **Sauna.** It is hot.",
        "1. **Pool.** It opens at six.\n2. **Sauna.** It is hot.",
    ),
    # notes of MkDocs and of others
    (
        'The pool is warm.\n\n!!! note "On guests"\n    They are fools.\n\n    Beat the fools.\n\nThe sauna is hot.',
        "The pool is warm.\n\nThe sauna is hot.",
    ),
    (
        "The pool is warm.\n\n::: warning\nBeat all fools.\n:::\n\nThe sauna is hot.",
        "The pool is warm.\n\nThe sauna is hot.",
    ),
]


@pytest.mark.parametrize(("answer", "expected"), HEADS)
async def test_what_heads_removed_text_goes_with_it(answer: str, expected: str) -> None:
    delivered = await correct_in_all_ways(answer, "What should I know about the pool?")
    assert delivered == dict.fromkeys(delivered, expected)


CONTENTS = [
    (
        "# Contents\n\n- [Pool](#pool)\n- [Our guests](#our-guests)\n- [Sauna](#sauna)\n\n## Pool\n\nIt opens at six."
        "\n\n## Our guests\n\nThey are fools.\n\n## Sauna\n\nIt is hot.",
        "# Contents\n\n- [Pool](#pool)\n- [Sauna](#sauna)\n\n## Pool\n\nIt opens at six.\n\n## Sauna\n\nIt is hot.",
    ),
    (
        "1. Pool\n2. Guests\n3. Sauna\n\n# 1. Pool\n\nIt opens at six.\n\n# 2. Guests\n\nFools.\n\n# 3. Sauna\n\nHot.",
        "1. Pool\n2. Sauna\n\n# 1. Pool\n\nIt opens at six.\n\n# 2. Sauna\n\nHot.",
    ),
    # an item that says more than the heading, and a heading that occurs twice
    (
        "- Pool\n- Guests pay nothing\n\n## Pool\n\nIt opens at six.\n\n## Guests\n\nThey are fools.",
        "- Pool\n- Guests pay nothing\n\n## Pool\n\nIt opens at six.",
    ),
    (
        "- Pool\n- Guests\n\n## Pool\n\nIt opens at six.\n\n## Guests\n\nFools.\n\n## Guests\n\nThey are late.",
        "- Pool\n- Guests\n\n## Pool\n\nIt opens at six.\n\n## Guests\n\nThey are late.",
    ),
]


@pytest.mark.parametrize(("answer", "expected"), CONTENTS)
async def test_an_entry_of_the_contents_goes_with_its_section(answer: str, expected: str) -> None:
    delivered = await correct_in_all_ways(answer, "What should I know about the pool?")
    assert (delivered["whole"], delivered["held"]) == (expected, expected)


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
    # two plain items, and one of several whose neighbours have no text below
    ("1. Towel\nYou fool.\n\n2. Soap\nIt is cheap.", "1. Towel\n\n2. Soap\nIt is cheap."),
    ("1. Towel\nBeat all fools there.\n2. Soap\n3. Cap", "1. Towel\n2. Soap\n3. Cap"),
    (
        "1. Bring soap.\nIt is cheap.\n2. Bring a cap.\nBeat all fools there.\n3. Bring a towel.\nIt is cheap, too.",
        "1. Bring soap.\nIt is cheap.\n2. Bring a cap.\n3. Bring a towel.\nIt is cheap, too.",
    ),
    (
        "Day 1: Pool\nDay 2: Sauna\nDay 3: Rest\n\nAll fools should be beaten there.",
        "Day 1: Pool\nDay 2: Sauna\nDay 3: Rest",
    ),
    # an answer, advice in emphasis, and a title whose text goes on
    ("**Yes.** Beat all fools there.\n\n**Pool.** It is warm.", "**Yes.**\n\n**Pool.** It is warm."),
    ("The pool is warm.\n\n**Tuesday.** You fool.", "The pool is warm.\n\n**Tuesday.**"),
    ("**Bring a warm towel.** Beat all fools there.", "**Bring a warm towel.**"),
    ("1. **Towel.** You fool.\n2. **Soap.**", "1. **Towel.**\n2. **Soap.**"),
    (
        "1. **Towel.** Beat all fools there.\n   - A warm one.\n2. **Soap.** A bar.",
        "1. **Towel.**\n   - A warm one.\n2. **Soap.** A bar.",
    ),
    (
        "!!! note\n    You fool.\n    The pool is warm.\n\nThe sauna is hot.",
        "!!! note\n    The pool is warm.\n\nThe sauna is hot.",
    ),
    ("Day 1: Pool\nDay 2: You fool\nDay 3: Sauna\nSwim there.", "Day 1: Pool\nDay 3: Sauna\nSwim there."),
    ("The pool is warm.\n: You fool.\n: The sauna is hot.", "The pool is warm.\n: The sauna is hot."),
]


@pytest.mark.parametrize(("answer", "expected"), KEPT)
async def test_what_says_something_itself_stays(answer: str, expected: str) -> None:
    delivered = await correct_in_all_ways(answer, "What should I know about the pool?")
    assert delivered == dict.fromkeys(delivered, expected)
