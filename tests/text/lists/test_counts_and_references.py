"""Counts of lists, and references by a word and a letter, after items were removed."""

from __future__ import annotations

import pytest

from tests.gate.lists import judged
from tests.support.fools import without_fools
from tests.support.pruning import correct_in_all_ways


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("These 4 tips cost nothing.", "These 3 tips cost nothing."),
        ("Of these four, tea is the cheapest.", "Of these three, tea is the cheapest."),
        ("All four are cheap. Those four tips help.", "All three are cheap. Those three tips help."),
        ("Alle vier Tipps sind gut.", "Alle drei Tipps sind gut."),
        ("These 5 tips are not the list.", "These 5 tips are not the list."),
        ("All four come up in the test.", "All three come up in the test."),
        ("Ask for all four in the shop.", "Ask for all three in the shop."),
        ("These four drinks are cheap.", "These three drinks are cheap."),
        ("All four wheels turn.", "All four wheels turn."),
        ("Four tips a day are enough.", "Four tips a day are enough."),
    ],
)
def test_counts_that_refer_back_to_a_list(behind: str, expected: str) -> None:
    items = "- Drink tea.\n- Be no fool.\n- Sleep.\n- Walk.\n\n"
    assert without_fools(items + behind) == items.replace("- Be no fool.\n", "") + expected


def test_a_count_stays_without_a_list_that_lost_an_item() -> None:
    text = "- Drink tea.\n- Sleep.\n\nThese two tips help. You fool."
    assert without_fools(text) == "- Drink tea.\n- Sleep.\n\nThese two tips help."


def test_of_two_things_a_count_says_both() -> None:
    text = "- Drink tea.\n- Be no fool.\n- Sleep.\n\n"
    left = "- Drink tea.\n- Sleep.\n\n"
    assert without_fools(text + "All three are cheap.") == left + "Both are cheap."
    assert without_fools(text + "Alle drei Tipps sind gut.") == left + "Beide Tipps sind gut."


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("I prefer option C.", "I prefer option B."),
        ("Options A and C are cheap.", "Options A and B are cheap."),
        ("Plan C is another thing, and so is point C.", "Plan C is another thing, and so is point C."),
        ("That is all the options I have.", "That is all the options I have."),
    ],
)
def test_references_to_letters_behind_a_word(behind: str, expected: str) -> None:
    text = "Option A: tea.\nOption B: a fool.\nOption C: milk.\n\n"
    assert without_fools(text + behind) == "Option A: tea.\nOption B: milk.\n\n" + expected


CLAUSES = "1.1 The week has 40 hours.\n1.2 A fool works more.\n1.3 Leave is paid.\n1.4 "
LEFT = "1.1 The week has 40 hours.\n1.2 Leave is paid.\n1.3 "


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("Clause 1.3 binds all.", "Clause 1.2 binds all."),
        ("It adds to clauses 1.1 and 1.3.", "It adds to clauses 1.1 and 1.2."),
        ("See section 1.3 of this contract.", "See section 1.2 of this contract."),
        # another text, another list, an amount
        ("See section 1.3 of the Act.", "See section 1.3 of the Act."),
        ("See Article 1.3 and GDPR clause 1.3.", "See Article 1.3 and GDPR clause 1.3."),
        ("Step 2.3 and clause 3.3 are others.", "Step 2.3 and clause 3.3 are others."),
        ("Pay 1.3 euros at step 1.35 or 1.3%.", "Pay 1.3 euros at step 1.35 or 1.3%."),
    ],
)
def test_references_to_compound_numbers(behind: str, expected: str) -> None:
    assert without_fools(CLAUSES + behind) == LEFT + expected


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("Clause 3 binds all.", "Clause 2 binds all."),
        ("Clause 3 of the Act binds all.", "Clause 3 of the Act binds all."),
        # of a plain list nobody says "section"
        ("Section 3 binds all.", "Section 3 binds all."),
        ("Tea is paid (see clause 2).", "Tea is paid."),
        ("Tea (see step 3, please) is paid (see clause 1).", "Tea (see step 2, please) is paid (see clause 1)."),
        ("Tea is paid (siehe Punkt 2), too.", "Tea is paid, too."),
        ("Tea is paid (steps 1 and 2).", "Tea is paid (steps 1 and 2)."),
        ("Run `tea (step 2)`.", "Run `tea (step 2)`."),
    ],
)
def test_references_to_clauses_and_to_removed_items(behind: str, expected: str) -> None:
    text = "1. The week has 40 hours.\n2. A fool works more.\n3. Leave is paid.\n\n"
    left = "1. The week has 40 hours.\n2. Leave is paid.\n\n"
    assert without_fools(text + behind) == left + expected


async def test_references_to_headings() -> None:
    text = "## I. Hours\n\nThe week has 40 hours.\n\n## II. On a fool\n\nA fool.\n\n## III. Leave\n\n"
    left = "## I. Hours\n\nThe week has 40 hours.\n\n## II. Leave\n\n"
    behind = "It follows III.A and section III, not X.A or X.III."
    delivered = await correct_in_all_ways(text + behind)
    assert delivered == dict.fromkeys(delivered, left + "It follows II.A and section II, not X.A or X.III.")


def test_a_number_before_a_colon_behind_a_space() -> None:
    text = "\u00c9tape 1 : Lavez.\n\u00c9tape 2 : fool.\n\u00c9tape 3\u00a0: S\u00e9chez."
    assert without_fools(text) == "\u00c9tape 1 : Lavez.\n\u00c9tape 2\u00a0: S\u00e9chez."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Three things help. First, tea. Second, a fool. Third, milk.", "Two things help. First, tea. Second, milk."),
        (
            "There are three ways: first, tea. Second, a fool. Third, milk.",
            "There are two ways: first, tea. Second, milk.",
        ),
        ("Four things help. First, tea. Second, a fool. Third, milk.", "Four things help. First, tea. Second, milk."),
        ("Three fools help. First, tea. Second, a fool. Third, milk.", "First, tea. Second, milk."),
        (
            "- Tea\n- A fool\n- Milk\n- Rum\n\nTea is the best of the four.",
            "- Tea\n- Milk\n- Rum\n\nTea is the best of the three.",
        ),
        (
            "- Tea\n- A fool\n- Milk\n- Rum\n\nTea is one of the four teas.",
            "- Tea\n- Milk\n- Rum\n\nTea is one of the four teas.",
        ),
    ],
)
def test_counts_of_a_series_and_of_the_list_above(text: str, expected: str) -> None:
    assert without_fools(text) == expected


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ("I found 4 hotels with a pool:", "I found 3 hotels with a pool:"),
        ("You need four ingredients:", "You need three ingredients:"),
        ("Here are today's 4 stories:", "Here are today's 3 stories:"),
        ("The council plans four measures:", "The council plans three measures:"),
        ("## Actions (4)", "## Actions (3)"),
        ("**To do (4)**", "**To do (3)**"),
        ("## 4 ways to rest\n\nRest is good.", "## 3 ways to rest\n\nRest is good."),
        ("There are four ways to rest. Choose one:", "There are three ways to rest. Choose one:"),
        ("Here are my top 4 picks:", "Here are my top 3 picks:"),
        ("There are four passes:", "There are three passes:"),
        ("## 4 easy dinners", "## 3 easy dinners"),
        ("Es gelten vier Fristen:", "Es gelten drei Fristen:"),
        ("Sie ben\u00f6tigen vier Unterlagen:", "Sie ben\u00f6tigen drei Unterlagen:"),
        ("Voici quatre mus\u00e9es gratuits :", "Voici trois mus\u00e9es gratuits :"),
        # amounts, names and what may count something else
        ("Bake it for 4 minutes:", "Bake it for 4 minutes:"),
        ("You need 4 cups of beans:", "You need 4 cups of beans:"),
        ("This serves 4 guests:", "This serves 4 guests:"),
        ("Python 4 has:", "Python 4 has:"),
        ("Day 4 goals:", "Day 4 goals:"),
        ("You have four days for steps.", "You have four days for steps."),
        ("In the following four weeks of tests you may:", "In the following four weeks of tests you may:"),
        ("## 4 ways to rest\n\nFirst check:", "## 4 ways to rest\n\nFirst check:"),
        ("How to feed your four cats:", "How to feed your four cats:"),
        ("How to wash four windows:", "How to wash four windows:"),
        ("## Theorem (4)", "## Theorem (4)"),
        ("I have 4 laptops and compare them:", "I have 4 laptops and compare them:"),
        ("There are four weeks until then:", "There are four weeks until then:"),
    ],
)
def test_counts_in_the_line_above_a_list(above: str, expected: str) -> None:
    items = "\n\n- Drink tea.\n- Be no fool.\n- Sleep.\n- Walk."
    assert without_fools(above + items) == expected + items.replace("- Be no fool.\n", "")


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ("There are two ways to reach us:", "There is one way to reach us:"),
        ("You have 2 options:", "You have 1 option:"),
        ("I suggest two strategies for this:", "I suggest one strategy for this:"),
        # other words of the sentence would have to change, too
        ("Two things help:", "Two things help:"),
        ("There are two ways, and both work:", "There are two ways, and both work:"),
        ("Here are two movies:", "Here are two movies:"),
    ],
)
def test_one_thing_remains_of_two(above: str, expected: str) -> None:
    assert without_fools(f"{above}\n\n- Call.\n- Be a fool.") == f"{expected}\n\n- Call."


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("Choose d) at night; by day, c) is best.", "Choose c) at night; by day, b) is best."),
        ("*Hint for d): wait.*", "*Hint for c): wait.*"),
        ("The correct answer is c).", "The correct answer is b)."),
        ("**Answer: C**", "**Answer: B**"),
        # letters of the line itself, code, other words
        ("We have a) tea, b) milk, c) rum.", "We have a) tea, b) milk, c) rum."),
        ("See `d) x` and (as in d).", "See `d) x` and (as in d)."),
        ("Answer: C major.", "Answer: C major."),
    ],
)
def test_references_to_letters_alone(behind: str, expected: str) -> None:
    assert without_fools(f"a) tea\nb) a fool\nc) milk\nd) rum\n\n{behind}") == f"a) tea\nb) milk\nc) rum\n\n{expected}"


def test_the_item_of_an_answer_stays() -> None:
    text = "Which is hot?\n\nA) Ice\nB) Every fool knows\nC) Steam\n\nAnswer: B"
    assert judged(text).reason == "gate_lost_list_item"


TABLE = "\n\n| Tea | Price |\n|---|---|\n| Green | 2 |\n| Every fool | 9 |\n| Black | 3 |\n| White | 4 |\n\n"


@pytest.mark.parametrize(
    ("above", "behind", "new_above", "new_behind"),
    [
        ("There are four teas:", "All four are cheap.", "There are three teas:", "All three are cheap."),
        ("# Our four teas", "These four teas sell well.", "# Our three teas", "These three teas sell well."),
        ("Prices differ between the four teas below.", "End.", "Prices differ between the three teas below.", "End."),
        ("The following four teas are cheap.", "End.", "The following three teas are cheap.", "End."),
        # other numbers, and other things
        ("There are five teas:", "All five are cheap.", "There are five teas:", "All five are cheap."),
        ("Below are my four cats.", "All four wheels turn.", "Below are my four cats.", "All four wheels turn."),
    ],
)
def test_counts_of_a_table(above: str, behind: str, new_above: str, new_behind: str) -> None:
    new_table = TABLE.replace("| Every fool | 9 |\n", "")
    assert without_fools(above + TABLE + behind) == new_above + new_table + new_behind


def test_a_count_of_the_columns_of_a_table_stays() -> None:
    text = "Compare the two teas:\n\n| | Green | Black |\n|---|---|---|\n| Price | 2 | 3 |\n| A fool | no | no |"
    assert without_fools(text) == text.removesuffix("\n| A fool | no | no |")


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ("You have three options.", "You have two options."),
        ("There are three ways to do it.", "There are two ways to do it."),
        # questions of the reader, and sentences about something else
        ("You asked me three questions.", "You asked me three questions."),
        ("I have three cats.", "I have three cats."),
        ("You have three options, and I have one.", "You have three options, and I have one."),
    ],
)
def test_counts_in_a_sentence_above_numbered_headings(above: str, expected: str) -> None:
    text = "\n\n## Option 1: Tea\n\nHot.\n\n## Option 2: A fool\n\nA fool.\n\n## Option 3: Milk\n\nCold."
    left = "\n\n## Option 1: Tea\n\nHot.\n\n## Option 2: Milk\n\nCold."
    assert without_fools(above + text).replace("\n\n\n\n", "\n\n") == expected + left


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("Step 3/7 fails.", "Step 3/7 fails."),
        ("Step 3 of 7 fails.", "Step 3 of 7 fails."),
        ("Step 3 of 4 is the longest.", "Step 2 of 3 is the longest."),
        ("Steps 3/4 are long.", "Steps 2/3 are long."),
    ],
)
def test_a_step_of_so_many_steps(behind: str, expected: str) -> None:
    text = "1. Drink tea.\n2. Be a fool.\n3. Sleep.\n4. Walk.\n\n"
    assert without_fools(text + behind) == "1. Drink tea.\n2. Sleep.\n3. Walk.\n\n" + expected


@pytest.mark.parametrize("quoted", ["```\nStep 3/7: COPY\nSee step 4.\n```", "It prints `step 3`."])
async def test_a_step_in_code_does_not_fix_the_numbers_of_a_list(quoted: str) -> None:
    text = f"{quoted}\n\n1. Drink tea.\n2. Be a fool.\n3. Sleep.\n4. Walk."
    delivered = await correct_in_all_ways(text)
    assert delivered == dict.fromkeys(delivered, f"{quoted}\n\n1. Drink tea.\n2. Sleep.\n3. Walk.")


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("I would choose a). Only d) is hot.", "I would choose a). Only c) is hot."),
        ("Both a) and c) are cheap; d) is not.", "Both a) and b) are cheap; c) is not."),
    ],
)
def test_references_to_letters_in_a_line_with_the_first_letter(behind: str, expected: str) -> None:
    assert without_fools(f"a) tea\nb) a fool\nc) milk\nd) rum\n\n{behind}") == f"a) tea\nb) milk\nc) rum\n\n{expected}"


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("In form S-7, leave item 4 blank; item 3 asks when.", "In form S-7, leave item 4 blank; item 3 asks when."),
        ("Item 3 of the attached form asks when.", "Item 3 of the attached form asks when."),
        ("Do task 4 in your maths book. Then do step 3.", "Do task 4 in your maths book. Then do step 2."),
        ("After you filled in form S-7, do step 3.", "After you filled in form S-7, do step 2."),
        ("In this form, step 3 is new.", "In this form, step 2 is new."),
    ],
)
def test_references_to_other_documents(behind: str, expected: str) -> None:
    text = "1. Drink tea.\n2. Be a fool.\n3. Sleep.\n4. Walk.\n\n"
    assert without_fools(text + behind) == "1. Drink tea.\n2. Sleep.\n3. Walk.\n\n" + expected


@pytest.mark.parametrize(
    ("above", "behind", "expected"),
    [
        ("Exercises:", "Hint for exercise 3: wait.", "Hint for exercise 2: wait."),
        ("## Four easy exercises", "Exercises 1 and 3 are short.", "Exercises 1 and 2 are short."),
        ("**Cons**", "See con 3.", "See con 2."),
        # another thing, or one that is not what the line above names last
        ("Exercises:", "See page 3 and chapter 3.", "See page 3 and chapter 3."),
        ("Laptops:", "The Laptop 3 is a name.", "The Laptop 3 is a name."),
        ("Models:", "Model 3 is a name.", "Model 3 is a name."),
        ("Four exercises for class 7:", "Exercise 3 is short.", "Exercise 3 is short."),
        ("Do this for three days:", "On day 3 you rest.", "On day 3 you rest."),
    ],
)
def test_references_by_the_noun_above_the_list(above: str, behind: str, expected: str) -> None:
    text = f"{above}\n\n1. Drink tea.\n2. Be a fool.\n3. Sleep.\n\n"
    assert without_fools(text + behind) == f"{above}\n\n1. Drink tea.\n2. Sleep.\n\n" + expected


def test_counts_of_a_list_around_blocks_of_code() -> None:
    steps = "1) Drink tea:\n\n```\ntea\n```\n\n2) Be a fool.\n3) Sleep.\n4) Walk.\n\n"
    text = f"Do these four steps:\n\n{steps}All four are free."
    new_text = text.replace("2) Be a fool.\n3) Sleep.\n4)", "2) Sleep.\n3)").replace("four", "three")
    assert without_fools(text) == new_text


def test_counts_of_a_quoted_list() -> None:
    text = "> Please note four rules:\n>\n> - Drink tea.\n> - Be a fool.\n> - Sleep.\n> - Walk."
    assert without_fools(text).startswith("> Please note three rules:\n>\n> - Drink tea.")


@pytest.mark.parametrize(
    "items",
    [
        "- Drink tea.\n- Be no fool.\n- Sleep.\n- Walk.\n",
        "1. Drink tea.\n   - Hot.\n   - Cold.\n2. Be no fool.\n3. Sleep.\n4. Walk.\n   In the park.\n",
        "1. Drink tea.\n\n```\ntea\n```\n\n2. Be no fool.\n3. Sleep.\n4. Walk.\n",
        "| Do | When |\n|---|---|\n| Tea | 7:00 |\n| No fool | no fool now |\n| Sleep | 22:00 |\n| Walk | 8:00 |\n",
    ],
)
async def test_counts_behind_a_list(items: str) -> None:
    text = f"Try this:\n\n{items}\nThese tips help. All four are free.\n\nAll four are right."
    delivered = await correct_in_all_ways(text)
    assert all("All three are free." in str(left) for left in delivered.values()), delivered
    assert all("All four are right." in str(left) for left in delivered.values()), delivered


@pytest.mark.parametrize(
    "text",
    [
        "- Drink tea.\n- Sleep.\n\nBe no fool. All two are free.",
        "- Drink tea.\n- Be no fool.\n- Sleep.\n\n## More\n\nAll three are free.",
        "| | Tea | Milk |\n|---|---|---|\n| Hot | yes | no |\n| A fool | no | never fool |\n\nAll two are free.",
    ],
)
async def test_counts_behind_a_list_that_mean_something_else(text: str) -> None:
    delivered = await correct_in_all_ways(text)
    count = text[text.index("All ") :]
    assert all(count in str(left) for left in delivered.values()), delivered
